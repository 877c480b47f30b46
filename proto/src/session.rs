//! The messages between a worker and its coordinator in a session, as the program's own types.
//!
//! Both sides use these types; [`convert`](crate::convert) converts them to wire types, and validates what comes from
//! the wire. It cannot check two things, which depend on the running job: whether a node is in the job's tree
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
    /// Version of the worker's protocol.
    pub protocol_version: u32,
    /// The worker's data for the control machine.
    pub hello: Hello,
    /// Version of its program, for people.
    pub build: String,
    /// Its processor's model name, for people.
    pub cpu: String,
    /// The token, for a cluster that requires one.
    pub token: String,
    /// The number of the memory shared with the coordinator, if the coordinator started this worker; 0 otherwise.
    pub shared_memory: u64,
}

/// A message from a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// The worker introduces itself.
    Introduction(Box<Introduction>),
    /// The worker has computed the job's own shapes.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Hex SHA-256 of the results.
        fingerprint: String,
        /// Whether the worker has mapped the memory shared with its coordinator.
        shares_memory: bool,
    },
    /// The worker holds a shard's samples.
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
    /// The worker leaves.
    Goodbye {
        /// For people.
        reason: String,
    },
    /// The worker drains: it finishes its assigned work, and accepts no more.
    Drain {
        /// For people.
        reason: String,
    },
}

/// The sum over the pieces of one node, without its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkResult {
    /// The work that it is part of.
    pub work: WorkId,
    /// The node.
    pub node: Node,
    /// Losses and counts.
    pub figures: Figures,
    /// For each piece, in shard order: SHA-256 over the indices of its samples.
    pub sample_digests: Vec<[u8; 32]>,
    /// Bytes of gradient that follow in chunks; 0 in evaluation.
    pub gradient_bytes: u64,
    /// The slot of shared memory that holds the gradient. If set, no chunks follow.
    pub gradient_slot: Option<u32>,
    /// Bytes of the figures' counts and sums that follow in chunks, if they are too many for the message; they are not in
    /// the figures then. 0 in training.
    pub tally_bytes: u64,
    /// Time that slots spent on this node.
    pub busy: Duration,
}

/// A message from a coordinator to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// The worker is admitted.
    Welcome(Welcome),
    /// The job needs another BLAS kernel: the worker must restart with it and reconnect.
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
        /// The job's spec.
        spec: Box<Spec>,
    },
    /// The worker must hold exactly these shards.
    Hold(Hold),
    /// The worker must compute these nodes.
    Work(Work),
    /// A part of the parameters that the last work announced.
    Chunk(Bytes),
    /// The job has ended; no more of its work will come.
    JobEnd {
        /// The job.
        job: JobId,
    },
    /// The session ends normally.
    Goodbye {
        /// For people.
        reason: String,
    },
    /// The worker's results were wrong: it is evicted from the job, and ends.
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
    /// Identifies this run of the coordinator; it changes with every restart.
    pub incarnation: u64,
    /// How often the worker must send a heartbeat.
    pub heartbeat_interval: Duration,
    /// Silence after which the coordinator disconnects the worker.
    pub heartbeat_deadline: Duration,
}

/// All the shards that a worker must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The job.
    pub job: JobId,
    /// Counts the `Hold` messages to this worker for this job; its replies repeat it.
    pub generation: u64,
    /// The shards, the most urgent first.
    pub shards: Vec<ShardToHold>,
    /// Whether the worker is on standby, and computes none of them for now.
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
    /// The worker has them already.
    Known,
    /// They follow in chunks; the number of bytes in total.
    Follow(u64),
    /// They are in this slot of shared memory.
    InSlot(u32),
}

/// The reason why a coordinator ends a session, and its consequence for the worker.
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
    /// The worker may reconnect.
    Lost,
    /// The cluster is full; the worker may try again.
    Full,
    /// The worker cannot take part: trying again would not help.
    Unfit,
    /// The worker broke the protocol.
    Misbehaved,
}

impl Ended {
    /// The end of a session for this cause.
    pub fn new(cause: EndCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// The end of a session because the worker broke the protocol, as `reason` describes.
    pub fn misbehaved(reason: impl Into<String>) -> Self {
        Self::new(EndCause::Misbehaved, reason)
    }
}
