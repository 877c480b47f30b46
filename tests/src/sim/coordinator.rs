//! One coordinator process: the real control machine and a model of the coordinator's driver.
//!
//! Actions are carried out in order, results are kept until the machine accepts or discards them, and the disk has a
//! thread of its own. The coordinator may crash after any action. Only its files survive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control::{
    Action, Computed, Control, ControlConfig, Discard, Event, JobId, Outcome, Phase, ResultId, SessionEnd,
    Start, WorkId, WorkerId,
};
use millefeuille_core::learn::tree::{Inserted, Node, Reduction, Tree};

use super::disk::{Operation, Order, Queue, Record, Snapshot, Written};
use super::mutation::Mutation;
use super::random::mix;
use super::scenario::SAMPLE_BYTES;
use super::simulation::{CoordinatorDue, Down, Due, NodeResult, OUTBOX, Simulation, Up, Wire, trace};
use super::toy::{self, Job, Ledger, Sum};

const TICK: Duration = Duration::from_millis(100);
/// The number of messages in which a shard is sent.
const PARTS: u32 = 4;

/// The driver's side of a session.
struct Session {
    wire: Wire,
    heard: Duration,
    sent: u64,
}

/// The numbers of the running job.
pub(crate) struct Training {
    id: JobId,
    job: Arc<Job>,
    pub(crate) parameters: u64,
    tag: u64,
    /// The mini-batches of a step that is not complete yet.
    accumulated: Option<Sum>,
    figures: u64,
    rows: Vec<u64>,
    ledger: Ledger,
    sent: BTreeMap<WorkerId, u64>,
    open: Option<WorkId>,
    reduction: Option<Reduction<Sum>>,
    /// Results that have been received and are not yet in a tree.
    results: BTreeMap<ResultId, Sum>,
    /// How many results have been received.
    received: u64,
    /// Results that a mutation adds a second time.
    duplicates_added: Vec<Sum>,
}

/// One coordinator process.
pub(crate) struct Coordinator {
    pub(crate) incarnation: u64,
    started: Duration,
    pub(crate) control: Control,
    sessions: BTreeMap<WorkerId, Session>,
    next_worker: u64,
    pub(crate) training: Option<Training>,
    events: VecDeque<Event>,
    ticked: Duration,
    /// Whether it had been stopped before the last tick.
    slept: bool,
    pub(crate) stopped_until: Duration,
    disk: Queue,
    /// It crashes after so many more actions, for so long.
    pub(crate) crashes_after: Option<(u64, Duration)>,
    /// A mutation drops the next assignment.
    drops_next_assignment: bool,
    /// How far a mutation puts the machine's clock forward at the next tick.
    ahead: Duration,
}

impl Training {
    fn new(id: JobId, job: Arc<Job>, checkpoint: Option<&Snapshot>) -> Self {
        let mut training = Self {
            id,
            parameters: job.beginning(),
            job,
            tag: 0,
            accumulated: None,
            figures: BEGUN,
            rows: Vec::new(),
            ledger: Ledger::default(),
            sent: BTreeMap::new(),
            open: None,
            reduction: None,
            results: BTreeMap::new(),
            received: 0,
            duplicates_added: Vec::new(),
        };
        if let Some(checkpoint) = checkpoint {
            training.parameters = checkpoint.parameters;
            training.tag = checkpoint.from.parameter_tag;
            training.figures = checkpoint.figures;
            training.ledger = checkpoint.ledger.clone();
            training.rows.clone_from(&checkpoint.rows);
        }
        training
    }

    fn snapshot(&self, from: Start) -> Box<Snapshot> {
        Box::new(Snapshot {
            from,
            parameters: self.parameters,
            figures: if from.position.step > 0 { self.figures } else { BEGUN },
            ledger: self.ledger.clone(),
            rows: self.rows.clone(),
        })
    }

