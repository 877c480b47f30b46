//! Processes that a measurement starts, and their processor time.
//!
//! No process outlives this program: a [`Process`] ends when it is dropped, and the kernel kills the rest if this
//! program is killed. Workers that `coordinator train` leaves behind become this program's children, so that their
//! processor time is counted too.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitOptions};

/// Time between two checks whether a process has ended.
const INTERVAL: Duration = Duration::from_millis(2);

/// A process that ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the process. Must be called in the main thread (see [`die_with_this_program`]).
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("{name}: cannot be started"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes the standard error, if it is piped. Returns `None` the second time.
    pub(crate) fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).context("sending a signal")
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("waiting for a process")
    }

    /// Waits for the end without polling and without a time limit; the caller must ensure that the process ends.
    pub(crate) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("waiting for a process")
    }

    /// Waits for the end, up to `limit`.
    pub(crate) fn end_within(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(INTERVAL);
        }
        bail!("process {} has not ended within {} s", self.id(), limit.as_secs())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killing fails if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the kernel kill the process when the thread that starts it ends, for whatever reason.
#[allow(unsafe_code)] // The closure runs between fork and exec.
pub(crate) fn die_with_this_program(command: &mut Command) {
    let ask =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from);
    // SAFETY: the closure makes one system call; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// Makes this process the subreaper: descendants whose parent has ended become its children.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    // Any process ID sets the attribute; the value itself is ignored.
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this)).context("becoming the parent of orphans")
}

/// Waits until no child is left. Must be called only when no [`Process`] exists.
pub(crate) fn reap_orphans(limit: Duration) -> anyhow::Result<()> {
    reap_all(limit, || ())
}

/// Kills all descendants and waits for them. Must be called only when no [`Process`] exists.
pub(crate) fn kill_orphans(limit: Duration) -> anyhow::Result<()> {
    reap_all(limit, kill_descendants)
}

fn reap_all(limit: Duration, mut before_each_check: impl FnMut()) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        before_each_check();
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(rustix::io::Errno::INTR) | Ok(Some(_)) => {}
            Err(error) => return Err(error).context("waiting for orphans"),
            Ok(None) => thread::sleep(INTERVAL),
        }
    }
    bail!("a process still runs {} s after its parent ended", limit.as_secs())
}

/// All descendants of this process: its children, their children, and so on.
pub(crate) fn descendants() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    below(std::process::id(), &parents)
}

/// The descendants of `root`, from pairs of a process and its parent.
fn below(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut visited = 0;
    while let Some(&parent) = found.get(visited) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        visited += 1;
    }
    found.split_off(1)
}

/// `None` if the process no longer exists.
fn parent(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Kills all current [`descendants`]; does not wait for them.
pub(crate) fn kill_descendants() {
    for id in descendants() {
        if let Some(id) = Pid::from_raw(id as i32) {
            // Killing fails if the process has already ended.
            let _ = rustix::process::kill_process(id, Signal::KILL);
        }
    }
}

/// Processor time, user and system, of all children that have been waited for, and of the descendants that they have
/// waited for.
#[allow(unsafe_code)] // One call of the C library: /proc reports this only in hundredths of a second.
pub(crate) fn children_cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure it is given; all zeros are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The processor time that this thread has used.
#[allow(unsafe_code)] // One call of the C library: rustix has it with a feature that nothing else needs.
pub(crate) fn thread_time() -> Duration {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the call fills the structure it is given; all zeros are a valid one.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Serializes tests that start children: some tested functions wait for any child of this process, also those of
    /// other tests.
    pub(crate) fn alone_with_children() -> MutexGuard<'static, ()> {
        static CHILDREN: Mutex<()> = Mutex::new(());
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn children_of_children_are_found_and_others_are_not() {
        let parents = [(7, 5), (5, 3), (4, 1), (6, 3), (3, 1)];
        assert_eq!(below(3, &parents), [5, 6, 7]);
        assert!(below(7, &parents).is_empty());
    }
}
