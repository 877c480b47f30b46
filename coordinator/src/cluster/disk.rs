//! The thread that writes: no step waits for the disk.
//!
//! The driver hands over what is to be written, in order; what was written, or why not, comes back to its inbox.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millefeuille_core::blas::Arithmetic;
use millefeuille_core::control::{Failure, JobId};
use millefeuille_core::data::dataset::FILES;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_worker::process::exit;
use serde_json::json;

use super::Handle;
use super::messages::Input;
use crate::report::{self, Shown};
use crate::runs::receipt::{FORMAT, Receipt, weights_sha256};
use crate::runs::{RunDir, RunError, model, names};
use crate::see::history::Row;

/// Something to write.
pub(super) enum Order {
    /// The run begins.
    Begin { job: JobId, run: RunDir, content: Arc<Content> },
    /// An event, for `events.jsonl`.
    Event { kind: &'static str, text: String },
    /// A line of history; its hash is made here.
    Epoch { row: Row, parameters: Bytes },
    /// The result.
    Save { parameters: Bytes },
    /// The run has ended; its directory is given back.
    End,
}

/// What is known of a run when it begins.
pub(super) struct Content {
    pub(super) job: Job,
    pub(super) spec: Spec,
    pub(super) model: Arc<Model>,
    pub(super) store: Arc<ShardStore>,
    pub(super) arithmetic: Arithmetic,
}

/// Something that was written.
#[derive(Debug)]
pub enum Written {
    /// A line of history.
    Epoch(Row),
    /// The result: its hash, and the first test images with their predictions.
    Result(String, Vec<Shown>),
}

/// The thread.
pub(super) struct Disk {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    pub(super) fn start(inbox: Handle) -> Self {
        let (orders, queue) = mpsc::channel();
        let thread = std::thread::spawn(move || Writer { inbox, run: None }.work(&queue));
        Self { orders: Some(orders), thread: Some(thread) }
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
    inbox: Handle,
    run: Option<Run>,
}

struct Run {
    job: JobId,
    directory: RunDir,
    content: Arc<Content>,
    history: Vec<Row>,
    /// Nothing is written after a failure.
    failed: bool,
}

impl Writer {
    fn work(mut self, queue: &mpsc::Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            match order {
                Order::Begin { job, run, content } => {
                    let mut run = Run { job, directory: run, content, history: Vec::new(), failed: false };
                    let begun = run.directory.begin(&run.content.job);
                    self.report(&mut run, begun.map(|()| None));
                    self.run = Some(run);
                }
                Order::End => self.run = None,
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

    fn report(&self, run: &mut Run, written: Result<Option<Written>, RunError>) {
        run.failed = written.is_err();
        let failure = |error: RunError| Failure { exit_code: exit::DATA, message: error.to_string() };
        if let Some(written) = written.map_err(failure).transpose() {
            // The cluster may have ended already; then nobody asks.
            let _ = self.inbox.0.blocking_send(Input::Written { job: run.job, written });
        }
    }
}

impl Run {
    fn write(&mut self, order: Order) -> Result<Option<Written>, RunError> {
        match order {
            Order::Event { kind, text } => {
                let line = json!({ "time": now(), "event": kind, "text": text }).to_string();
                self.directory.append_event(&line).map(|()| None)
            }
            Order::Epoch { mut row, parameters } => {
                row.weights_sha256 = weights_sha256(&parameters);
                self.directory.append_history(&row)?;
                self.history.push(row.clone());
                Ok(Some(Written::Epoch(row)))
            }
            Order::Save { parameters } => self.save(&parameters).map(Some),
            Order::Begin { .. } | Order::End => Ok(None),
        }
    }

    /// Writes the result; the receipt last, because it says that the rest is there.
    fn save(&self, parameters: &Bytes) -> Result<Written, RunError> {
        let Content { job, spec, model: shape, store, .. } = &*self.content;
        let values: &[f32] = bytemuck::cast_slice(parameters);
        let encoded = model::encode(values, shape).unwrap_or_else(|error| unreachable!("{error}"));
        self.directory.write(names::MODEL, &encoded)?;
        let shown = report::first_test_images(store, shape, spec, values);
        for (name, svg) in report::pictures(&self.history, store, &shown) {
            self.directory.write_plot(name, &svg)?;
        }
        self.directory.sync()?;
        let hash = weights_sha256(parameters);
        let receipt = self.receipt(job, hash.clone());
        let text = serde_json::to_string_pretty(&receipt).unwrap_or_default() + "\n";
        self.directory.write(names::RECEIPT, text.as_bytes())?;
        Ok(Written::Result(hash, shown))
    }

    fn receipt(&self, job: &Job, weights_sha256: String) -> Receipt {
        let Content { store, arithmetic, .. } = &*self.content;
        let kernel = match &job.blas_kernel {
            BlasKernel::Named(name) => name.clone(),
            other => other.to_string(),
        };
        let hashes = store.file_hashes();
        Receipt {
            format: FORMAT,
            job_sha256: job.sha256(hashes, &kernel),
            data_sha256: FILES.iter().map(|&name| name.to_string()).zip(hashes.iter().cloned()).collect(),
            blas_kernel: kernel,
            blas_version: arithmetic.version.clone(),
            fingerprint: arithmetic.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            epoch_weights_sha256: self.history.iter().map(|row| row.weights_sha256.clone()).collect(),
            weights_sha256,
            suspects: Vec::new(),
        }
    }
}

/// Seconds since 1970, to the millisecond.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}
