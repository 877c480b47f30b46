//! What the driver and the services say to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millefeuille_core::control::{Event, Failure, Hello, JobId, WorkId, WorkerId};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_core::view::JobView;
use millefeuille_proto::buffer::Pool;
pub(super) use millefeuille_proto::session::Ended;
use millefeuille_proto::session::ToWorker;
use millefeuille_proto::shared::Lender;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Claimed, Written};
use super::load::Ready;
use super::sums::Sum;

/// Messages that may wait for one worker. A worker that lets more pile up has stopped reading.
pub(super) const SESSION_OUTBOX: usize = 64;

/// Everything that reaches the driver.
#[derive(Debug)]
pub enum Input {
    /// A worker has said hello.
    Connected(Box<Connected>),
    /// A worker has sent a node's sum.
    Result(Box<NodeResult>),
    /// The coordinator has computed a node itself.
    Arbitrated(Box<Arbitrated>),
    /// A worker has mapped the memory that it shares with this process, for this job.
    SharesMemory(WorkerId, JobId),
    /// What concerns the control machine alone.
    Event(Event),
    /// Somebody submits a job: a TOML job file, and a key of the client's choice.
    Submit {
        /// The job file.
        job_toml: String,
        /// Answers a second submission with the first one's job.
        client_key: String,
        /// Takes the job's id, or what is wrong with it.
        reply: oneshot::Sender<Result<String, Failure>>,
    },
    /// Somebody cancels a job; an empty id means the one that runs.
    Cancel {
        /// Which.
        job_id: String,
        /// Takes the job as it is then.
        reply: oneshot::Sender<Result<JobView, Failure>>,
    },
    /// A submission is on disk, or can't be.
    Claimed(Box<Claimed>),
    /// A job's data is read, and its run directory ready.
    Loaded {
        /// Which job.
        job: JobId,
        /// What was read, or why not.
        loaded: Box<Ready>,
    },
    /// The disk thread has written something.
    Written {
        /// Of which job.
        job: JobId,
        /// What, or why not.
        written: Result<Written, Failure>,
    },
    /// The cluster's own worker processes can't be kept alive.
    NoLocalWorkers(Failure),
    /// The cluster ends.
    Stop,
}

/// The way into a running cluster's driver.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Input>);

impl Handle {
    pub(super) fn new(inbox: mpsc::Sender<Input>) -> Self {
        Self(inbox)
    }

    /// Puts something into the driver's inbox; without effect once the cluster has ended.
    pub async fn send(&self, input: Input) {
        let _ = self.0.send(input).await;
    }

    /// The same, for a thread, which waits until there is room.
    pub(super) fn send_from_thread(&self, input: Input) {
        let _ = self.0.blocking_send(input);
    }
}

/// A worker that wants to be admitted.
#[derive(Debug)]
pub struct Connected {
    pub(super) worker: WorkerId,
    pub(super) hello: Hello,
    pub(super) build: String,
    pub(super) cpu: String,
    /// The number of the memory that it shares with this process; 0 for none.
    pub(super) shared_memory: u64,
    pub(super) outbox: mpsc::Sender<SessionOutput>,
    pub(super) traffic: Arc<Traffic>,
    /// Dropped with the session: then its reader stops.
    pub(super) reading: oneshot::Sender<()>,
}

/// A node that the coordinator has computed itself; no sum if it can't compute this job.
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

/// What came from a worker and went to it, counted where it passes.
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

    /// Something came.
    pub(super) fn hear(&self, bytes: usize) {
        self.heard_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something was sent.
    pub(super) fn send(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent and received so far.
    pub(super) fn moved(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
    }

    /// How long ago anything came.
    pub(super) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }
}

/// What the services must know of the running job, to check what workers send and to hand out samples.
pub(super) struct Serving {
    pub(super) job: JobId,
    pub(super) tree: Tree,
    /// Parameters of the model.
    pub(super) parameters: usize,
    pub(super) store: Arc<ShardStore>,
    pub(super) pool: Pool,
    /// The memory that some workers share with this process.
    pub(super) lender: Option<Arc<Lender>>,
}
