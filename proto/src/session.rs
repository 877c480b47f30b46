//! What a worker and its coordinator say to each other in a session, in the program's own types.
//!
//! Both sides think in these; [`convert`](crate::convert) makes wire types of them at the connection, and checks what comes
//! from there. Two things it cannot check, because only the running job says so: whether a node is one of the job's tree
//! ([`in_tree`](crate::convert::in_tree)), and whether bulk data has the model's size.

use std::time::Duration;

use bytes::Bytes;
use millefeuille_core::control::{Hello, JobId, WorkId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::Figures;
use millefeuille_core::learn::tree::Node;

/// Who a worker is: the first message of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Introduction {
    /// Version of the protocol that it speaks.
    pub protocol_version: u32,
    /// What the control machine must know of it.
    pub hello: Hello,
    /// Version of its program, for people.
    pub build: String,
    /// Its processor's model name, for people.
    pub cpu: String,
    /// The token of a cluster that asks for one.
    pub token: String,
    /// The number of the memory that it shares with the coordinator that has started it; 0 for none.
    pub shared_memory: u64,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// Who it is.
    Introduction(Box<Introduction>),
    /// It has computed the job's own shapes.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Hex SHA-256 of the results.
        fingerprint: String,
        /// Whether it has mapped the memory that it shares with its coordinator.
        shares_memory: bool,
    },
    /// It holds a shard's samples.
    ShardHeld {
        /// The job.
        job: JobId,
        /// The `Hold` that this answers.
        generation: u64,
        /// The shard.
        shard: Shard,
    },
    /// The sum over a node's pieces. Its gradient follows in chunks.
    Result(Box<WorkResult>),
    /// A part of the bulk data that the last result announced.
    Chunk(Bytes),
    /// It leaves.
    Goodbye {
        /// For people.
        reason: String,
    },
    /// It was told to stop: it finishes what it was asked for, and takes nothing new.
    Drain {
        /// For people.
        reason: String,
    },
}

/// The sum over the pieces of one node, all but its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkResult {
    /// The work that it is part of.
    pub work: WorkId,
    /// The node.
    pub node: Node,
    /// Losses and counts.
    pub figures: Figures,
    /// Of each piece, in shard order: SHA-256 over the indices of its samples.
    pub sample_digests: Vec<[u8; 32]>,
    /// Bytes of gradient that follow in chunks; 0 in evaluation.
    pub gradient_bytes: u64,
    /// The slot of shared memory that has the gradient; then no chunk follows.
    pub gradient_slot: Option<u32>,
    /// Time that slots spent on it.
    pub busy: Duration,
}

/// What a coordinator says to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// It is admitted.
    Welcome(Welcome),
    /// The job needs another BLAS kernel: start again with it, and come back.
    UseKernel {
        /// An OpenBLAS core name, or `environment` for what the worker's own variables select.
        kernel: String,
    },
    /// A job begins, or the worker has joined while it runs.
    JobStart {
        /// The job.
        job: JobId,
        /// The name of its run, for people.
        run_id: String,
        /// What a worker must know of it.
        spec: Box<Spec>,
    },
    /// All the shards that the worker shall hold.
    Hold(Hold),
    /// Compute these nodes.
    Work(Work),
    /// A part of the parameters that the last work announced.
    Chunk(Bytes),
    /// No more work of this job will come.
    JobEnd {
        /// The job.
        job: JobId,
    },
    /// The end of the session, as intended.
    Goodbye {
        /// For people.
        reason: String,
    },
    /// The worker's answers were wrong: it has no part in this job any more, and ends.
    Evict {
        /// For people.
        reason: String,
    },
}

/// A worker's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its number in this cluster.
    pub worker: WorkerId,
    /// Which life of the coordinator this is.
    pub incarnation: u64,
    /// How often it is to say that it is alive.
    pub heartbeat_interval: Duration,
    /// Silence after which it is given up.
    pub heartbeat_deadline: Duration,
}

/// All the shards that a worker shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The job.
    pub job: JobId,
    /// Counts what this worker was told for this job; its answers repeat it.
    pub generation: u64,
    /// The shards, the most urgent first.
    pub shards: Vec<ShardToHold>,
    /// Whether it computes none of them for now.
    pub standby: bool,
}

/// A shard as the coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardToHold {
    /// Which it is.
    pub shard: Shard,
    /// Samples in it.
    pub samples: u32,
    /// Bytes of these samples.
    pub bytes: u64,
    /// Hex SHA-256 of these bytes.
    pub sha256: String,
}

/// Nodes to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The work that they are part of.
    pub id: WorkId,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Where the parameters are.
    pub parameters: Parameters,
}

/// Where the parameters of some work are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// The worker has them.
    Known,
    /// They follow in chunks, so many bytes.
    Follow(u64),
    /// In this slot of shared memory.
    InSlot(u32),
}

/// That a coordinator ends a session, and how the worker is to take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it means for the worker.
    pub cause: EndCause,
    /// For people.
    pub reason: String,
}

/// What the end of a session means for the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It may come back.
    Lost,
    /// There is no room now; it may try again.
    Full,
    /// It cannot take part: trying again would not help.
    Unfit,
    /// It broke the protocol.
    Misbehaved,
}

impl Ended {
    /// The end of a session for this cause.
    pub fn new(cause: EndCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// The worker broke the protocol; how.
    pub fn misbehaved(reason: impl Into<String>) -> Self {
        Self::new(EndCause::Misbehaved, reason)
    }
}
