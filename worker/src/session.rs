//! One session with a coordinator, from the introduction to the end of the stream.
//!
//! One task owns everything here. It receives messages from the coordinator, sums from the slots and fetched samples.
//! It never computes, never waits for the disk, and never waits for the coordinator to read.
//!
//! When the worker is stopped, the session *drains*: it tells the coordinator, finishes the assigned work, accepts no
//! new job and fetches nothing. It ends with the coordinator's `Goodbye`, when the connection closes, or at the time
//! limit.
//!
//! What the coordinator asks for is checked before anything is allocated for it ([`demands`]).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::arithmetic;
use millefeuille_core::control::{JobId, WorkerId};
use millefeuille_core::data::shard::{Shard, ShardSamples};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::SECTION;
use millefeuille_program::kernel;
use millefeuille_program::process::Shutdown;
use millefeuille_proto::buffer::{Buffer, Pool};
use millefeuille_proto::session::{
    FromWorker, Hold, Introduction, Parameters, ToWorker, Welcome, Work, WorkResult,
};
use millefeuille_proto::shared::{InheritedMemory, OwnSlots};
use millefeuille_proto::tallies;
use millefeuille_proto::wire::{self, Assembly};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{debug, info, warn};

use crate::compute::{Batch, Done, OutputBuffers, Slots};
use crate::condition::{Condition, SessionState};
use crate::demands::{self, Memory};
use crate::heartbeat::{self, Beat};
use crate::job::WorkerJob;
use crate::link::{Incoming, Link, Trouble};
use crate::outbox::{self, Outbox, Outgoing};
use crate::shards::{Shards, Source, Wanted, fetch};
use crate::{End, WorkerConfig};

/// Time for the coordinator to read a `Goodbye`.
const GOODBYE_READ: Duration = Duration::from_secs(1);

/// Why a worker leaves that was stopped.
const STOP: &str = "stop requested";

/// State that outlives a session: samples, buffers, and the slots.
pub(crate) struct SessionResources {
    shards: Shards,
    pool: Pool,
    slots: Slots,
    /// The memory shared with the coordinator, if the coordinator started this worker.
    inherited: Option<Arc<InheritedMemory>>,
    condition: Condition,
    /// One fingerprint is computed at a time, even if its session is over.
    fingerprints: Arc<Semaphore>,
    /// Whether the last session received the coordinator's welcome.
    pub(crate) welcomed: bool,
}

impl SessionResources {
    /// Starts the slots.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub(crate) fn new(config: &WorkerConfig, condition: &Condition) -> std::io::Result<Self> {
        let pool = Pool::default();
        let slots = Slots::start(config.slots, pool.clone(), condition.pieces.clone())?;
        let (shards, condition) = (Shards::new(config.cache_bytes), condition.clone());
        let inherited = config.shared_memory.clone();
        let fingerprints = Arc::new(Semaphore::new(1));
        Ok(Self { shards, pool, slots, inherited, condition, fingerprints, welcomed: false })
    }

    /// Drops the assigned work. Keeps samples and buffers, which may be useful again.
    fn forget_work(&mut self) {
        self.slots.clear();
        self.shards.want(Vec::new());
    }
}

/// A session that the coordinator has accepted.
pub(crate) struct Opened {
    link: Link,
    connection: mpsc::Sender<Outgoing>,
    incoming: Incoming,
}

impl Opened {
    /// Introduces this worker and opens the session.
    ///
    /// # Errors
    /// If the coordinator rejects the worker.
    pub(crate) async fn new(introduction: Introduction, link: Link) -> Result<Self, Trouble> {
        let (connection, outgoing) = outbox::channel();
        let message = FromWorker::Introduction(Box::new(introduction));
        // This cannot fail: the receiver still exists.
        let _ = connection.send(Outgoing { message, bulk: Vec::new() }).await;
        let incoming = link.begin(outgoing).await?;
        Ok(Self { link, connection, incoming })
    }
}

