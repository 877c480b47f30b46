//! Runs a program once, and measures it from the start of its process to the end of its last descendant.
//!
//! The calling thread sleeps until the process ends, because polling would take processor time from it on a machine
//! with two cores. A second thread enforces the time limit, and measures memory if that is requested.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::memory;
use crate::process::{self, Process};

/// Time limit for a run. The slowest takes seconds, or a minute on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// Time limit for processes that outlive the program.
const ORPHANS_LIMIT: Duration = Duration::from_secs(30);

/// Time between two measurements of memory.
const INTERVAL: Duration = Duration::from_millis(20);

/// What is measured during the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Only the time.
    Nothing,
    /// The time, and the memory of all processes.
    Memory,
}

/// A successful run.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) stdout: String,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    /// The peak of the sum of the processes' proportional set sizes, if memory was measured and Linux reports it.
    pub(super) peak_bytes: Option<u64>,
}

/// Runs a command in the directory `place`.
pub(super) fn run(name: &str, command: Command, place: &Path, watch: Watch) -> anyhow::Result<Called> {
    run_within(LIMIT, name, command, place, watch)
}

fn run_within(
    limit: Duration,
    name: &str,
    mut command: Command,
    place: &Path,
    watch: Watch,
) -> anyhow::Result<Called> {
    // Files, not pipes: a pipe would have to be read while the program runs.
    let (out, err) = (place.join("stdout"), place.join("stderr"));
    let file =
        |path: &Path| File::create(path).with_context(|| format!("{}: cannot be created", path.display()));
    command.current_dir(place).stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?);
    let cpu_before = process::children_cpu_seconds();
    let started = Instant::now();
    let mut child = Process::start(&mut command)?;
    let (ended, is_running) = channel();
    let watcher = thread::spawn(move || watch_until(started + limit, watch, &is_running));
    let status = child.end()?;
    let seconds = started.elapsed().as_secs_f64();
    drop(ended);
    let watched = watcher.join().expect("the watching thread does not panic");
    if watched.too_late {
        process::kill_orphans(ORPHANS_LIMIT)?;
        bail!("{name} had not ended after {} s", limit.as_secs());
    }
    process::reap_orphans(ORPHANS_LIMIT)?;
    let read = |path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
    if !status.success() {
        bail!("{name} failed ({status}): {}", last_line(&read(&err)?));
    }
    let cpu_seconds = process::children_cpu_seconds() - cpu_before;
    Ok(Called { stdout: read(&out)?, seconds, cpu_seconds, peak_bytes: watched.peak_bytes })
}

/// The watching thread's findings.
struct Watched {
    peak_bytes: Option<u64>,
    /// The time limit passed, and all processes were killed.
    too_late: bool,
}

/// Returns when the sender of `is_running` is dropped. At the deadline, kills all descendants and returns.
fn watch_until(deadline: Instant, watch: Watch, is_running: &Receiver<()>) -> Watched {
    let mut peak_bytes = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            process::kill_descendants();
            return Watched { peak_bytes, too_late: true };
        }
        let pause = match watch {
            Watch::Nothing => left,
            Watch::Memory => {
                peak_bytes = peak_bytes.max(bytes());
                left.min(INTERVAL)
            }
        };
        if is_running.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return Watched { peak_bytes, too_late: false };
        }
    }
}

/// Memory of all descendants of this process, in bytes.
fn bytes() -> Option<u64> {
    process::descendants().into_iter().filter_map(memory::proportional_bytes).reduce(|sum, more| sum + more)
}

/// The last line of a failed program's output.
pub(super) fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::alone_with_children;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_is_reported_in_one_line() {
        let _alone = alone_with_children();
        let place = tempfile::tempdir().unwrap();
        let command = shell("echo Traceback >&2; echo 'ImportError: no keras' >&2; echo >&2; exit 3");
        let error = run("Keras", command, place.path(), Watch::Nothing).unwrap_err().to_string();
        assert_eq!(error, "Keras failed (exit status: 3): ImportError: no keras");
    }

    #[test]
    fn a_run_beyond_the_time_limit_is_killed_with_its_descendants() {
        let _alone = alone_with_children();
        process::adopt_orphans().unwrap();
        let place = tempfile::tempdir().unwrap();
        let command = shell("sleep 1000 & sleep 1000");
        let limit = Duration::from_millis(200);
        let error = run_within(limit, "DDP", command, place.path(), Watch::Memory).unwrap_err().to_string();
        assert_eq!(error, "DDP had not ended after 0 s");
        assert!(process::descendants().is_empty());
    }
}
