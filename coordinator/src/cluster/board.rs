//! The board: it passes the newest [`Snapshot`] of the cluster from the driver to readers.
//!
//! Readers never call the driver. They register and take the newest snapshot. While there are readers and something
//! has changed, the driver publishes a new snapshot at most twenty times a second. Without readers it builds none: a
//! change then costs one counter increment. The last state is always published: a change that comes too early is
//! published at the end of the interval, and the driver publishes its final state when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};

use super::snapshot::Snapshot;

/// Minimum time between two snapshots. A snapshot younger than this counts as fresh, unless a job or a worker has
/// changed since.
const INTERVAL: Duration = Duration::from_millis(50);
/// A driver that has published nothing for this long is stuck: readers take the newest snapshot there is.
const PATIENCE: Duration = Duration::from_secs(1);

/// A snapshot on the board.
#[derive(Clone, Debug)]
struct Published {
    snapshot: Arc<Snapshot>,
    /// Number of changes of jobs and workers that it includes.
    changes: u64,
    at: Instant,
}

/// State shared by the driver and its readers.
#[derive(Debug, Default)]
struct Readers {
    /// Number of registered readers.
    looking: AtomicUsize,
    /// Notified when a reader registers.
    came: Notify,
    /// Number of changes of jobs and workers so far.
    changes: AtomicU64,
    /// Whether the driver's loop is running, so that a reader may wait for it.
    attended: AtomicBool,
}

/// The driver's side.
#[derive(Debug)]
pub(super) struct Board {
    pinned: watch::Sender<Published>,
    audience: Arc<Readers>,
    /// Whether anything has changed since the newest snapshot.
    stale: bool,
}

impl Board {
    /// A board with an empty snapshot on it.
    pub(super) fn new() -> Self {
        let pinned = Published { snapshot: Arc::default(), changes: 0, at: Instant::now() };
        Self { pinned: watch::Sender::new(pinned), audience: Arc::default(), stale: true }
    }

    /// Creates a reader of this board.
    pub(super) fn reader(&self) -> Reader {
        Reader { pinned: self.pinned.subscribe(), audience: Arc::clone(&self.audience) }
    }

    /// Marks that the driver's loop runs.
    pub(super) fn attend(&self) {
        self.audience.attended.store(true, Ordering::Release);
    }

    /// Marks that the driver's loop has ended, and publishes its final state.
    pub(super) fn leave(&mut self, last: Snapshot) {
        self.pin(last);
        self.audience.attended.store(false, Ordering::Release);
    }

    /// Records a change of a job or a worker: readers that register from now on see it.
    pub(super) fn changed(&mut self) {
        self.audience.changes.fetch_add(1, Ordering::AcqRel);
        self.stale = true;
    }

    /// Records that time has passed or that a step was taken.
    pub(super) fn moved(&mut self) {
        self.stale = true;
    }

    /// Resolves when a new snapshot should be published.
    pub(super) async fn due(&mut self) {
        while !self.stale || self.audience.looking.load(Ordering::Acquire) == 0 {
            self.audience.came.notified().await;
            self.stale = true;
        }
        let next = self.pinned.borrow().at + INTERVAL;
        tokio::time::sleep_until(next.into()).await;
    }

    /// Publishes a snapshot of the current state.
    pub(super) fn pin(&mut self, snapshot: Snapshot) {
        // This snapshot serves every reader that registered before.
        let _ = self.audience.came.notified().now_or_never();
        let changes = self.audience.changes.load(Ordering::Acquire);
        self.stale = false;
        self.pinned.send_replace(Published { snapshot: Arc::new(snapshot), changes, at: Instant::now() });
    }
}

/// A reader's side.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pinned: watch::Receiver<Published>,
    audience: Arc<Readers>,
}

impl Reader {
    /// The newest snapshot, however old it is.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.pinned.borrow().snapshot)
    }

    /// A snapshot that includes every change of jobs and workers so far.
    pub(crate) async fn fresh(&self) -> Arc<Snapshot> {
        let (changes, asked) = (self.audience.changes.load(Ordering::Acquire), Instant::now());
        let is_fresh = |pinned: &Published| pinned.changes >= changes && pinned.at + INTERVAL >= asked;
        let attended = self.audience.attended.load(Ordering::Acquire);
        if attended && !is_fresh(&self.pinned.borrow()) {
            let _look = self.look();
            let mut pinned = self.pinned.clone();
            // If none arrives, the driver has ended or is stuck, and the newest snapshot is all there is.
            let _ = tokio::time::timeout(PATIENCE, pinned.wait_for(is_fresh)).await;
        }
        self.newest()
    }

    /// Registers the reader, so that [`Self::next`] sees every change.
    pub(crate) fn look(&self) -> ReaderGuard {
        self.audience.looking.fetch_add(1, Ordering::AcqRel);
        self.audience.came.notify_one();
        ReaderGuard(Arc::clone(&self.audience))
    }

    /// The next snapshot, or `None` once the driver has ended and its last snapshot was returned.
    pub(crate) async fn next(&mut self) -> Option<Arc<Snapshot>> {
        self.pinned.changed().await.ok()?;
        Some(Arc::clone(&self.pinned.borrow_and_update().snapshot))
    }

    /// Whether the driver has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.pinned.has_changed().is_err()
    }
}

/// Registers a reader for as long as this value lives.
#[derive(Debug)]
pub(crate) struct ReaderGuard(Arc<Readers>);

impl Drop for ReaderGuard {
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
