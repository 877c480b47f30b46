//! A view of a cluster from outside, without a request to its driver: the newest snapshot, the cluster's phase, and
//! whether the driver's loop still turns.

use std::sync::Arc;

use millefeuille_program::ops::{Pulse, Verdict};
use tokio::sync::watch;

use super::board::Reader;
use super::snapshot::Snapshot;

/// The phase of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// It scans the existing runs.
    Starting,
    /// It accepts jobs and workers.
    Serving,
    /// It is shutting down.
    Stopping,
}

/// A view of a cluster.
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

    /// Waits until the newest snapshot is current, unless the driver is stuck.
    pub(crate) async fn refresh(&self) {
        self.board.fresh().await;
    }

    /// Liveness: whether the driver's loop still turns.
    ///
    /// # Errors
    /// Why it is not alive. A cluster that starts or shuts down is alive: these phases depend on the disk, and a
    /// restart would make them no faster.
    pub fn live(&self) -> Verdict {
        match *self.serving.borrow() {
            ServingState::Starting => Ok("alive: scanning the runs directory".into()),
            ServingState::Serving => self.turns().map(|()| "alive".into()),
            ServingState::Stopping => Ok("alive: stopping".into()),
        }
    }

    /// Readiness: whether the cluster has found the existing runs and accepts calls.
    ///
    /// # Errors
    /// Why it is not ready. The number of workers does not matter: if a load balancer sends no traffic to a
    /// coordinator that is not ready, workers would never reach it.
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
