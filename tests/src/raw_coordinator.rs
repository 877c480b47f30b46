//! A scripted coordinator, for real workers.
//!
//! It admits every worker, sends the given samples, and acknowledges heartbeats until a test stops that.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millefeuille_core::control::WorkId;
use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::data::shard::{Shard, ShardSamples};
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::job::{Activation, Layer, Loss, LossOptions, Metric};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_proto::v1::worker_server::{Worker, WorkerServer};
use millefeuille_proto::{v1, wire};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::patience::answer_of;

/// The number of shards of its job.
pub const SHARDS: u32 = 4;
const SAMPLES: u32 = 25;
const WIDTH: u32 = 64;

/// The coordinator. It and its connections are closed when the value is dropped.
#[derive(Debug)]
pub struct RawCoordinator {
    runtime: Runtime,
    address: SocketAddr,
    state: Arc<State>,
    visits: mpsc::Receiver<Visit>,
}

#[derive(Debug, Default)]
struct State {
    shards: Mutex<BTreeMap<Shard, ShardSamples>>,
    fetches: AtomicUsize,
    /// How many fetches are broken off before one succeeds.
    broken: AtomicUsize,
    forgetful: AtomicBool,
    sends_nothing: AtomicBool,
}

/// A worker's session.
#[derive(Debug)]
pub struct Visit {
    runtime: Handle,
    /// Its hello.
    pub hello: v1::Hello,
    incoming: Streaming<v1::SessionRequest>,
    outgoing: mpsc::Sender<Result<v1::SessionResponse, Status>>,
}

impl Default for RawCoordinator {
    fn default() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }
}

impl RawCoordinator {
    /// Starts it at an address.
    ///
    /// # Panics
    /// If the address is in use.
    pub fn at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the address is free");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State::default());
        let (sender, visits) = mpsc::channel(64);
        let service = Service { state: Arc::clone(&state), visits: sender };
        let service = wire::server().add_service(WorkerServer::new(service));
        runtime.spawn(async move {
            let served = service.serve_with_incoming(TcpListenerStream::new(listener)).await;
            served.expect("the server serves");
        });
        Self { runtime, address, state, visits }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next worker, and welcomes it.
    pub fn visit(&mut self) -> Visit {
        let visit = wait(self.runtime.handle(), self.visits.recv()).expect("the server runs");
        visit.say(Down::Welcome(v1::Welcome {
            worker_id: 1,
            incarnation: 1,
            heartbeat_interval_ms: 50,
            heartbeat_deadline_ms: 5_000,
        }));
        visit
    }

    /// Sets the training samples of its shards.
    pub fn has_samples(&self) {
        for index in 0..SHARDS {
            lock(&self.state.shards).insert(Shard { split: Split::Train, index }, samples(index));
        }
    }

    /// Breaks off so many of the next transfers.
    pub fn breaks_off(&self, transfers: usize) {
        self.state.broken.store(transfers, Ordering::Relaxed);
    }

    /// Answers whoever fetches samples with parts without a byte.
    pub fn sends_nothing(&self) {
        self.state.sends_nothing.store(true, Ordering::Relaxed);
    }

    /// How many fetches it has received.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::Relaxed)
    }

    /// Forgets all workers, like a restarted coordinator.
    pub fn forgets_everybody(&self) {
        self.state.forgetful.store(true, Ordering::Relaxed);
    }

    /// Accepts heartbeats again.
    pub fn remembers(&self) {
        self.state.forgetful.store(false, Ordering::Relaxed);
    }
}

impl Visit {
    /// Sends a message.
    pub fn say(&self, message: Down) {
        let message = Ok(v1::SessionResponse { message: Some(message) });
        // The worker may have disconnected.
        let _ = wait(&self.runtime, self.outgoing.send(message));
    }

    /// Begins the job, and tells the worker to hold all of its shards.
    pub fn start_job(&self) {
        self.start_job_with(|_| {});
        self.hold_with(|_| {});
    }

    /// Begins the job, with a change of its spec.
    pub fn start_job_with(&self, change: impl FnOnce(&mut v1::Spec)) {
        let mut spec = v1::Spec::from(&spec());
        change(&mut spec);
        self.say(Down::JobStart(v1::JobStart { job: 1, run_id: "raw-1".into(), spec: Some(spec) }));
    }

    /// Has the worker hold all of the job's shards, with a change.
    pub fn hold_with(&self, change: impl FnOnce(&mut v1::Hold)) {
        let shards = (0..SHARDS).map(|index| {
            let samples = samples(index);
            v1::Shard {
                id: Some(Shard { split: Split::Train, index }.into()),
                samples: samples.len(),
                bytes: samples.bytes().len() as u64,
                sha256: samples.sha256(),
            }
        });
        let mut hold = v1::Hold { job: 1, shards: shards.collect(), spare: false, generation: 1 };
        change(&mut hold);
        self.say(Down::Hold(hold));
    }

    /// Begins the job, and waits until the worker holds all of its shards.
    pub fn has_ready_worker(&mut self) {
        self.start_job();
        for _ in 0..SHARDS {
            self.hears("shard held", |message| matches!(message, Up::ShardHeld(_)).then_some(()));
        }
    }

