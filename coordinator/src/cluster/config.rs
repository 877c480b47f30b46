//! The settings of a cluster, with their defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control;
use millefeuille_program::process;
use millefeuille_proto::shared::Host;

use crate::admission::Admission;
use crate::runs::RunDir;

/// The settings of a cluster.
#[derive(Debug)]
pub struct ClusterConfig {
    /// The control machine's settings.
    pub control: control::ControlConfig,
    /// How often a worker says that it is alive.
    pub heartbeat_interval: Duration,
    /// Where runs are made: a run is a directory in it.
    pub runs_dir: PathBuf,
    /// Whether unfinished and queued runs that are there continue.
    pub resumes: bool,
    /// The client's key of the job that this cluster is to serve, if there is one.
    pub job_key: Option<String>,
    /// The directory of the first job, if it is fixed.
    pub first_run: Option<RunDir>,
    /// What workers must know to be admitted.
    pub token: Option<String>,
    /// Who may connect at all.
    pub admission: Admission,
    /// Jobs that may wait in the queue.
    pub max_queued: usize,
    /// The memory that worker processes of its own share with it.
    pub shared_memory: Option<Arc<Host>>,
}

impl ClusterConfig {
    /// A cluster whose runs are made in `runs_dir`.
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

/// A random number for this life of the coordinator.
fn incarnation() -> [u8; 8] {
    let hex = process::random_hex();
    let mut bytes = [0; 8];
    hex::decode_to_slice(&hex[..16], &mut bytes).expect("sixteen hex digits are eight bytes");
    bytes
}
