//! What a cluster needs to start, and the defaults of what an operator decides; the control machine's own settings are
//! [`ControlConfig`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control::{ControlConfig, MAX_WORKERS};
use millefeuille_program::process;
use millefeuille_proto::shared::SharedMemory;

use crate::admission::Admission;
use crate::runs::RunDir;

/// What an operator decides about a cluster. The command line takes its defaults from [`ClusterSettings::DEFAULT`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// How many workers a job waits for.
    pub min_workers: u16,
    /// Interval of a worker's heartbeats.
    pub heartbeat_interval: Duration,
    /// A worker is disconnected after this long without a message.
    pub heartbeat_deadline: Duration,
    /// Interval of checkpoints within an epoch; `None`: no checkpoints within an epoch.
    pub checkpoint_interval: Option<Duration>,
    /// The share of nodes that two workers compute, to compare their results: from 0 to 1.
    pub audit_rate: f64,
}

impl ClusterSettings {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        min_workers: 1,
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_deadline: Duration::from_secs(5),
        checkpoint_interval: Some(Duration::from_secs(10)),
        audit_rate: 0.0,
    };
}

/// Everything that a cluster needs to start.
#[derive(Debug)]
pub struct ClusterConfig {
    /// The control machine's settings.
    pub control: ControlConfig,
    /// Interval of a worker's heartbeats.
    pub heartbeat_interval: Duration,
    /// The directory in which run directories are made.
    pub runs_dir: PathBuf,
    /// Whether existing unfinished and queued runs continue.
    pub resumes: bool,
    /// The client key of the job that this cluster must serve, if any.
    pub job_key: Option<String>,
    /// The directory of the first job, if it is given.
    pub first_run: Option<RunDir>,
    /// The token that workers must present for admission.
    pub token: Option<String>,
    /// Who may connect.
    pub admission: Admission,
    /// Maximum number of queued jobs.
    pub max_queued: usize,
    /// The command by which a worker joins; `None` if the cluster starts its workers itself.
    pub join: Option<String>,
    /// Memory shared with the cluster's own worker processes.
    pub shared_memory: Option<Arc<SharedMemory>>,
}

impl ClusterConfig {
    /// A cluster with these settings that makes runs in `runs_dir`, waits for workers without limit, and admits
    /// every peer.
    pub fn new(runs_dir: PathBuf, settings: &ClusterSettings) -> Self {
        Self {
            control: control_config(settings),
            heartbeat_interval: settings.heartbeat_interval,
            runs_dir,
            resumes: false,
            job_key: None,
            first_run: None,
            token: None,
            admission: Admission::default(),
            max_queued: 1024,
            join: None,
            shared_memory: None,
        }
    }
}

fn control_config(settings: &ClusterSettings) -> ControlConfig {
    ControlConfig {
        incarnation: u64::from_le_bytes(incarnation()),
        min_workers: settings.min_workers.into(),
        expected_workers: settings.min_workers.into(),
        settle: Duration::from_secs(2),
        wait_workers: None,
        max_workers: MAX_WORKERS.into(),
        heartbeat_deadline: settings.heartbeat_deadline,
        stall_deadline: Duration::from_secs(60),
        checkpoint_interval: settings.checkpoint_interval,
        audit_rate: settings.audit_rate,
    }
}

/// A random number that identifies this start of the coordinator.
fn incarnation() -> [u8; 8] {
    let hex = process::random_hex();
    let mut bytes = [0; 8];
    hex::decode_to_slice(&hex[..16], &mut bytes).expect("sixteen hex digits are eight bytes");
    bytes
}