    fn begin(&mut self, work: WorkId) {
        let present = self.job.facts.present(work.phase, work.step);
        self.reduction = Some(Reduction::new(Tree::new(self.job.facts.shards), &present));
        self.open = Some(work);
        self.results.clear();
        self.duplicates_added.clear();
        if work.phase == Phase::Train && work.step == 0 {
            self.figures = BEGUN;
        }
    }

    /// Keeps a received result.
    fn received(&mut self, sum: Sum) -> ResultId {
        self.received += 1;
        self.results.insert(ResultId(self.received), sum);
        ResultId(self.received)
    }

    /// Closes the tree. Returns whether the sum is finite; none if the tree is incomplete.
    fn close(&mut self, work: WorkId) -> Option<bool> {
        let mut sum = self.reduction.take()?.take_root(Sum::add)?;
        self.duplicates_added.drain(..).for_each(|duplicate| sum.add(duplicate));
        self.ledger.enter(&sum.gathered);
        self.figures = mix(self.figures, sum.value);
        let finite = sum.finite;
        if work.phase == Phase::Train {
            let sum = toy::joined(self.accumulated.take(), sum);
            if self.job.facts.accumulation.completes(work.step) {
                self.parameters = self.job.step(self.parameters, &sum);
                self.tag += 1;
            } else {
                self.accumulated = Some(sum);
            }
        }
        Some(finite)
    }
}

/// The figures of an epoch without steps, as [`Job::expected`] starts them.
const BEGUN: u64 = super::toy::ROW;

impl Simulation {
    pub(crate) fn start_coordinator(&mut self) {
        self.incarnation += 1;
        let config = ControlConfig { incarnation: mix(self.incarnation, 7), ..self.scenario.control.clone() };
        let coordinator = Coordinator {
            incarnation: self.incarnation,
            started: self.now,
            control: Control::new(config),
            sessions: BTreeMap::new(),
            next_worker: 1,
            training: None,
            events: VecDeque::new(),
            ticked: Duration::ZERO,
            slept: false,
            stopped_until: Duration::ZERO,
            disk: Queue::default(),
            crashes_after: None,
            drops_next_assignment: false,
            ahead: Duration::ZERO,
        };
        self.coordinator = Some(Box::new(coordinator));
        trace!(self, "the coordinator starts, incarnation {}", self.incarnation);
        for job in self.job_ids() {
            match self.files.record(job) {
                Some(Record::Unfinished) => self.handle(Event::Submit { job }),
                Some(Record::Ended(_)) => self.ended(job),
                None => {}
            }
        }
        self.coordinator_soon(TICK, CoordinatorDue::Tick);
    }

    fn job_ids(&self) -> Vec<JobId> {
        (1..=self.scenario.jobs.len() as u64).map(JobId).collect()
    }

    fn coordinator_soon(&mut self, after: Duration, due: CoordinatorDue) {
        self.due(after, Due::Coordinator(self.incarnation, due));
    }

    fn crash_coordinator(&mut self, down: Duration) {
        trace!(self, "FAULT the coordinator crashes");
        let lost = self.coordinator.take().and_then(|coordinator| coordinator.training);
        if let Some(training) = lost {
            self.oracle.ledgers.insert(training.id, training.ledger);
        }
        self.files.crash(&mut self.random);
        if let Some(torn) = self.files.torn() {
            self.fail(format!("after a crash a file with its final name is torn: {torn:?}"));
        }
        for job in self.job_ids() {
            let damage = self.scenario.disk.damage;
            if self.random.chance(damage)
                && !self.faults_have_stopped()
                && self.files.damage(job, &mut self.random)
            {
                trace!(self, "FAULT the newest checkpoint of {job:?} is damaged");
                self.oracle.written.remove(&job);
            }
        }
        for wire in 0..self.connections.len() {
            let connection = &mut self.connections[wire];
            if std::mem::take(&mut connection.open_at_coordinator) && connection.open_at_worker {
                let delay = self.delay();
                self.due(delay, Due::ClosedAtWorker(wire));
            }
        }
        self.due(down, Due::StartCoordinator);
    }

