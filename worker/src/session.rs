//! One session with a coordinator, from hello to the end of the stream.
//!
//! One task owns everything here. It takes in what the coordinator sends, what the slots have finished and what was
//! fetched; it never computes and never waits for the disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use millefeuille_core::blas;
use millefeuille_core::control::WorkId;
use millefeuille_core::data::shard::{Shard, ShardSamples};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_proto::v1::worker_client::WorkerClient;
use millefeuille_proto::wire::{self, Assembly, Pool};
use millefeuille_proto::{convert, v1};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info};

use crate::compute::{Batch, Done, Job, Slots};
use crate::shards::{Shards, Wanted, fetch};
use crate::{Config, End, Shutdown};

/// Messages to the coordinator that may wait; a slot that has more to say waits itself.
const OUTBOX: usize = 16;

/// A message, and the bulk data that follows it.
struct Outgoing {
    message: Up,
    bulk: Option<Bytes>,
}

/// What survives a session: samples and buffers.
pub(crate) struct Kept {
    shards: Shards,
    pool: Pool,
    /// Whether the last session came as far as the coordinator's welcome.
    pub(crate) welcomed: bool,
}

impl Kept {
    pub(crate) fn new() -> Self {
        Self { shards: Shards::default(), pool: Pool::default(), welcomed: false }
    }
}

/// A session that the coordinator has taken up.
pub(crate) struct Opened {
    client: WorkerClient<Channel>,
    outbox: mpsc::Sender<Outgoing>,
    incoming: tonic::Streaming<v1::SessionResponse>,
    heartbeats: Channel,
}

impl Opened {
    /// Says hello.
    ///
    /// # Errors
    /// How the coordinator refuses it.
    pub(crate) async fn new(hello: v1::Hello, channel: Channel, heartbeats: Channel) -> Result<Self, Status> {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        send(&outbox, Up::Hello(hello)).await;
        let mut client = WorkerClient::new(channel).max_decoding_message_size(wire::MESSAGE_BYTES);
        let incoming = client.session(ReceiverStream::new(outgoing).flat_map(expand)).await?.into_inner();
        Ok(Self { client, outbox, incoming, heartbeats })
    }
}

/// Runs one session.
///
/// # Errors
/// If the stream breaks, or the coordinator sends what makes no sense; reconnecting may help.
pub(crate) async fn session(
    config: &Config,
    opened: Opened,
    kept: &mut Kept,
    shutdown: std::pin::Pin<&mut impl Shutdown>,
) -> Result<End, Status> {
    let Opened { client, outbox, incoming, heartbeats } = opened;
    let (done_sender, done) = mpsc::channel(OUTBOX);
    let slots = Slots::start(config.slots, kept.pool.clone(), done_sender)
        .map_err(|error| Status::resource_exhausted(format!("cannot start threads: {error}")))?;
    let session = Session {
        client,
        outbox,
        slots,
        kept,
        heartbeats,
        worker_id: 0,
        job: None,
        parameters: None,
        incoming_parameters: None,
        tasks: JoinSet::new(),
        fetching: None,
        holding: 0,
    };
    session.run(incoming, done, shutdown).await
}

/// A message on the wire: the header, then its bulk data in chunks.
fn expand(outgoing: Outgoing) -> impl futures_util::Stream<Item = v1::SessionRequest> {
    let chunks = outgoing.bulk.into_iter().flat_map(wire::chunks).map(|data| Up::Chunk(v1::Chunk { data }));
    let messages = std::iter::once(outgoing.message).chain(chunks);
    stream::iter(messages.map(|message| v1::SessionRequest { message: Some(message) }))
}

async fn send(outbox: &mpsc::Sender<Outgoing>, message: Up) {
    // If the stream is gone, its receiving half says so.
    let _ = outbox.send(Outgoing { message, bulk: None }).await;
}

/// Parameters on their way, with the work that waits for them.
struct IncomingParameters {
    work: v1::Work,
    assembly: Assembly,
}

/// What ran beside the session's task has ended.
enum Side {
    Fetched(Result<(Wanted, ShardSamples), Status>),
    Accepted { job: Arc<Job>, fingerprint: String },
    HeartbeatFailed(Status),
}

struct Session<'a> {
    client: WorkerClient<Channel>,
    outbox: mpsc::Sender<Outgoing>,
    slots: Slots,
    kept: &'a mut Kept,
    heartbeats: Channel,
    worker_id: u64,
    job: Option<Arc<Job>>,
    /// The newest parameters, with their tag.
    parameters: Option<(u64, Arc<Vec<f32>>)>,
    incoming_parameters: Option<IncomingParameters>,
    tasks: JoinSet<Side>,
    fetching: Option<Shard>,
    /// The generation of the last `Hold`.
    holding: u64,
}

