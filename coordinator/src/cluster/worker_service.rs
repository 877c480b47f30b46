//! The service that workers call.
//!
//! A session's task reads what the worker sends, puts chunks together, and hands whole results to the driver. What
//! the driver has for the worker waits in the session's outbox, and is cut into chunks on its way out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use millefeuille_core::control::{Departure, Event, Hello, JobId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::learn::sum::Figures;
use millefeuille_proto::buffer::Buffer;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::worker_server::Worker;
use millefeuille_proto::wire::{self, Assembly};
use millefeuille_proto::{PROTOCOL_VERSION, convert, v1};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::messages::{Connected, Input, NodeResult, Outbox, SESSION_OUTBOX, Serving, Traffic};
use super::sums::{Sum, is_finite};

/// How long a new session may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a session that the coordinator has ended is still read.
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
        let hello = self.shared.check(hello)?;
        let worker = WorkerId(self.shared.next_worker.fetch_add(1, Ordering::Relaxed));
        let (outbox, outgoing) = mpsc::channel(SESSION_OUTBOX);
        let traffic = Arc::new(Traffic::new());
        let (reading, over) = oneshot::channel();
        let connected = Connected {
            worker,
            hello: Hello::try_from(&hello)?,
            build: convert::text(&hello.build),
            cpu: convert::text(&hello.cpu),
            shared_memory: hello.shared_memory,
            outbox,
            traffic: Arc::clone(&traffic),
            reading,
        };
        // From here on its reader looks after the session, whatever becomes of this call.
        self.shared.sessions().insert(worker.0, Arc::clone(&traffic));
        tokio::spawn(Arc::clone(&self.shared).listen(connected, incoming, over));
        let outgoing = ReceiverStream::new(outgoing).flat_map(|outgoing| stream::iter(outgoing.expand()));
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

    /// What is known of this job, if it is the one that runs.
    fn serving(&self, job: JobId) -> Option<Arc<Serving>> {
        self.services.serving.borrow().as_ref().filter(|serving| serving.job == job).cloned()
    }

    /// The hello, if its sender speaks this protocol and belongs here.
    fn check(&self, message: Option<v1::SessionRequest>) -> Result<v1::Hello, Status> {
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
            _ => Ok(hello),
        }
    }

    /// Takes in what a worker sends, to the end of its session.
    async fn listen(
        self: Arc<Self>,
        connected: Connected,
        mut incoming: Streaming<v1::SessionRequest>,
        over: oneshot::Receiver<()>,
    ) {
        let inbox = self.services.outbox.clone();
        let (worker, traffic) = (connected.worker, Arc::clone(&connected.traffic));
        let shared_memory = connected.shared_memory;
        inbox.send(Input::Connected(Box::new(connected))).await;
        let mut reader = Reader {
            worker,
            shared_memory,
            inbox: &inbox,
            serving: self.services.serving.clone(),
            result: None,
        };
        // The driver drops its end with the session. What it said last gets a moment to arrive.
        let lingering = async {
            let _ = over.await;
            tokio::time::sleep(LINGER).await;
        };
        let mut lingering = std::pin::pin!(lingering);
        let departure = loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = &mut lingering => break Departure::Closed,
            };
            match message {
                Ok(Some(v1::SessionRequest { message: Some(message) })) => {
                    if let Some(departure) = reader.read(message, &traffic).await {
                        break departure;
                    }
                }
                Ok(Some(_)) => break Departure::Misbehaved("it sent a message of an unknown kind".into()),
                Ok(None) | Err(_) => break Departure::Closed,
            }
        };
        self.sessions().remove(&worker.0);
        inbox.event(Event::Leave { worker, departure }).await;
    }
}

/// Makes events of one worker's messages.
struct Reader<'a> {
    worker: WorkerId,
    /// The number of the memory that it shares with this process; 0 for none.
    shared_memory: u64,
    inbox: &'a Outbox,
    serving: watch::Receiver<Option<Arc<Serving>>>,
    result: Option<Incoming>,
}

/// A result whose gradient is on its way.
struct Incoming {
    header: v1::WorkResult,
    bulk: Bulk,
}

enum Bulk {
    /// All is here; nothing in evaluation.
    Whole(Option<Buffer>),
    Assembly(Assembly),
    /// The job is over: the rest is read and thrown away.
    Ignored {
        left: u64,
    },
}

