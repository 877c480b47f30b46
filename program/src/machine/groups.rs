//! The limits of this process's control groups: Linux cgroups, versions 1 and 2.
//!
//! A limit may be set on the process's group or on any group above it; the lowest applies. `/proc/self/mountinfo`
//! says where a hierarchy is mounted, and from which group on: a container sees only a part of it.

use std::path::{Path, PathBuf};

/// The limits of the groups; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Groups {
    /// Processor time, in cores.
    pub cores: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Version 1 expresses "no limit" as the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 62;

impl Groups {
    /// Reads the limits below `root`, which is `/` outside tests.
    pub fn read(root: &Path) -> Self {
        let cores = least(directories(root, "cpu").iter().filter_map(|group| cores(group)));
        let memory = |name| move |group: &PathBuf| number(group, name).filter(|&bytes| bytes < NO_LIMIT);
        let of_memory = directories(root, "memory");
        let of_processes = directories(root, "pids");
        Self {
            cores,
            memory: ["memory.max", "memory.limit_in_bytes"]
                .into_iter()
                .flat_map(|name| of_memory.iter().filter_map(memory(name)))
                .min(),
            processes: of_processes.iter().filter_map(|group| number(group, "pids.max")).min(),
        }
    }
}

fn least(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    numbers.reduce(f64::min)
}

/// The quota of one group, as a share of its period.
fn cores(group: &Path) -> Option<f64> {
    let (quota, period) = match text(&group.join("cpu.max")) {
        Some(both) => {
            let (quota, period) = both.split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
        None => (number(group, "cpu.cfs_quota_us")?, number(group, "cpu.cfs_period_us")?),
    };
    (period > 0).then(|| quota as f64 / period as f64)
}

/// A number in a file of a group. `max` and -1 give `None`.
fn number(group: &Path, name: &str) -> Option<u64> {
    text(&group.join(name))?.parse().ok()
}

/// For a controller, the directories of this process's group and of the groups above it, as far as they are visible.
fn directories(root: &Path, controller: &str) -> Vec<PathBuf> {
    let groups = text(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = text(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let of_version_1 = groups.lines().find_map(|line| group(line, controller));
    let found = of_version_1.and_then(|group| {
        let mount = mounts.lines().find_map(|line| mount(line, "cgroup", Some(controller)))?;
        Some((group, mount))
    });
    let of_version_2 = || {
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some((group, mounts.lines().find_map(|line| mount(line, "cgroup2", None))?))
    };
    let Some((group, (top, place))) = found.or_else(of_version_2) else { return Vec::new() };
    let below = Path::new(group).strip_prefix(top).unwrap_or(Path::new(""));
    let place = root.join(place.trim_start_matches('/'));
    below.ancestors().map(|group| place.join(group)).collect()
}

/// The group in a line of `/proc/self/cgroup`, if the line is about this controller: `4:cpu,cpuacct:/group`.
fn group<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let about = fields.next()?.split(',').any(|name| name == controller);
    fields.next().filter(|_| about)
}

/// The group that a hierarchy is mounted from, and the mount point, if this line of `/proc/self/mountinfo` is about
/// it: `32 31 0:29 /group /sys/fs/cgroup/cpu rw,… - cgroup cgroup rw,cpu`.
fn mount<'a>(line: &'a str, kind: &str, controller: Option<&str>) -> Option<(&'a str, &'a str)> {
    let (of_mount, of_files) = line.split_once(" - ")?;
    let mut of_files = of_files.split(' ');
    let right_kind = of_files.next() == Some(kind);
    let options = of_files.nth(1).unwrap_or_default();
    let has = |controller| options.split(',').any(|option| option == controller);
    let mut of_mount = of_mount.split(' ').skip(3);
    let place = (of_mount.next()?, of_mount.next()?);
    (right_kind && controller.is_none_or(has)).then_some(place)
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files.
    fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    const MOUNTS_1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";
    const MOUNT_2: &str = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_quota_of_half_a_core_is_read_in_both_versions() {
        let half = Groups { cores: Some(0.5), memory: Some(1 << 30), processes: None };
        let version_1 = with(&[
            ("proc/self/mountinfo", MOUNTS_1),
            ("proc/self/cgroup", "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let version_2 = with(&[
            ("proc/self/mountinfo", MOUNT_2),
            ("proc/self/cgroup", "0::/user.slice/session-1.scope\n"),
            ("sys/fs/cgroup/user.slice/session-1.scope/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/user.slice/session-1.scope/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/user.slice/session-1.scope/pids.max", "max\n"),
        ]);
        assert_eq!(Groups::read(version_1.path()), half);
        assert_eq!(Groups::read(version_2.path()), half);
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_its_parents_applies() {
        let root = with(&[
            ("proc/self/mountinfo", MOUNT_2),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/pids.max", "512\n"),
            ("sys/fs/cgroup/a/pids.max", "100\n"),
        ]);
        assert_eq!(
            Groups::read(root.path()),
            Groups { cores: Some(1.5), memory: None, processes: Some(100) }
        );
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        // Version 1 without its own namespace: the group's path is the host's, and the mount begins with it.
        let version_1 = with(&[
            ("proc/self/mountinfo", "40 39 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"),
            ("proc/self/cgroup", "4:cpu:/docker/abc\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        // Version 2 with its own namespace.
        let version_2 = with(&[
            ("proc/self/mountinfo", MOUNT_2),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ]);
        assert_eq!(Groups::read(version_1.path()).cores, Some(2.0));
        assert_eq!(Groups::read(version_2.path()).cores, Some(2.0));
    }

    #[test]
    fn without_groups_there_is_no_limit() {
        assert_eq!(Groups::read(with(&[]).path()), Groups::default());
        let nonsense =
            with(&[("proc/self/cgroup", "::\n0::/a"), ("proc/self/mountinfo", " - \n - cgroup2\n")]);
        assert_eq!(Groups::read(nonsense.path()), Groups::default());
    }
}
