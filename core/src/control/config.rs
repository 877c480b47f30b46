//! The settings of a cluster.

use std::time::Duration;

/// The settings of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlConfig {
    /// Which life of the coordinator this is.
    pub incarnation: u64,
    /// A job waits until so many workers can compute it.
    pub min_workers: usize,
    /// A job that begins waits a moment for so many.
    pub expected_workers: usize,
    /// How long that moment is.
    pub settle: Duration,
    /// How long a job waits for `min_workers`; without limit if none.
    pub wait_workers: Option<Duration>,
    /// No more workers are admitted.
    pub max_workers: usize,
    /// A worker from which nothing came for so long is given up.
    pub heartbeat_deadline: Duration,
    /// A worker that fetches samples, and has received nothing for so long, is given up.
    pub stall_deadline: Duration,
    /// How often the state is copied in the middle of an epoch; never if none.
    pub checkpoint_interval: Option<Duration>,
    /// The share of nodes that two compute, to compare their answers: from 0 to 1.
    pub audit_rate: f64,
}