/// Runs one session.
///
/// # Errors
/// If the stream breaks, or the coordinator sends an invalid message; reconnecting may help.
pub(crate) async fn session(
    config: &WorkerConfig,
    opened: Opened,
    resources: &mut SessionResources,
    shutdown: Pin<&mut impl Shutdown>,
) -> Result<End, Trouble> {
    let Opened { link, connection, incoming } = opened;
    let (done_sender, done) = mpsc::channel(outbox::CONNECTION);
    let mut session = Session {
        link,
        resources,
        memory: Memory { limit: config.memory, cache: config.cache_bytes, slots: config.slots },
        outbox: Outbox::default(),
        done: done_sender,
        worker: None,
        job: None,
        own_slots: None,
        parameters: None,
        incoming_parameters: None,
        tasks: JoinSet::new(),
        fingerprinting: None,
        fetching: None,
        holding: 0,
        standby: false,
        draining: false,
    };
    session.expect_welcome(config.connect_timeout);
    let ended = session.run(config, Streams { incoming, connection, done }, shutdown).await;
    session.resources.forget_work();
    match ended {
        Err(trouble) if session.draining => {
            info!("the session ended while draining: {trouble}");
            Ok(End::Stopped)
        }
        Ok(End::UseKernel { .. }) if session.draining => Ok(End::Stopped),
        ended => ended,
    }
}

/// The channels and streams of a session.
struct Streams {
    incoming: Incoming,
    connection: mpsc::Sender<Outgoing>,
    done: mpsc::Receiver<Done>,
}

/// Parameters being received, and the work that waits for them.
struct IncomingParameters {
    work: Work,
    assembly: Assembly,
}

/// The outcome of a side task.
enum Side {
    Fetched { job: u64, wanted: Wanted, fetched: Result<ShardSamples, Trouble> },
    Fingerprint { job: Arc<WorkerJob>, computed: Result<String, JoinError> },
    HeartbeatFailed(Trouble),
    WelcomeDue,
}

/// The shard being fetched.
struct Fetching {
    sha256: String,
    task: AbortHandle,
}

struct Session<'a> {
    link: Link,
    resources: &'a mut SessionResources,
    /// The memory that the coordinator may ask for.
    memory: Memory,
    outbox: Outbox,
    /// The slots send complete nodes here.
    done: mpsc::Sender<Done>,
    /// `None` before the welcome.
    worker: Option<WorkerId>,
    job: Option<Arc<WorkerJob>>,
    /// The shared memory for the job's bulk data; `None` if bulk data goes over the wire.
    own_slots: Option<OwnSlots>,
    /// The newest parameters, with their tag.
    parameters: Option<(u64, Arc<Buffer>)>,
    incoming_parameters: Option<IncomingParameters>,
    tasks: JoinSet<Side>,
    /// The task that computes the job's fingerprint, or waits until it can.
    fingerprinting: Option<AbortHandle>,
    fetching: Option<Fetching>,
    /// The generation of the last `Hold`.
    holding: u64,
    standby: bool,
    draining: bool,
}

