//! Submissions, until they are on disk, and who waits for what becomes of jobs.

use std::collections::BTreeMap;

use millefeuille_core::control::JobId;
use millefeuille_core::failure::Failure;
use millefeuille_core::view::JobView;
use tokio::sync::oneshot;

/// Takes a cancelled job as it is then.
pub(super) type Cancelled = oneshot::Sender<Result<JobView, Failure>>;

pub(super) type Reply = oneshot::Sender<Result<String, Failure>>;

/// Submissions on their way to the disk.
#[derive(Default)]
pub(super) struct Submissions {
    /// Who waits for which job's acknowledgement, with the client's key.
    pub(super) waiting: BTreeMap<JobId, (String, Vec<Reply>)>,
    newest: u64,
}

impl Submissions {
    /// The next number.
    pub(super) fn next(&mut self) -> JobId {
        self.at_least(0)
    }

    /// The next number that is not below this one.
    pub(super) fn at_least(&mut self, number: u64) -> JobId {
        self.newest = number.max(self.newest + 1);
        JobId(self.newest)
    }
}
