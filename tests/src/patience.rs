//! How long a test waits: for as long as something moves.
//!
//! What a test waits for comes when the machine has got that far, and machines differ by more than any number of seconds
//! allows for. So a [`Wait`] looks for [`Signs`] of life, about once a second:
//!
//! - *Moves*: what the test's processes say, and what their children say into the same pipes; processes that come and go
//!   among them; files that appear, grow or are written anew in the directories of its [homes](crate::home::Home); and a
//!   state of which the test itself keeps the wait informed ([`Wait::sees`]).
//! - *Work*: CPU time of these processes, and, where there is an engine, of the whole machine, since what the engine does is
//!   done by processes of others.
//!
//! A wait ends in vain when for [`STILL`] looks nothing has moved and nobody has worked. Work alone is no proof: a loop without
//! end works too. It puts the end off, though to no more than [`BUSY`] looks without a move, which leaves time for the long
//! silence of a linker. And what moves for [`FAR`] looks, and does not come to what is waited for, is a log that repeats
//! itself. Whoever waits in vain says for what, and what moved last.
//!
//! Looks are counted and not seconds: a machine that stands still lets nobody look, and so nobody blames others for it.
//! A question that is asked again and again, such as `docker inspect`, is no sign of life, however much it says: what is started
//! inside of a condition does not count.
//!
//! [`Patience`] decides, and sees nothing of the machine; the other half of this module does.

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

/// Looks without any sign of life: longer than the longest silence that the programs allow each other, 65 s for a ping.
pub const STILL: u32 = 120;
/// Looks without a move, while CPU time is used.
pub const BUSY: u32 = 15 * 60;
/// Looks at all.
pub const FAR: u32 = 2 * 60 * 60;

/// CPU time that is work, if it is used within [`STILL`] looks: a twentieth of a core. A cluster of four workers with nothing to do
/// was measured to use half of it, for five heartbeats a second.
const WORK: Duration = Duration::from_secs(6);

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two questions whether it is there, at first. Who has waited for long is in no hurry, and should not be what works.
const POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// What moves, in the order of [`Signs::moves`].
const MOVES: [&str; 4] =
    ["a process said something", "a process came or went", "a file was written", "its state changed"];

/// What was seen in a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// A number for each of the things that can move: another one is a move.
    pub moves: [u64; MOVES.len()],
    /// CPU time used so far. It may become less, when a process ends.
    pub work: Duration,
}

/// Decides how long to wait, from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    looks: u32,
    seen: Signs,
    /// Which of the [`MOVES`] was the last, and in which look.
    moved: Option<(usize, u32)>,
    /// The look in which work was seen last.
    worked: u32,
}

/// Why there is no use in waiting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing happens any more.
    Still,
    /// There is work, and nothing comes of it.
    Busy,
    /// There are moves, and not to where they should lead.
    Far,
}

impl Patience {
    /// Takes what was seen in the next look.
    ///
    /// # Errors
    /// If there is no use in waiting on.
    pub fn look(&mut self, signs: Signs) -> Result<(), End> {
        self.looks += 1;
        if self.looks == 1 {
            // Something to compare the next look with.
            self.seen = signs;
        }
        self.compare(signs);
        let since_a_move = self.looks - self.moved.map_or(0, |(_, look)| look);
        let since_any_work = self.looks - self.worked;
        if self.looks > FAR {
            Err(End::Far)
        } else if since_a_move > BUSY {
            Err(End::Busy)
        } else if since_a_move.min(since_any_work) > STILL {
            Err(End::Still)
        } else {
            Ok(())
        }
    }

    fn compare(&mut self, Signs { moves, work }: Signs) {
        if let Some(moved) = (0..MOVES.len()).find(|&index| moves[index] != self.seen.moves[index]) {
            self.moved = Some((moved, self.looks));
            self.seen.moves = moves;
        }
        if work >= self.seen.work + WORK {
            (self.worked, self.seen.work) = (self.looks, work);
        }
        self.seen.work = self.seen.work.min(work);
    }

    /// What moved last, for people.
    fn last_move(&self) -> String {
        match self.moved {
            Some((moved, look)) => format!("the last move, {} s ago: {}", self.looks - look, MOVES[moved]),
            None => "there was no move at all".to_string(),
        }
    }
}

/// A wait for something, for as long as there is use in it.
#[derive(Debug)]
pub struct Wait {
    what: String,
    patience: Patience,
    next_look: Instant,
    state: u64,
}

/// A wait that was in vain. Says for what.
#[derive(Debug)]
pub struct InVain(String);