impl Session<'_> {
    async fn run(
        &mut self,
        config: &WorkerConfig,
        streams: Streams,
        mut shutdown: Pin<&mut impl Shutdown>,
    ) -> Result<End, Trouble> {
        let Streams { mut incoming, connection, mut done } = streams;
        let mut drained = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let speaks = !self.outbox.is_empty();
            tokio::select! {
                message = incoming.next() => match message? {
                    None => return Err(Trouble::lost("the coordinator closed the session")),
                    Some(message) => match self.received(message) {
                        Ok(None) => {}
                        Ok(Some(end)) => return Ok(end),
                        Err(Trouble::TooLarge(reason)) => {
                            self.leave(&reason, incoming, &connection).await;
                            return Ok(End::TooLarge(reason));
                        }
                        Err(trouble) => return Err(trouble),
                    },
                },
                // If the stream is gone, `incoming.next()` returns the reason.
                Ok(permit) = connection.reserve(), if speaks => self.outbox.hand_over(permit),
                Some(done) = done.recv(), if !speaks => self.finished(done),
                Some(side) = self.tasks.join_next() => self.side(side)?,
                () = &mut shutdown, if !self.draining => {
                    self.drain(config.drain_timeout);
                    drained.as_mut().reset(tokio::time::Instant::now() + config.drain_timeout);
                }
                () = &mut drained, if self.draining => {
                    warn!("the assigned work is not finished within {} s", config.drain_timeout.as_secs_f64());
                    self.leave(STOP, incoming, &connection).await;
                    return Ok(End::Stopped);
                }
            }
        }
    }

    fn drain(&mut self, limit: Duration) {
        info!("draining: finishing the assigned work, for {} s at most", limit.as_secs_f64());
        self.draining = true;
        self.resources.condition.set_standing(SessionState::Draining);
        self.outbox.say(FromWorker::Drain { reason: STOP.into() });
    }

    /// Sends `Goodbye`, and gives the coordinator a moment to read it.
    async fn leave(&self, reason: &str, mut incoming: Incoming, connection: &mpsc::Sender<Outgoing>) {
        let message = FromWorker::Goodbye { reason: reason.into() };
        let heard = async {
            let _ = connection.send(Outgoing { message, bulk: Vec::new() }).await;
            while let Ok(Some(_)) = incoming.next().await {}
        };
        let _ = tokio::time::timeout(GOODBYE_READ, heard).await;
    }

    /// Limits the wait for the welcome: a server that accepts a session and sends nothing is not a coordinator.
    fn expect_welcome(&mut self, limit: Duration) {
        self.tasks.spawn(async move {
            tokio::time::sleep(limit).await;
            Side::WelcomeDue
        });
    }

    // Messages from the coordinator.

    fn received(&mut self, message: ToWorker) -> Result<Option<End>, Trouble> {
        match message {
            ToWorker::Welcome(welcome) => self.welcomed(welcome)?,
            ToWorker::UseKernel { kernel } => return self.use_kernel(kernel).map(Some),
            ToWorker::Goodbye { reason } => return Ok(Some(End::SessionEnded(reason))),
            ToWorker::Evict { reason } => return Ok(Some(End::Evicted(reason))),
            ToWorker::JobStart { job, run_id, spec } => self.start_job(job, run_id, *spec)?,
            ToWorker::JobEnd { .. } => self.end_job(),
            ToWorker::Hold(hold) => self.hold(hold)?,
            ToWorker::Work(work) => self.work(work)?,
            ToWorker::Chunk(data) => self.chunk(&data)?,
        }
        if self.outbox.is_overfull() {
            return Err(Trouble::lost("it asks for more and more, and reads no answer"));
        }
        Ok(None)
    }

    /// A process that was started for a kernel has what it can have of it: starting again would change nothing.
    fn use_kernel(&self, kernel: String) -> Result<End, Trouble> {
        if kernel == kernel::started_for().to_string() {
            return Err(Trouble::lost(format!("it asks again for the kernel {kernel}")));
        }
        Ok(End::UseKernel { kernel, restarts: kernel::restarts() + 1 })
    }

    fn welcomed(&mut self, welcome: Welcome) -> Result<(), Trouble> {
        if self.worker.is_some() {
            return Err(Trouble::lost("it welcomes this worker a second time"));
        }
        self.worker = Some(welcome.worker);
        self.resources.welcomed = true;
        if !self.draining {
            self.resources.condition.set_standing(SessionState::InSession);
        }
        info!("joined as {}", welcome.worker);
        let (heartbeats, beat) = (self.link.heartbeats(), Beat::from(welcome));
        self.tasks.spawn(async move { Side::HeartbeatFailed(heartbeat::beat(heartbeats, beat).await) });
        Ok(())
    }

    fn start_job(&mut self, job: JobId, run_id: String, spec: Spec) -> Result<(), Trouble> {
        self.end_job();
        if self.draining {
            return Ok(());
        }
        self.memory.check_job(&spec)?;
        // Spare buffers of the job before may have another length.
        self.resources.pool.clear();
        let job = Arc::new(WorkerJob::new(job.0, run_id, spec));
        self.job = Some(Arc::clone(&job));
        self.own_slots = self.shared_slots(job.workload.model().parameter_count());
        let turn = Arc::clone(&self.resources.fingerprints);
        self.fingerprinting = Some(self.tasks.spawn(async move {
            let turn = turn.acquire_owned().await;
            let of = Arc::clone(&job);
            let computed = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                arithmetic::model_fingerprint(of.workload.spec())
            });
            Side::Fingerprint { job, computed: computed.await }
        }));
        Ok(())
    }

    /// Memory for the job that is shared with the coordinator, if available.
    fn shared_slots(&self, parameters: usize) -> Option<OwnSlots> {
        self.resources.inherited.as_ref()?.map(parameters).unwrap_or_else(|error| {
            debug!("parameters and gradients go over the wire: {error}");
            None
        })
    }

    fn end_job(&mut self) {
        self.resources.forget_work();
        self.stop_fetching();
        if let Some(task) = self.fingerprinting.take() {
            task.abort();
        }
        self.job = None;
        self.own_slots = None;
        self.parameters = None;
        self.incoming_parameters = None;
    }

    fn hold(&mut self, hold: Hold) -> Result<(), Trouble> {
        let Some(job) = self.job.as_ref().filter(|job| job.number == hold.job.0) else { return Ok(()) };
        demands::check_hold(job.workload.spec(), &hold)?;
        self.memory.check_hold(job.workload.spec(), &hold)?;
        if hold.standby && !self.standby {
            info!("on standby: other workers compute all shards");
        }
        self.standby = hold.standby;
        self.holding = hold.generation;
        let held = self.resources.shards.want(hold.shards.into_iter().map(Wanted::from).collect());
        held.into_iter().for_each(|shard| self.report_held(shard));
        // A transfer that is no longer wanted would delay the wanted ones.
        if self.fetching.as_ref().is_some_and(|fetching| !self.resources.shards.wants(&fetching.sha256)) {
            self.stop_fetching();
        }
        self.fetch_next();
        Ok(())
    }

    fn work(&mut self, work: Work) -> Result<(), Trouble> {
        let Some(job) = self.job.clone().filter(|job| job.number == work.id.job.0) else { return Ok(()) };
        demands::check_work(&job.workload, &work)?;
        // An evaluation has no gradients.
        if job.workload.gradient_len(work.id.into()) > 0 {
            let nodes = self.resources.slots.pending_with(work.id, &work.nodes);
            self.memory.check_nodes(job.workload.spec(), nodes)?;
        }
        match work.parameters {
            Parameters::Known => self.assign(work),
            Parameters::InSlot(slot) => {
                self.take_parameters(work.id.parameter_tag, slot)?;
                self.assign(work)
            }
            Parameters::Follow(bytes) => {
                self.await_parameters(work, bytes, job.workload.model().parameter_count())
            }
        }
    }

    /// Prepares to receive `bytes` bytes of parameters, which must match the model's size.
    fn await_parameters(&mut self, work: Work, bytes: u64, count: usize) -> Result<(), Trouble> {
        if bytes != (count * size_of::<f32>()) as u64 {
            return Err(Trouble::lost(format!("{bytes} bytes of parameters; the model has {count}")));
        }
        // Drop the old parameters first: their buffer returns to the pool unless a slot still computes with it.
        self.parameters = None;
        let assembly = Assembly::new(self.resources.pool.take(count));
        self.incoming_parameters = Some(IncomingParameters { work, assembly });
        Ok(())
    }

    /// Takes parameters from shared memory.
    fn take_parameters(&mut self, tag: u64, slot: u32) -> Result<(), Trouble> {
        let part = self.own_slots.as_ref().and_then(|own_slots| own_slots.parameters(slot));
        let part = part.ok_or_else(|| Trouble::lost(format!("no shared parameters in slot {slot} here")))?;
        self.parameters = Some((tag, Arc::new(part.into())));
        Ok(())
    }

    fn chunk(&mut self, data: &[u8]) -> Result<(), Trouble> {
        // After a job's end, chunks of its last broadcast may still arrive.
        self.resources.condition.received.inc_by(data.len() as u64);
        let Some(incoming) = &mut self.incoming_parameters else { return Ok(()) };
        incoming.assembly.push(data)?;
        if !incoming.assembly.is_complete() {
            return Ok(());
        }
        let Some(IncomingParameters { work, assembly }) = self.incoming_parameters.take() else {
            return Ok(());
        };
        self.parameters = Some((work.id.parameter_tag, Arc::new(assembly.into_values())));
        self.assign(work)
    }

    /// Assigns nodes to the slots, with the parameters and samples that they need.
    fn assign(&mut self, Work { id, nodes, .. }: Work) -> Result<(), Trouble> {
        let Some(job) = &self.job else { return Ok(()) };
        let parameters = match &self.parameters {
            Some((tag, parameters)) if *tag == id.parameter_tag => Arc::clone(parameters),
            _ => return Err(Trouble::lost(format!("no parameters {} here", id.parameter_tag))),
        };
        // A node may span shards that this work does not use; other workers may hold their samples.
        let needed = nodes.iter().flat_map(|&node| job.workload.present(id.into(), node.first..node.end));
        let needed = needed.map(|index| Shard { split: id.phase.split(), index });
        let samples = needed.map(|shard| match self.resources.shards.get(shard) {
            Some(samples) => Ok((shard.index, samples.clone())),
            None => Err(Trouble::lost(format!("no samples of shard {shard} here"))),
        });
        let samples = samples.collect::<Result<_, _>>()?;
        let values = job.workload.gradient_len(id.into());
        let (own_slots, pool) = (self.own_slots.as_ref(), &self.resources.pool);
        let batch =
            Batch { work: id, job: Arc::clone(job), parameters, nodes, samples, done: self.done.clone() };
        self.resources.slots.assign(batch, || target(own_slots, pool, values));
        Ok(())
    }

    // Finished work.

    /// Sends the result of a complete node, unless its job is over.
    fn finished(&mut self, done: Done) {
        let (work, node, mut sum) = (done.work(), done.node(), done.into_sum());
        self.resources.slots.result_sent(work, node);
        if self.job.as_ref().is_none_or(|job| job.number != work.job.0) {
            return;
        }
        let handed_over = self.own_slots.as_ref().zip(sum.slot).map(|(own_slots, slot)| {
            own_slots.hand_over(slot);
            slot
        });
        let mut bulk: Vec<_> = match handed_over {
            Some(_) => Vec::new(),
            None => sum.gradient.into_iter().map(Buffer::into_bytes).collect(),
        };
        let gradient_bytes = bulk.iter().map(|section| section.len() as u64).sum();
        let tallies = tallies::detach(&mut sum.figures);
        let tally_bytes = tallies.len() as u64;
        bulk.extend(wire::chunks(tallies));
        let result = WorkResult {
            work,
            node,
            figures: sum.figures,
            sample_digests: sum.sample_digests,
            gradient_bytes,
            gradient_slot: handed_over,
            tally_bytes,
            busy: sum.busy,
        };
        self.resources.condition.sent.inc_by(gradient_bytes + tally_bytes);
        self.outbox.say_with(FromWorker::Result(Box::new(result)), bulk);
    }

    fn side(&mut self, side: Result<Side, JoinError>) -> Result<(), Trouble> {
        match side {
            Err(error) if error.is_cancelled() => {}
            Err(error) => return Err(Trouble::lost(error.to_string())),
            Ok(Side::HeartbeatFailed(trouble)) => return Err(trouble),
            Ok(Side::WelcomeDue) if self.worker.is_none() => {
                return Err(Trouble::lost("it does not say whether it admits this worker"));
            }
            Ok(Side::WelcomeDue) => {}
            Ok(Side::Fetched { job, wanted, fetched }) => self.fetched(job, &wanted, fetched)?,
            Ok(Side::Fingerprint { job, computed }) => self.accepted(&job, computed)?,
        }
        Ok(())
    }

    fn accepted(&mut self, job: &WorkerJob, computed: Result<String, JoinError>) -> Result<(), Trouble> {
        let fingerprint = computed.map_err(|error| Trouble::lost(error.to_string()))?;
        if self.is_current(job.number) && !self.draining {
            info!("job {} begins", job.run_id);
            let shares_memory = self.own_slots.is_some();
            let job = JobId(job.number);
            self.outbox.say(FromWorker::JobAccepted { job, fingerprint, shares_memory });
        }
        Ok(())
    }

    fn is_current(&self, job: u64) -> bool {
        self.job.as_ref().is_some_and(|current| current.number == job)
    }

    // Samples.

    /// Fetches the next shard. One at a time, so that the most urgent shard is complete soonest.
    fn fetch_next(&mut self) {
        let (Some(job), None, false) = (&self.job, &self.fetching, self.draining) else { return };
        let Some(wanted) = self.resources.shards.next() else { return };
        let worker = self.worker.unwrap_or(WorkerId(0));
        let source = Source { samples: self.link.samples(), worker, job: JobId(job.number) };
        let (job, schema, sha256) =
            (job.number, Arc::new(job.workload.spec().schema.clone()), wanted.sha256.clone());
        let task = self.tasks.spawn(async move {
            let fetched = fetch(source, wanted.clone(), schema).await;
            Side::Fetched { job, wanted, fetched }
        });
        self.fetching = Some(Fetching { sha256, task });
    }

    fn stop_fetching(&mut self) {
        if let Some(fetching) = self.fetching.take() {
            fetching.task.abort();
        }
    }

    fn fetched(
        &mut self,
        job: u64,
        wanted: &Wanted,
        fetched: Result<ShardSamples, Trouble>,
    ) -> Result<(), Trouble> {
        self.fetching.take_if(|fetching| fetching.sha256 == wanted.sha256);
        match fetched {
            Ok(samples) => {
                self.resources.condition.received.inc_by(samples.bytes().len() as u64);
                let shards = self.resources.shards.keep(&wanted.sha256, samples);
                debug!("holds {} ({} in all)", wanted.shard, self.resources.shards.len());
                shards.into_iter().for_each(|shard| self.report_held(shard));
            }
            // A failed fetch for a job that has ended does not matter.
            Err(trouble) if self.is_current(job) => return Err(trouble),
            Err(_) => {}
        }
        self.fetch_next();
        Ok(())
    }

    fn report_held(&mut self, shard: Shard) {
        let job = JobId(self.job.as_ref().map_or(0, |job| job.number));
        self.outbox.say(FromWorker::ShardHeld { job, generation: self.holding, shard });
    }
}

/// Memory for a node's sum: a slot of shared memory if one is free, otherwise pooled buffers.
fn target(own_slots: Option<&OwnSlots>, pool: &Pool, values: usize) -> OutputBuffers {
    match own_slots.filter(|_| values > 0).and_then(OwnSlots::take) {
        Some(part) => {
            let slot = Some(part.slot());
            OutputBuffers { sections: part.cut(SECTION).map(Buffer::from).collect(), slot }
        }
        None => OutputBuffers::pooled(pool, values),
    }
}
