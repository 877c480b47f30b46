//! Timeouts for tests: a wait fails when the test's processes have made no progress (output, files, CPU time) for
//! [`STILL`] checks, or no output for [`BUSY`], or have not reached the goal after [`FAR`].
//!
//! How long something takes depends on the machine. So a [`Wait`] has no fixed time limit: it checks about once a
//! second for [`Progress`], of two kinds:
//!
//! - *Output*: what the test's processes and their children write to their pipes; processes that start and end; files that are
//!   created or written in the directories of its [homes](crate::home::Home); and a state that the test itself passes to the
//!   wait ([`Wait::observe`]).
//! - *CPU time* of these processes and, with a container engine, of the whole machine, since the engine's processes are not
//!   the test's.
//!
//! CPU time alone proves no progress, since an endless loop uses it too. It therefore only extends the wait from
//! [`STILL`] to [`BUSY`] checks without output, which is enough for a long link. Output that continues for [`FAR`]
//! checks without reaching the goal is a log that repeats itself. A timeout reports the goal and the last progress.
//!
//! Checks are counted, not seconds: while the whole machine is suspended, no wait times out. Commands that poll for
//! the goal, such as `docker inspect`, are not progress: whatever is started in a condition does not count.
//!
//! [`Patience`] decides and does not check at the machine; the rest of this module does.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::{self, Seen};

/// Checks without any progress: longer than the longest timeout of the programs themselves, 65 s for a ping.
pub const STILL: u32 = 120;
/// Checks without output, while CPU time is used.
pub const BUSY: u32 = 15 * 60;
/// All checks.
pub const FAR: u32 = 2 * 60 * 60;

/// CPU time that counts as progress, if it is used within [`STILL`] checks: a twentieth of a core. An idle cluster
/// of four workers was measured to use half of it, for five heartbeats a second.
const WORK: Duration = Duration::from_secs(6);

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);
/// The first interval at which a condition is polled. It grows with the wait, so that polling uses little CPU time.
const POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// The kinds of output, in the order of [`Progress::outputs`].
const OUTPUTS: [&str; 4] =
    ["a process wrote output", "a process started or ended", "a file was written", "its state changed"];

/// The progress so far, as seen at a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A number for each kind of output, which changes with each output.
    pub outputs: [u64; OUTPUTS.len()],
    /// The CPU time used so far. It may decrease when a process ends.
    pub work: Duration,
}

/// Decides at each check whether to continue to wait.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    checks: u32,
    seen: Progress,
    /// Which of the [`OUTPUTS`] was the last, and at which check.
    last_output: Option<(usize, u32)>,
    /// The last check at which CPU time had been used.
    worked: u32,
}

/// Why a wait fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is no progress any more.
    Still,
    /// CPU time is used, but there is no output.
    Busy,
    /// There is output, but the goal is not reached.
    Far,
}

impl Patience {
    /// Takes the progress at the next check.
    ///
    /// # Errors
    /// If the wait fails.
    pub fn check(&mut self, progress: Progress) -> Result<(), End> {
        self.checks += 1;
        if self.checks == 1 {
            // The reference for the next check.
            self.seen = progress;
        }
        self.compare(progress);
        let since_output = self.checks - self.last_output.map_or(0, |(_, check)| check);
        let since_work = self.checks - self.worked;
        if self.checks > FAR {
            Err(End::Far)
        } else if since_output > BUSY {
            Err(End::Busy)
        } else if since_output.min(since_work) > STILL {
            Err(End::Still)
        } else {
            Ok(())
        }
    }

    fn compare(&mut self, Progress { outputs, work }: Progress) {
        if let Some(last_output) =
            (0..OUTPUTS.len()).find(|&index| outputs[index] != self.seen.outputs[index])
        {
            self.last_output = Some((last_output, self.checks));
            self.seen.outputs = outputs;
        }
        if work >= self.seen.work + WORK {
            (self.worked, self.seen.work) = (self.checks, work);
        }
        self.seen.work = self.seen.work.min(work);
    }

    /// Describes the last output.
    fn describe_last_output(&self) -> String {
        match self.last_output {
            Some((last_output, check)) => {
                format!("the last output, {} s ago: {}", self.checks - check, OUTPUTS[last_output])
            }
            None => "there was no output at all".to_string(),
        }
    }
}

/// A wait for a goal.
#[derive(Debug)]
pub struct Wait {
    what: String,
    patience: Patience,
    next_check: Instant,
    state: u64,
}

/// A failed wait. Names its goal.
#[derive(Debug)]
pub struct Timeout(String);

