//! How a job ends.

use std::time::Duration;

use super::ids::WorkId;
use crate::failure::Failure;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result is on disk.
    Done,
    /// The job was cancelled.
    Cancelled,
    /// The loss is not finite.
    Diverged {
        /// The unit of work whose loss is not finite.
        work: WorkId,
    },
    /// There were not enough workers in time.
    TooFewWorkers {
        /// How many workers there were.
        present: usize,
        /// How many workers are needed.
        needed: usize,
        /// How long the job waited.
        waited: Duration,
    },
    /// Something on the coordinator's side failed.
    Broken(Failure),
}
