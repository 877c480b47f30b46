//! Measures the peak memory of a coordinator and its workers.
//!
//! Linux keeps the peak of each process (`VmHWM`), which never decreases. So frequent sampling misses only what a
//! process allocates in its last milliseconds.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(4);

/// The argument that identifies a coordinator's own workers.
const WORKER: &str = "__worker";

/// Peaks of resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Peaks {
    pub(crate) coordinator_bytes: u64,
    /// The peak of the largest worker.
    pub(crate) worker_bytes: u64,
}

/// Samples a coordinator and its workers until the coordinator ends.
pub(crate) fn watch(coordinator: &mut Child) -> anyhow::Result<Peaks> {
    let mut peaks = Peaks::default();
    while coordinator.try_wait().context("waiting for the coordinator")?.is_none() {
        if let Some(Status { peak, .. }) = Status::of(coordinator.id()) {
            peaks.coordinator_bytes = peaks.coordinator_bytes.max(peak);
        }
        let largest = workers(coordinator.id()).max().unwrap_or(0);
        peaks.worker_bytes = peaks.worker_bytes.max(largest);
        thread::sleep(INTERVAL);
    }
    Ok(peaks)
}

/// The peaks of a process's workers.
fn workers(parent: u32) -> impl Iterator<Item = u64> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = ids.filter_map(Status::of_pair).filter(move |(_, status)| status.parent == parent);
    children.filter(|(id, _)| is_worker(*id)).map(|(_, status)| status.peak)
}

/// Also false for a child that has not called `exec` yet: its memory is still its parent's.
fn is_worker(id: u32) -> bool {
    let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    arguments.split(|&byte| byte == 0).any(|argument| argument == WORKER.as_bytes())
}

/// A process's status in `/proc`.
struct Status {
    parent: u32,
    peak: u64,
}

impl Status {
    /// `None` if the process no longer exists.
    fn of(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/status")).ok()?)
    }

    fn of_pair(id: u32) -> Option<(u32, Self)> {
        Some((id, Self::of(id)?))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let kilobytes: u64 = field("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { parent: field("PPid:")?.parse().ok()?, peak: kilobytes * 1024 })
    }
}

/// The proportional set size of a process, in bytes: a page that n processes share counts 1/n for each. So the sum
/// over processes counts each page once. `None` if the process no longer exists.
pub(crate) fn proportional_bytes(id: u32) -> Option<u64> {
    pss(&fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_names_the_proportional_set_size() {
        let rollup =
            "55c5-7ffd ---p 00000000 00:00 0  [rollup]\nRss:  9000 kB\nPss:    2048 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(pss(rollup), Some(2 << 20));
        assert_eq!(pss("Rss: 9000 kB\n"), None);
    }

    #[test]
    fn a_status_names_parent_and_peak() {
        let status = Status::parse("Name:\tx\nPPid:\t17\nVmPeak:\t  99 kB\nVmHWM:\t    2048 kB\n").unwrap();
        assert_eq!((status.parent, status.peak), (17, 2 << 20));
        assert!(Status::parse("Name:\tx\nPPid:\t17\n").is_none());
    }
}
