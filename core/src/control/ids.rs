//! Identifiers of workers, jobs, results and units of work.

use std::fmt;

use crate::learn::work::Unit;

use crate::data::split::Split;

/// A worker's number; new for each session, and counted from the coordinator's last start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A job's number; later jobs have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// The number that the driver gives to each received result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResultId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// What is computed: gradients, or the loss on a held-out split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Gradients of one mini-batch.
    Train,
    /// Loss and accuracy on the validation split.
    Validate,
    /// Loss and accuracy on the test set.
    Test,
}

impl Phase {
    /// The split whose samples are computed.
    pub fn split(self) -> Split {
        match self {
            Phase::Train => Split::Train,
            Phase::Validate => Split::Validation,
            Phase::Test => Split::Test,
        }
    }
}

/// Identifies one unit of the cluster's work: all the nodes of one step, or of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId {
    /// The job.
    pub job: JobId,
    /// Which start of the coordinator assigned the work.
    pub incarnation: u64,
    /// The epoch, from 0.
    pub epoch: u32,
    /// What is computed.
    pub phase: Phase,
    /// The step of the epoch, from 0; 0 in evaluation.
    pub step: u32,
    /// The parameters' version: the number of optimizer steps that made them.
    pub parameter_tag: u64,
}

impl From<WorkId> for Unit {
    fn from(work: WorkId) -> Self {
        Self { split: work.phase.split(), epoch: work.epoch, step: work.step }
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A peer may name any epoch and any step.
        let (epoch, step) = (u64::from(self.epoch) + 1, u64::from(self.step) + 1);
        match self.phase {
            Phase::Train => write!(f, "step {step} of epoch {epoch}"),
            Phase::Validate => write!(f, "the validation of epoch {epoch}"),
            Phase::Test => write!(f, "the test of epoch {epoch}"),
        }
    }
}
