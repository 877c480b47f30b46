//! The service that workers call.
//!
//! A session's task reads the worker's messages, reassembles chunks, and sends complete results to the driver.
//! Messages to the worker wait in the session's outbox and are split into chunks when they are sent.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use millefeuille_core::control::{Event, JobId, SessionEnd, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_proto::buffer::Buffer;
use millefeuille_proto::convert::{Malformed, malformed};
use millefeuille_proto::session::{Ended, FromWorker, Introduction, ToWorker, WorkResult};
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::worker_server::Worker;
use millefeuille_proto::wire::{self, Assembly};
use millefeuille_proto::{PROTOCOL_VERSION, convert, tallies, v1};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::services::Services;
use crate::cluster::messages::Handle;
use crate::cluster::messages::{
    Connected, DriverMessage, NodeResult, SESSION_OUTBOX, Serving, SessionOutput, Traffic,
};
use crate::cluster::sums::{Sum, is_finite};

/// Time limit for the hello of a new session.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an ended session is still read.
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct WorkerService {
    shared: Arc<Shared>,
}

struct Shared {
    services: Services,
    next_worker: AtomicU64,
    sessions: Mutex<BTreeMap<u64, Arc<Traffic>>>,
}

impl WorkerService {
    pub(super) fn new(services: Services) -> Self {
        let shared = Shared { services, next_worker: AtomicU64::new(1), sessions: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for WorkerService {
    type SessionStream = ResponseStream<v1::SessionResponse>;
    type FetchShardStream = ResponseStream<v1::FetchShardResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let hello = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Introduction { hello, build, cpu, shared_memory, .. } = self.shared.check(hello)?;
        let worker = WorkerId(self.shared.next_worker.fetch_add(1, Ordering::Relaxed));
        let (outbox, outgoing) = mpsc::channel(SESSION_OUTBOX);
        let traffic = Arc::new(Traffic::new());
        let (reading, over) = oneshot::channel();
        let connected = Connected {
            worker,
            hello,
            build,
            cpu,
            shared_memory,
            outbox,
            traffic: Arc::clone(&traffic),
            reading,
        };
        // From here on, the session's reader cleans up, even if this call fails.
        self.shared.sessions().insert(worker.0, Arc::clone(&traffic));
        tokio::spawn(Arc::clone(&self.shared).listen(connected, incoming, over));
        let outgoing = ReceiverStream::new(outgoing).flat_map(|outgoing| stream::iter(expand(outgoing)));
        let counted =
            outgoing.inspect(move |message| traffic.send(message.as_ref().map_or(0, payload_bytes)));
        Ok(Response::new(Box::pin(counted)))
    }

    async fn fetch_shard(
        &self,
        request: Request<v1::FetchShardRequest>,
    ) -> Result<Response<Self::FetchShardStream>, Status> {
        let request = request.into_inner();
        let shard = Shard::try_from(convert::required(request.id, "id")?)?;
        let serving = self.shared.serving(JobId(request.job));
        let serving =
            serving.ok_or_else(|| Status::not_found(format!("job {} does not run", request.job)))?;
        let stored = serving.store.get(shard);
        let stored = stored.ok_or_else(|| Status::not_found(format!("there is no shard {shard}")))?;
        let traffic = self.shared.sessions().get(&request.worker_id).cloned();
        let chunks = wire::chunks(stored.samples.bytes().clone()).map(move |data| {
            traffic.iter().for_each(|traffic| traffic.send(data.len()));
            Ok(v1::FetchShardResponse { data })
        });
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let v1::HeartbeatRequest { worker_id, incarnation } = request.into_inner();
        let known = self.shared.sessions().get(&worker_id).cloned();
        match known.filter(|_| incarnation == self.shared.services.incarnation) {
            Some(traffic) => traffic.hear(0),
            None => return Err(Status::not_found(format!("there is no worker {worker_id} here"))),
        }
        Ok(Response::new(v1::HeartbeatResponse {}))
    }
}

/// Splits an outgoing message into wire messages: the header, then bulk data in chunks.
fn expand(outgoing: SessionOutput) -> Box<dyn Iterator<Item = Result<v1::SessionResponse, Status>> + Send> {
    match outgoing {
        SessionOutput::Message(message) => Box::new(std::iter::once(Ok(message.into()))),
        SessionOutput::Bulk(header, data) => {
            let chunks = wire::chunks(data).map(|data| Ok(ToWorker::Chunk(data).into()));
            Box::new(std::iter::once(Ok(header.into())).chain(chunks))
        }
        SessionOutput::Close(ended) => Box::new(std::iter::once(Err(ended.into()))),
    }
}

fn payload_bytes(response: &v1::SessionResponse) -> usize {
    match &response.message {
        Some(v1::session_response::Message::Chunk(chunk)) => chunk.data.len(),
        _ => 0,
    }
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Traffic>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The [`Serving`] of this job, if it is the running one.
    fn serving(&self, job: JobId) -> Option<Arc<Serving>> {
        self.services.serving.borrow().as_ref().filter(|serving| serving.job == job).cloned()
    }

    /// Checks a hello: the protocol version and the token.
    fn check(&self, message: Option<v1::SessionRequest>) -> Result<Introduction, Status> {
        let Some(v1::SessionRequest { message: Some(Up::Hello(hello)) }) = message else {
            return Err(Status::invalid_argument("a session begins with a hello"));
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "the worker speaks protocol {}, this coordinator protocol {PROTOCOL_VERSION}: use the same release",
                hello.protocol_version
            )));
        }
        match &self.services.token {
            Some(token) if *token != hello.token => Err(Status::unauthenticated(
                "this cluster works with its own workers only (its token was not given)",
            )),
            _ => Ok(Introduction::try_from(hello)?),
        }
    }

    /// Reads a worker's messages until its session ends.
    async fn listen(
        self: Arc<Self>,
        connected: Connected,
        mut incoming: Streaming<v1::SessionRequest>,
        over: oneshot::Receiver<()>,
    ) {
        let inbox = self.services.driver.clone();
        let (worker, traffic) = (connected.worker, Arc::clone(&connected.traffic));
        let shared_memory = connected.shared_memory;
        // Weak: the driver ends a session by dropping its own end.
        let outbox = connected.outbox.downgrade();
        inbox.send(DriverMessage::Connected(Box::new(connected))).await;
        let mut reader = Reader {
            worker,
            shared_memory,
            inbox: &inbox,
            serving: self.services.serving.clone(),
            result: None,
        };
        // The driver drops its end with the session. The worker gets a moment to receive the last message.
        let lingering = async {
            let _ = over.await;
            tokio::time::sleep(LINGER).await;
        };
        let mut lingering = std::pin::pin!(lingering);
        let end = loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = &mut lingering => break SessionEnd::Closed,
            };
            match message {
                Ok(Some(message)) => {
                    let read = match FromWorker::try_from(message) {
                        Ok(message) => reader.read(message, &traffic).await,
                        Err(malformed) => Some(SessionEnd::Violation(malformed.to_string())),
                    };
                    if let Some(end) = read {
                        break end;
                    }
                }
                Ok(None) | Err(_) => break SessionEnd::Closed,
            }
        };
        self.sessions().remove(&worker.0);
        if let (SessionEnd::Violation(reason), Some(outbox)) = (&end, outbox.upgrade()) {
            // One that reads nothing is not told.
            let _ = outbox.try_send(SessionOutput::Close(Ended::misbehaved(reason.clone())));
        }
        inbox.send(DriverMessage::Event(Event::Leave { worker, end })).await;
    }
}

