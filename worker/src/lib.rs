//! A worker: joins a coordinator, holds samples, computes gradients.
//!
//! One task owns the session ([`session`]); pieces are computed by threads of their own ([`compute`]), one a slot.
//! Sessions come and go ([`connect`], over a [`link`]); slots, samples and buffers stay for as long as the process.
//! A worker keeps nothing that matters: parameters arrive with each step, sums leave with each result, samples can
//! be fetched again. So it may vanish at any instruction; to start again, it needs only an address.
//!
//! What it has in common with the coordinator as a program is in [`millefeuille_program`].

pub mod cli;
mod compute;
mod condition;
mod connect;
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

use millefeuille_proto::shared::Guest;

pub use condition::Condition;
pub use connect::run;

/// The settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The coordinator's address, `host:port`.
    pub coordinator: String,
    /// The directory of its certificate; without one, nothing is encrypted.
    pub tls: Option<PathBuf>,
    /// Pieces computed at once.
    pub slots: u32,
    /// The token of a cluster that asks for one.
    pub token: String,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long to look for a coordinator before giving up.
    pub join_timeout: Duration,
    /// Bytes of samples that it may hold.
    pub cache_bytes: u64,
    /// Time limit for draining.
    pub drain_timeout: Duration,
    /// The memory that it shares with the coordinator that has started it.
    pub shared_memory: Option<Arc<Guest>>,
}

/// Why a worker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped.
    Stopped,
    /// The coordinator ended the session, with its reason.
    SessionEnded(String),
    /// The job needs another kernel: start again with it.
    UseKernel(String),
    /// The coordinator could not be reached, or rejected it.
    Refused(String),
    /// It was evicted, with the reason.
    Evicted(String),
    /// It cannot work on this machine.
    Failed(String),
}
