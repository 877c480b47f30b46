//! The board on which the driver pins what readers see: the newest [`Snapshot`] of the cluster.
//!
//! Readers do not ask the driver; they say that they look, and take what is pinned. While somebody looks and something
//! has happened since, the driver pins a new snapshot, at most twenty times a second. While nobody looks it builds none: all
//! that a change costs then is a number that counts it. The last state always comes: a change that is too early to be
//! pinned is pinned as soon as it may be, and so is the state that the driver leaves when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};

use super::snapshot::Snapshot;

/// A new snapshot is pinned no sooner than this after the one before. One that is younger is new enough for anybody,
/// unless a job or a worker has changed since.
const INTERVAL: Duration = Duration::from_millis(50);
/// A driver that has pinned nothing for so long is stuck: its readers take what there is.
const PATIENCE: Duration = Duration::from_secs(1);

/// A snapshot on the board.
#[derive(Clone, Debug)]
struct Pinned {
    snapshot: Arc<Snapshot>,
    /// The changes of jobs and workers that it shows.
    changes: u64,
    at: Instant,
}

/// What the driver and its readers know of each other.
#[derive(Debug, Default)]
struct Audience {
    /// How many readers look.
    looking: AtomicUsize,
    /// A reader has begun to look.
    came: Notify,
    /// Changes of jobs and workers so far.
    changes: AtomicU64,
    /// Whether the driver takes its turns, so that a reader may wait for it.
    attended: AtomicBool,
}

/// The driver's side.
#[derive(Debug)]
pub(super) struct Board {
    pinned: watch::Sender<Pinned>,
    audience: Arc<Audience>,
    /// Whether anything has happened since the newest snapshot.
    stale: bool,
}

impl Board {
    /// A board with an empty snapshot on it.
    pub(super) fn new() -> Self {
        let pinned = Pinned { snapshot: Arc::default(), changes: 0, at: Instant::now() };
        Self { pinned: watch::Sender::new(pinned), audience: Arc::default(), stale: true }
    }

    /// A reader of it.
    pub(super) fn reader(&self) -> Reader {
        Reader { pinned: self.pinned.subscribe(), audience: Arc::clone(&self.audience) }
    }

    /// The driver begins to take its turns.
    pub(super) fn attend(&self) {
        self.audience.attended.store(true, Ordering::Release);
    }

    /// The driver takes no more turns, and leaves this behind.
    pub(super) fn leave(&mut self, last: Snapshot) {
        self.pin(last);
        self.audience.attended.store(false, Ordering::Release);
    }

    /// A job or a worker has changed: whoever looks from now on sees it.
    pub(super) fn changed(&mut self) {
        self.audience.changes.fetch_add(1, Ordering::AcqRel);
        self.stale = true;
    }

    /// Time has passed, or a step has been taken.
    pub(super) fn moved(&mut self) {
        self.stale = true;
    }

    /// Resolves when a new snapshot is to be pinned.
    pub(super) async fn due(&mut self) {
        while !self.stale || self.audience.looking.load(Ordering::Acquire) == 0 {
            self.audience.came.notified().await;
            self.stale = true;
        }
        let next = self.pinned.borrow().at + INTERVAL;
        tokio::time::sleep_until(next.into()).await;
    }

    /// Pins a snapshot of this moment.
    pub(super) fn pin(&mut self, snapshot: Snapshot) {
        // Whoever has come before is served by this one.
        let _ = self.audience.came.notified().now_or_never();
        let changes = self.audience.changes.load(Ordering::Acquire);
        self.stale = false;
        self.pinned.send_replace(Pinned { snapshot: Arc::new(snapshot), changes, at: Instant::now() });
    }
}

/// A reader's side.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pinned: watch::Receiver<Pinned>,
    audience: Arc<Audience>,
}