/// Turns one worker's messages into events.
struct Reader<'a> {
    worker: WorkerId,
    /// Number of the memory shared with the worker; 0 if there is none.
    shared_memory: u64,
    inbox: &'a Handle,
    serving: watch::Receiver<Option<Arc<Serving>>>,
    result: Option<Incoming>,
}

/// A result whose gradient, or whose counts and sums, are still arriving.
struct Incoming {
    header: Box<WorkResult>,
    bulk: Bulk,
}

enum Bulk {
    /// The complete gradient; `None` in evaluation.
    Whole(Option<Buffer>),
    /// A gradient, or the counts and sums of an evaluation.
    Assembly(Assembly),
    /// The job is over: the remaining chunks are read and dropped.
    Ignored { left: u64 },
}

impl Reader<'_> {
    /// Reads a message; returns how the session ends, if it ends with this message.
    async fn read(&mut self, message: FromWorker, traffic: &Traffic) -> Option<SessionEnd> {
        traffic.hear(if let FromWorker::Chunk(data) = &message { data.len() } else { 0 });
        let worker = self.worker;
        let read = match message {
            FromWorker::Goodbye { reason } => return Some(SessionEnd::Shutdown(reason)),
            FromWorker::Chunk(data) => self.chunk(&data).await,
            FromWorker::Drain { reason } => {
                self.event(Event::Drain { worker, reason }).await;
                Ok(())
            }
            _ if self.result.is_some() => Err(malformed("a result is not complete")),
            FromWorker::Result(header) => self.result(header).await,
            FromWorker::JobAccepted { job, fingerprint, shares_memory } => {
                if shares_memory {
                    self.inbox.send(DriverMessage::SharesMemory(worker, job)).await;
                }
                self.event(Event::JobAccepted { worker, job, fingerprint }).await;
                Ok(())
            }
            FromWorker::ShardHeld { job, generation, shard } => {
                self.event(Event::ShardHeld { worker, job, generation, shard }).await;
                Ok(())
            }
            FromWorker::Introduction(_) => Err(malformed("a second hello")),
        };
        read.err().map(|malformed| SessionEnd::Violation(malformed.to_string()))
    }

    async fn event(&self, event: Event) {
        self.inbox.send(DriverMessage::Event(event)).await;
    }

    /// The [`Serving`] of this job, if it is the running one.
    fn serving(&self, job: JobId) -> Option<Arc<Serving>> {
        self.serving.borrow().as_ref().filter(|serving| serving.job == job).cloned()
    }

    async fn result(&mut self, header: Box<WorkResult>) -> Result<(), Malformed> {
        let (bytes, tallies) = (header.gradient_bytes, header.tally_bytes);
        if tallies > 0 && (bytes > 0 || header.gradient_slot.is_some()) {
            return Err(malformed("a gradient and counts of an evaluation in one result"));
        }
        let bulk = match (self.serving(header.work.job), header.gradient_slot) {
            (None, _) => Bulk::Ignored { left: bytes.saturating_add(tallies) },
            (Some(serving), Some(slot)) => Bulk::Whole(Some(self.in_shared_memory(&serving, slot)?)),
            (Some(serving), None) if tallies > 0 => {
                let layout = serving.workload.layout(header.work.phase.split());
                let expected = tallies::bytes_apart(&layout);
                if tallies != expected as u64 {
                    return Err(malformed(format!("{tallies} bytes of counts, not {expected}")));
                }
                Bulk::Assembly(Assembly::new(serving.pool.take(expected / size_of::<f32>())))
            }
            (Some(_), None) if bytes == 0 => Bulk::Whole(None),
            (Some(serving), None) if bytes == (serving.parameters * size_of::<f32>()) as u64 => {
                Bulk::Assembly(Assembly::new(serving.pool.take(serving.parameters)))
            }
            (Some(_), None) => return Err(malformed(format!("a gradient of {bytes} bytes"))),
        };
        self.result = Some(Incoming { header, bulk });
        self.finish_result().await
    }

    /// A gradient that the worker has written into shared memory.
    fn in_shared_memory(&self, serving: &Serving, slot: u32) -> Result<Buffer, Malformed> {
        let parameter_slots = serving.parameter_slots.as_ref().filter(|_| self.shared_memory > 0);
        let worker_slots = parameter_slots
            .map(|parameter_slots| parameter_slots.worker_slots(self.shared_memory))
            .transpose();
        let worker_slots = worker_slots.map_err(|error| malformed(error.to_string()))?.flatten();
        let part = worker_slots.and_then(|worker_slots| worker_slots.result(slot));
        part.map(Buffer::from).ok_or_else(|| malformed(format!("no gradient in slot {slot}")))
    }

    async fn chunk(&mut self, data: &[u8]) -> Result<(), Malformed> {
        match self.result.as_mut().map(|result| &mut result.bulk) {
            None | Some(Bulk::Whole(_)) => return Err(malformed("a chunk that belongs to nothing")),
            Some(Bulk::Assembly(assembly)) => assembly.push(data)?,
            Some(Bulk::Ignored { left }) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or_else(|| malformed("more bytes than announced"))?;
            }
        }
        self.finish_result().await
    }

    /// Sends the result to the driver, if it is complete.
    async fn finish_result(&mut self) -> Result<(), Malformed> {
        let complete = self.result.take_if(|result| match &result.bulk {
            Bulk::Whole(_) => true,
            Bulk::Assembly(assembly) => assembly.is_complete(),
            Bulk::Ignored { left } => *left == 0,
        });
        let Some(Incoming { header, bulk }) = complete else { return Ok(()) };
        let received = match bulk {
            Bulk::Whole(gradient) => gradient,
            Bulk::Assembly(assembly) => Some(assembly.into_values()),
            Bulk::Ignored { .. } => return Ok(()),
        };
        let WorkResult { work, node, mut figures, sample_digests, tally_bytes, busy, .. } = *header;
        let Some(serving) = self.serving(work.job) else { return Ok(()) };
        let gradient = match received {
            Some(values) if tally_bytes > 0 => {
                tallies::attach(&mut figures, &values, &serving.workload.layout(work.phase.split()));
                None
            }
            gradient => gradient,
        };
        let node = convert::in_tree(node, &serving.tree)?;
        let as_planned = serving.workload.digests(work.into(), node.first..node.end) == sample_digests;
        let sum = Sum::new(gradient, figures, sample_digests);
        let finite = is_finite(&sum);
        let result = NodeResult { worker: self.worker, work, node, sum, finite, as_planned, busy };
        self.inbox.send(DriverMessage::Result(Box::new(result))).await;
        Ok(())
    }
}