    /// A client submits a job, and repeats that until it is acknowledged.
    pub(crate) fn submit(&mut self, index: usize) {
        let job = JobId(index as u64 + 1);
        if self.files.is_durable_record(job) {
            return;
        }
        if self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.disk.claims(job)) {
            self.order(Order::Claim(job));
        }
        self.due(Duration::from_secs(1), Due::Submit(index));
    }

    pub(crate) fn cancel(&mut self, index: usize) {
        let job = JobId(index as u64 + 1);
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.control.job_state(job).is_some()) {
            self.oracle.cancelled.insert(job);
            self.handle(Event::Cancel { job });
        }
    }

    pub(crate) fn coordinator_due(&mut self, incarnation: u64, due: CoordinatorDue) {
        if self.coordinator.is_none() || self.incarnation != incarnation {
            return;
        }
        match due {
            CoordinatorDue::Tick => self.tick(),
            CoordinatorDue::Loaded(job) => self.loaded(job),
            CoordinatorDue::Disk => self.disk(),
            CoordinatorDue::Arbitrated(work, node, sum) => self.arbitrated(work, node, sum),
        }
    }

    // Events.

    /// Gives an event to the control machine and carries out its actions. Events that these cause are handled in turn.
    fn handle(&mut self, event: Event) {
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.events.push_back(event);
        while let Some(coordinator) = &mut self.coordinator
            && let Some(event) = coordinator.events.pop_front()
        {
            if !matches!(event, Event::Tick | Event::Heard { .. }) {
                trace!(self, "{event}");
            }
            let ahead = match event {
                Event::Tick => std::mem::take(&mut coordinator.ahead),
                Event::Drain { .. } if self.mutation == Some(Mutation::DrainEndsTheWait) => {
                    coordinator.ahead = self.scenario.control.wait_workers.unwrap_or_default();
                    Duration::ZERO
                }
                _ => Duration::ZERO,
            };
            let now = self.now - coordinator.started + ahead;
            let actions = coordinator.control.handle(now, event);
            self.check_action_count(actions.len());
            for action in actions {
                trace!(self, "  {action}");
                if self.crashes_now() {
                    return;
                }
                self.check_action(&action);
                self.act(action);
            }
            self.count_workers();
        }
    }

    fn crashes_now(&mut self) -> bool {
        let Some(coordinator) = &mut self.coordinator else { return true };
        let Some((actions, down)) = &mut coordinator.crashes_after else { return false };
        *actions = actions.saturating_sub(1);
        let down = *down;
        if *actions == 0 {
            self.crash_coordinator(down);
        }
        self.coordinator.is_none()
    }

    fn tick(&mut self) {
        self.coordinator_soon(TICK, CoordinatorDue::Tick);
        let Some(coordinator) = &mut self.coordinator else { return };
        let now = self.now - coordinator.started;
        let heard = |(&worker, session): (&WorkerId, &Session)| Event::Heard {
            worker,
            at: session.heard.saturating_sub(coordinator.started),
            moved: session.sent,
        };
        let heard: Vec<_> = coordinator.sessions.iter().map(heard).collect();
        // A coordinator that was stopped skips one tick: the messages that its workers sent meanwhile are not read yet.
        let long = (self.scenario.control.heartbeat_deadline / 2).max(5 * TICK);
        let slept = !coordinator.slept && now.saturating_sub(coordinator.ticked) > long;
        (coordinator.ticked, coordinator.slept) = (now, slept);
        heard.into_iter().for_each(|event| self.handle(event));
        if !slept {
            self.handle(Event::Tick);
        }
        self.allow_straggler_reassignment();
    }

    /// Notes that something was received from a worker.
    pub(crate) fn hear(&mut self, wire: Wire) {
        let worker = self.connections[wire].worker;
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        if let Some(session) = worker.and_then(|worker| coordinator.sessions.get_mut(&worker)) {
            session.heard = now;
        }
    }

    /// Handles a worker's message.
    pub(crate) fn worker_message(&mut self, wire: Wire, up: Up) {
        if let Up::Hello(hello) = up {
            let Some(coordinator) = &mut self.coordinator else { return };
            let worker = WorkerId(coordinator.next_worker);
            coordinator.next_worker += 1;
            coordinator.sessions.insert(worker, Session { wire, heard: self.now, sent: 0 });
            self.connections[wire].worker = Some(worker);
            return self.handle(Event::Join { worker, hello });
        }
        let Some(worker) = self.connections[wire].worker else { return };
        match up {
            Up::Accepted(job) => {
                self.handle(Event::JobAccepted { worker, job, fingerprint: "shapes".into() });
            }
            Up::Held(job, generation, shard) => {
                self.handle(Event::ShardHeld { worker, job, generation, shard });
            }
            Up::Result(result) => self.result(worker, *result),
            Up::Drain => self.handle(Event::Drain { worker, reason: "SIGTERM".into() }),
            Up::Goodbye => {
                self.close(worker, None);
                self.handle(Event::Leave { worker, end: SessionEnd::Shutdown("told to stop".into()) });
            }
            Up::Fetch(job, shard) => {
                let serves = self.training_of(job).is_some();
                let delay = self.delay();
                self.due(delay, Due::Samples(wire, job, shard, if serves { PARTS } else { 0 }));
            }
            Up::Hello(_) => {}
        }
    }

    fn training_of(&mut self, job: JobId) -> Option<&mut Training> {
        let training = self.coordinator.as_mut()?.training.as_mut()?;
        (training.id == job).then_some(training)
    }

    /// Sends the next part of a shard; after the last one the worker has the shard.
    pub(crate) fn samples(
        &mut self,
        wire: Wire,
        job: JobId,
        shard: millefeuille_core::data::shard::Shard,
        left: u32,
    ) {
        if !self.is_open(wire) || !self.reaches_worker(wire) {
            return;
        }
        if left == 0 {
            let there = self.training_of(job).is_some();
            return self.fetched(wire, job, shard, there);
        }
        let worker = self.connections[wire].worker;
        if let Some(coordinator) = &mut self.coordinator
            && let Some(session) = worker.and_then(|worker| coordinator.sessions.get_mut(&worker))
        {
            session.sent += SAMPLE_BYTES;
        }
        let delay = self.delay() + Duration::from_millis(2);
        self.due(delay, Due::Samples(wire, job, shard, left - 1));
    }

    pub(crate) fn closed_at_coordinator(&mut self, wire: Wire) {
        let open = self.is_open(wire);
        self.connections[wire].open_at_coordinator = false;
        let Some(worker) = self.connections[wire].worker.filter(|_| open) else { return };
        self.close(worker, None);
        self.handle(Event::Leave { worker, end: SessionEnd::Closed });
    }

    pub(crate) fn result(&mut self, worker: WorkerId, result: NodeResult) {
        let NodeResult { mut work, node, sum, samples, busy } = result;
        let mutation = self.mutation;
        let Some(coordinator) = &mut self.coordinator else { return };
        if coordinator.control.running() != Some(work.job) {
            return;
        }
        let open = coordinator.training.as_ref().and_then(|training| training.open);
        if let Some(open) = open.filter(|_| mutation == Some(Mutation::StaleResultAccepted)) {
            work = open;
        }
        let compares = coordinator.control.compares(work, node);
        let mut digest = (!sum.finite || compares).then(|| sum.digest());
        if mutation == Some(Mutation::NothingCompared) {
            digest = digest.map(|_| [0; 32]);
        }
        let finite = sum.finite;
        let Some(training) = &mut coordinator.training else { return };
        let result = training.received(sum);
        self.check_result(worker, work, node);
        self.handle(Event::Result { result, worker, work, node, samples, busy, finite, digest });
    }

    fn arbitrated(&mut self, work: WorkId, node: Node, sum: Option<Box<Sum>>) {
        let nothing_compared = self.mutation == Some(Mutation::NothingCompared);
        let Some(coordinator) = &mut self.coordinator else { return };
        if coordinator.control.running() != Some(work.job) {
            return;
        }
        let digest = |sum: &Sum| if nothing_compared { [0; 32] } else { sum.digest() };
        let Some(training) = &mut coordinator.training else { return };
        let computed = sum.map(|sum| {
            let (finite, digest) = (sum.finite, digest(&sum));
            Computed { result: training.received(*sum), finite, digest }
        });
        self.handle(Event::Arbitrated { work, node, computed });
    }

    // Actions.

    fn act(&mut self, action: Action) {
        match action {
            Action::Welcome { worker } => self.send_to_worker(worker, Down::Welcome),
            Action::Disconnect { worker, .. } => self.close(worker, Some(Down::Close)),
            Action::Release { worker } => self.close(worker, Some(Down::Goodbye)),
            Action::Evict { worker, .. } => self.close(worker, Some(Down::Evict)),
            Action::UseKernel { worker, .. } => self.fail(format!("{worker} is asked for another kernel")),
            Action::Load { job } => {
                let time = self.random.millis(1..=300);
                self.coordinator_soon(time, CoordinatorDue::Loaded(job));
            }
            Action::StartJob { worker, job } => self.send_to_worker(worker, Down::StartJob(job)),
            Action::Hold { worker, job, generation, shards, .. } => {
                self.send_to_worker(worker, Down::Hold(job, generation, shards));
            }
            Action::Begin { work } => {
                if let Some(training) = self.training_of(work.job) {
                    training.begin(work);
                }
            }
            Action::Send { worker, work, nodes } => self.send_work(worker, work, nodes),
            Action::Accept { result, node, .. } => self.accept(result, node),
            Action::Discard { result, reason } => self.discard(result, reason),
            Action::Arbitrate { work, node } => self.arbitrate(work, node),
            Action::Close { work } => self.close_tree(work),
            Action::Checkpoint { job, from } => {
                if let Some(training) = self.training_of(job) {
                    let snapshot = training.snapshot(from);
                    self.order(Order::Checkpoint(job, snapshot));
                }
            }
            Action::EndEpoch { job, epoch, .. } => self.end_epoch(job, epoch),
            Action::Save { job, .. } => {
                if let Some(training) = self.training_of(job) {
                    let parameters = training.parameters;
                    self.order(Order::Save(job, parameters));
                }
            }
            Action::End { job, outcome } => self.end(job, outcome),
            Action::Note(note) => self.on_note(&note),
        }
    }

    fn on_note(&mut self, note: &millefeuille_core::control::Note) {
        use millefeuille_core::control::Note;
        if let (Note::Reassigned { straggler: false, .. }, Some(coordinator)) = (note, &mut self.coordinator)
        {
            coordinator.drops_next_assignment = self.mutation == Some(Mutation::LostReassignment);
        }
    }

    fn send_to_worker(&mut self, worker: WorkerId, down: Down) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let Some(wire) = coordinator.sessions.get(&worker).map(|session| session.wire) else { return };
        if self.connections[wire].downs < OUTBOX {
            return self.send_on_wire(wire, down);
        }
        self.close(worker, None);
        let end = SessionEnd::StoppedReading;
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.events.push_back(Event::Leave { worker, end });
        }
    }

    /// Ends a session, after a last message to the worker.
    fn close(&mut self, worker: WorkerId, last: Option<Down>) {
        let remembers = self.mutation == Some(Mutation::SessionRemembered);
        let Some(coordinator) = &mut self.coordinator else { return };
        if let Some(training) = coordinator.training.as_mut().filter(|_| !remembers) {
            training.sent.remove(&worker);
        }
        let Some(Session { wire, .. }) = coordinator.sessions.remove(&worker) else { return };
        if let Some(last) = last {
            self.send_on_wire(wire, last);
            // The last message has time to arrive.
            self.due(Duration::from_secs(2), Due::ClosedAtCoordinator(wire));
            self.due(Duration::from_secs(3), Due::ClosedAtWorker(wire));
        } else {
            self.connections[wire].open_at_coordinator = false;
            let delay = self.delay();
            self.due(delay, Due::ClosedAtWorker(wire));
        }
    }

    fn send_work(&mut self, worker: WorkerId, work: WorkId, nodes: Vec<Node>) {
        let remembers = self.mutation == Some(Mutation::SessionRemembered);
        let Some(coordinator) = &mut self.coordinator else { return };
        if std::mem::take(&mut coordinator.drops_next_assignment) {
            return;
        }
        let Some(training) = coordinator.training.as_mut().filter(|training| training.id == work.job) else {
            return;
        };
        let wire = coordinator.sessions.get(&worker).map_or(0, |session| session.wire);
        // The mistake: parameters are remembered for the process, not for its session.
        let key = if remembers { WorkerId(self.connections[wire].process as u64) } else { worker };
        let had = training.sent.insert(key, work.parameter_tag);
        let parameters = (had != Some(work.parameter_tag)).then_some(training.parameters);
        if training.tag != work.parameter_tag {
            let tag = training.tag;
            return self
                .fail(format!("{work} needs parameters {}, the current ones are {tag}", work.parameter_tag));
        }
        self.send_to_worker(worker, Down::Work(work, nodes, parameters));
    }

    fn accept(&mut self, result: ResultId, node: Node) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let Some(training) = &mut coordinator.training else { return };
        let Some(sum) = training.results.remove(&result) else {
            return self.fail(format!("{result:?} is accepted as {node}, but was not received"));
        };
        let inserted = training.reduction.as_mut().map(|reduction| reduction.insert(node, sum, Sum::add));
        if !matches!(inserted, Some(Inserted::Kept { .. })) {
            self.fail(format!("{result:?} is accepted as {node}, but cannot be inserted into the tree"));
        }
    }

    fn discard(&mut self, result: ResultId, reason: Discard) {
        let mutated = self.mutation == Some(Mutation::DuplicateAccepted) && reason == Discard::Duplicate;
        let Some(coordinator) = &mut self.coordinator else { return };
        let Some(training) = &mut coordinator.training else { return };
        let Some(sum) = training.results.remove(&result) else {
            return self.fail(format!("{result:?} is discarded, but was not received"));
        };
        if mutated {
            training.duplicates_added.push(sum);
        }
    }

    fn arbitrate(&mut self, work: WorkId, node: Node) {
        let time = self.random.millis(1..=200);
        let arbiter = self.scenario.arbiter;
        let Some(training) = self.training_of(work.job) else { return };
        let sum = training.job.node(training.parameters, work, node).filter(|_| arbiter).map(Box::new);
        self.coordinator_soon(time, CoordinatorDue::Arbitrated(work, node, sum));
    }

    fn close_tree(&mut self, work: WorkId) {
        let Some(training) = self.training_of(work.job) else { return };
        let Some(finite) = training.close(work) else {
            return self.fail(format!("{work} is closed, but its tree is incomplete"));
        };
        let (tag, parameters) = (training.tag, training.parameters);
        let ends = training.job.facts.ends_epoch(work.phase, work.step);
        let row = ends.then(|| Box::new(toy::row_of(work.epoch, mix(training.figures, parameters))));
        self.check_close(work, tag, parameters);
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.events.push_back(Event::Closed { work, finite, row });
        }
    }

    // The disk.

    fn loaded(&mut self, job: JobId) {
        let Some(coordinator) = &mut self.coordinator else { return };
        if coordinator.control.running() != Some(job) || coordinator.training.is_some() {
            return;
        }
        self.files.cut_back(job);
        let checkpoint = self.files.newest_checkpoint(job);
        let mut from = checkpoint.map_or(Start::BEGINNING, |checkpoint| checkpoint.from);
        let toy = self.scenario.jobs[job.0 as usize - 1].clone();
        let mut training = Training::new(job, toy.clone(), checkpoint);
        self.check_start(job, from);
        match self.mutation {
            Some(Mutation::ResumedLate) if from != Start::BEGINNING => {
                from.position = toy.after(from.position);
            }
            Some(Mutation::ResumedEarly) if from.position.step > 0 => from.position.step -= 1,
            Some(Mutation::LedgerNotCutBack) => {
                if let Some(ledger) = self.oracle.ledgers.remove(&job) {
                    training.ledger = ledger;
                }
            }
            _ => {}
        }
        let facts = toy.facts.clone();
        let watch = toy.watch_after(&training.rows);
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.training = Some(training);
        }
        // In this simulation an evicted process does not rejoin.
        let evicted = BTreeMap::new();
        self.handle(Event::Loaded { job, facts, from, evicted, watch });
    }

    fn end_epoch(&mut self, job: JobId, epoch: u32) {
        let on = self.scenario.control.checkpoint_interval.is_some();
        let wrong_allowed = self.scenario.wrong_results_may_be_accepted();
        let Some(training) = self.training_of(job) else { return };
        let row = mix(training.figures, training.parameters);
        training.rows.push(row);
        let facts = training.job.facts.clone();
        let ledger = training.ledger.end_epoch(epoch, &facts);
        let snapshot = training.snapshot(Start::of_epoch(epoch + 1, training.tag));
        if let Err(wrong) = ledger {
            self.fail(format!("the ledger is wrong: {wrong}"));
        }
        if !wrong_allowed {
            self.check_row(job, epoch, row);
        }
        self.order(Order::Epoch(job, snapshot, on));
    }

    fn end(&mut self, job: JobId, outcome: Outcome) {
        self.check_end(job, &outcome);
        let Some(coordinator) = &mut self.coordinator else { return };
        if coordinator.training.as_ref().is_some_and(|training| training.id == job) {
            coordinator.training = None;
            let sessions: Vec<_> = coordinator.sessions.keys().copied().collect();
            sessions.into_iter().for_each(|worker| self.send_to_worker(worker, Down::EndJob(job)));
        }
        self.order(Order::End(job, outcome));
    }

    fn order(&mut self, order: Order) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let idle = coordinator.disk.is_empty();
        coordinator.disk.orders.push_back(order);
        let length = coordinator.disk.orders.len();
        if length > 8 + 2 * self.scenario.jobs.len() {
            self.fail(format!("{length} orders are queued for the disk"));
        }
        if idle {
            self.coordinator_soon(Duration::ZERO, CoordinatorDue::Disk);
        }
    }

    /// Carries out the next operation.
    fn disk(&mut self) {
        let early = self.mutation == Some(Mutation::RenamedBeforeSync);
        let Some(coordinator) = &mut self.coordinator else { return };
        if coordinator.disk.operations.is_empty()
            && let Some(order) = coordinator.disk.orders.pop_front()
        {
            coordinator.disk.operations = self.files.operations(&order, early);
            if let (Order::Save(..), Some(Mutation::DoneBeforeSync)) = (&order, self.mutation) {
                coordinator.disk.operations.rotate_right(1);
            }
        }
        let Some(operation) = coordinator.disk.operations.pop_front() else { return };
        self.files.carry_out(&operation);
        if let Operation::Tell(written) = operation {
            trace!(self, "disk: {written:?}");
            self.written(written);
        }
        let delay = self.random.millis(0..=self.scenario.disk.delay);
        if self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.disk.is_empty()) {
            self.coordinator_soon(delay, CoordinatorDue::Disk);
        }
    }

    fn written(&mut self, written: Written) {
        match written {
            Written::Claimed(job) => self.handle(Event::Submit { job }),
            Written::Checkpoint(job, from) => {
                self.oracle.written.insert(job, from);
                self.handle(Event::CheckpointWritten { job });
            }
            Written::Epoch(job) => self.handle(Event::EpochWritten { job }),
            Written::Result(job) => {
                self.check_saved_result(job);
                self.handle(Event::Saved { job });
            }
            Written::Ended(job) => self.ended(job),
        }
    }
}
