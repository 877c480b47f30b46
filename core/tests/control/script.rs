//! [`Script`] stands in for the driver: it has a virtual clock, carries out each action (data is read and samples
//! arrive without a delay, unless a test withholds them) and records it. Results are returned when a test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{
    Action, Computed, Control, ControlConfig, Digest, Discard, Disconnection, Event, Facts, Hello, JobId,
    JobState, Outcome, Phase, ResultId, SessionEnd, Source, Start, WorkId, WorkerId,
};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::Sizes;
use millefeuille_core::learn::accumulation::Accumulation;
use millefeuille_core::learn::stopping::{Stopping, Watch};
use millefeuille_core::learn::tree::Node;

pub(crate) const SHARDS: u32 = 8;
pub(crate) const JOB: JobId = JobId(1);

pub(crate) fn arithmetic(kernel: &str) -> Arithmetic {
    Arithmetic { kernel: kernel.into(), version: "0.3.21".into(), fingerprint: format!("bits of {kernel}") }
}

pub(crate) fn hello(kernel: &str, started_for: &str, slots: u32) -> Hello {
    Hello {
        instance_id: String::new(),
        name: "host:1".into(),
        slots,
        arithmetic: arithmetic(kernel),
        cache_bytes: 0,
        started_for: started_for.into(),
    }
}

/// A worker whose cache has room for every shard.
fn hello_with_full_cache() -> Hello {
    Hello { cache_bytes: 1 << 30, ..hello("Zen", "native", 1) }
}

/// 80 training samples in steps of 40, 16 samples for validation, 16 for the test, two epochs.
pub(crate) fn facts() -> Facts {
    Facts {
        epochs: 2,
        plan: Plan::new(80, 40, SHARDS),
        accumulation: Accumulation { batches: 1, of_epoch: 2 },
        shards: SHARDS,
        sizes: Sizes { train: 80, validation: 16, test: 16 },
        sample_bytes: 785,
        kernel_request: "Zen".into(),
        arithmetic: arithmetic("Zen"),
        shapes_fingerprint: "shapes".into(),
    }
}

pub(crate) fn config() -> ControlConfig {
    ControlConfig {
        incarnation: 7,
        min_workers: 1,
        expected_workers: 1,
        settle: Duration::from_secs(2),
        wait_workers: None,
        max_workers: 16,
        heartbeat_deadline: Duration::from_secs(5),
        stall_deadline: Duration::from_secs(30),
        checkpoint_interval: None,
        audit_rate: 0.0,
    }
}

pub(crate) struct Script {
    pub(crate) control: Control,
    pub(crate) now: Duration,
    pub(crate) facts: Facts,
    /// Every action of the control machine, in order.
    pub(crate) actions: Vec<Action>,
    /// Nodes that were assigned to workers and whose results have not been returned.
    pub(crate) pending: Vec<(WorkerId, WorkId, Node)>,
    /// The shards of the last `Hold` for each worker.
    pub(crate) shards_to_hold: BTreeMap<WorkerId, Vec<Shard>>,
    /// Workers whose samples arrive only when a test says so.
    pub(crate) withholds_samples: Vec<WorkerId>,
    /// The work after which the loss is not finite.
    pub(crate) diverges_at: Option<u64>,
    /// The position at which the job starts.
    pub(crate) from: Start,
    /// Whether each epoch is written to the disk without a delay.
    pub(crate) writes: bool,
    /// Whether data is read at once.
    pub(crate) loads: bool,
    /// The result of a node that the coordinator computes itself (whether it is finite, and its bits), if it can.
    pub(crate) arbiter_result: Option<(bool, Digest)>,
    /// How many results have been delivered.
    results: u64,
}

/// The digest of every right result.
pub(crate) const RIGHT: Digest = [1; 32];

impl Script {
    pub(crate) fn new() -> Self {
        Self::with(config(), facts())
    }

    pub(crate) fn with(config: ControlConfig, facts: Facts) -> Self {
        Self {
            control: Control::new(config),
            now: Duration::ZERO,
            facts,
            actions: Vec::new(),
            pending: Vec::new(),
            shards_to_hold: BTreeMap::new(),
            withholds_samples: Vec::new(),
            diverges_at: None,
            from: Start::BEGINNING,
            writes: true,
            loads: true,
            arbiter_result: Some((true, RIGHT)),
            results: 0,
        }
    }

    /// A cluster of `workers` workers that runs a job. Each worker holds only the shards that it computes.
    pub(crate) fn running(workers: u64, config: ControlConfig) -> Self {
        let mut script = Self::with(ControlConfig { expected_workers: workers as usize, ..config }, facts());
        (1..=workers).for_each(|worker| script.join(worker));
        script.submit(1);
        script
    }

    /// The same, but each worker may hold every shard.
    pub(crate) fn with_full_cache(workers: u64, config: ControlConfig) -> Self {
        Self::with_full_cache_and_arbiter(workers, config, Some((true, RIGHT)))
    }

