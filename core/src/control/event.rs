//! What can happen to a cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::facts::{Facts, Start};
use super::ids::{JobId, ResultId, WorkId, WorkerId};
use super::members::Hello;
use super::validation::Digest;
use crate::data::shard::Shard;
use crate::failure::Failure;
use crate::learn::tree::Node;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker has said hello.
    Join {
        /// Its number, new for each session.
        worker: WorkerId,
        /// What it said.
        hello: Hello,
    },
    /// A worker's session has ended.
    Leave {
        /// Whose.
        worker: WorkerId,
        /// How.
        end: SessionEnd,
    },
    /// A worker drains: it finishes what is pending with it, and takes no new work.
    Drain {
        /// Who.
        worker: WorkerId,
        /// Why, as it says.
        reason: String,
    },
    /// Anything came from a worker.
    Heard {
        /// From whom.
        worker: WorkerId,
        /// When.
        at: Duration,
        /// Bytes that went to it and came from it so far: whether a transfer moves.
        moved: u64,
    },
    /// A worker has computed the job's own shapes.
    JobAccepted {
        /// Who.
        worker: WorkerId,
        /// Which job.
        job: JobId,
        /// Hex SHA-256 of the results.
        fingerprint: String,
    },
    /// A worker holds a shard's samples.
    ShardHeld {
        /// Who.
        worker: WorkerId,
        /// Of which job.
        job: JobId,
        /// The `Hold` that it answers.
        generation: u64,
        /// Which shard.
        shard: Shard,
    },
    /// A worker has sent a node's sum.
    Result {
        /// Its name from now on.
        result: ResultId,
        /// Who.
        worker: WorkerId,
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
        /// Samples in it.
        samples: u64,
        /// Time that the worker's slots spent on it.
        busy: Duration,
        /// Whether every number in it is finite.
        finite: bool,
        /// Of its bits; there if it is not finite or [`Control::compares`](super::Control::compares) said so.
        digest: Option<Digest>,
    },
    /// The coordinator has computed a node itself.
    Arbitrated {
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
        /// What came of it; none if it can't compute this job.
        computed: Option<Computed>,
    },
    /// The driver has closed a tree: the sums are added and, in training, the next parameters made.
    Closed {
        /// Which work.
        work: WorkId,
        /// Whether the loss is finite.
        finite: bool,
    },
    /// Somebody wants a job trained.
    Submit {
        /// Its number.
        job: JobId,
    },
    /// The job's data is read.
    Loaded {
        /// Which job.
        job: JobId,
        /// What the machine must know of it.
        facts: Facts,
        /// Where it begins, or resumes.
        from: Start,
        /// Processes that were evicted from it in an earlier life of the coordinator, and why.
        evicted: BTreeMap<String, String>,
    },
    /// A checkpoint is on disk.
    CheckpointWritten {
        /// Of which job.
        job: JobId,
    },
    /// An epoch's line of history is on disk.
    EpochWritten {
        /// Of which job.
        job: JobId,
    },
    /// The job's result is on disk.
    Saved {
        /// Which job.
        job: JobId,
    },
    /// Something on the coordinator's side failed: the data can't be read, or the run directory not written.
    Broken {
        /// Which job.
        job: JobId,
        /// What failed; decides the exit code.
        failure: Failure,
    },
    /// Somebody wants a job to end.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// Time has passed.
    Tick,
}

/// A node's sum that the coordinator has computed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// Its name from now on.
    pub result: ResultId,
    /// Whether every number in it is finite.
    pub finite: bool,
    /// Of its bits.
    pub digest: Digest,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its connection was closed.
    Closed,
    /// The worker shut down, with its reason.
    Shutdown(String),
    /// It broke the protocol; how.
    Violation(String),
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionEnd::Closed => f.write_str("its connection was closed"),
            SessionEnd::Shutdown(reason) => write!(f, "it shut down: {reason}"),
            SessionEnd::Violation(how) => write!(f, "it broke the protocol: {how}"),
        }
    }
}
