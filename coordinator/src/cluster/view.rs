//! What can be seen of a cluster from outside, without asking its driver: the newest snapshot, how far its life has
//! come, and whether the driver still takes its turns.

use std::sync::Arc;

use millefeuille_program::ops::{Pulse, Verdict};
use tokio::sync::watch;

use super::board::Reader;
use super::snapshot::Snapshot;

/// How far a cluster's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// It looks through the runs that are there.
    Starting,
    /// It takes jobs and workers.
    Serving,
    /// It shuts down.
    Stopping,
}

/// A window onto a cluster.
#[derive(Clone, Debug)]
pub struct View {
    board: Reader,
    serving: watch::Receiver<ServingState>,
    pulse: Pulse,
}

impl View {
    pub(super) fn new(board: Reader, serving: watch::Receiver<ServingState>, pulse: Pulse) -> Self {
        Self { board, serving, pulse }
    }

    /// The newest snapshot, however old it is.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        self.board.newest()
    }

    /// Waits until the newest snapshot is one of this moment, unless the driver is stuck.
    pub(crate) async fn refresh(&self) {
        self.board.fresh().await;
    }

    /// Whether it is worth keeping: its driver takes its turns.
    ///
    /// # Errors
    /// Why not. What comes before and after the driver's loop depends on the disk, and starting again would make it no
    /// faster: a cluster that begins or ends is alive.
    pub fn live(&self) -> Verdict {
        match *self.serving.borrow() {
            ServingState::Starting => Ok("alive: scanning the runs directory".into()),
            ServingState::Serving => self.turns().map(|()| "alive".into()),
            ServingState::Stopping => Ok("alive: stopping".into()),
        }
    }

    /// Whether workers and clients should come to it: it has found the runs that are there, and takes calls.
    ///
    /// # Errors
    /// Why not. Whether there are workers does not matter: where a service sends nobody to a coordinator that is not
    /// ready, workers would never find it.
    pub fn ready(&self) -> Verdict {
        match *self.serving.borrow() {
            ServingState::Starting => Err("not ready: scanning the runs directory".into()),
            ServingState::Serving => self.turns().map(|()| "ready".into()),
            ServingState::Stopping => Err("not ready: shutting down".into()),
        }
    }

    fn turns(&self) -> Result<(), String> {
        let stuck = |silence: std::time::Duration| {
            format!("stuck: the driver has taken no turn for {} s", silence.as_secs())
        };
        self.pulse.stuck().map_or(Ok(()), |silence| Err(stuck(silence)))
    }
}