impl Session<'_> {
    async fn run(
        mut self,
        mut incoming: tonic::Streaming<v1::SessionResponse>,
        mut done: mpsc::Receiver<Done>,
        mut shutdown: std::pin::Pin<&mut impl Shutdown>,
    ) -> Result<End, Status> {
        loop {
            tokio::select! {
                message = incoming.message() => match message? {
                    None => return Err(Status::unavailable("the coordinator closed the session")),
                    Some(message) => if let Some(end) = self.received(message).await? { return Ok(end) },
                },
                Some(done) = done.recv() => self.send_result(done).await,
                Some(side) = self.tasks.join_next() => {
                    self.side(side.map_err(|error| Status::internal(error.to_string()))?).await?;
                }
                () = &mut shutdown => {
                    // Slots that wait to hand over a result are let go.
                    drop(done);
                    self.goodbye(incoming).await;
                    return Ok(End::Stopped);
                }
            }
        }
    }

    /// Says goodbye, and gives the coordinator a moment to hear it.
    async fn goodbye(&self, mut incoming: tonic::Streaming<v1::SessionResponse>) {
        let heard = async {
            send(&self.outbox, Up::Goodbye(v1::Goodbye { reason: "told to stop".into() })).await;
            while let Ok(Some(_)) = incoming.message().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), heard).await;
    }

    async fn received(&mut self, message: v1::SessionResponse) -> Result<Option<End>, Status> {
        match convert::required(message.message, "message")? {
            Down::Welcome(welcome) => self.welcomed(&welcome),
            Down::UseKernel(v1::UseKernel { kernel }) => return Ok(Some(End::UseKernel(kernel))),
            Down::Goodbye(v1::Goodbye { reason }) => return Ok(Some(End::Goodbye(reason))),
            Down::PutOut(v1::PutOut { reason }) => return Ok(Some(End::PutOut(reason))),
            Down::JobStart(start) => self.start_job(start)?,
            Down::JobEnd(_) => self.end_job(),
            Down::Hold(hold) => self.hold(hold).await?,
            Down::Work(work) => self.work(work)?,
            Down::Chunk(chunk) => self.chunk(&chunk.data)?,
        }
        Ok(None)
    }

    fn welcomed(&mut self, welcome: &v1::Welcome) {
        self.worker_id = welcome.worker_id;
        self.kept.welcomed = true;
        info!("joined as worker {}", welcome.worker_id);
        let client = WorkerClient::new(self.heartbeats.clone());
        let interval = Duration::from_millis(welcome.heartbeat_interval_ms.max(10).into());
        let request = v1::HeartbeatRequest { worker_id: welcome.worker_id, incarnation: welcome.incarnation };
        self.tasks.spawn(async move { Side::HeartbeatFailed(heartbeat(client, interval, request).await) });
    }

    fn start_job(&mut self, start: v1::JobStart) -> Result<(), Status> {
        let spec = Spec::try_from(convert::required(start.spec, "spec")?)?;
        info!("job {} begins", start.run_id);
        let job = Arc::new(Job::new(start.job, spec));
        self.end_job();
        self.job = Some(Arc::clone(&job));
        self.tasks.spawn_blocking(move || {
            let fingerprint = blas::model_fingerprint(&job.spec);
            Side::Accepted { job, fingerprint }
        });
        Ok(())
    }

    fn end_job(&mut self) {
        self.slots.clear();
        self.job = None;
        self.parameters = None;
        self.incoming_parameters = None;
    }

    async fn hold(&mut self, hold: v1::Hold) -> Result<(), Status> {
        if hold.spare {
            info!("standing by: there are more workers than shards");
        }
        self.holding = hold.generation;
        let held = self.kept.shards.want(hold.shards.into_iter().map(wanted).collect::<Result<_, _>>()?);
        for shard in held {
            self.report_held(shard).await;
        }
        self.fetch_next();
        Ok(())
    }

    async fn report_held(&self, shard: Shard) {
        let job = self.job.as_ref().map_or(0, |job| job.number);
        send(
            &self.outbox,
            Up::ShardHeld(v1::ShardHeld { job, id: Some(shard.into()), generation: self.holding }),
        )
        .await;
    }

    /// Fetches the next shard, one at a time: the most urgent is complete the soonest.
    fn fetch_next(&mut self) {
        let (Some(job), None) = (&self.job, self.fetching) else { return };
        let Some(wanted) = self.kept.shards.next() else { return };
        self.fetching = Some(wanted.shard);
        let id = Some(wanted.shard.into());
        let request = v1::FetchShardRequest { worker_id: self.worker_id, job: job.number, id };
        let (client, width) = (self.client.clone(), job.spec.inputs as usize);
        self.tasks.spawn(async move { Side::Fetched(fetch(client, request, wanted, width).await) });
    }

    async fn side(&mut self, side: Side) -> Result<(), Status> {
        match side {
            Side::HeartbeatFailed(status) => Err(status),
            Side::Fetched(fetched) => {
                self.fetching = None;
                match fetched {
                    Ok((wanted, samples)) => {
                        self.kept.shards.keep(&wanted, samples);
                        debug!("holds {} ({} in all)", wanted.shard, self.kept.shards.len());
                        // What is wanted may have changed while this was on its way.
                        if self.kept.shards.get(wanted.shard).is_some() {
                            self.report_held(wanted.shard).await;
                        }
                    }
                    // The job has ended in the meantime: what it needed is not needed any more.
                    Err(status) if status.code() == tonic::Code::NotFound => {}
                    Err(status) => return Err(status),
                }
                self.fetch_next();
                Ok(())
            }
            Side::Accepted { job, fingerprint } => {
                if self.job.as_ref().is_some_and(|current| current.number == job.number) {
                    send(&self.outbox, Up::JobAccepted(v1::JobAccepted { job: job.number, fingerprint }))
                        .await;
                }
                Ok(())
            }
        }
    }

    fn work(&mut self, work: v1::Work) -> Result<(), Status> {
        let Some(job) = &self.job else { return Ok(()) };
        if work.parameter_bytes == 0 {
            return self.begin(work);
        }
        let count = job.model.parameter_count();
        if work.parameter_bytes != (count * size_of::<f32>()) as u64 {
            let announced = work.parameter_bytes;
            return Err(Status::invalid_argument(format!(
                "{announced} bytes of parameters; the model has {count}"
            )));
        }
        let buffer = self.reusable_buffer(count);
        self.incoming_parameters = Some(IncomingParameters { work, assembly: Assembly::new(buffer) });
        Ok(())
    }

    /// The buffer of the parameters before, if no slot computes with them any more.
    fn reusable_buffer(&mut self, count: usize) -> Vec<f32> {
        let old = self.parameters.take().and_then(|(_, parameters)| Arc::try_unwrap(parameters).ok());
        old.unwrap_or_else(|| self.kept.pool.take(count))
    }

    fn chunk(&mut self, data: &[u8]) -> Result<(), Status> {
        // After the end of a job the rest of its last broadcast may still be on its way.
        let Some(incoming) = &mut self.incoming_parameters else { return Ok(()) };
        incoming.assembly.push(data)?;
        if !incoming.assembly.is_complete() {
            return Ok(());
        }
        let Some(IncomingParameters { work, assembly }) = self.incoming_parameters.take() else {
            return Ok(());
        };
        let tag = work.id.as_ref().map_or(0, |id| id.parameter_tag);
        self.parameters = Some((tag, Arc::new(assembly.into_values())));
        self.begin(work)
    }

    fn begin(&mut self, work: v1::Work) -> Result<(), Status> {
        let Some(job) = &self.job else { return Ok(()) };
        let id = WorkId::try_from(convert::required(work.id, "id")?)?;
        let tree = Tree::new(job.spec.shards);
        let nodes: Vec<Node> =
            work.nodes.into_iter().map(|node| convert::node(node, &tree)).collect::<Result<_, _>>()?;
        let parameters = match &self.parameters {
            Some((tag, parameters)) if *tag == id.parameter_tag => Arc::clone(parameters),
            _ => return Err(Status::data_loss(format!("no parameters {} here", id.parameter_tag))),
        };
        // A node may span shards that have no part in this work; their samples may be elsewhere.
        let needed = nodes.iter().flat_map(|&node| job.present(id, node));
        let needed = needed.map(|index| Shard { split: id.phase.split(), index });
        let samples = needed.map(|shard| match self.kept.shards.get(shard) {
            Some(samples) => Ok((shard.index, samples.clone())),
            None => Err(Status::data_loss(format!("no samples of shard {shard} here"))),
        });
        let samples = samples.collect::<Result<_, _>>()?;
        self.slots.begin(Batch { work: id, job: Arc::clone(job), parameters, nodes, samples });
        Ok(())
    }

    async fn send_result(&self, done: Done) {
        let Done { work, node, sum } = done;
        let result = v1::WorkResult {
            id: Some(work.into()),
            node: Some(node.into()),
            loss_sum: sum.loss_sum,
            correct: sum.correct,
            samples: sum.samples,
            sample_digests: sum.sample_digests.iter().map(|digest| Bytes::copy_from_slice(digest)).collect(),
            gradient_bytes: (sum.gradient.len() * size_of::<f32>()) as u64,
            finite: sum.loss_sum.is_finite(),
            busy_ns: sum.busy.as_nanos() as u64,
        };
        let bulk = (!sum.gradient.is_empty()).then(|| self.kept.pool.lend(sum.gradient));
        let _ = self.outbox.send(Outgoing { message: Up::Result(result), bulk }).await;
    }
}

fn wanted(shard: v1::Shard) -> Result<Wanted, Status> {
    let id = convert::required(shard.id, "id")?;
    Ok(Wanted { shard: Shard::try_from(id)?, samples: shard.samples, sha256: shard.sha256 })
}

/// Beats until that fails.
async fn heartbeat(
    mut client: WorkerClient<Channel>,
    interval: Duration,
    request: v1::HeartbeatRequest,
) -> Status {
    loop {
        let mut call = tonic::Request::new(request);
        call.set_timeout(interval * 10);
        if let Err(status) = client.heartbeat(call).await {
            return status;
        }
        tokio::time::sleep(interval).await;
    }
}
