//! The driver: the one task that owns the cluster's state.
//!
//! It takes one message after another from its inbox, feeds the control machine, and carries out the machine's
//! actions in order. It never waits for a peer: a message that a worker's full outbox does not take ends that
//! worker's session. What a run writes goes through a thread of its own (the disk thread); only a new run's directory
//! is made at once. The arithmetic of a step is done here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millefeuille_core::control::{
    Action, Cluster, Departure, Dismissal, Event, Failure, JobId, Note, Outcome, WorkId, WorkerId,
};
use millefeuille_core::data::dataset::CLASSES;
use millefeuille_core::data::shard::Shard;
use millefeuille_core::job::Job;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_proto::v1;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_worker::process::exit;
use tokio::sync::{mpsc, watch};
use tonic::Status as Refusal;
use tracing::{debug, info, warn};

use super::disk::{Content, Disk, Order, Written};
use super::load::{Loaded, load};
use super::messages::{Connected, Input, NodeResult, Outgoing, Serving, Sum, Traffic};
use super::status::{self, Status};
use super::training::Training;
use super::{Config, Handle};
use crate::report::Shown;
use crate::runs::RunDir;
use crate::see::history::Row;

/// How often the control machine is told that time has passed.
const TICK: Duration = Duration::from_millis(100);
/// How often what readers see is renewed while nothing but steps happens.
const PUBLISH: Duration = Duration::from_millis(50);

/// A worker's session, as the driver holds it.
pub(super) struct Session {
    pub(super) build: String,
    pub(super) cpu: String,
    outbox: mpsc::Sender<Outgoing>,
    pub(super) traffic: Arc<Traffic>,
}

/// A job, from its submission to the cluster's end.
pub(super) struct Record {
    pub(super) id: String,
    pub(super) job: Job,
    client_key: String,
    /// The run directory; the disk thread has it while the job runs.
    run: Option<RunDir>,
    pub(super) run_dir: String,
    pub(super) history: Vec<Row>,
    pub(super) steps_per_epoch: u32,
    pub(super) weights_sha256: String,
    pub(super) shown: Vec<Shown>,
}

