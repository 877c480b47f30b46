//! The thread that writes: no step waits for the disk.
//!
//! The driver hands over what is to be written, in order; what was written, or why not, is said to whoever has started it.

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
use millefeuille_core::job::Job;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::work::Course;
use millefeuille_core::view::{EpochRow, Prediction};
use millefeuille_program::process::exit;
use tracing::warn;

use crate::report;
use crate::runs::checkpoint::Partial;
use crate::runs::receipt::{FORMAT, Participation, Receipt, weights_sha256};
use crate::runs::{Checkpoint, Ending, RunDir, RunState, ledger, model, names};

/// Something to write.
pub(super) enum Order {
    /// Somebody submits a job: claim a run directory for it.
    Claim(Box<RunClaim>),
    /// A job that did not come to run gives its directory back. One that an earlier life has left stays in it.
    GiveBack { job: JobId, run: RunDir, found: bool, ending: Ending },
    /// The run goes on from here.
    Begin { job: JobId, run: RunDir, content: Arc<Content>, history: Vec<EpochRow> },
    /// An event, for `events.jsonl`; of a failure, with it.
    Event { kind: &'static str, text: String, failure: Option<Failure> },
    /// The state between two steps.
    Checkpoint(Box<Snapshot>),
    /// A line of history, whose hash is made here, and the ledger's lines; the state after it, if it is to be written.
    Epoch { row: EpochRow, ledger: String, snapshot: Box<Snapshot>, checkpoint: bool },
    /// The result.
    Save { parameters: Bytes, suspects: Participation },
    /// The run has ended; its directory is given back.
    End { ending: Ending },
}

/// A submission.
pub(super) struct RunClaim {
    pub(super) number: JobId,
    pub(super) job: Job,
    pub(super) client_key: String,
    pub(super) runs_dir: PathBuf,
    /// Its run directory, if that is fixed.
    pub(super) run: Option<RunDir>,
    /// Names that other jobs have.
    pub(super) taken: BTreeSet<String>,
}

/// A submission that is on disk, or can't be.
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
            // A run that is resumed was submitted in an earlier life.
            if run.record().state == RunState::Queued {
                run.submit(&job, number.0, &client_key)?;
            }
            Ok(run)
        });
        Claimed { number, job, client_key, run }
    }
}

/// The state of a job between two steps, all but what the disk thread knows itself.
pub(super) struct Snapshot {
    pub(super) from: Start,
    pub(super) parameters: Bytes,
    pub(super) optimizer: OptimizerState,
    pub(super) partial: Partial,
    pub(super) ledger: ledger::LedgerState,
    pub(super) participation: Participation,
    pub(super) suspects: Participation,
}

/// What is known of a run when it begins.
pub(super) struct Content {
    pub(super) job: Job,
    pub(super) job_sha256: String,
    pub(super) course: Arc<Course>,
    pub(super) store: Arc<ShardStore>,
    pub(super) arithmetic: Arithmetic,
    pub(super) shapes_fingerprint: String,
    pub(super) openblas_picks: String,
}

/// Something that was written.
#[derive(Debug)]
pub enum Written {
    /// A checkpoint in the middle of an epoch.
    Checkpoint(Checkpointed),
    /// A line of history, and its checkpoint, if it has one.
    Epoch(EpochRow, Option<Checkpointed>),
    /// The result; the first test images with their predictions.
    Result(Vec<Prediction>),
    /// How the job ended, where that is noted at all.
    Ended,
}

/// What the thread says of what it was given.
#[derive(Debug)]
pub(super) enum Said {
    /// Of a submission.
    Claimed(Box<Claimed>),
    /// Of anything else: what was written for a job, or why not.
    Written { job: JobId, written: Result<Written, Failure> },
}

/// A checkpoint that was written.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointed {
    /// The optimizer steps before it.
    pub tag: u64,
    /// How long that took.
    pub took: Duration,
}

/// Events that may wait for the disk. What else may wait is bounded by whoever orders it: a few epochs, a checkpoint,
/// the submissions that fit into the queue.
const EVENTS: usize = 4096;

/// The thread.
pub(super) struct Disk {
    orders: Option<mpsc::Sender<Order>>,
    events: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts the thread, which calls `say` for all that it has done.
    pub(super) fn start(say: impl Fn(Said) + Send + 'static) -> Self {
        let (orders, queue) = mpsc::channel();
        let events = Arc::new(AtomicUsize::new(0));
        let writer = Writer { say: Box::new(say), run: None, events: Arc::clone(&events) };
        let thread = std::thread::spawn(move || writer.work(&queue));
        Self { orders: Some(orders), events, thread: Some(thread) }
    }

