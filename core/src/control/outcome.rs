//! How a job ends.

use std::time::Duration;

use super::ids::WorkId;
use crate::failure::Failure;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result is on disk.
    Done,
    /// It was cancelled.
    Cancelled,
    /// The loss is not finite.
    Diverged {
        /// The work after which that was found.
        work: WorkId,
    },
    /// There were not enough workers in time.
    TooFewWorkers {
        /// How many there were.
        present: usize,
        /// How many are needed.
        needed: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// Something on the coordinator's side failed.
    Broken(Failure),
}