pub(super) struct Driver {
    config: Config,
    start: Instant,
    pub(super) control: Cluster,
    pub(super) sessions: BTreeMap<WorkerId, Session>,
    pub(super) jobs: BTreeMap<JobId, Record>,
    pub(super) training: Option<Training>,
    /// The result that the control machine is asked about.
    pending: Option<Sum>,
    handle: Handle,
    inbox: mpsc::Receiver<Input>,
    disk: Disk,
    status: watch::Sender<Arc<Status>>,
    published: Instant,
    /// When the control machine was last told that time has passed.
    ticked: Duration,
    serving: watch::Sender<Option<Arc<Serving>>>,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        handle: Handle,
        inbox: mpsc::Receiver<Input>,
        status: watch::Sender<Arc<Status>>,
        serving: watch::Sender<Option<Arc<Serving>>>,
    ) -> Self {
        Self {
            control: Cluster::new(config.control.clone()),
            config,
            start: Instant::now(),
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            training: None,
            pending: None,
            disk: Disk::start(handle.clone()),
            handle,
            inbox,
            status,
            published: Instant::now(),
            ticked: Duration::ZERO,
            serving,
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = self.inbox.recv() => match input {
                    None | Some(Input::Stop) => break,
                    Some(input) => self.take(input),
                },
                _ = ticks.tick() => self.tick(),
            }
            if self.published.elapsed() >= PUBLISH {
                self.publish();
            }
        }
        self.say_goodbye();
    }

    fn say_goodbye(&mut self) {
        let reason = "the cluster has ended".to_string();
        for session in self.sessions.values() {
            let _ = session
                .outbox
                .try_send(Outgoing::Message(Down::Goodbye(v1::Goodbye { reason: reason.clone() })));
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connected(connected) => self.connected(*connected),
            Input::Result(result) => self.result(*result),
            Input::Event(event) => {
                if let Event::Leave { worker, .. } = event {
                    self.close(worker, None);
                }
                self.handle(event);
            }
            Input::Submit { job_toml, client_key, reply } => {
                // The caller may have hung up.
                let _ = reply.send(self.submit(&job_toml, client_key));
            }
            Input::Cancel { job_id, reply } => {
                let _ = reply.send(self.cancel(&job_id));
            }
            Input::Loaded { job, loaded } => self.loaded(job, loaded),
            Input::Written { job, written } => self.written(job, written),
            Input::NoLocalWorkers(message) => self.no_local_workers(message),
            Input::Stop => {}
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Feeds the control machine, and carries out what it says; what that leads to is fed in turn.
    fn handle(&mut self, event: Event) {
        let visible = !matches!(event, Event::Result { .. } | Event::Tick | Event::Heard { .. });
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.control.handle(self.now(), event) {
                events.extend(self.act(action));
            }
        }
        if visible {
            self.publish();
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let heard = |(&worker, session): (&WorkerId, &Session)| {
            (worker, now.saturating_sub(session.traffic.silence()))
        };
        let heard: Vec<_> = self.sessions.iter().map(heard).collect();
        for (worker, at) in heard {
            self.handle(Event::Heard { worker, at });
        }
        // A coordinator that was stopped itself gives its workers a moment: what they sent waits to be read.
        let late = now.saturating_sub(self.ticked) > self.config.control.heartbeat_deadline / 2;
        self.ticked = now;
        if !late {
            self.handle(Event::Tick);
        }
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        self.status.send_replace(Arc::new(status::of(self)));
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Welcome { worker } => self.welcome(worker),
            Action::Dismiss { worker, reason } => self.close(worker, Some(dismissal(&reason))),
            Action::UseKernel { worker, kernel } => {
                self.say(worker, Down::UseKernel(v1::UseKernel { kernel }))
            }
            Action::Load { job } => self.load(job),
            Action::StartJob { worker, job } => self.start_job(worker, job),
            Action::Hold { worker, job, generation, shards, spare } => {
                self.hold(worker, job, generation, &shards, spare);
            }
            Action::Begin { work } => self.training.iter_mut().for_each(|training| training.begin(work)),
            Action::Send { worker, work, nodes } => self.send_work(worker, work, nodes),
            Action::Accept { node, .. } => {
                if let (Some(training), Some(sum)) = (&mut self.training, self.pending.take()) {
                    training.accept(node, sum);
                }
            }
            Action::Discard { reason } => {
                debug!("a result is thrown away: {reason:?}");
                if let (Some(training), Some(sum)) = (&self.training, self.pending.take()) {
                    training.pool.give(sum.gradient);
                }
            }
            Action::Close { work } => {
                let finite = self.training.as_mut().is_some_and(|training| training.close(work));
                return Some(Event::Closed { work, finite });
            }
            Action::EndEpoch { epoch, .. } => self.end_epoch(epoch),
            Action::Save { .. } => {
                if let Some(training) = &self.training {
                    self.disk.order(Order::Save { parameters: training.parameters() });
                }
            }
            Action::End { job, outcome } => self.end(job, &outcome),
            Action::Note(note) => self.note(&note),
        }
        None
    }

    // Workers.

    fn connected(&mut self, connected: Connected) {
        let Connected { worker, hello, build, cpu, outbox, traffic } = connected;
        self.sessions.insert(worker, Session { build, cpu, outbox, traffic });
        self.handle(Event::Join { worker, hello });
    }

    fn welcome(&mut self, worker: WorkerId) {
        let millis = |duration: Duration| duration.as_millis() as u32;
        let welcome = v1::Welcome {
            worker_id: worker.0,
            incarnation: self.config.control.incarnation,
            heartbeat_interval_ms: millis(self.config.heartbeat_interval),
            heartbeat_deadline_ms: millis(self.config.control.heartbeat_deadline),
        };
        self.say(worker, Down::Welcome(welcome));
    }

    fn say(&mut self, worker: WorkerId, message: Down) {
        self.put(worker, Outgoing::Message(message));
    }

    fn put(&mut self, worker: WorkerId, outgoing: Outgoing) {
        let Some(session) = self.sessions.get(&worker) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = session.outbox.try_send(outgoing) {
            warn!("{worker} has stopped reading");
            self.close(worker, None);
        }
    }

    /// Ends a session, with what the worker is told. The session's reader reports the end to the control machine.
    fn close(&mut self, worker: WorkerId, status: Option<Refusal>) {
        if let Some(training) = &mut self.training {
            training.forget(worker);
        }
        if let (Some(session), Some(status)) = (self.sessions.remove(&worker), status) {
            warn!("{worker} is sent away: {}", status.message());
            let _ = session.outbox.try_send(Outgoing::Close(status));
        }
    }

    fn start_job(&mut self, worker: WorkerId, job: JobId) {
        let (Some(training), Some(record)) = (&self.training, self.jobs.get(&job)) else { return };
        let spec = Some(v1::Spec::from(&training.loaded.spec));
        let start = v1::JobStart { job: job.0, run_id: record.id.clone(), spec };
        self.say(worker, Down::JobStart(start));
    }

    fn hold(&mut self, worker: WorkerId, job: JobId, generation: u64, shards: &[Shard], spare: bool) {
        let Some(training) = &self.training else { return };
        let shards = shards.iter().filter_map(|&shard| {
            let stored = training.store().get(shard)?;
            let samples = &stored.samples;
            Some(v1::Shard {
                id: Some(shard.into()),
                samples: samples.len(),
                bytes: samples.bytes().len() as u64,
                sha256: stored.sha256.clone(),
            })
        });
        let hold = v1::Hold { job: job.0, shards: shards.collect(), spare, generation };
        self.say(worker, Down::Hold(hold));
    }

    fn send_work(&mut self, worker: WorkerId, work: WorkId, nodes: Vec<Node>) {
        let Some(training) = &mut self.training else { return };
        let parameters = training.parameters_for(worker, work.parameter_tag);
        let nodes = nodes.into_iter().map(v1::Node::from).collect();
        let parameter_bytes = parameters.as_ref().map_or(0, |parameters| parameters.len() as u64);
        let header = Down::Work(v1::Work { id: Some(work.into()), nodes, parameter_bytes });
        self.put(
            worker,
            match parameters {
                Some(parameters) => Outgoing::Bulk(header, parameters),
                None => Outgoing::Message(header),
            },
        );
    }

    fn result(&mut self, result: NodeResult) {
        let NodeResult { worker, work, node, sum, busy } = result;
        let current = self.control.running() == Some(work.job);
        let Some(training) = self.training.as_mut().filter(|_| current) else { return };
        if !training.fits(work, node, &sum) {
            let departure = Departure::Misbehaved(format!("a result of {work} has the wrong shape"));
            self.close(worker, Some(Refusal::invalid_argument("a result has the wrong shape")));
            return self.handle(Event::Leave { worker, departure });
        }
        let slots = self.control.members().get(&worker).map_or(1, |member| member.hello.slots);
        training.clock.result(busy / slots);
        let samples = sum.samples;
        self.pending = Some(sum);
        self.handle(Event::Result { worker, work, node, samples, busy });
    }

    // Jobs.

    fn submit(&mut self, job_toml: &str, client_key: String) -> Result<String, Refusal> {
        let known =
            self.jobs.values().find(|record| !client_key.is_empty() && record.client_key == client_key);
        if let Some(record) = known {
            return Ok(record.id.clone());
        }
        if self.control.queued() >= self.config.max_queued {
            return Err(Refusal::resource_exhausted(format!(
                "{} jobs are queued already",
                self.config.max_queued
            )));
        }
        let invalid = |error: millefeuille_core::job::JobError| Refusal::invalid_argument(error.to_string());
        let job = Job::parse("job", job_toml).map_err(invalid)?;
        job.check_output(CLASSES.into()).map_err(invalid)?;
        let run = match self.config.first_run.take() {
            Some(run) => run,
            None => RunDir::claim_next(&self.config.runs_dir, &job.name, |id| self.has(id))
                .map_err(|error| Refusal::failed_precondition(error.to_string()))?,
        };
        let number = JobId(self.jobs.len() as u64 + 1);
        let record = Record {
            id: run.id(),
            run_dir: run.path().display().to_string(),
            run: Some(run),
            job,
            client_key,
            history: Vec::new(),
            steps_per_epoch: 0,
            weights_sha256: String::new(),
            shown: Vec::new(),
        };
        let id = record.id.clone();
        info!("job {id} is queued; its run directory is {}", record.run_dir);
        self.jobs.insert(number, record);
        self.handle(Event::Submit { job: number });
        Ok(id)
    }

    /// Whether a job of this id was ever submitted, be its directory gone or not.
    fn has(&self, id: &str) -> bool {
        self.jobs.values().any(|record| record.id == id)
    }

    fn cancel(&mut self, job_id: &str) -> Result<v1::Job, Refusal> {
        let found = if job_id.is_empty() {
            self.control.running()
        } else {
            self.jobs.iter().find(|(_, record)| record.id == job_id).map(|(&job, _)| job)
        };
        let job = found.ok_or_else(|| match job_id {
            "" => Refusal::not_found("no job runs"),
            id => Refusal::not_found(format!("there is no job {id}")),
        })?;
        self.handle(Event::Cancel { job });
        Ok(status::job(self, job))
    }

    fn load(&mut self, job: JobId) {
        let Some(record) = self.jobs.get(&job) else { return };
        let (config, handle) = (record.job.clone(), self.handle.clone());
        let loading = tokio::task::spawn_blocking(move || load(config).map(Box::new));
        tokio::spawn(async move {
            let panicked = |error: tokio::task::JoinError| {
                let message = format!("the data cannot be made ready: {error}");
                Err(Failure { exit_code: exit::UNEXPECTED, message })
            };
            let loaded = loading.await.unwrap_or_else(panicked);
            handle.send(Input::Loaded { job, loaded }).await;
        });
    }

    fn loaded(&mut self, job: JobId, loaded: Result<Box<Loaded>, Failure>) {
        if self.control.running() != Some(job) {
            return;
        }
        let loaded = match loaded {
            Ok(loaded) => *loaded,
            Err(failure) => return self.handle(Event::Broken { job, failure }),
        };
        let facts = loaded.facts.clone();
        info!(
            "data is ready: {} training, {} validation, {} test samples; kernel {}, OpenBLAS {}",
            facts.sizes.train,
            facts.sizes.validation,
            facts.sizes.test,
            facts.arithmetic.kernel,
            facts.arithmetic.version
        );
        let training = Training::new(loaded);
        self.serving.send_replace(Some(Arc::new(Serving {
            job,
            tree: Tree::new(facts.shards),
            parameters: training.model.parameter_count(),
            store: Arc::clone(training.store()),
            pool: training.pool.clone(),
        })));
        if let Some(record) = self.jobs.get_mut(&job) {
            record.job = training.job.clone();
            record.steps_per_epoch = facts.plan.steps();
            if let Some(run) = record.run.take() {
                let content = Arc::new(Content {
                    job: training.job.clone(),
                    spec: training.loaded.spec.clone(),
                    model: Arc::clone(&training.model),
                    store: Arc::clone(training.store()),
                    arithmetic: facts.arithmetic.clone(),
                });
                self.disk.order(Order::Begin { job, run, content });
            }
        }
        self.training = Some(training);
        for (worker, member) in self.control.members() {
            let hello = &member.hello;
            self.event("joined", joined(*worker, &hello.name, hello.slots));
        }
        self.handle(Event::Loaded { job, facts });
    }

    fn end_epoch(&mut self, epoch: u32) {
        let Some(training) = &self.training else { return };
        let (row, parameters) = (training.row(epoch), training.parameters());
        self.disk.order(Order::Epoch { row, parameters });
    }

    fn written(&mut self, job: JobId, written: Result<Written, Failure>) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        match written {
            Err(failure) => self.handle(Event::Broken { job, failure }),
            Ok(Written::Epoch(row)) => {
                debug!("epoch {} is written", row.epoch);
                record.history.push(row);
                self.publish();
            }
            Ok(Written::Result(hash, shown)) => {
                record.weights_sha256 = hash;
                record.shown = shown;
                self.handle(Event::Saved { job });
            }
        }
    }

    fn no_local_workers(&mut self, message: String) {
        if let Some(job) = self.control.running() {
            let failure = Failure { exit_code: exit::TOO_FEW_WORKERS, message };
            self.handle(Event::Broken { job, failure });
        }
    }

    fn end(&mut self, job: JobId, outcome: &Outcome) {
        let text = status::describe(outcome);
        match outcome {
            Outcome::Done => info!("job {} is done", self.jobs.get(&job).map_or("", |record| &record.id)),
            _ => info!("job {} has ended: {text}", self.jobs.get(&job).map_or("", |record| &record.id)),
        }
        let ran = self.serving.borrow().as_ref().is_some_and(|serving| serving.job == job);
        if ran {
            self.serving.send_replace(None);
            self.training = None;
            self.event("end", text);
            self.disk.order(Order::End);
            let workers: Vec<_> = self.sessions.keys().copied().collect();
            workers.into_iter().for_each(|worker| self.say(worker, Down::JobEnd(v1::JobEnd { job: job.0 })));
        }
        if let Some(record) = self.jobs.get_mut(&job) {
            // A job that never began gives its directory back.
            record.run = None;
        }
    }

    fn note(&mut self, note: &Note) {
        let (kind, text) = match note {
            Note::Joined { worker, name, slots } => ("joined", joined(*worker, name, *slots)),
            Note::Left { worker, name, how } => ("left", format!("{worker} ({name}) left: {how}")),
            Note::Placed { placement, from, .. } => {
                let runs =
                    placement.iter().map(|(worker, run)| format!("{worker}: {}–{}", run.start, run.end - 1));
                (
                    "placed",
                    format!("from {from} on, shards are placed: {}", runs.collect::<Vec<_>>().join(", ")),
                )
            }
        };
        info!("{text}");
        self.event(kind, text);
    }

    fn event(&self, kind: &'static str, text: String) {
        self.disk.order(Order::Event { kind, text });
    }
}

fn joined(worker: WorkerId, name: &str, slots: u32) -> String {
    format!("{worker} ({name}) joined with {slots} slots")
}

/// What a worker that is sent away is told.
fn dismissal(reason: &Dismissal) -> Refusal {
    match reason {
        Dismissal::Silent { silence } => {
            Refusal::aborted(format!("nothing came from this worker for {:.1} s", silence.as_secs_f64()))
        }
        Dismissal::Full { limit } => {
            Refusal::resource_exhausted(format!("there are {limit} workers already"))
        }
        Dismissal::Arithmetic { theirs, needed } => Refusal::failed_precondition(format!(
            "it computes other bits than the job needs: it has OpenBLAS {} with kernel {} (fingerprint {}), \
             the job needs {} with {} ({}); use the same OpenBLAS version, and pin blas_kernel in the job",
            theirs.version,
            theirs.kernel,
            short(&theirs.fingerprint),
            needed.version,
            needed.kernel,
            short(&needed.fingerprint),
        )),
        Dismissal::Shapes { theirs, needed } => Refusal::failed_precondition(format!(
            "it computes other bits than the job needs, on the job's own shapes (fingerprint {}, needed {})",
            short(theirs),
            short(needed),
        )),
    }
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}
