//! The driver's records of workers and jobs, in addition to the control machine's.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use millefeuille_core::job::Job;
use millefeuille_core::learn::stopping::Stopped;
use millefeuille_core::view::{EpochRow, Prediction};
use millefeuille_proto::shared::WorkerSlots;
use tokio::sync::{mpsc, oneshot};

use super::messages::{SessionOutput, Traffic};
use super::snapshot::Listed;
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

/// A job, from its submission on; jobs that have ended are forgotten when there are too many.
pub(super) struct JobRecord {
    pub(super) id: String,
    /// The name in the job file.
    pub(super) name: String,
    /// Epochs in all.
    pub(super) epochs: u32,
    /// The job, until its data is read: nobody asks for it afterwards.
    pub(super) job: Option<Box<Job>>,
    pub(super) client_key: String,
    /// Whether the job was found when the coordinator started.
    pub(super) found: bool,
    /// The run directory, until the job starts; then the disk thread owns it.
    pub(super) run: Option<RunDir>,
    /// The run directory's path, which need not be UTF-8.
    pub(super) run_dir: PathBuf,
    /// Epochs that have ended, whose rows are in the run directory.
    pub(super) epochs_ended: u64,
    /// The row of the last of them.
    pub(super) last: Option<EpochRow>,
    pub(super) steps_per_epoch: u32,
    /// How long all of them took.
    pub(super) seconds: f64,
    /// When it began to train, in seconds since 1970; `None` before.
    pub(super) started: Option<f64>,
    /// The mean loss of a constant prediction; `None` until the data is read.
    pub(super) constant_loss: Option<f64>,
    /// Why a rule has stopped it.
    pub(super) stopped: Option<Stopped>,
    /// The hash of the trained model, once there is one.
    pub(super) trained_sha256: Option<String>,
    /// The first test images with the model's predictions, of the jobs that ended last.
    pub(super) shown: Vec<Prediction>,
    /// Optimizer steps before the newest checkpoint written since the coordinator started.
    pub(super) checkpoint: Option<u64>,
    /// How it ended, before or after the coordinator started.
    pub(super) ended: Option<Ending>,
    /// What is listed of an ended job, built when it is first read.
    pub(super) frozen: OnceCell<Arc<Listed>>,
}

impl JobRecord {
    /// Whether it is known how many epochs have ended. Of a run that is to be resumed, its checkpoint tells, once it is read.
    pub(super) fn knows_its_epochs(&self) -> bool {
        !self.found || self.ended.is_some() || self.steps_per_epoch > 0
    }

    /// Sets the epochs that have ended.
    pub(super) fn set_history(&mut self, rows: &[EpochRow]) {
        (self.epochs_ended, self.last) = (rows.len() as u64, rows.last().cloned());
        self.seconds = rows.iter().map(|row| row.seconds).sum();
    }

    /// Adds an epoch that has ended.
    pub(super) fn add_epoch(&mut self, row: EpochRow) {
        self.epochs_ended = row.epoch;
        self.seconds += row.seconds;
        self.last = Some(row);
    }

    /// A job that has been submitted.
    pub(super) fn new(id: String, job: Job, run_dir: PathBuf, client_key: String) -> Self {
        Self {
            id,
            name: job.name.clone(),
            epochs: job.fit.epochs,
            job: Some(Box::new(job)),
            client_key,
            found: false,
            run: None,
            run_dir,
            epochs_ended: 0,
            last: None,
            steps_per_epoch: 0,
            seconds: 0.0,
            started: None,
            constant_loss: None,
            stopped: None,
            trained_sha256: None,
            shown: Vec::new(),
            checkpoint: None,
            ended: None,
            frozen: OnceCell::new(),
        }
    }
}
