//! The thread that writes: no step waits for the disk.
//!
//! The driver sends orders, which are carried out in sequence. The thread reports each outcome, success or failure,
//! to whoever started it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{Failure, JobId, Start};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::FailureKind;
use millefeuille_core::job::Job;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::stopping::Stopped;
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::{EpochRow, Prediction};
use millefeuille_program::process::exit;
use tracing::warn;

use crate::report;
use crate::runs::checkpoint::Partial;
use crate::runs::history::History;
use crate::runs::receipt::{FORMAT, Participation, Receipt, weights_sha256};
use crate::runs::{Checkpoint, Ending, RunDir, RunState, ledger, model, names};

/// An order to the disk thread.
pub(super) enum WriteCommand {
    /// Claim a run directory for a submission.
    Claim(Box<RunClaim>),
    /// Give back the directory of a job that never ran. A run that was found at the start (`found`) stays in its
    /// directory, and so does every run of a cluster that finds its runs again (`lasting`).
    GiveBack { job: JobId, run: RunDir, found: bool, lasting: bool, ending: Ending },
    /// Begin writing the run from this point.
    Begin { job: JobId, run: RunDir, content: Arc<Content>, history: History },
    /// An event for `events.jsonl`, with its failure if it is one.
    Event { kind: &'static str, text: String, failure: Option<Failure> },
    /// The state between two steps.
    Checkpoint(Box<CheckpointState>),
    /// Add a history row, whose hash is computed here, and the ledger's lines. `checkpoint` says whether to write the
    /// snapshot, `best` whether its parameters are the best so far.
    Epoch { row: EpochRow, ledger: String, snapshot: Box<CheckpointState>, checkpoint: bool, best: bool },
    /// The job's result: its trained model. `parameters` are those after the last epoch; the model is that of the epoch
    /// `restored` if there is one.
    Save { parameters: Bytes, suspects: Participation, stopped: Option<Stopped>, restored: Option<u64> },
    /// The run has ended: give its directory back.
    End { ending: Ending },
}

/// A submission.
pub(super) struct RunClaim {
    pub(super) number: JobId,
    pub(super) job: Job,
    pub(super) client_key: String,
    pub(super) runs_dir: PathBuf,
    /// Its run directory, if that is given.
    pub(super) run: Option<RunDir>,
    /// Run directory names used by other jobs.
    pub(super) taken: BTreeSet<String>,
}

/// A submission that is on disk, or could not be written.
#[derive(Debug)]
pub struct Claimed {
    pub(super) number: JobId,
    pub(super) job: Job,
    pub(super) client_key: String,
    pub(super) run: Result<RunDir, Failure>,
}

impl RunClaim {
    fn claim(self) -> Claimed {
        let Self { number, job, client_key, runs_dir, run, taken } = self;
        let run = run.map_or_else(|| RunDir::claim_next(&runs_dir, &job.name, |id| taken.contains(id)), Ok);
        let run = run.and_then(|mut run| {
            // A resumed run was submitted before the coordinator restarted.
            if run.record().state == RunState::Queued {
                run.submit(&job, number.0, &client_key)?;
            }
            Ok(run)
        });
        Claimed { number, job, client_key, run }
    }
}

/// The state of a job between two steps, without what the disk thread already has.
pub(super) struct CheckpointState {
    pub(super) from: Start,
    pub(super) parameters: Bytes,
    pub(super) optimizer: OptimizerState,
    pub(super) partial: Partial,
    pub(super) ledger: ledger::LedgerState,
    pub(super) participation: Participation,
    pub(super) suspects: Participation,
}

/// What the disk thread needs to write a run, known when the run begins.
pub(super) struct Content {
    pub(super) job: Job,
    pub(super) job_sha256: String,
    pub(super) workload: Arc<Workload>,
    pub(super) store: Arc<ShardStore>,
    pub(super) arithmetic: Arithmetic,
    pub(super) shapes_fingerprint: String,
    pub(super) openblas_picks: String,
}

/// The outcome of an order.
#[derive(Debug)]
pub enum Written {
    /// A checkpoint in the middle of an epoch.
    Checkpoint(Checkpointed),
    /// A history row, and its checkpoint, if there is one.
    Epoch(EpochRow, Option<Checkpointed>),
    /// The job's result was saved; these are the first test images with their predictions.
    Result {
        shown: Vec<Prediction>,
        /// The hash of the trained parameters, if they are not those after the last epoch.
        trained_sha256: String,
    },
    /// How the job ended, if that is recorded.
    Ended,
}

/// A report of the disk thread.
#[derive(Debug)]
pub(super) enum DiskReport {
    /// The outcome of a submission.
    Claimed(Box<Claimed>),
    /// The outcome of any other order: what was written for a job, or why writing failed.
    Written { job: JobId, written: Result<Written, Failure> },
}

/// A checkpoint that was written.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointed {
    /// Optimizer steps taken before the checkpoint.
    pub tag: u64,
    /// How long writing took.
    pub took: Duration,
}