impl Reader {
    /// What is pinned, however old it is.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.pinned.borrow().snapshot)
    }

    /// A snapshot of this moment: it shows every change of jobs and workers that came before.
    pub(crate) async fn fresh(&self) -> Arc<Snapshot> {
        let (changes, asked) = (self.audience.changes.load(Ordering::Acquire), Instant::now());
        let is_fresh = |pinned: &Pinned| pinned.changes >= changes && pinned.at + INTERVAL >= asked;
        let attended = self.audience.attended.load(Ordering::Acquire);
        if attended && !is_fresh(&self.pinned.borrow()) {
            let _look = self.look();
            let mut pinned = self.pinned.clone();
            // Where it does not come, the driver has ended or is stuck, and the newest is all that there is.
            let _ = tokio::time::timeout(PATIENCE, pinned.wait_for(is_fresh)).await;
        }
        self.newest()
    }

    /// Looks on: [`Self::next`] then sees all that changes.
    pub(crate) fn look(&self) -> Look {
        self.audience.looking.fetch_add(1, Ordering::AcqRel);
        self.audience.came.notify_one();
        Look(Arc::clone(&self.audience))
    }

    /// The next snapshot; none once the driver has ended and its last one was seen.
    pub(crate) async fn next(&mut self) -> Option<Arc<Snapshot>> {
        self.pinned.changed().await.ok()?;
        Some(Arc::clone(&self.pinned.borrow_and_update().snapshot))
    }

    /// Whether the driver has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.pinned.has_changed().is_err()
    }
}

/// Somebody looks, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Look(Arc<Audience>);

impl Drop for Look {
    fn drop(&mut self) {
        self.0.looking.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use millefeuille_core::view::WorkerView;

    use super::*;

    fn snapshot(worker: u64) -> Snapshot {
        Snapshot { workers: vec![WorkerView { id: worker, ..Default::default() }], ..Default::default() }
    }

    fn seen(snapshot: &Arc<Snapshot>) -> u64 {
        snapshot.workers[0].id
    }

    /// Whether a snapshot is due within twice the interval.
    async fn is_due(board: &mut Board) -> bool {
        tokio::time::timeout(2 * INTERVAL, board.due()).await.is_ok()
    }

    #[tokio::test]
    async fn nothing_is_due_while_nobody_looks() {
        let mut board = Board::new();
        let reader = board.reader();
        board.changed();
        assert!(!is_due(&mut board).await);

        let look = reader.look();
        assert!(is_due(&mut board).await);
        board.pin(snapshot(1));
        assert!(!is_due(&mut board).await, "nothing has happened since");

        board.moved();
        assert!(is_due(&mut board).await);
        drop(look);
        assert!(!is_due(&mut board).await);
    }

    #[tokio::test]
    async fn snapshots_keep_their_distance_and_the_last_one_comes() {
        let mut board = Board::new();
        let reader = board.reader();
        let _look = reader.look();
        board.pin(snapshot(1));
        let before = Instant::now();
        board.changed();
        board.changed();

        board.due().await;
        board.pin(snapshot(2));

        assert!(before.elapsed() >= INTERVAL - Duration::from_millis(5), "{:?}", before.elapsed());
        assert_eq!(seen(&reader.newest()), 2);
    }

    #[tokio::test]
    async fn whoever_looks_sees_all_that_changed_before() {
        let mut board = Board::new();
        let reader = board.reader();
        board.attend();
        board.pin(snapshot(1));
        assert_eq!(seen(&reader.fresh().await), 1, "it is new enough");

        board.changed();
        let asking = tokio::spawn(async move { seen(&reader.fresh().await) });
        board.due().await;
        board.pin(snapshot(2));
        assert_eq!(asking.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_driver_that_ends_leaves_its_last_state_behind() {
        let mut board = Board::new();
        let mut reader = board.reader();
        board.attend();
        board.changed();
        board.leave(snapshot(3));

        assert_eq!(seen(&reader.fresh().await), 3);
        drop(board);
        assert!(reader.is_over());
        assert_eq!(reader.next().await.map(|last| seen(&last)), Some(3));
        assert!(reader.next().await.is_none());
    }
}
