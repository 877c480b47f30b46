//! What the driver knows of workers and jobs, beside what the control machine knows of them.

use std::cell::OnceCell;
use std::sync::Arc;

use millefeuille_core::job::Job;
use millefeuille_core::view::{EpochRow, JobReport, Prediction};
use millefeuille_proto::shared::Borrower;
use tokio::sync::{mpsc, oneshot};

use super::messages::{SessionOutput, Traffic};
use crate::runs::{Ending, RunDir};

/// A worker's session, as the driver holds it.
pub(super) struct Session {
    pub(super) build: String,
    pub(super) cpu: String,
    /// The number of the memory that it shares with this process; 0 for none.
    pub(super) shared_memory: u64,
    /// That memory, once the worker has mapped it for the running job.
    pub(super) borrower: Option<Arc<Borrower>>,
    pub(super) outbox: mpsc::Sender<SessionOutput>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) _reading: oneshot::Sender<()>,
}

/// A job, from its submission to the cluster's end.
pub(super) struct JobRecord {
    pub(super) id: String,
    pub(super) job: Job,
    pub(super) client_key: String,
    /// Whether an earlier life of the coordinator has left it.
    pub(super) found: bool,
    /// The run directory, until the job has its turn; then the disk thread has it.
    pub(super) run: Option<RunDir>,
    pub(super) run_dir: String,
    /// Shared with those who look at it.
    pub(super) history: Arc<Vec<EpochRow>>,
    pub(super) steps_per_epoch: u32,
    pub(super) shown: Vec<Prediction>,
    /// The newest checkpoint of this life: the optimizer steps before it.
    pub(super) checkpoint: Option<u64>,
    /// How it ended, in this life of the coordinator or an earlier one.
    pub(super) ended: Option<Ending>,
    /// What readers see of it once it has ended: built when the first looks.
    pub(super) frozen: OnceCell<Arc<JobReport>>,
}
