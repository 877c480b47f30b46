//! The actions that the control machine orders from its driver.
//!
//! The driver carries out actions in order. Some send a message to a worker, some tell the driver to compute or
//! to write, and a [`Note`] is only for display and counters. None of them blocks: their results come back as
//! events.

use std::time::Duration;

use super::facts::Start;
use super::ids::{JobId, ResultId, WorkId, WorkerId};
use super::members::Arithmetic;
use super::outcome::Outcome;
use super::place::Placement;
use super::validation::Source;
use crate::data::shard::Shard;
use crate::learn::stopping::Stopped;
use crate::learn::tree::Node;

/// An order to the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Admit the worker.
    Welcome {
        /// The worker.
        worker: WorkerId,
    },
    /// End the worker's session, with the reason.
    Disconnect {
        /// The worker.
        worker: WorkerId,
        /// The reason.
        reason: Disconnection,
    },
    /// The draining worker has nothing pending any more: tell it to leave.
    Release {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker's results are wrong: exclude it from the job.
    Evict {
        /// The worker.
        worker: WorkerId,
        /// The reason, for display.
        reason: String,
    },
    /// Tell the worker to restart with this kernel (`environment`: the kernel that its environment variables
    /// select).
    UseKernel {
        /// The worker.
        worker: WorkerId,
        /// An OpenBLAS core name, or `environment`.
        kernel: String,
    },
    /// Read the job's data; reply with `Loaded` or `Broken`.
    Load {
        /// The job.
        job: JobId,
    },
    /// Tell the worker what the job is.
    StartJob {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
    },
    /// Tell the worker which shards to hold: the complete list, the most urgent first.
    Hold {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// Counts the `Hold`s sent to this worker for this job; the worker's replies repeat it.
        generation: u64,
        /// The shards.
        shards: Vec<Shard>,
        /// Whether the worker is on standby: it computes none of these shards for now.
        standby: bool,
    },
    /// Open a new tree.
    Begin {
        /// The unit of work.
        work: WorkId,
    },
    /// Assign these nodes to the worker.
    Send {
        /// The worker.
        worker: WorkerId,
        /// The unit of work.
        work: WorkId,
        /// The nodes.
        nodes: Vec<Node>,
    },
    /// Put a result into the tree. The driver keeps a result that is neither accepted nor discarded at once until
    /// the next `Begin`, because it may be accepted after a comparison.
    Accept {
        /// The result.
        result: ResultId,
        /// The unit of work.
        work: WorkId,
        /// The node.
        node: Node,
        /// The process that computed the result.
        source: Source,
    },
    /// Compute this node on the coordinator, to settle which result is correct; reply with `Arbitrated`.
    Arbitrate {
        /// The unit of work.
        work: WorkId,
        /// The node.
        node: Node,
    },
    /// Throw a result away.
    Discard {
        /// Which.
        result: ResultId,
        /// The reason.
        reason: Discard,
    },
    /// The tree is complete: finish the sums and make the next parameters; reply with `Closed`.
    Close {
        /// The unit of work.
        work: WorkId,
    },
    /// Copy the state, which is one between two units of work, and write it.
    Checkpoint {
        /// The job.
        job: JobId,
        /// Where a job that resumes from it starts.
        from: Start,
    },
    /// Write the epoch's line of history and a checkpoint; reply with `EpochWritten`.
    EndEpoch {
        /// The job.
        job: JobId,
        /// The epoch, from 0.
        epoch: u32,
        /// Whether it is the best so far, so that its parameters are kept.
        best: bool,
        /// Why it is the last one, if a rule stops the job.
        stopped: Option<Stopped>,
    },
    /// Write the job's result; reply with `Saved` or `Broken`.
    Save {
        /// The job.
        job: JobId,
        /// Why the job has stopped, if a rule has stopped it.
        stopped: Option<Stopped>,
        /// The epoch, from 1, whose parameters are the result; `None` for the last one.
        restored: Option<u64>,
    },
    /// The job has ended.
    End {
        /// Which.
        job: JobId,
        /// How.
        outcome: Outcome,
    },
    /// Something to report.
    Note(Note),
}

