//! Submissions that are not yet on disk, and the callers waiting for them.

use std::collections::BTreeMap;

use millefeuille_core::control::JobId;
use millefeuille_core::failure::Failure;
use millefeuille_core::view::JobView;
use tokio::sync::oneshot;

/// Receives the job's state after cancellation.
pub(super) type Cancelled = oneshot::Sender<Result<JobView, Failure>>;

pub(super) type Reply = oneshot::Sender<Result<String, Failure>>;

/// Submissions on their way to the disk.
#[derive(Default)]
pub(super) struct Submissions {
    /// The client key of each job, and the callers waiting for its acknowledgement.
    pub(super) waiting: BTreeMap<JobId, (String, Vec<Reply>)>,
    newest: u64,
}

impl Submissions {
    /// Returns the next job number.
    pub(super) fn next(&mut self) -> JobId {
        self.at_least(0)
    }

    /// Returns the next job number that is at least `number`.
    pub(super) fn at_least(&mut self, number: u64) -> JobId {
        self.newest = number.max(self.newest + 1);
        JobId(self.newest)
    }
}
