//! The settings of a cluster, with their defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control;
use millefeuille_program::process;
use millefeuille_proto::shared::SharedMemory;

use crate::admission::Admission;
use crate::runs::RunDir;

/// The settings of a cluster.
#[derive(Debug)]
pub struct ClusterConfig {
    /// The control machine's settings.
    pub control: control::ControlConfig,
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
    /// Memory shared with the cluster's own worker processes.
    pub shared_memory: Option<Arc<SharedMemory>>,
}

impl ClusterConfig {
    /// The default settings, with runs made in `runs_dir`.
    pub fn new(runs_dir: PathBuf) -> Self {
        let control = control::ControlConfig {
            incarnation: u64::from_le_bytes(incarnation()),
            min_workers: 1,
            expected_workers: 1,
            settle: Duration::from_secs(2),
            wait_workers: None,
            max_workers: 1024,
            heartbeat_deadline: Duration::from_secs(5),
            stall_deadline: Duration::from_secs(60),
            checkpoint_interval: Some(Duration::from_secs(10)),
            audit_rate: 0.0,
        };
        let heartbeat_interval = Duration::from_secs(1);
        Self {
            control,
            heartbeat_interval,
            runs_dir,
            resumes: false,
            job_key: None,
            first_run: None,
            token: None,
            admission: Admission::default(),
            max_queued: 1024,
            shared_memory: None,
        }
    }
}

/// A random number that identifies this start of the coordinator.
fn incarnation() -> [u8; 8] {
    let hex = process::random_hex();
    let mut bytes = [0; 8];
    hex::decode_to_slice(&hex[..16], &mut bytes).expect("sixteen hex digits are eight bytes");
    bytes
}
