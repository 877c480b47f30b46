//! The messages between the driver and the services.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millefeuille_core::control::{Event, Failure, Hello, JobId, WorkId, WorkerId};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::JobView;
use millefeuille_proto::buffer::Pool;
pub(super) use millefeuille_proto::session::Ended;
use millefeuille_proto::session::ToWorker;
use millefeuille_proto::shared::ParameterSlots;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Claimed, Written};
use super::driver::Finished;
use super::load::{Loaded, Ready};
use super::sums::Sum;

/// Capacity of a worker's outbox, in messages. A worker that lets more pile up has stopped reading.
pub(super) const SESSION_OUTBOX: usize = 64;

/// A message to the driver.
#[derive(Debug)]
pub enum DriverMessage {
    /// A worker has said hello.
    Connected(Box<Connected>),
    /// A worker has sent a node's sum.
    Result(Box<NodeResult>),
    /// The coordinator has computed a node itself.
    Arbitrated(Box<Arbitrated>),
    /// A worker has mapped the memory that it shares with this process, for this job.
    SharesMemory(WorkerId, JobId),
    /// An event for the control machine alone.
    Event(Event),
    /// A client submits a job: a TOML job file, and a key that the client chooses.
    Submit {
        /// The job file.
        job_toml: String,
        /// A second submission with this key gets the first one's job.
        client_key: String,
        /// Receives the job's id, or what is wrong with the job.
        reply: oneshot::Sender<Result<String, Failure>>,
    },
    /// Jobs that had ended without a result, and are done by now.
    Finished(Vec<Finished>),
    /// A client cancels a job.
    Cancel {
        /// The job.
        job_id: String,
        /// Receives the job's state after cancellation.
        reply: oneshot::Sender<Result<JobView, Failure>>,
    },
    /// A submission is on disk, or could not be written.
    Claimed(Box<Claimed>),
    /// A job's data has been read, or cannot be.
    Loaded {
        /// The job.
        job: JobId,
        /// The job with its data, or what is wrong with it.
        loaded: Box<Result<Loaded, Failure>>,
    },
    /// A job's run has begun or is resumed, or cannot be.
    Ready {
        /// The job.
        job: JobId,
        /// The job, ready to be trained, or why it is not.
        ready: Box<Ready>,
    },
    /// The disk thread has written something.
    Written {
        /// The job.
        job: JobId,
        /// What was written, or why it was not.
        written: Result<Written, Failure>,
    },
    /// The cluster's own worker processes can't be kept alive.
    NoLocalWorkers(Failure),
    /// The cluster shuts down.
    Stop,
}

/// Sends messages to a running cluster's driver.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<DriverMessage>);

impl Handle {
    pub(super) fn new(inbox: mpsc::Sender<DriverMessage>) -> Self {
        Self(inbox)
    }

    /// Sends a message to the driver. Does nothing once the cluster has ended.
    pub async fn send(&self, input: DriverMessage) {
        let _ = self.0.send(input).await;
    }

    /// Like [`send`](Self::send), for a thread: blocks until there is room.
    pub(super) fn send_from_thread(&self, input: DriverMessage) {
        let _ = self.0.blocking_send(input);
    }
}

/// A worker that asks for admission.
#[derive(Debug)]
pub struct Connected {
    pub(super) worker: WorkerId,
    pub(super) hello: Hello,
    pub(super) build: String,
    pub(super) cpu: String,
    /// Number of the memory shared with the worker; 0 if there is none.
    pub(super) shared_memory: u64,
    pub(super) outbox: mpsc::Sender<SessionOutput>,
    pub(super) traffic: Arc<Traffic>,
    /// Dropped with the session, which stops the session's reader.
    pub(super) reading: oneshot::Sender<()>,
}

/// A node computed by the coordinator; `None` if it cannot compute this job.
#[derive(Debug)]
pub struct Arbitrated {
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) sum: Option<Sum>,
}

/// A node's sum, as a worker sent it.
#[derive(Debug)]
pub struct NodeResult {
    pub(super) worker: WorkerId,
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) sum: Sum,
    pub(super) finite: bool,
    /// Whether it is a sum over the samples that the plan names.
    pub(super) as_planned: bool,
    pub(super) busy: Duration,
}

/// A message to a worker, and the bulk data that follows it.
#[derive(Debug)]
pub(super) enum SessionOutput {
    Message(ToWorker),
    Bulk(ToWorker, Bytes),
    /// The end of the session.
    Close(Ended),
}

/// Traffic to and from a worker, counted as it passes.
#[derive(Debug)]
pub(super) struct Traffic {
    start: Instant,
    heard_ms: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Traffic {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { start: Instant::now(), heard_ms: zero(), sent: zero(), received: zero() }
    }

    /// Counts received bytes.
    pub(super) fn hear(&self, bytes: usize) {
        self.heard_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts sent bytes.
    pub(super) fn send(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent and received so far, in total.
    pub(super) fn moved(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
    }

    /// Time since the last bytes were received.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }
}

/// What the services know of the running job, to check incoming results and to serve samples.
pub(super) struct Serving {
    pub(super) job: JobId,
    pub(super) tree: Tree,
    /// Parameters of the model.
    pub(super) parameters: usize,
    pub(super) workload: Arc<Workload>,
    pub(super) store: Arc<ShardStore>,
    pub(super) pool: Pool,
    /// Memory shared with workers on this machine.
    pub(super) parameter_slots: Option<Arc<ParameterSlots>>,
}