impl Wait {
    /// Begins to wait for this.
    pub fn new(what: impl fmt::Display) -> Self {
        // Most waits are over before the first look.
        let next_look = Instant::now() + LOOK;
        Self { what: what.to_string(), patience: Patience::default(), next_look, state: 0 }
    }

    /// Lets a moment pass.
    ///
    /// # Errors
    /// If there is no use in waiting on.
    pub fn pause(&mut self) -> Result<(), InVain> {
        std::thread::sleep(LONGEST_POLL.min(POLL * (1 + self.patience.looks)));
        self.glance()
    }

    /// Looks for signs of life, if it is time to.
    ///
    /// # Errors
    /// If there is no use in waiting on.
    pub fn glance(&mut self) -> Result<(), InVain> {
        if Instant::now() < self.next_look { Ok(()) } else { self.look() }
    }

    /// Takes note of a state that the test has asked for: another one than before is a move.
    pub fn sees(&mut self, state: impl Hash) {
        self.state = digest(state);
    }

    fn look(&mut self) -> Result<(), InVain> {
        self.next_look = Instant::now() + LOOK;
        self.patience.look(signs(self.state)).map_err(|end| InVain(self.in_vain(end)))
    }

    fn in_vain(&self, end: End) -> String {
        let (what, last) = (&self.what, self.patience.last_move());
        match end {
            End::Still => format!("this did not happen: {what}; nothing moves any more ({last})"),
            End::Busy => format!("this did not happen: {what}; CPU time is used to no effect ({last})"),
            End::Far => format!("this did not happen: {what}; in {FAR} s everything else did ({last})"),
        }
    }
}

impl fmt::Display for InVain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Waits until `condition` gives something.
///
/// # Panics
/// If the wait is in vain; says `what` was waited for.
pub fn until<T>(what: impl fmt::Display, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut wait = Wait::new(what);
    loop {
        if let Some(found) = asking(&mut condition) {
            return found;
        }
        wait.pause().unwrap_or_else(|in_vain| panic!("{in_vain}"));
    }
}

/// Waits for an answer.
///
/// # Panics
/// If the wait is in vain; says `what` was waited for.
pub async fn answer_of<T>(what: impl fmt::Display, answer: impl Future<Output = T>) -> T {
    let mut wait = Wait::new(what);
    let mut answer = pin!(answer);
    loop {
        match tokio::time::timeout(LOOK, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) => wait.look().unwrap_or_else(|in_vain| panic!("{in_vain}")),
        }
    }
}

/// Bytes that processes have said.
static SAID: AtomicU64 = AtomicU64::new(0);
/// Directories in which files are a sign of life.
static HOMES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Whether others work for this test than its own processes.
static OTHERS_WORK: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether what is started now is the question of one who waits.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Does what is done again and again to find out whether something has happened: no sign of life in itself.
pub fn asking<T>(question: impl FnOnce() -> T) -> T {
    let before = ASKING.replace(true);
    let answer = question();
    ASKING.set(before);
    answer
}

/// Whether what is started now counts.
pub(crate) fn counts() -> bool {
    !ASKING.get()
}

/// So many bytes were said by a process that counts.
pub(crate) fn said(bytes: usize) {
    SAID.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// From now on this directory's files are a sign of life, until it is [left](leave).
pub(crate) fn settle(home: &Path) {
    homes().push(home.to_path_buf());
}

/// This directory is about to go.
pub(crate) fn leave(home: &Path) {
    homes().retain(|there| there != home);
}

/// From now on processes work for this test that are not its own.
pub(crate) fn others_work() {
    OTHERS_WORK.store(true, Ordering::Relaxed);
}

fn homes() -> MutexGuard<'static, Vec<PathBuf>> {
    HOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be seen now.
fn signs(state: u64) -> Signs {
    let (family, used): (Vec<_>, Vec<_>) = Seen::family().into_iter().unzip();
    let mut files = Vec::new();
    let homes = homes().clone();
    homes.iter().for_each(|home| list(home, &mut files));
    files.sort();
    let others = if OTHERS_WORK.load(Ordering::Relaxed) { used_by_all() } else { Duration::ZERO };
    Signs {
        moves: [SAID.load(Ordering::Relaxed), digest(family), digest(files), state],
        work: used.iter().sum::<Duration>() + others,
    }
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A file or directory and what is in it, with sizes and times. What goes while it is looked at is left out.
fn list(path: &Path, files: &mut Vec<(PathBuf, u64, i64, i64)>) {
    let Ok(there) = fs::symlink_metadata(path) else { return };
    files.push((path.to_path_buf(), there.len(), there.mtime(), there.mtime_nsec()));
    if there.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| list(&entry.path(), files));
    }
}

