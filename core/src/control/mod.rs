//! Who computes what, when.
//!
//! [`Cluster`] is a state machine: `handle(now, event) -> actions`. It holds the members, the queue of jobs and the
//! progress of the one that runs. It knows nodes of the reduction tree, never tensors; it is told the time, never
//! reads a clock; it names what shall be sent, never sends. The coordinator's driver loop feeds it and carries out
//! its actions; tests feed it by hand.
//!
//! A job's life:
//!
//! 1. `Submit` queues it. When it is first in the queue, `Load` reads its data and finds out which arithmetic it
//!    needs; `Loaded` brings the facts: shards, steps, the arithmetic's fingerprint.
//! 2. Workers whose arithmetic fits are told of it (`StartJob`) and answer with the fingerprint of the job's own
//!    shapes. Once enough have, shards are placed ([`place()`]), and each worker is told which to hold. The job
//!    begins when every shard's worker holds it.
//! 3. Each step: `Begin`, a `Send` to every worker with work, `Accept` for each result, `Close` when the tree is
//!    complete. The driver answers `Closed` once the optimizer has made the next parameters. After the last step of
//!    an epoch, the validation and test splits are evaluated in the same way, and `EndEpoch` writes the history.
//!    `Checkpoint` orders a copy of the state from which the job can go on.
//! 4. After the last epoch `Save` writes the model; `Saved` ends the job, and the next one is loaded.
//!
//! Nothing that happens to a worker changes what is computed, only who computes it:
//!
//! - One that **joins** while a job runs is told what it would hold under a new placement; the placement changes
//!   between two steps, once everybody holds what it says.
//! - One that **leaves**, falls silent or hangs loses what it owes to others who hold the samples, within the step
//!   (`open`). What nobody holds is fetched first. Fewer than `min_workers` make the job wait.
//! - One that **drains** finishes what it owes, and is told `Farewell`.
//! - What a **slow** one owes is asked of another, too; whichever answer comes first is used, since all have the
//!   same bits. One that stays slow gets fewer shards, or none.
//! - One whose answer **differs** from another's is put out, and what it had part in of the open step is computed
//!   again (`trial`). Answers are compared where one is not finite, and for a share of the nodes with `audit_rate`.
//!
//! A coordinator that dies comes back with `Submit` and `Loaded { from, .. }`: where its checkpoint says.

mod cluster;
mod members;
mod membership;
mod open;
mod place;
mod progress;
mod queue;
mod run;
mod trial;

pub use cluster::{Cluster, Config, Waiting};
pub use members::{Arithmetic, Hello, Member, Role};
pub use open::Owing;
pub use place::{Placement, place};
pub use queue::{JobEntry, JobState};
pub use run::{Facts, Position, Start};
pub use trial::{Author, Digest};

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::data::shard::Shard;
pub use crate::failure::Failure;
use crate::learn::tree::Node;

/// A worker's number in this life of the coordinator: one for each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A job's number; later jobs have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// What is computed: gradients, or the loss on a split that is held out.
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
    /// The split whose samples it goes through.
    pub fn split(self) -> crate::data::split::Split {
        match self {
            Phase::Train => crate::data::split::Split::Train,
            Phase::Validate => crate::data::split::Split::Validation,
            Phase::Test => crate::data::split::Split::Test,
        }
    }
}

/// Names one unit of the cluster's work: all the nodes of one step, or of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId {
    /// The job.
    pub job: JobId,
    /// Which life of the coordinator asked for it.
    pub incarnation: u64,
    /// From 0.
    pub epoch: u32,
    /// What is computed.
    pub phase: Phase,
    /// The step of the epoch, from 0; 0 in evaluation.
    pub step: u32,
    /// Which parameters: the number of optimizer steps that made them.
    pub parameter_tag: u64,
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.epoch + 1;
        match self.phase {
            Phase::Train => write!(f, "step {} of epoch {epoch}", self.step + 1),
            Phase::Validate => write!(f, "the validation of epoch {epoch}"),
            Phase::Test => write!(f, "the test of epoch {epoch}"),
        }
    }
}

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
        departure: Departure,
    },
    /// A worker was told to stop: it finishes what it was asked for, and wants nothing new.
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
        /// Of its bits; there if it is not finite or [`Cluster::compares`] said so.
        digest: Option<Digest>,
    },
    /// The coordinator has computed a node itself.
    Arbitrated {
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
        /// Whether every number in it is finite, and the digest of its bits; none if it can't compute this job.
        result: Option<(bool, Digest)>,
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
        /// Where it begins, or goes on.
        from: Start,
        /// Processes that were put out of it in an earlier life of the coordinator, and why.
        put_out: BTreeMap<String, String>,
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

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Let the worker in.
    Welcome {
        /// Whom.
        worker: WorkerId,
    },
    /// End the worker's session, with the reason.
    Dismiss {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: Dismissal,
    },
    /// The worker has finished what it owed, and goes.
    Farewell {
        /// Whom.
        worker: WorkerId,
    },
    /// The worker's answers are wrong: it has no part in the job any more.
    PutOut {
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
        spare: bool,
    },
    /// A new tree is open.
    Begin {
        /// Which work.
        work: WorkId,
    },
    /// Ask the worker for these nodes.
    Send {
        /// Whom.
        worker: WorkerId,
        /// Which work.
        work: WorkId,
        /// Which nodes.
        nodes: Vec<Node>,
    },
    /// Put the result that just came aside: another is needed to compare it with.
    Keep {
        /// Which node.
        node: Node,
        /// Whose.
        author: Author,
    },
    /// Put a result into the tree: the one that just came, or one that was put aside.
    Accept {
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
        /// Whose.
        author: Author,
    },
    /// Compute this node here, to settle who is right; answer with `Arbitrated`.
    Arbitrate {
        /// Of which work.
        work: WorkId,
        /// Which node.
        node: Node,
    },
    /// Throw the result that just came away.
    Discard {
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

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its connection was closed.
    Closed,
    /// The worker said goodbye, with its reason.
    Goodbye(String),
    /// It broke the protocol; how.
    Misbehaved(String),
}

/// Why a worker is sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dismissal {
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
        /// What it was asked for.
        work: WorkId,
        /// How long ago.
        asked: Duration,
    },
    /// It was told to fetch samples, and no byte has moved for so long.
    Stalled {
        /// For how long.
        stalled: Duration,
    },
    /// It has sent answers that nobody asked for.
    Unasked {
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
    /// Nobody asked this worker for it.
    Unasked,
}

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
    /// A worker was told to stop, and gets nothing new.
    Draining {
        /// Who.
        worker: WorkerId,
        /// For people.
        name: String,
        /// Why, as it says.
        reason: String,
    },
    /// What workers owed is asked of others, too.
    Reassigned {
        /// Of which work.
        work: WorkId,
        /// Who owed it: one that left, or that is slow.
        owed_by: WorkerId,
        /// Whether it may still answer.
        slow: bool,
        /// Who is asked now.
        to: Vec<(WorkerId, Vec<Node>)>,
    },
    /// A worker is put out of the job.
    PutOut {
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
    Placed {
        /// Of which job.
        job: JobId,
        /// Who computes what; spares have nothing.
        placement: Placement,
        /// The work from which on it holds.
        from: WorkId,
    },
}
