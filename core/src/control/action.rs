//! What the control machine has its driver do.
//!
//! Actions are carried out in their order. Some tell a worker something, some tell the driver to compute or to write, and a
//! [`Note`] is for people and counters alone. None of them waits: what becomes of one comes back as an event.

use std::time::Duration;

use super::facts::Start;
use super::ids::{JobId, ResultId, WorkId, WorkerId};
use super::members::Arithmetic;
use super::outcome::Outcome;
use super::place::Placement;
use super::validation::Source;
use crate::data::shard::Shard;
use crate::learn::tree::Node;

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Admit the worker.
    Welcome {
        /// Whom.
        worker: WorkerId,
    },
    /// End the worker's session, with the reason.
    Disconnect {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: Disconnection,
    },
    /// The draining worker has nothing pending any more: tell it that it may leave.
    Release {
        /// Whom.
        worker: WorkerId,
    },
    /// The worker's answers are wrong: it has no part in the job any more.
    Evict {
        /// Whom.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// Tell the worker to start again with this kernel (`environment`: with what its variables select).
    UseKernel {
        /// Whom.
        worker: WorkerId,
        /// An OpenBLAS core name, or `environment`.
        kernel: String,
    },
    /// Read the job's data; answer with `Loaded` or `Broken`.
    Load {
        /// Which job.
        job: JobId,
    },
    /// Tell the worker what the job is.
    StartJob {
        /// Whom.
        worker: WorkerId,
        /// Which job.
        job: JobId,
    },
    /// Tell the worker all the shards that it shall hold, the most urgent first.
    Hold {
        /// Whom.
        worker: WorkerId,
        /// Of which job.
        job: JobId,
        /// Counts what this worker was told for this job; its answers repeat it.
        generation: u64,
        /// Which shards.
        shards: Vec<Shard>,
        /// Whether it computes none of them for now.
        standby: bool,
    },
    /// A new tree is open.
    Begin {
        /// Which work.
        work: WorkId,
    },
    /// Assign these nodes to the worker.
    Send {
        /// Whom.
        worker: WorkerId,
        /// Which work.
        work: WorkId,
        /// Which nodes.
        nodes: Vec<Node>,
    },
    /// Put a result into the tree. One that is neither accepted nor discarded when it comes is kept until the next
    /// `Begin`: it may be accepted once another was compared with it.
    Accept {
        /// Which result.
        result: ResultId,
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
        /// Whose.
        source: Source,
    },
    /// Compute this node here, to settle who is right; answer with `Arbitrated`.
    Arbitrate {
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
    },
    /// Throw a result away.
    Discard {
        /// Which.
        result: ResultId,
        /// Why.
        reason: Discard,
    },
    /// The tree is complete: add what is left to add, and make the next parameters. Answer with `Closed`.
    Close {
        /// Which work.
        work: WorkId,
    },
    /// Copy the state between two units of work, and write it.
    Checkpoint {
        /// Of which job.
        job: JobId,
        /// What comes next.
        from: Start,
    },
    /// Write the epoch's line of history, and a checkpoint; answer with `EpochWritten`.
    EndEpoch {
        /// Of which job.
        job: JobId,
        /// From 0.
        epoch: u32,
    },
    /// Write the result; answer with `Saved` or `Broken`.
    Save {
        /// Of which job.
        job: JobId,
    },
    /// The job has ended.
    End {
        /// Which.
        job: JobId,
        /// How.
        outcome: Outcome,
    },
    /// Something that people want to know.
    Note(Note),
}

/// Why a worker is disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnection {
    /// Nothing came from it for longer than the deadline.
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// It computes other bits than the cluster's job needs.
    Arithmetic {
        /// What it said.
        theirs: Arithmetic,
        /// What is needed.
        needed: Arithmetic,
    },
    /// It computes other bits on the job's own shapes.
    Shapes {
        /// What it computed, and what is needed.
        theirs: String,
        /// What is needed.
        needed: String,
    },
    /// There are as many workers as the cluster takes.
    Full {
        /// How many.
        limit: usize,
    },
    /// The same process has come again: its new session counts.
    Superseded,
    /// It is alive, and has not answered for far longer than answers take.
    Hung {
        /// The work that is pending with it.
        work: WorkId,
        /// How long ago.
        asked: Duration,
    },
    /// It was told to fetch samples, and no byte has moved for so long.
    Stalled {
        /// For how long.
        stalled: Duration,
    },
    /// It has sent results that were not assigned to it.
    Unassigned {
        /// How many.
        answers: u32,
    },
}

/// Why a result is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// It belongs to work that is over.
    Late,
    /// The node is in the tree already.
    Duplicate,
    /// It was not assigned to this worker.
    Unassigned,
}

/// Something that people want to know: for the log and `events.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A worker is in.
    Joined {
        /// Who.
        worker: WorkerId,
        /// For people.
        name: String,
        /// Pieces computed at once.
        slots: u32,
    },
    /// A worker is gone.
    Left {
        /// Who.
        worker: WorkerId,
        /// For people.
        name: String,
        /// How.
        how: String,
    },
    /// A worker drains: no new work is assigned to it.
    Draining {
        /// Who.
        worker: WorkerId,
        /// For people.
        name: String,
        /// Why, as it says.
        reason: String,
    },
    /// Nodes that are pending with a worker were assigned to others, too.
    Reassigned {
        /// Of which work.
        work: WorkId,
        /// With whom they are pending: a worker that left, or a straggler.
        pending_with: WorkerId,
        /// Whether it may still answer.
        straggler: bool,
        /// Which nodes were assigned to whom.
        to: Vec<(WorkerId, Vec<Node>)>,
    },
    /// A worker is evicted from the job.
    Evicted {
        /// Who.
        worker: WorkerId,
        /// For people.
        name: String,
        /// Its process, whatever its session.
        instance_id: String,
        /// Why.
        reason: String,
    },
    /// There are too few workers: the job waits.
    Short {
        /// Which job.
        job: JobId,
        /// How many can compute it.
        present: usize,
        /// How many are needed.
        needed: usize,
    },
    /// There are enough workers again.
    Recovered {
        /// Which job.
        job: JobId,
    },
    /// Shards are placed anew.
    Assigned {
        /// Of which job.
        job: JobId,
        /// Who computes what; those on standby have nothing.
        placement: Placement,
        /// The work from which on it holds.
        from: WorkId,
    },
}