/// Why a worker is disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnection {
    /// Nothing arrived from the worker for longer than the deadline.
    Silent {
        /// How long.
        silence: Duration,
    },
    /// The worker computes other bits than the cluster's job needs.
    Arithmetic {
        /// The worker's arithmetic.
        theirs: Arithmetic,
        /// What the job needs.
        needed: Arithmetic,
    },
    /// The worker computes other bits on the job's own shapes.
    Shapes {
        /// The worker's fingerprint.
        theirs: String,
        /// What the job needs.
        needed: String,
    },
    /// The cluster already has its maximum number of workers.
    Full {
        /// The number.
        limit: usize,
    },
    /// The same process has joined again in a newer session.
    Superseded,
    /// The worker is alive, but its results take far longer than usual.
    Hung {
        /// The unit of work that is pending with the worker.
        work: WorkId,
        /// How long ago the work was assigned.
        asked: Duration,
    },
    /// The worker was told to fetch samples, and no byte has moved for too long.
    Stalled {
        /// How long.
        stalled: Duration,
    },
    /// The worker has sent results that were not assigned to it.
    Unassigned {
        /// The number.
        answers: u32,
    },
}

/// Why a result is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// The result belongs to a unit of work that is over.
    Late,
    /// The node is in the tree already.
    Duplicate,
    /// The node was not assigned to this worker.
    Unassigned,
}

/// Something to report in the log and in `events.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A worker has joined.
    Joined {
        /// The worker.
        worker: WorkerId,
        /// The worker's name, for display.
        name: String,
        /// How many pieces the worker computes at once.
        slots: u32,
    },
    /// A worker has left.
    Left {
        /// The worker.
        worker: WorkerId,
        /// The worker's name, for display.
        name: String,
        /// How.
        how: String,
        /// Whether the worker left in order: it was drained, shut down, or restarts with another kernel. Otherwise it is
        /// lost.
        in_order: bool,
    },
    /// A worker drains: no new work is assigned to it.
    Draining {
        /// The worker.
        worker: WorkerId,
        /// The worker's name, for display.
        name: String,
        /// The reason that the worker gives.
        reason: String,
    },
    /// A worker's pending nodes were assigned to other workers.
    Reassigned {
        /// The unit of work.
        work: WorkId,
        /// The worker that the nodes were pending with: it has left, or is a straggler.
        pending_with: WorkerId,
        /// Whether the worker is a straggler, whose results may still arrive.
        straggler: bool,
        /// The nodes assigned to each other worker.
        to: Vec<(WorkerId, Vec<Node>)>,
    },
    /// A worker is evicted from the job.
    Evicted {
        /// The worker.
        worker: WorkerId,
        /// The worker's name, for display.
        name: String,
        /// The id of the worker's process, the same in all its sessions.
        instance_id: String,
        /// The reason.
        reason: String,
    },
    /// There are too few workers: the job waits.
    Short {
        /// The job.
        job: JobId,
        /// How many workers can compute the job.
        present: usize,
        /// How many workers are needed.
        needed: usize,
    },
    /// There are enough workers, after [`Short`](Self::Short).
    Recovered {
        /// The job.
        job: JobId,
        /// Whether the job had begun before, so that it continues.
        continues: bool,
    },
    /// A rule stops the job.
    Stopped {
        /// The job.
        job: JobId,
        /// When and why.
        stopped: Stopped,
    },
    /// A new placement is in use.
    Assigned {
        /// The job.
        job: JobId,
        /// The shards that each worker computes; workers on standby are not in it.
        placement: Placement,
        /// The first unit of work with this placement.
        from: WorkId,
    },
}