    /// Assigns nodes of a step, with its parameters.
    pub fn ask(&self, step: u32, nodes: &[(u32, u32)]) {
        let parameters = vec![0; 4 * parameters()];
        self.say(Down::Work(work(step, nodes, parameters.len())));
        self.say(Down::Chunk(v1::Chunk { data: parameters.into() }));
    }

    /// Assigns more nodes of a step whose parameters the worker has.
    pub fn ask_more(&self, step: u32, nodes: &[(u32, u32)]) {
        self.say(Down::Work(work(step, nodes, 0)));
    }

    /// The next result: its step and node.
    pub fn result(&mut self) -> (u32, (u32, u32)) {
        self.hears("result", |message| match message {
            Up::Result(v1::WorkResult { id: Some(id), node: Some(node), .. }) => {
                Some((id.step, (node.first, node.end)))
            }
            _ => None,
        })
    }

    /// Reads messages until `find` returns a value.
    ///
    /// # Panics
    /// If the session ends first.
    pub fn hears<T>(&mut self, what: &str, mut wanted: impl FnMut(&Up) -> Option<T>) -> T {
        loop {
            let message = self.receive().unwrap_or_else(|| panic!("no {what} before the session's end"));
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// The remaining messages until the session's end.
    pub fn rest(mut self) -> Vec<Up> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    fn receive(&mut self) -> Option<Up> {
        wait(&self.runtime, self.incoming.message()).ok().flatten()?.message
    }
}

fn work(step: u32, nodes: &[(u32, u32)], parameter_bytes: usize) -> v1::Work {
    let id = WorkId {
        job: millefeuille_core::control::JobId(1),
        incarnation: 1,
        epoch: 0,
        phase: millefeuille_core::control::Phase::Train,
        step,
        parameter_tag: step.into(),
    };
    let nodes = nodes.iter().map(|&(first, end)| v1::Node { first, end }).collect();
    v1::Work { id: Some(id.into()), nodes, parameter_bytes: parameter_bytes as u64, parameter_slot: None }
}

fn schema() -> Schema {
    Schema::new(Features::image(1, WIDTH as usize), Target::Class { classes: 10 })
}

fn spec() -> Spec {
    Spec {
        seed: 1,
        shards: SHARDS,
        batch_size: SHARDS * 5,
        shuffle: true,
        scale: 1.0,
        schema: schema(),
        layers: vec![Layer::dense(10, Activation::Softmax)],
        loss: Loss::CategoricalCrossentropy,
        options: LossOptions::default(),
        metrics: vec![Metric::Accuracy],
        sizes: Sizes { train: SHARDS * SAMPLES, validation: 1, test: 1 },
    }
}

fn parameters() -> usize {
    Model::new(WIDTH as usize, &spec().layers).parameter_count()
}

fn samples(shard: u32) -> ShardSamples {
    let pixels = (0..SAMPLES * WIDTH).map(|place| (place * 31 + shard * 7) as u8);
    let labels = (0..SAMPLES).map(|sample| ((sample + shard) % 10) as u8);
    let bytes: Vec<u8> = pixels.chain(labels).collect();
    ShardSamples::decode(bytes.into(), schema().into(), SAMPLES).expect("they are samples")
}

struct Service {
    state: Arc<State>,
    visits: mpsc::Sender<Visit>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for Service {
    type SessionStream = ResponseStream<v1::SessionResponse>;
    type FetchShardStream = ResponseStream<v1::FetchShardResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let hello = incoming.message().await?.and_then(|message| message.message);
        let Some(Up::Hello(hello)) = hello else { return Err(Status::invalid_argument("no hello")) };
        let (outgoing, responses) = mpsc::channel(64);
        let runtime = Handle::current();
        // The test may be over.
        let _ = self.visits.send(Visit { runtime, hello, incoming, outgoing }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn fetch_shard(
        &self,
        request: Request<v1::FetchShardRequest>,
    ) -> Result<Response<Self::FetchShardStream>, Status> {
        self.state.fetches.fetch_add(1, Ordering::Relaxed);
        let id = request.into_inner().id.ok_or_else(|| Status::invalid_argument("no shard is named"))?;
        let samples = lock(&self.state.shards).get(&Shard::try_from(id)?).cloned();
        let samples = samples.ok_or_else(|| Status::not_found("there are no such samples"))?;
        let less = |broken: usize| broken.checked_sub(1);
        let breaks_off = self.state.broken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        let bytes = samples.bytes();
        let part = |data: Bytes| Ok(v1::FetchShardResponse { data });
        if self.state.sends_nothing.load(Ordering::Relaxed) {
            let nothing = std::iter::repeat_with(move || part(Bytes::new()));
            return Ok(Response::new(Box::pin(tokio_stream::iter(nothing))));
        }
        let parts = match breaks_off {
            true => vec![part(bytes.slice(..10)), Err(Status::unavailable("it breaks off"))],
            false => vec![part(bytes.clone())],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn heartbeat(
        &self,
        _: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        match self.state.forgetful.load(Ordering::Relaxed) {
            true => Err(Status::not_found("there is no such worker")),
            false => Ok(Response::new(v1::HeartbeatResponse {})),
        }
    }
}

fn wait<T>(runtime: &Handle, answer: impl Future<Output = T>) -> T {
    runtime.block_on(answer_of("a worker comes, or says something", answer))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
