//! The driver's records of workers and jobs, in addition to the control machine's.

use std::cell::OnceCell;
use std::sync::Arc;

use millefeuille_core::job::Job;
use millefeuille_core::view::{EpochRow, JobReport, Prediction};
use millefeuille_proto::shared::WorkerSlots;
use tokio::sync::{mpsc, oneshot};

use super::messages::{SessionOutput, Traffic};
use crate::runs::{Ending, RunDir};

/// The driver's side of a worker's session.
pub(super) struct Session {
    pub(super) build: String,
    pub(super) cpu: String,
    /// Number of the memory shared with the worker; 0 if there is none.
    pub(super) shared_memory: u64,
    /// That memory, once the worker has mapped it for the running job.
    pub(super) worker_slots: Option<Arc<WorkerSlots>>,
    pub(super) outbox: mpsc::Sender<SessionOutput>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) _reading: oneshot::Sender<()>,
}

/// A job, from its submission until the cluster ends.
pub(super) struct JobRecord {
    pub(super) id: String,
    pub(super) job: Job,
    pub(super) client_key: String,
    /// Whether the job was found when the coordinator started.
    pub(super) found: bool,
    /// The run directory, until the job starts; then the disk thread owns it.
    pub(super) run: Option<RunDir>,
    pub(super) run_dir: String,
    /// The history, shared with readers.
    pub(super) history: Arc<Vec<EpochRow>>,
    pub(super) steps_per_epoch: u32,
    /// When it began to train, in seconds since 1970; `None` before.
    pub(super) started: Option<f64>,
    /// The mean loss of a constant prediction; `None` until the data is read.
    pub(super) constant_loss: Option<f64>,
    pub(super) shown: Vec<Prediction>,
    /// Optimizer steps before the newest checkpoint written since the coordinator started.
    pub(super) checkpoint: Option<u64>,
    /// How it ended, before or after the coordinator started.
    pub(super) ended: Option<Ending>,
    /// The report of an ended job, built when it is first read.
    pub(super) frozen: OnceCell<Arc<JobReport>>,
}
