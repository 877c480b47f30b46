//! The events that the control machine handles.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::facts::{Facts, Start};
use super::ids::{JobId, ResultId, WorkId, WorkerId};
use super::members::Hello;
use super::validation::Digest;
use crate::data::shard::Shard;
use crate::failure::Failure;
use crate::learn::stopping::Watch;
use crate::learn::tree::Node;
use crate::view::EpochRow;

/// Something that happened in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker has said hello.
    Join {
        /// The worker's number, new for each session.
        worker: WorkerId,
        /// What the worker reported.
        hello: Hello,
    },
    /// A worker's session has ended.
    Leave {
        /// The worker.
        worker: WorkerId,
        /// How the session ended.
        end: SessionEnd,
    },
    /// A worker drains: it finishes its pending nodes and takes no new work.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// The reason that the worker gives.
        reason: String,
    },
    /// A message of any kind arrived from a worker.
    Heard {
        /// The worker.
        worker: WorkerId,
        /// When the message arrived.
        at: Duration,
        /// Bytes sent to the worker and received from it so far; they show whether a transfer makes progress.
        moved: u64,
    },
    /// A worker has computed the job's own shapes.
    JobAccepted {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// Hex SHA-256 of the results.
        fingerprint: String,
    },
    /// A worker holds a shard's samples.
    ShardHeld {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The generation of the `Hold` that the worker answers.
        generation: u64,
        /// The shard.
        shard: Shard,
    },
    /// A worker has sent a node's sum.
    Result {
        /// The number that names the result from now on.
        result: ResultId,
        /// The worker.
        worker: WorkerId,
        /// The unit of work.
        work: WorkId,
        /// The node.
        node: Node,
        /// How many samples the node has.
        samples: u64,
        /// How long the worker's slots were busy with the node.
        busy: Duration,
        /// Whether every number in the result is finite.
        finite: bool,
        /// The digest of the result's bits; present if the result is not finite or if
        /// [`Control::compares`](super::Control::compares) asked for it.
        digest: Option<Digest>,
    },
    /// The coordinator has computed a node itself.
    Arbitrated {
        /// The unit of work.
        work: WorkId,
        /// The node.
        node: Node,
        /// The computed result; `None` if the coordinator can't compute this job.
        computed: Option<Computed>,
    },
    /// The driver has closed a tree: it has added the sums and, in training, made the next parameters.
    Closed {
        /// The unit of work.
        work: WorkId,
        /// Whether the loss is finite.
        finite: bool,
        /// The figures of the epoch, if it ends with this unit of work.
        row: Option<Box<EpochRow>>,
    },
    /// A job was submitted.
    Submit {
        /// The job's number.
        job: JobId,
    },
    /// The job's data has been read.
    Loaded {
        /// The job.
        job: JobId,
        /// What the control machine must know of the job.
        facts: Facts,
        /// Where the job begins, or resumes.
        from: Start,
        /// Processes that were evicted from the job before the coordinator restarted, and why, by instance id.
        evicted: BTreeMap<String, String>,
        /// The rules by which the job stops, after the epochs before.
        watch: Watch,
    },
    /// A checkpoint is on disk.
    CheckpointWritten {
        /// The job.
        job: JobId,
    },
    /// An epoch's line of history is on disk.
    EpochWritten {
        /// The job.
        job: JobId,
    },
    /// The job's result is on disk.
    Saved {
        /// The job.
        job: JobId,
    },
    /// Something failed on the coordinator's side: for example, it can't read the data or write the run
    /// directory.
    Broken {
        /// The job.
        job: JobId,
        /// The failure; it decides the exit code.
        failure: Failure,
    },
    /// A job was cancelled.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Time has passed.
    Tick,
}

/// A result that the coordinator has computed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// The number that names the result from now on.
    pub result: ResultId,
    /// Whether every number in the result is finite.
    pub finite: bool,
    /// The digest of the result's bits.
    pub digest: Digest,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The connection was closed.
    Closed,
    /// The worker shut down, with its reason.
    Shutdown(String),
    /// The worker has stopped reading: too many messages wait for it. It may be suspended, or its network may be cut.
    StoppedReading,
    /// The worker broke the protocol, in the way described.
    Violation(String),
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionEnd::Closed => f.write_str("its connection was closed"),
            SessionEnd::Shutdown(reason) => write!(f, "it shut down: {reason}"),
            SessionEnd::StoppedReading => f.write_str("it has stopped reading"),
            SessionEnd::Violation(how) => write!(f, "it broke the protocol: {how}"),
        }
    }
}
