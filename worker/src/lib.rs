//! A worker: joins a coordinator, holds samples, computes gradients.
//!
//! One task owns the session ([`session`]); threads compute the pieces, one thread per slot ([`compute`]). Sessions
//! come and go ([`connect`], over a [`link`]); slots, samples and buffers stay as long as the process. A worker
//! stores nothing that matters: parameters arrive with each step, sums leave with each result, and samples can be
//! fetched again. So it may vanish at any instruction, and needs only an address to start again.
//!
//! Code shared with the coordinator's program is in [`millefeuille_program`].

pub mod cli;
mod compute;
mod condition;
mod connect;
mod demands;
mod failpoints;
mod heartbeat;
mod job;
mod link;
mod outbox;
mod session;
mod shards;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millefeuille_proto::shared::InheritedMemory;

pub use condition::Condition;
pub use connect::run;

/// The settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The coordinator's address, `host:port`.
    pub coordinator: String,
    /// The directory of the worker's certificate. Without one, connections are not encrypted.
    pub tls: Option<PathBuf>,
    /// Pieces computed at once.
    pub slots: u32,
    /// The token, for a cluster that requires one.
    pub token: String,
    /// Time limit for one attempt to connect.
    pub connect_timeout: Duration,
    /// How long the worker looks for a coordinator before it gives up.
    pub join_timeout: Duration,
    /// Bytes of memory that the work of a session may take.
    pub memory: u64,
    /// Bytes of samples that the worker keeps beyond those that it has to hold.
    pub cache_bytes: u64,
    /// Time limit for draining.
    pub drain_timeout: Duration,
    /// The memory shared with the coordinator, if the coordinator started this worker.
    pub shared_memory: Option<Arc<InheritedMemory>>,
}

/// Why a worker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The worker was stopped.
    Stopped,
    /// The coordinator ended the session, with its reason.
    SessionEnded(String),
    /// The job needs another kernel: start again with it.
    UseKernel {
        /// The kernel.
        kernel: String,
        /// Restarts in a row, this one included.
        restarts: u32,
    },
    /// The job needs more memory than the worker may use.
    TooLarge(String),
    /// The coordinator could not be reached, or rejected the worker.
    Refused(String),
    /// The coordinator evicted the worker, for this reason.
    Evicted(String),
    /// The worker cannot run on this machine.
    Failed(String),
}