impl Wait {
    /// Begins to wait for this goal.
    pub fn new(what: impl fmt::Display) -> Self {
        // Most waits are over before the first check.
        let next_check = Instant::now() + INTERVAL;
        Self { what: what.to_string(), patience: Patience::default(), next_check, state: 0 }
    }

    /// Sleeps for the polling interval.
    ///
    /// # Errors
    /// If the wait has failed.
    pub fn pause(&mut self) -> Result<(), Timeout> {
        std::thread::sleep(LONGEST_POLL.min(POLL * (1 + self.patience.checks)));
        self.poll()
    }

    /// Checks for progress, if it is time to.
    ///
    /// # Errors
    /// If the wait has failed.
    pub fn poll(&mut self) -> Result<(), Timeout> {
        if Instant::now() < self.next_check { Ok(()) } else { self.check() }
    }

    /// Records a state that the test has polled. A change is progress.
    pub fn observe(&mut self, state: impl Hash) {
        self.state = digest(state);
    }

    fn check(&mut self) -> Result<(), Timeout> {
        self.next_check = Instant::now() + INTERVAL;
        self.patience.check(progress(self.state)).map_err(|end| Timeout(self.describe(end)))
    }

    fn describe(&self, end: End) -> String {
        let (what, last) = (&self.what, self.patience.describe_last_output());
        match end {
            End::Still => format!("this did not happen: {what}; no progress any more ({last})"),
            End::Busy => format!("this did not happen: {what}; CPU time is used without output ({last})"),
            End::Far => format!("this did not happen: {what}; not reached after {FAR} s of output ({last})"),
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Waits until `condition` returns a value.
///
/// # Panics
/// If the wait fails; names the goal, `what`.
pub fn until<T>(what: impl fmt::Display, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut wait = Wait::new(what);
    loop {
        if let Some(found) = without_progress(&mut condition) {
            return found;
        }
        wait.pause().unwrap_or_else(|timeout| panic!("{timeout}"));
    }
}

/// Waits for the result of a future.
///
/// # Panics
/// If the wait fails; names the goal, `what`.
pub async fn answer_of<T>(what: impl fmt::Display, answer: impl Future<Output = T>) -> T {
    let mut wait = Wait::new(what);
    let mut answer = pin!(answer);
    loop {
        match tokio::time::timeout(INTERVAL, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) => wait.check().unwrap_or_else(|timeout| panic!("{timeout}")),
        }
    }
}

/// Bytes that processes have written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Directories whose files are progress.
static HOMES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Whether other processes work for this test too.
static OTHERS_COUNT: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether the processes that are started now only poll a condition.
    static POLLING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a question that polls a condition: the processes that it starts are no progress.
pub fn without_progress<T>(question: impl FnOnce() -> T) -> T {
    let before = POLLING.replace(true);
    let answer = question();
    POLLING.set(before);
    answer
}

/// Whether the processes that are started now count as progress.
pub(crate) fn counts_as_progress() -> bool {
    !POLLING.get()
}

/// Records bytes written by a process that counts.
pub(crate) fn record_output(bytes: usize) {
    WRITTEN.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// From now on this directory's files are progress, until [`unwatch_home`].
pub(crate) fn watch_home(home: &Path) {
    homes().push(home.to_path_buf());
}

/// The directory is about to be removed.
pub(crate) fn unwatch_home(home: &Path) {
    homes().retain(|there| there != home);
}

/// From now on the CPU time of all processes of the machine counts.
pub(crate) fn count_other_processes() {
    OTHERS_COUNT.store(true, Ordering::Relaxed);
}

fn homes() -> MutexGuard<'static, Vec<PathBuf>> {
    HOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The progress so far.
fn progress(state: u64) -> Progress {
    let (family, used): (Vec<_>, Vec<_>) = Seen::family().into_iter().unzip();
    let mut files = Vec::new();
    let homes = homes().clone();
    homes.iter().for_each(|home| list(home, &mut files));
    files.sort();
    let others = if OTHERS_COUNT.load(Ordering::Relaxed) { used_by_all() } else { Duration::ZERO };
    Progress {
        outputs: [WRITTEN.load(Ordering::Relaxed), digest(family), digest(files), state],
        work: used.iter().sum::<Duration>() + others,
    }
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Lists a file or directory and its content, with sizes and times. Files that are removed meanwhile are skipped.
fn list(path: &Path, files: &mut Vec<(PathBuf, u64, i64, i64)>) {
    let Ok(there) = fs::symlink_metadata(path) else { return };
    files.push((path.to_path_buf(), there.len(), there.mtime(), there.mtime_nsec()));
    if there.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| list(&entry.path(), files));
    }
}

/// The CPU time used on this machine. In proc(5): user, nice, system, idle, iowait, irq, softirq.
fn used_by_all() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    process::ticks([0, 1, 2, 5, 6].iter().filter_map(|&field| ticks.get(field)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    /// After how many checks a wait fails, and why; none if it lasts too long.
    fn ends(see: impl Fn(u32) -> Progress) -> Option<(u32, End)> {
        let mut patience = Patience::default();
        (1..=FAR + 1).find_map(|check| Some((check, patience.check(see(check)).err()?)))
    }

    fn last_output(index: usize, number: u32) -> Progress {
        let mut progress = Progress::default();
        progress.outputs[index] = number.into();
        progress
    }

    fn worked(work: Duration) -> Progress {
        Progress { work, ..Progress::default() }
    }

    #[test]
    fn a_wait_fails_without_progress() {
        assert_eq!(ends(|_| Progress::default()), Some((STILL + 1, End::Still)));
        // Output and CPU time extend the wait.
        assert_eq!(ends(|check| last_output(2, check.min(500))), Some((500 + STILL + 1, End::Still)));
        assert_eq!(ends(|check| worked(WORK * check.min(500))), Some((500 + STILL + 1, End::Still)));
    }

    #[test]
    fn a_wait_lasts_while_there_is_output_now_and_then() {
        for (index, what) in OUTPUTS.iter().enumerate() {
            assert_eq!(ends(|check| last_output(index, check / STILL)), Some((FAR + 1, End::Far)), "{what}");
        }
        // Each kind in turn.
        let in_turn = |check: u32| last_output((check / STILL) as usize % OUTPUTS.len(), check);
        assert_eq!(ends(in_turn), Some((FAR + 1, End::Far)));
    }

    #[test]
    fn cpu_time_without_output_extends_a_wait_to_a_limit() {
        assert_eq!(ends(|check| worked(WORK * check)), Some((BUSY + 1, End::Busy)));
        // A linker writes nothing for minutes, and then continues with the next program.
        let linker = |check: u32| Progress { work: WORK * check, ..last_output(0, check / (BUSY - 1)) };
        assert_eq!(ends(linker), Some((FAR + 1, End::Far)));
    }

    #[test]
    fn very_little_cpu_time_is_no_progress() {
        // Only heartbeats and polling.
        let idle = |check: u32| worked(WORK * check / (STILL + 10));
        assert_eq!(ends(idle), Some((STILL + 1, End::Still)));
        // When a process ends, its CPU time is no longer counted; that of the others continues to be.
        let one_has_ended = |check: u32| worked(if check < 50 { WORK * 1000 } else { WORK * check });
        assert_eq!(ends(one_has_ended), Some((BUSY + 1, End::Busy)));
    }

    #[test]
    fn a_timeout_names_the_goal_and_the_last_output() {
        let mut wait = Wait::new("the bread is baked");
        (1..=50).for_each(|check| wait.patience.check(last_output(2, check)).unwrap());
        (1..=7).for_each(|_| wait.patience.check(last_output(2, 50)).unwrap());
        let said = wait.describe(End::Still);
        assert!(
            said.contains("the bread is baked") && said.contains("7 s ago: a file was written"),
            "{said}"
        );
    }

    #[test]
    fn output_and_written_files_are_progress() {
        let home = Home::new();
        let shell = |script: &str| home.call(Path::new("sh"), "-c").arg(script);
        let before = progress(0);
        let mut process = shell("echo; exec sleep 1000").start();
        until("it writes output", || (!process.stdout().is_empty()).then_some(()));
        let said = progress(0);
        assert!(
            said.outputs[0] > before.outputs[0] && said.outputs[1] != before.outputs[1],
            "{before:?} {said:?}"
        );

        home.write("a/b", "c");
        let written = progress(0);
        assert_ne!(written.outputs[2], said.outputs[2]);
        home.write("a/b", "d");
        assert_ne!(progress(0).outputs[2], written.outputs[2]);

        let before = progress(0).outputs[0];
        without_progress(|| shell("echo output of a question").succeeds());
        assert_eq!(progress(0).outputs[0], before);
        assert!(process.is_running());
    }

    #[test]
    fn a_loop_uses_cpu_time_and_a_sleep_does_not() {
        let home = Home::new();
        let shell = |script: &str| home.call(Path::new("sh"), "-c").arg(script).start();
        let (sleeps, loops) = (shell("exec sleep 1000"), shell("while :; do :; done"));
        let used =
            |pid: u32| Seen::family().into_iter().find(|(seen, _)| seen.pid == pid).expect("it runs").1;
        let before = progress(0).work;

        let second = Duration::from_secs(1);
        until("the loop has worked", || (used(loops.pid()) >= second).then_some(()));

        assert!(progress(0).work > before && used(sleeps.pid()) < second / 2, "{:?}", Seen::family());
    }
}
