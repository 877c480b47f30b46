//! This machine's resources, and how much of them this process may use.

pub mod address_space;
pub mod groups;
pub mod needs;

use std::path::Path;

use millefeuille_core::blas::choice::Instructions;
use rustix::process::{Resource, getrlimit};
use rustix::thread::sched_getaffinity;
use serde::Serialize;

use self::groups::Groups;

/// A processor, as described by `/proc/cpuinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Its name, for people.
    pub model: String,
    /// Its vendor, such as `GenuineIntel`; `None` on architectures other than x86-64.
    pub vendor: Option<String>,
    /// Its family, by which OpenBLAS identifies it.
    pub family: Option<u32>,
    /// Its model number in the family.
    pub number: Option<u32>,
    /// The instruction sets that this project's kernels may use.
    pub instructions: Instructions,
    /// Those of its flags that matter for matrix products.
    pub features: Vec<String>,
}

/// Features that OpenBLAS has kernels for.
const FEATURES: [&str; 14] = [
    "avx",
    "avx2",
    "fma",
    "fma4",
    "avx512f",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
];

impl Cpu {
    /// The processor of this machine.
    pub fn of_this_machine() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self::parse(&info, Instructions::of_this_machine())
    }

    fn parse(info: &str, instructions: Instructions) -> Self {
        let value = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string())
        };
        let number = |name| value(name)?.parse().ok();
        let flags = value("flags").or_else(|| value("Features")).unwrap_or_default();
        let flags: Vec<_> = flags.split(' ').collect();
        Self {
            model: value("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            vendor: value("vendor_id"),
            family: number("cpu family"),
            number: number("model"),
            instructions,
            features: FEATURES.into_iter().filter(|name| flags.contains(name)).map(str::to_string).collect(),
        }
    }
}

/// How many cores this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cores {
    /// Cores that are online.
    pub online: u32,
    /// Online cores that this process may run on.
    pub affinity: u32,
    /// The quota of its control groups, in cores.
    pub quota: Option<f64>,
}

impl Cores {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let all = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
        let online = online.ok().and_then(|list| counted(list.trim())).unwrap_or(all);
        let affinity = sched_getaffinity(None).map_or(all, |cores| cores.count());
        Self { online, affinity, quota: Groups::read(Path::new("/")).cores }
    }

    /// The number of threads to compute with. A fraction of a core counts as one, so that it is used.
    pub fn usable(&self) -> u32 {
        let quota = self.quota.map_or(u32::MAX, |cores| cores.ceil() as u32);
        self.affinity.min(quota).max(1)
    }
}

/// The number of entries in a list such as `0-3,8`.
fn counted(list: &str) -> Option<u32> {
    let counts = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first).map(|more| more + 1)
    });
    counts.sum()
}

/// Limits on the memory and other resources that this process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of memory that the machine has.
    pub memory: Option<u64>,
    /// Bytes of memory that are free or can be freed.
    pub memory_available: Option<u64>,
    /// Bytes of memory that the control groups allow.
    pub memory_of_group: Option<u64>,
    /// The limit on address space in bytes (`ulimit -v`).
    pub address_space: Option<u64>,
    /// The soft limit on open files.
    pub files: Option<u64>,
    /// The hard limit on open files.
    pub most_files: Option<u64>,
    /// The limit on processes and threads, of this user or of the control groups.
    pub processes: Option<u64>,
}

impl Limits {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = Groups::read(Path::new("/"));
        let files = getrlimit(Resource::Nofile);
        let processes = [getrlimit(Resource::Nproc).current, groups.processes];
        Self {
            memory: kilobytes(&info, "MemTotal:"),
            memory_available: kilobytes(&info, "MemAvailable:"),
            memory_of_group: groups.memory,
            address_space: getrlimit(Resource::As).current,
            files: files.current,
            most_files: files.maximum,
            processes: processes.into_iter().flatten().min(),
        }
    }

    /// Bytes of memory that `threads` threads that multiply may take together, where nobody says: three quarters of what
    /// the machine has and of what the limits leave beside OpenBLAS' own buffers.
    pub fn share(&self, threads: u32) -> u64 {
        let space = self.address_space.map(|limit| limit.saturating_sub(address_space::of_openblas(threads)));
        let least = [self.memory, self.memory_of_group, space].into_iter().flatten().min();
        least.map_or(u64::MAX, |bytes| bytes / 4 * 3)
    }

    /// Bytes of memory that this process can use.
    pub fn usable_memory(&self) -> Option<u64> {
        [self.memory_available, self.memory_of_group].into_iter().flatten().min()
    }
}

/// A line of `/proc/meminfo`, in bytes: `MemTotal:       16384 kB`.
fn kilobytes(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n\
        model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz\nflags\t\t: fpu avx fma avx2 avx512f amx_tile\n\n\
        processor\t: 1\nvendor_id\t: Other\n";

    #[test]
    fn a_processor_is_read_from_its_first_entry() {
        let cpu = Cpu::parse(INFO, Instructions::Avx512);
        assert_eq!(cpu.model, "INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz");
        assert_eq!(
            (cpu.vendor.as_deref(), cpu.family, cpu.number),
            (Some("GenuineIntel"), Some(6), Some(207))
        );
        assert_eq!(cpu.features, ["avx", "avx2", "fma", "avx512f", "amx_tile"]);
    }

    #[test]
    fn a_processor_without_a_name_is_named_after_its_architecture() {
        let cpu = Cpu::parse("processor\t: 0\nFeatures\t: fp asimd sve\n", Instructions::Baseline);
        assert_eq!((cpu.model.as_str(), cpu.vendor), (std::env::consts::ARCH, None));
        assert_eq!(cpu.features, ["asimd", "sve"]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_cores() {
        for (affinity, quota, usable) in [
            (8, None, 8),
            (8, Some(0.5), 1),
            (8, Some(1.5), 2),
            (8, Some(4.0), 4),
            (2, Some(4.0), 2),
            (8, Some(0.0), 1),
        ] {
            assert_eq!(Cores { online: 8, affinity, quota }.usable(), usable, "{affinity} {quota:?}");
        }
    }

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, count) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None)]
        {
            assert_eq!(counted(list), count, "{list}");
        }
    }

    #[test]
    fn usable_cores_are_within_affinity_and_online_cores() {
        let cores = Cores::of_this_process();
        let by_std = std::thread::available_parallelism().unwrap().get() as u32;
        // The standard library rounds a quota down.
        assert!(
            by_std <= cores.usable() && cores.usable() <= cores.affinity && cores.affinity <= cores.online
        );
    }

    #[test]
    fn the_least_limit_of_memory_is_shared() {
        let all = Limits { memory: Some(16 << 30), ..Limits::default() };
        assert_eq!(all.share(2), 12 << 30);
        assert_eq!(Limits { memory_of_group: Some(4 << 30), ..all }.share(2), 3 << 30);
        assert_eq!(Limits { address_space: Some(2 << 30), ..all }.share(8), (2 << 30) / 8 * 3);
        assert_eq!(Limits { address_space: Some(1 << 20), ..all }.share(8), 0);
        assert_eq!(Limits::default().share(1), u64::MAX);
    }

    #[test]
    fn kilobytes_are_converted_to_bytes() {
        let info = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(kilobytes(info, "MemTotal:"), Some(16 << 20));
        assert_eq!(kilobytes(info, "MemAvailable:"), Some(8 << 20));
        assert_eq!(kilobytes(info, "SwapTotal:"), None);
    }
}