    /// Notes an event, unless very many wait already: they are for people to read.
    pub(super) fn event(&self, kind: &'static str, text: String, failure: Option<Failure>) {
        if self.events.fetch_add(1, Ordering::Relaxed) < EVENTS {
            self.order(Order::Event { kind, text, failure });
        } else {
            self.events.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only when this sender is gone.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Disk {
    /// Everything that was ordered is on disk before the cluster ends.
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    say: Box<dyn Fn(Said) + Send>,
    run: Option<Run>,
    /// Events that wait.
    events: Arc<AtomicUsize>,
}

struct Run {
    job: JobId,
    directory: RunDir,
    content: Arc<Content>,
    history: Vec<EpochRow>,
    /// Nothing is written after a failure.
    failed: bool,
}

impl Writer {
    fn work(mut self, queue: &mpsc::Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            if matches!(order, Order::Event { .. }) {
                self.events.fetch_sub(1, Ordering::Relaxed);
            }
            match order {
                Order::Claim(claim) => self.say(Said::Claimed(Box::new(claim.claim()))),
                Order::GiveBack { job, run, found, ending } => {
                    give_back(run, found, ending);
                    self.say(Said::Written { job, written: Ok(Written::Ended) });
                }
                Order::Begin { job, run, content, history } => {
                    self.run = Some(Run { job, directory: run, content, history, failed: false });
                }
                Order::End { ending } => {
                    if let Some(Run { job, directory, failed, .. }) = self.run.take() {
                        // One whose disk failed is unfinished, and can be resumed.
                        if !failed {
                            end(directory, ending);
                        }
                        self.say(Said::Written { job, written: Ok(Written::Ended) });
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
            self.say(Said::Written { job: run.job, written });
        }
    }

    fn say(&self, said: Said) {
        (self.say)(said);
    }
}

/// Notes how a run ended.
fn end(mut run: RunDir, ending: Ending) {
    let noted = matches!(run.record().state, RunState::Ended { .. });
    if noted {
        return;
    }
    if let Err(error) = run.end(ending) {
        warn!("how the run ended is not noted: {error}");
    }
}

/// A job that did not come to run. One that had run before and cannot be resumed stays unfinished, as it was: its
/// data may be put back, or a newer program take it up.
fn give_back(run: RunDir, found: bool, ending: Ending) {
    let (cancelled, begun) = (ending.exit_code == exit::INTERRUPTED, run.record().state != RunState::Queued);
    if begun || found && !cancelled {
        return if cancelled {
            end(run, ending)
        };
    }
    if let Err(error) = run.withdraw() {
        warn!("a job that never ran is left in the queue on disk: {error}");
    }
}

impl Run {
    fn write(&mut self, order: Order) -> Result<Option<Written>, Failure> {
        match order {
            Order::Event { kind, failure: Some(failure), .. } => {
                self.directory.event_of_failure(kind, &failure).map(|()| None)
            }
            Order::Event { kind, text, failure: None } => self.directory.event(kind, &text).map(|()| None),
            Order::Checkpoint(snapshot) => {
                self.checkpoint(*snapshot).map(|written| Some(Written::Checkpoint(written)))
            }
            Order::Epoch { mut row, ledger, snapshot, checkpoint } => {
                row.weights_sha256 = weights_sha256(&snapshot.parameters);
                self.directory.append_history(&row)?;
                self.directory.append_ledger(&ledger)?;
                self.history.push(row.clone());
                let checkpoint = checkpoint.then(|| self.checkpoint(*snapshot)).transpose()?;
                Ok(Some(Written::Epoch(row, checkpoint)))
            }
            Order::Save { parameters, suspects } => self.save(&parameters, &suspects).map(Some),
            Order::Claim(_) | Order::GiveBack { .. } | Order::Begin { .. } | Order::End { .. } => Ok(None),
        }
    }

    fn checkpoint(&self, snapshot: Snapshot) -> Result<Checkpointed, Failure> {
        let begun = Instant::now();
        let Snapshot { from, parameters, optimizer, partial, ledger, participation, suspects } = snapshot;
        let checkpoint = Checkpoint {
            job_sha256: self.content.job_sha256.clone(),
            arithmetic: self.content.arithmetic.clone(),
            shapes_fingerprint: self.content.shapes_fingerprint.clone(),
            position: from.position,
            parameter_tag: from.parameter_tag,
            parameters,
            optimizer,
            partial,
            history: self.history.clone(),
            ledger,
            participation,
            suspects,
        };
        self.directory.write_checkpoint(&checkpoint, self.content.course.model())?;
        Ok(Checkpointed { tag: from.parameter_tag, took: begun.elapsed() })
    }

    /// Writes the result; the receipt last, because it says that the rest is there.
    fn save(&mut self, parameters: &Bytes, suspects: &Participation) -> Result<Written, Failure> {
        let Content { job, course, store, .. } = &*self.content;
        let values: &[f32] = bytemuck::cast_slice(parameters);
        let encoded = model::encode(values, course.model()).unwrap_or_else(|error| unreachable!("{error}"));
        self.directory.write(names::MODEL, &encoded)?;
        let shown = report::first_test_images(store, course, values);
        for (name, svg) in report::pictures(&self.history, store, &shown) {
            self.directory.write_plot(&name, &svg)?;
        }
        self.directory.sync()?;
        let receipt = self.receipt(job, weights_sha256(parameters), suspects);
        let text = serde_json::to_string_pretty(&receipt).unwrap_or_default() + "\n";
        self.directory.write(names::RECEIPT, text.as_bytes())?;
        // The receipt is there: the run is done, whether that can be noted or not.
        if let Err(error) = self.directory.end(Ending::done()) {
            warn!("that the run is done is said by its receipt only: {error}");
        }
        Ok(Written::Result(shown))
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
            epoch_weights_sha256: self.history.iter().map(|row| row.weights_sha256.clone()).collect(),
            weights_sha256,
            suspects: suspects.suspects(),
        }
    }
}
