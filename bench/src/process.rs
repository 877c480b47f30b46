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

/// Time between two looks whether something has ended.
const INTERVAL: Duration = Duration::from_millis(2);

/// A process that ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; to be called in the main thread ([`die_with_this_program`]).
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("{name}: cannot be started"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error, if that is piped; once.
    pub(crate) fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).context("sending a signal")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("waiting for a process")
    }

    /// Waits for its end, without looking again and again; somebody else has to see to it that there is one.
    pub(crate) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("waiting for a process")
    }

    /// Waits for its end, but not for ever.
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
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the process when the thread that starts it ends, however that comes about.
#[allow(unsafe_code)] // What runs between fork and exec.
pub(crate) fn die_with_this_program(command: &mut Command) {
    let ask =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from);
    // SAFETY: the closure makes one system call; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// From now on, processes whose parent has ended become children of this one.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    // Which process is named is of no account: any sets the attribute.
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this)).context("becoming the parent of orphans")
}

/// Waits until there is no child left. To be called only while no [`Process`] lives.
pub(crate) fn bury_orphans(limit: Duration) -> anyhow::Result<()> {
    wait_for_orphans(limit, || ())
}

/// Kills what is left of them, and what these have started meanwhile. To be called only while no [`Process`] lives.
pub(crate) fn end_orphans(limit: Duration) -> anyhow::Result<()> {
    wait_for_orphans(limit, kill_descendants)
}

fn wait_for_orphans(limit: Duration, mut before_each_look: impl FnMut()) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        before_each_look();
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(rustix::io::Errno::INTR) | Ok(Some(_)) => {}
            Err(error) => return Err(error).context("waiting for orphans"),
            Ok(None) => thread::sleep(INTERVAL),
        }
    }
    bail!("a process has outlived the one that started it by {} s", limit.as_secs())
}

/// Processes that this one started, and those that they started, and so on.
pub(crate) fn descendants() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    below(std::process::id(), &parents)
}

/// All below `root` in pairs of a process and its parent.
fn below(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut looked_at = 0;
    while let Some(&parent) = found.get(looked_at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        looked_at += 1;
    }
    found.split_off(1)
}

/// `None` once the process is gone.
fn parent(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Kills all [`descendants`] that there are now; somebody else waits for them.
pub(crate) fn kill_descendants() {
    for id in descendants() {
        if let Some(id) = Pid::from_raw(id as i32) {
            // A process that has ended needs no signal.
            let _ = rustix::process::kill_process(id, Signal::KILL);
        }
    }
}

/// Seconds of processors, user's and system's, that all children have used which have been waited for, with those
/// that they have waited for themselves.
#[allow(unsafe_code)] // One call of the C library: /proc has this in hundredths of a second only.
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// For tests that have children. Some of what is tested waits for any child of this process, and so for others' too.
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