/// Maximum number of events queued for the disk. Other orders are bounded by their sender: a few epochs, a
/// checkpoint, the submissions that fit into the queue.
const EVENTS: usize = 4096;

/// Time limit for the last orders when the coordinator stops.
pub(super) const LAST_ORDERS: Duration = Duration::from_secs(60);

/// A handle on the disk thread.
pub(super) struct Disk {
    orders: mpsc::Sender<WriteCommand>,
    events: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread. It calls `say` with every report.
    pub(super) fn start(say: impl Fn(DiskReport) + Send + 'static) -> Self {
        let (orders, queue) = mpsc::channel();
        let events = Arc::new(AtomicUsize::new(0));
        let writer = Writer { say: Box::new(say), run: None, events: Arc::clone(&events) };
        let thread = std::thread::spawn(move || writer.work(&queue));
        Self { orders, events, thread }
    }

    /// Writes an event, or drops it if too many are queued: events are only for people to read.
    pub(super) fn event(&self, kind: &'static str, text: String, failure: Option<Failure>) {
        if self.events.fetch_add(1, Ordering::Relaxed) < EVENTS {
            self.order(WriteCommand::Event { kind, text, failure });
        } else {
            self.events.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until every order is on disk.
    ///
    /// # Errors
    /// If that takes longer than `limit`, as on a disk that hangs.
    pub(super) async fn end(self, limit: Duration) -> Result<(), Failure> {
        drop(self.orders);
        let thread = self.thread;
        match tokio::time::timeout(limit, tokio::task::spawn_blocking(move || thread.join())).await {
            // A panic of the thread has been logged.
            Ok(_) => Ok(()),
            Err(_) => {
                let seconds = limit.as_secs_f64();
                let what = format!(
                    "the disk has not taken what was left to write within {seconds} s: the last checkpoint may be missing \
                     (is the file system of the run directories there?)"
                );
                Err(Failure::new(FailureKind::Data, what))
            }
        }
    }

    pub(super) fn order(&self, order: WriteCommand) {
        // The thread ends only when this sender is gone.
        let _ = self.orders.send(order);
    }
}

struct Writer {
    say: Box<dyn Fn(DiskReport) + Send>,
    run: Option<Run>,
    /// Number of queued events.
    events: Arc<AtomicUsize>,
}

struct Run {
    job: JobId,
    directory: RunDir,
    content: Arc<Content>,
    history: History,
    /// Set by the first failure; nothing is written after it.
    failed: bool,
}

impl Writer {
    fn work(mut self, queue: &mpsc::Receiver<WriteCommand>) {
        while let Ok(order) = queue.recv() {
            if matches!(order, WriteCommand::Event { .. }) {
                self.events.fetch_sub(1, Ordering::Relaxed);
            }
            match order {
                WriteCommand::Claim(claim) => self.say(DiskReport::Claimed(Box::new(claim.claim()))),
                WriteCommand::GiveBack { job, run, found, lasting, ending } => {
                    give_back(run, found, lasting, ending);
                    self.say(DiskReport::Written { job, written: Ok(Written::Ended) });
                }
                WriteCommand::Begin { job, run, content, history } => {
                    self.run = Some(Run { job, directory: run, content, history, failed: false });
                }
                WriteCommand::End { ending } => {
                    if let Some(Run { job, directory, failed, .. }) = self.run.take() {
                        // If the disk failed, the run stays unfinished and can be resumed.
                        if !failed {
                            end(directory, ending);
                        }
                        self.say(DiskReport::Written { job, written: Ok(Written::Ended) });
                    }
                }
                order => {
                    if let Some(mut run) = self.run.take() {
                        if !run.failed {
                            let written = run.write(order);
                            self.report(&mut run, written);
                        }
                        self.run = Some(run);
                    }
                }
            }
        }
    }

    fn report(&self, run: &mut Run, written: Result<Option<Written>, Failure>) {
        run.failed = written.is_err();
        if let Some(written) = written.transpose() {
            self.say(DiskReport::Written { job: run.job, written });
        }
    }

    fn say(&self, report: DiskReport) {
        (self.say)(report);
    }
}

/// Records how a run ended.
fn end(mut run: RunDir, ending: Ending) {
    let noted = matches!(run.record().state, RunState::Ended { .. });
    if noted {
        return;
    }
    if let Err(error) = run.end(ending) {
        warn!("the run's end could not be written: {error}");
    }
}

/// Gives back the directory of a job that never ran. A run that has begun before and cannot be resumed stays unfinished:
/// the data may be restored, or a newer version of the program may resume it. A lasting cluster keeps how the job
/// ended, and lists it after a restart.
fn give_back(run: RunDir, found: bool, lasting: bool, ending: Ending) {
    let (cancelled, begun) = (ending.exit_code == exit::INTERRUPTED, run.record().state != RunState::Queued);
    let stays = begun || found;
    if cancelled && (begun || lasting) || lasting && !stays {
        return end(run, ending);
    }
    if !stays && let Err(error) = run.withdraw() {
        warn!("a job that never ran is left in the queue on disk: {error}");
    }
}

impl Run {
    fn write(&mut self, order: WriteCommand) -> Result<Option<Written>, Failure> {
        match order {
            WriteCommand::Event { kind, failure: Some(failure), .. } => {
                self.directory.event_of_failure(kind, &failure).map(|()| None)
            }
            WriteCommand::Event { kind, text, failure: None } => {
                self.directory.event(kind, &text).map(|()| None)
            }
            WriteCommand::Checkpoint(snapshot) => {
                self.checkpoint(*snapshot).map(|written| Some(Written::Checkpoint(written)))
            }
            WriteCommand::Epoch { mut row, ledger, snapshot, checkpoint, best } => {
                row.weights_sha256 = weights_sha256(&snapshot.parameters);
                if best {
                    // Before the row that calls it the best. After a crash it may be ahead of the history, until the
                    // epoch is computed again: with the same bits.
                    self.directory.write(names::BEST, &self.encoded(&snapshot.parameters))?;
                }
                self.directory.append_history(&row)?;
                self.directory.append_ledger(&ledger)?;
                self.history.push(row.clone());
                let checkpoint = checkpoint.then(|| self.checkpoint(*snapshot)).transpose()?;
                Ok(Some(Written::Epoch(row, checkpoint)))
            }
            WriteCommand::Save { parameters, suspects, stopped, restored } => {
                let parameters = restored.map_or(Ok(parameters), |epoch| self.best(epoch))?;
                self.save(&parameters, &suspects, stopped, restored).map(Some)
            }
            WriteCommand::Claim(_)
            | WriteCommand::GiveBack { .. }
            | WriteCommand::Begin { .. }
            | WriteCommand::End { .. } => Ok(None),
        }
    }

    fn checkpoint(&self, snapshot: CheckpointState) -> Result<Checkpointed, Failure> {
        let begun = Instant::now();
        let CheckpointState { from, parameters, optimizer, partial, ledger, participation, suspects } =
            snapshot;
        let checkpoint = Checkpoint {
            job_sha256: self.content.job_sha256.clone(),
            arithmetic: self.content.arithmetic.clone(),
            shapes_fingerprint: self.content.shapes_fingerprint.clone(),
            position: from.position,
            parameter_tag: from.parameter_tag,
            parameters,
            optimizer,
            partial,
            history: self.history.state(),
            ledger,
            participation,
            suspects,
        };
        self.directory.write_checkpoint(&checkpoint, self.content.workload.model())?;
        Ok(Checkpointed { tag: from.parameter_tag, took: begun.elapsed() })
    }

    fn encoded(&self, parameters: &Bytes) -> Vec<u8> {
        let Content { workload, store, .. } = &*self.content;
        let encoded = model::encode(bytemuck::cast_slice(parameters), workload.model(), store.inputs());
        encoded.unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// The parameters after the best epoch, from 1, as `best.safetensors` has them.
    fn best(&self, epoch: u64) -> Result<Bytes, Failure> {
        let row = self.history.rows().iter().find(|row| row.epoch == epoch);
        let wanted = row.map(|row| row.weights_sha256.as_str()).unwrap_or_default();
        self.directory.best(self.content.workload.model(), wanted)
    }

    /// Writes the job's result.
    fn save(
        &mut self,
        parameters: &Bytes,
        suspects: &Participation,
        stopped: Option<Stopped>,
        restored: Option<u64>,
    ) -> Result<Written, Failure> {
        let Content { job, workload, store, .. } = &*self.content;
        let values: &[f32] = bytemuck::cast_slice(parameters);
        self.directory.write(names::MODEL, &self.encoded(parameters))?;
        let shown = report::first_test_images(store, workload, values);
        for (name, svg) in report::pictures(self.history.rows(), store, &shown) {
            self.directory.write_plot(&name, &svg)?;
        }
        let mut receipt = self.receipt(job, weights_sha256(parameters), suspects);
        receipt.stopped = stopped.map(|stopped| stopped.to_string());
        receipt.restored_epoch = restored;
        receipt.grown_from = self.directory.record().grown_from.clone();
        self.directory.finish(&receipt)?;
        Ok(Written::Result { shown, trained_sha256: receipt.weights_sha256 })
    }

    fn receipt(&self, job: &Job, weights_sha256: String, suspects: &Participation) -> Receipt {
        let Content { store, arithmetic, job_sha256, openblas_picks, .. } = &*self.content;
        Receipt {
            format: FORMAT,
            job_sha256: job_sha256.clone(),
            data_sha256: store.files().iter().map(|file| (file.name.clone(), file.sha256.clone())).collect(),
            blas_kernel: job.blas_kernel.to_string(),
            blas_kernel_of_openblas: Some(openblas_picks.clone()),
            blas_version: arithmetic.version.clone(),
            fingerprint: arithmetic.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            epoch_weights_sha256: self.history.rows().iter().map(|row| row.weights_sha256.clone()).collect(),
            weights_sha256,
            stopped: None,
            restored_epoch: None,
            grown_from: Vec::new(),
            suspects: suspects.suspects(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give_back(directory: &tempfile::TempDir) -> WriteCommand {
        let run = RunDir::claim(&directory.path().join("run"), crate::runs::Existing::Refuse).unwrap();
        let ending = Ending::cancelled();
        WriteCommand::GiveBack { job: JobId(1), run, found: false, lasting: false, ending }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_not_waited_for_without_end() {
        let (over, hangs) = mpsc::channel::<()>();
        let disk = Disk::start(move |_| _ = hangs.recv());
        let directory = tempfile::tempdir().unwrap();
        disk.order(give_back(&directory));

        let failure = disk.end(Duration::from_millis(50)).await.unwrap_err();

        assert_eq!(failure.kind, FailureKind::Data);
        assert!(failure.to_string().contains("the last checkpoint may be missing"), "{failure}");
        drop(over);
    }

    #[tokio::test]
    async fn a_disk_ends_once_everything_is_written() {
        let (said, heard) = mpsc::channel();
        let disk = Disk::start(move |outcome| said.send(outcome).unwrap());
        let directory = tempfile::tempdir().unwrap();
        disk.order(give_back(&directory));
        disk.end(LAST_ORDERS).await.unwrap();
        assert_eq!(heard.iter().count(), 1);
    }
}
