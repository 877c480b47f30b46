//! Settings of the control machine: how many workers a job needs, and how long it waits for what.

use std::time::Duration;

/// The maximum number of workers of a cluster.
pub const MAX_WORKERS: u16 = 1024;

/// The settings of the control machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlConfig {
    /// The number of this start of the coordinator.
    pub incarnation: u64,
    /// A job waits until this many workers can compute it.
    pub min_workers: usize,
    /// A job that is about to begin waits up to `settle` for this many workers.
    pub expected_workers: usize,
    /// How long a job waits for `expected_workers`.
    pub settle: Duration,
    /// How long a job waits for `min_workers`; `None`: without limit.
    pub wait_workers: Option<Duration>,
    /// The maximum number of workers.
    pub max_workers: usize,
    /// A worker is disconnected after this long without a message.
    pub heartbeat_deadline: Duration,
    /// A worker that fetches samples is disconnected after this long without a byte moved.
    pub stall_deadline: Duration,
    /// The time between checkpoints within an epoch; `None`: no checkpoints within an epoch.
    pub checkpoint_interval: Option<Duration>,
    /// The share of nodes that two workers compute, to compare their results: from 0 to 1.
    pub audit_rate: f64,
}