impl Reader<'_> {
    /// Takes a message in; says if the session ends with it.
    async fn read(&mut self, message: Up, traffic: &Traffic) -> Option<Departure> {
        traffic.hear(if let Up::Chunk(chunk) = &message { chunk.data.len() } else { 0 });
        let read = match message {
            Up::Goodbye(v1::Goodbye { reason }) => {
                return Some(Departure::Goodbye(convert::text(&reason)));
            }
            Up::Chunk(chunk) => self.chunk(&chunk.data).await,
            Up::Drain(v1::Drain { reason }) => {
                let reason = convert::text(&reason);
                self.inbox.event(Event::Drain { worker: self.worker, reason }).await;
                Ok(())
            }
            _ if self.result.is_some() => Err(Status::invalid_argument("a result is not complete")),
            Up::Result(header) => self.result(header).await,
            Up::JobAccepted(v1::JobAccepted { job, fingerprint, shares_memory }) => {
                let worker = self.worker;
                if shares_memory {
                    self.inbox.send(Input::SharesMemory(worker, JobId(job))).await;
                }
                self.inbox.event(Event::JobAccepted { worker, job: JobId(job), fingerprint }).await;
                Ok(())
            }
            Up::ShardHeld(held) => self.held(held).await,
            Up::Hello(_) => Err(Status::invalid_argument("a second hello")),
        };
        read.err().map(|status| Departure::Misbehaved(status.message().to_string()))
    }

    async fn held(&self, held: v1::ShardHeld) -> Result<(), Status> {
        let shard = Shard::try_from(convert::required(held.id, "id")?)?;
        let v1::ShardHeld { job, generation, .. } = held;
        self.inbox.event(Event::ShardHeld { worker: self.worker, job: JobId(job), generation, shard }).await;
        Ok(())
    }

    async fn result(&mut self, header: v1::WorkResult) -> Result<(), Status> {
        let job = convert::required(header.id, "id")?.job;
        let serving = self.serving.borrow().as_ref().filter(|serving| serving.job.0 == job).cloned();
        let bytes = header.gradient_bytes;
        let bulk = match serving {
            None => Bulk::Ignored { left: bytes },
            Some(serving) if header.gradient_slot.is_some() => {
                let slot = header.gradient_slot.unwrap_or_default();
                Bulk::Whole(Some(self.in_shared_memory(&serving, slot)?))
            }
            Some(_) if bytes == 0 => Bulk::Whole(None),
            Some(serving) if bytes == (serving.parameters * size_of::<f32>()) as u64 => {
                Bulk::Assembly(Assembly::new(serving.pool.take(serving.parameters)))
            }
            Some(_) => return Err(Status::invalid_argument(format!("a gradient of {bytes} bytes"))),
        };
        self.result = Some(Incoming { header, bulk });
        self.finish_result().await
    }

    /// A gradient that the worker has written into memory that it shares with this process.
    fn in_shared_memory(&self, serving: &Serving, slot: u32) -> Result<Buffer, Status> {
        let lender = serving.lender.as_ref().filter(|_| self.shared_memory > 0);
        let borrower = lender.map(|lender| lender.borrower(self.shared_memory)).transpose()?.flatten();
        let part = borrower.and_then(|borrower| borrower.result(slot));
        part.map(Buffer::from).ok_or_else(|| Status::invalid_argument(format!("no gradient in slot {slot}")))
    }

    async fn chunk(&mut self, data: &[u8]) -> Result<(), Status> {
        match self.result.as_mut().map(|result| &mut result.bulk) {
            None | Some(Bulk::Whole(_)) => {
                return Err(Status::invalid_argument("a chunk that belongs to nothing"));
            }
            Some(Bulk::Assembly(assembly)) => assembly.push(data)?,
            Some(Bulk::Ignored { left }) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or_else(|| Status::invalid_argument("more bytes than announced"))?;
            }
        }
        self.finish_result().await
    }

    /// Hands a result on, if it is complete.
    async fn finish_result(&mut self) -> Result<(), Status> {
        let complete = self.result.take_if(|result| match &result.bulk {
            Bulk::Whole(_) => true,
            Bulk::Assembly(assembly) => assembly.is_complete(),
            Bulk::Ignored { left } => *left == 0,
        });
        let Some(Incoming { header, bulk }) = complete else { return Ok(()) };
        let gradient = match bulk {
            Bulk::Whole(gradient) => gradient,
            Bulk::Assembly(assembly) => Some(assembly.into_values()),
            Bulk::Ignored { .. } => return Ok(()),
        };
        let job = header.id.as_ref().map_or(0, |id| id.job);
        let Some(serving) = self.serving.borrow().as_ref().filter(|serving| serving.job.0 == job).cloned()
        else {
            return Ok(());
        };
        let v1::WorkResult { loss_sum, correct, samples, .. } = header;
        let digests = header.sample_digests.iter().map(digest).collect::<Result<_, _>>()?;
        let sum = Sum::new(gradient, Figures { loss_sum, correct, samples }, digests);
        let result = NodeResult {
            worker: self.worker,
            work: convert::required(header.id, "id")?.try_into()?,
            node: convert::node(convert::required(header.node, "node")?, &serving.tree)?,
            finite: is_finite(&sum),
            sum,
            busy: Duration::from_nanos(header.busy_ns),
        };
        self.inbox.send(Input::Result(Box::new(result))).await;
        Ok(())
    }
}

fn digest(bytes: &bytes::Bytes) -> Result<[u8; 32], Status> {
    bytes.as_ref().try_into().map_err(|_| Status::invalid_argument("a sample digest is not 32 bytes"))
}