/// CPU time that was used on this machine. In proc(5): user, nice, system, idle, iowait, irq, softirq.
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

    /// How many looks it takes to end, and why; none if it lasts for more than it may.
    fn ends(see: impl Fn(u32) -> Signs) -> Option<(u32, End)> {
        let mut patience = Patience::default();
        (1..=FAR + 1).find_map(|look| Some((look, patience.look(see(look)).err()?)))
    }

    fn moved(index: usize, number: u32) -> Signs {
        let mut signs = Signs::default();
        signs.moves[index] = number.into();
        signs
    }

    fn worked(work: Duration) -> Signs {
        Signs { work, ..Signs::default() }
    }

    #[test]
    fn a_wait_ends_when_nothing_moves_any_more() {
        assert_eq!(ends(|_| Signs::default()), Some((STILL + 1, End::Still)));
        // A last move, and a last work, put the end off.
        assert_eq!(ends(|look| moved(2, look.min(500))), Some((500 + STILL + 1, End::Still)));
        assert_eq!(ends(|look| worked(WORK * look.min(500))), Some((500 + STILL + 1, End::Still)));
    }

    #[test]
    fn a_wait_lasts_while_anything_moves_now_and_then() {
        for (index, what) in MOVES.iter().enumerate() {
            assert_eq!(ends(|look| moved(index, look / STILL)), Some((FAR + 1, End::Far)), "{what}");
        }
        // One after the other.
        let in_turn = |look: u32| moved((look / STILL) as usize % MOVES.len(), look);
        assert_eq!(ends(in_turn), Some((FAR + 1, End::Far)));
    }

    #[test]
    fn work_without_a_move_lasts_longer_but_not_for_ever() {
        assert_eq!(ends(|look| worked(WORK * look)), Some((BUSY + 1, End::Busy)));
        // A linker is silent for minutes, and goes on to the next program.
        let linker = |look: u32| Signs { work: WORK * look, ..moved(0, look / (BUSY - 1)) };
        assert_eq!(ends(linker), Some((FAR + 1, End::Far)));
    }

    #[test]
    fn hardly_any_work_is_none() {
        // A heart that beats, and a question now and then.
        let idle = |look: u32| worked(WORK * look / (STILL + 10));
        assert_eq!(ends(idle), Some((STILL + 1, End::Still)));
        // Where a process ends, its time goes with it; that of the others counts from there.
        let one_has_ended = |look: u32| worked(if look < 50 { WORK * 1000 } else { WORK * look });
        assert_eq!(ends(one_has_ended), Some((BUSY + 1, End::Busy)));
    }

    #[test]
    fn who_waits_in_vain_says_for_what_and_what_moved_last() {
        let mut wait = Wait::new("the bread is baked");
        (1..=50).for_each(|look| wait.patience.look(moved(2, look)).unwrap());
        (1..=7).for_each(|_| wait.patience.look(moved(2, 50)).unwrap());
        let said = wait.in_vain(End::Still);
        assert!(
            said.contains("the bread is baked") && said.contains("7 s ago: a file was written"),
            "{said}"
        );
    }

    #[test]
    fn what_processes_say_and_files_that_are_written_move() {
        let home = Home::new();
        let shell = |script: &str| home.call(Path::new("sh"), "-c").arg(script);
        let before = signs(0);
        let mut process = shell("echo; exec sleep 1000").start();
        until("it says something", || (!process.stdout().is_empty()).then_some(()));
        let said = signs(0);
        assert!(said.moves[0] > before.moves[0] && said.moves[1] != before.moves[1], "{before:?} {said:?}");

        home.write("a/b", "c");
        let written = signs(0);
        assert_ne!(written.moves[2], said.moves[2]);
        home.write("a/b", "d");
        assert_ne!(signs(0).moves[2], written.moves[2]);

        let before = signs(0).moves[0];
        asking(|| shell("echo what a question says").succeeds());
        assert_eq!(signs(0).moves[0], before);
        assert!(process.is_running());
    }

    #[test]
    fn a_loop_works_and_who_sleeps_does_not() {
        let home = Home::new();
        let shell = |script: &str| home.call(Path::new("sh"), "-c").arg(script).start();
        let (sleeps, loops) = (shell("exec sleep 1000"), shell("while :; do :; done"));
        let used =
            |pid: u32| Seen::family().into_iter().find(|(seen, _)| seen.pid == pid).expect("it runs").1;
        let before = signs(0).work;

        let second = Duration::from_secs(1);
        until("the loop has worked", || (used(loops.pid()) >= second).then_some(()));

        assert!(signs(0).work > before && used(sleeps.pid()) < second / 2, "{:?}", Seen::family());
    }
}