    /// The same, with this `arbiter_result`.
    pub(crate) fn with_full_cache_and_arbiter(
        workers: u64,
        config: ControlConfig,
        arbiter_result: Option<(bool, Digest)>,
    ) -> Self {
        let config = ControlConfig { expected_workers: workers as usize, ..config };
        let mut script = Self { arbiter_result, ..Self::with(config, facts()) };
        (1..=workers).for_each(|worker| script.join_with_full_cache(worker));
        script.submit(1);
        script
    }

    /// A cluster in which every node is audited, after the first step: from then on each worker holds every sample.
    pub(crate) fn audited(workers: u64) -> Self {
        let mut script = Self::with_full_cache(workers, ControlConfig { audit_rate: 1.0, ..config() });
        script.return_all_of_step();
        script
    }

    pub(crate) fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let actions = self.control.handle(self.now, events.remove(0));
            for action in actions {
                events.extend(self.act(&action));
                self.actions.push(action);
            }
        }
    }

    pub(crate) fn act(&mut self, action: &Action) -> Vec<Event> {
        match action.clone() {
            Action::Load { job } if self.loads => vec![self.loaded(job)],
            Action::StartJob { worker, job } => {
                vec![Event::JobAccepted { worker, job, fingerprint: "shapes".into() }]
            }
            Action::Hold { worker, job, generation, shards, .. } => {
                self.shards_to_hold.insert(worker, shards.clone());
                let arrives = !self.withholds_samples.contains(&worker);
                let held = shards.into_iter().filter(|_| arrives);
                held.map(|shard| Event::ShardHeld { worker, job, generation, shard }).collect()
            }
            Action::Begin { .. } => {
                self.pending.clear();
                Vec::new()
            }
            Action::Send { worker, work, nodes } => {
                self.pending.extend(nodes.into_iter().map(|node| (worker, work, node)));
                Vec::new()
            }
            Action::Close { work } => {
                let finite = self.diverges_at != Some(work.parameter_tag);
                vec![Event::Closed { work, finite, row: None }]
            }
            Action::Arbitrate { work, node } => {
                let result = self.next_result();
                let computed =
                    self.arbiter_result.map(|(finite, digest)| Computed { result, finite, digest });
                vec![Event::Arbitrated { work, node, computed }]
            }
            Action::EndEpoch { job, .. } if self.writes => vec![Event::EpochWritten { job }],
            Action::Checkpoint { job, .. } => vec![Event::CheckpointWritten { job }],
            Action::Save { job, .. } => vec![Event::Saved { job }],
            Action::Disconnect { worker, .. } | Action::Evict { worker, .. } | Action::Release { worker } => {
                self.pending.retain(|pending| pending.0 != worker);
                Vec::new()
            }
            Action::End { .. } => {
                self.pending.clear();
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn join(&mut self, worker: u64) {
        self.join_as(worker, hello("Zen", "native", 1));
    }

    pub(crate) fn join_with_full_cache(&mut self, worker: u64) {
        self.join_as(worker, hello_with_full_cache());
    }

    pub(crate) fn join_as(&mut self, worker: u64, hello: Hello) {
        let hello = Hello { instance_id: worker.to_string(), ..hello };
        self.feed(Event::Join { worker: WorkerId(worker), hello });
    }

    /// The process of worker `before` connects again, as `worker`.
    pub(crate) fn join_again(&mut self, before: u64, worker: u64) {
        let hello = Hello { instance_id: before.to_string(), ..hello_with_full_cache() };
        self.feed(Event::Join { worker: WorkerId(worker), hello });
    }

    pub(crate) fn leave(&mut self, worker: u64) {
        self.pending.retain(|pending| pending.0 != WorkerId(worker));
        self.feed(Event::Leave { worker: WorkerId(worker), end: SessionEnd::Closed });
    }

    pub(crate) fn submit(&mut self, job: u64) {
        self.feed(Event::Submit { job: JobId(job) });
    }

    /// Delivers the data of a job.
    pub(crate) fn load(&mut self, job: u64) {
        let loaded = self.loaded(JobId(job));
        self.feed(loaded);
    }

    fn loaded(&self, job: JobId) -> Event {
        Event::Loaded {
            job,
            facts: self.facts.clone(),
            from: self.from,
            evicted: Default::default(),
            watch: Watch::new(Stopping::default()),
        }
    }

    /// Delivers the next pending result.
    pub(crate) fn return_result(&mut self) {
        let (worker, work, node) = self.pending.remove(0);
        self.result(worker, work, node);
    }

    pub(crate) fn result(&mut self, worker: WorkerId, work: WorkId, node: Node) {
        self.result_with_digest(worker, work, node, true, RIGHT);
    }

    pub(crate) fn result_with_digest(
        &mut self,
        worker: WorkerId,
        work: WorkId,
        node: Node,
        finite: bool,
        bits: Digest,
    ) {
        let (busy, samples) = (Duration::from_millis(1), 5);
        let digest = (!finite || self.control.compares(work, node)).then_some(bits);
        let result = self.next_result();
        self.feed(Event::Result { result, worker, work, node, samples, busy, finite, digest });
    }

    fn next_result(&mut self) -> ResultId {
        self.results += 1;
        ResultId(self.results)
    }

    /// Why the last delivered result was discarded, if discarding it was the last action.
    pub(crate) fn discarded(&self) -> Option<Discard> {
        match self.actions.last() {
            Some(&Action::Discard { result, reason }) if result.0 == self.results => Some(reason),
            _ => None,
        }
    }

    /// Delivers this worker's next pending result.
    pub(crate) fn result_from(&mut self, worker: u64) {
        self.result_from_with_digest(worker, true, RIGHT);
    }

    /// The same, finite or not, with this digest.
    pub(crate) fn result_from_with_digest(&mut self, worker: u64, finite: bool, bits: Digest) {
        let index = self
            .pending
            .iter()
            .position(|pending| pending.0.0 == worker)
            .expect("the worker has a pending node");
        let (worker, work, node) = self.pending.remove(index);
        self.result_with_digest(worker, work, node, finite, bits);
    }

    /// Delivers all pending results of the open unit of work.
    pub(crate) fn return_all_of_step(&mut self) {
        let work = self.pending[0].1;
        while self.pending.first().is_some_and(|(_, of, _)| *of == work) {
            self.return_result();
        }
    }

    pub(crate) fn return_all(&mut self) {
        while !self.pending.is_empty() {
            self.return_result();
        }
    }

    pub(crate) fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.feed(Event::Tick);
    }

    pub(crate) fn heard(&mut self, worker: u64) {
        self.feed(Event::Heard { worker: WorkerId(worker), at: self.now, moved: 0 });
    }

    /// Time passes, and every worker sends heartbeats.
    pub(crate) fn pass(&mut self, seconds: f64) {
        for _ in 0..(seconds * 10.0).round() as u64 {
            self.now += Duration::from_millis(100);
            for worker in self.control.members().keys().copied().collect::<Vec<_>>() {
                self.feed(Event::Heard { worker, at: self.now, moved: 0 });
            }
            self.feed(Event::Tick);
        }
    }

    /// The shards of this worker's last `Hold` arrive.
    pub(crate) fn samples_arrive(&mut self, worker: u64) {
        let holds = |action: &Action| match action {
            Action::Hold { worker: of, job, generation, shards, .. } if of.0 == worker => {
                Some((*job, *generation, shards.clone()))
            }
            _ => None,
        };
        let (job, generation, shards) =
            self.actions.iter().rev().find_map(holds).expect("the worker was told to hold shards");
        for shard in shards {
            self.feed(Event::ShardHeld { worker: WorkerId(worker), job, generation, shard });
        }
    }

    /// The assignments of this step of the first epoch, in order.
    pub(crate) fn assigned_in_step(&self, step: u32) -> Vec<(u64, String)> {
        let sends = self.actions.iter().filter_map(|action| match action {
            Action::Send { worker, work, nodes }
                if (work.epoch, work.phase, work.step) == (0, Phase::Train, step) =>
            {
                Some(nodes.iter().map(|node| (worker.0, node.to_string())))
            }
            _ => None,
        });
        sends.flatten().collect()
    }

    pub(crate) fn accepted(&self) -> Vec<(WorkId, Node, Source)> {
        let accept = |action: &Action| match *action {
            Action::Accept { work, node, source, .. } => Some((work, node, source)),
            _ => None,
        };
        self.actions.iter().filter_map(accept).collect()
    }

    /// How many nodes the coordinator was to compute itself.
    pub(crate) fn arbitrated(&self) -> usize {
        self.count(|action| matches!(action, Action::Arbitrate { .. }))
    }

    pub(crate) fn evicted(&self) -> Vec<u64> {
        let out =
            |action: &Action| if let Action::Evict { worker, .. } = action { Some(worker.0) } else { None };
        self.actions.iter().filter_map(out).collect()
    }

    pub(crate) fn disconnected(&self, worker: u64) -> Option<&Disconnection> {
        self.actions.iter().find_map(|action| match action {
            Action::Disconnect { worker: of, reason } if of.0 == worker => Some(reason),
            _ => None,
        })
    }

    pub(crate) fn state(&self, job: u64) -> String {
        self.control.job_state(JobId(job)).map_or("unknown".into(), |state| state.to_string())
    }

    pub(crate) fn outcome(&self, job: u64) -> &Outcome {
        match self.control.job_state(JobId(job)) {
            Some(JobState::Ended(outcome)) => outcome,
            other => panic!("job {job} has not ended: {other:?}"),
        }
    }

    /// The pending nodes of the open unit of work, each with its worker.
    pub(crate) fn pending_nodes(&self) -> Vec<(u64, String)> {
        self.pending.iter().map(|(worker, _, node)| (worker.0, node.to_string())).collect()
    }

    pub(crate) fn closed(&self) -> Vec<WorkId> {
        let close = |action: &Action| if let Action::Close { work } = action { Some(*work) } else { None };
        self.actions.iter().filter_map(close).collect()
    }

    pub(crate) fn count(&self, of: impl Fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|action| of(action)).count()
    }
}
