//! The arithmetic of the running job: sums, parameters, the optimizer, the epoch's figures.
//!
//! The control machine decides when something is computed; this module computes it. Sums enter the reduction tree as
//! they arrive. Once the tree is complete, one pass over memory, on all cores, adds them up, runs the optimizer and
//! writes the next broadcast.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millefeuille_core::control::{Hello, Phase, ResultId, Start, WorkId, WorkerId};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::job::Job;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::stopping::{Stopped, Watch};
use millefeuille_core::learn::sum::Figures;
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::EpochRow;
use millefeuille_proto::buffer::{Buffer, Pool};
use millefeuille_proto::shared::{ParameterSlots, SharedMemory, WorkerSlots};
use tracing::debug;

use super::arbiter::Arbiter;
use super::disk::CheckpointState;
use super::loaded::Loaded;
use super::sums::Sum;
use crate::runs::checkpoint::Partial;
use crate::runs::ledger::Ledger;
use crate::runs::receipt::Participation;
use crate::runs::{Checkpoint, Resumed};

/// The state of the running job.
#[derive(Debug)]
pub(super) struct Training {
    pub(super) job: Job,
    pub(super) loaded: Loaded,
    pub(super) workload: Arc<Workload>,
    pub(super) pool: Pool,
    /// Computes nodes in the coordinator.
    pub(super) arbiter: Arc<Arbiter>,
    /// Memory shared with workers on this machine.
    pub(super) parameter_slots: Option<Arc<ParameterSlots>>,
    optimizer: OptimizerState,
    parameters: Bytes,
    /// The slot of shared memory that holds the current parameters.
    parameter_slot: Option<u32>,
    /// The tag of the parameters that each worker has.
    sent: BTreeMap<WorkerId, u64>,
    reduction: Option<Reduction<Sum>>,
    /// The sum of the mini-batches whose step is not complete yet.
    accumulated: Option<Sum>,
    /// The rows of the epochs that have ended, for what depends on them.
    history: Vec<EpochRow>,
    /// Results that are neither in the tree nor discarded: they are compared with others first.
    results: BTreeMap<ResultId, Sum>,
    /// Number of results received; also the last result id.
    came: u64,
    figures: Epoch,
    /// The epoch of these figures, from 0.
    epoch: u32,
    /// The mean loss of a constant prediction.
    pub(super) constant_loss: Option<f64>,
    ledger: Ledger,
    /// Optimizer steps taken.
    steps_taken: u64,
    /// The instance id and the name of each worker that was assigned work.
    asked: BTreeMap<WorkerId, (String, String)>,
    /// Which workers' results were used in which steps. Evicted workers are kept in `suspects`, every one of them.
    participation: Participation,
    suspects: Participation,
    pub(super) job_sha256: String,
    pub(super) clock: Clock,
}

/// How a worker gets the parameters for its work.
pub(super) enum Sent {
    /// The worker already has them.
    Before,
    /// They are in this slot of shared memory.
    InSlot(u32),
    /// They travel over gRPC.
    Bytes(Bytes),
}

/// The figures of one epoch.
#[derive(Clone, Debug, Default)]
struct Epoch {
    train: Figures,
    validation: Option<Figures>,
    test: Option<Figures>,
}

impl Training {
    /// Starts a job, or resumes its run.
    pub(super) fn new(loaded: Loaded, resumed: Option<Resumed>) -> Self {
        let job = loaded.job.clone();
        let workload = Arc::new(Workload::new(loaded.spec.clone()));
        let (constant_loss, pool) = (workload.constant_loss(&loaded.store), Pool::default());
        let (facts, store) = (loaded.facts.clone(), Arc::clone(&loaded.store));
        let arbiter = Arc::new(Arbiter::new(facts, Arc::clone(&workload), store, pool.clone()));
        let mut training = Self {
            constant_loss,
            job_sha256: loaded.job_sha256(),
            optimizer: OptimizerState::of_model(
                &job.compile.optimizer,
                &job.compile.schedule,
                workload.model(),
            ),
            accumulated: None,
            history: Vec::new(),
            ledger: Ledger::default(),
            steps_taken: 0,
            asked: BTreeMap::new(),
            participation: Participation::default(),
            suspects: Participation::default(),
            parameter_slots: None,
            parameters: Bytes::new(),
            parameter_slot: None,
            pool,
            arbiter,
            job,
            loaded,
            workload,
            sent: BTreeMap::new(),
            reduction: None,
            results: BTreeMap::new(),
            came: 0,
            figures: Epoch::default(),
            epoch: 0,
            clock: Clock::new(),
        };
        match resumed {
            Some(Resumed { ledger, checkpoint, history, .. }) => {
                training.resume(ledger, checkpoint);
                training.history = history.rows().to_vec();
                training.take_note();
            }
            None => training.start_over(),
        }
        training
    }

    /// Uses shared memory for the parameters and gradients of workers on this machine, if available.
    pub(super) fn share(&mut self, host: &Arc<SharedMemory>) {
        match host.map(self.workload.model().parameter_count()) {
            Ok(parameter_slots) => self.parameter_slots = Some(Arc::new(parameter_slots)),
            Err(error) => debug!("bulk data goes over the wire: no shared memory: {error}"),
        }
        let (mut buffer, slot) = self.next_buffer();
        buffer.copy_from_slice(bytemuck::cast_slice(&self.parameters));
        (self.parameters, self.parameter_slot) = (buffer.into_bytes(), slot);
    }

    /// The worker process that shares the memory with this number, if the process is alive.
    pub(super) fn prepare_sharing(&self, number: u64) -> Option<Arc<WorkerSlots>> {
        let parameter_slots = self.parameter_slots.as_ref().filter(|_| number > 0)?;
        parameter_slots.worker_slots(number).unwrap_or_else(|error| {
            debug!("bulk data goes over the wire: no memory is shared with worker process {number}: {error}");
            None
        })
    }

    /// A buffer for parameters, and its slot if it is in shared memory.
    fn next_buffer(&self) -> (Buffer, Option<u32>) {
        match self.parameter_slots.as_ref().and_then(|parameter_slots| parameter_slots.take()) {
            Some(part) => {
                let slot = part.slot();
                (part.into(), Some(slot))
            }
            None => (self.pool.take(self.workload.model().parameter_count()), None),
        }
    }

    fn start_over(&mut self) {
        let parameters = std::mem::take(&mut self.loaded.parameters);
        self.parameters = self.pool.adopt(parameters).into_bytes();
    }

    fn resume(&mut self, ledger: Ledger, checkpoint: Option<Checkpoint>) {
        self.ledger = ledger;
        let Some(checkpoint) = checkpoint else { return self.start_over() };
        self.parameters = self.pool.adopt(checkpoint.values()).into_bytes();
        let seconds = checkpoint.partial.seconds;
        self.figures.train = checkpoint.partial.figures();
        self.epoch = checkpoint.position.epoch;
        self.clock.resume_after(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        self.optimizer = checkpoint.optimizer;
        self.steps_taken = checkpoint.parameter_tag;
        self.participation = checkpoint.participation;
        self.suspects = checkpoint.suspects;
    }

    /// A copy of the state between two steps, from which the job can resume.
    pub(super) fn snapshot(&self, from: Start) -> CheckpointState {
        let begun = from.position.step > 0;
        let partial = || Partial::new(self.figures.train.clone(), self.clock.epoch().as_secs_f64());
        CheckpointState {
            from,
            parameters: self.parameters(),
            optimizer: self.optimizer.clone(),
            partial: if begun { partial() } else { Partial::default() },
            ledger: self.ledger.state(),
            participation: self.participation.clone(),
            suspects: self.suspects.clone(),
        }
    }

    /// Optimizer steps taken.
    pub(super) fn steps_taken(&self) -> u64 {
        self.steps_taken
    }

    /// Records that a worker was assigned work.
    pub(super) fn asked(&mut self, worker: WorkerId, hello: &Hello) {
        let who = || (hello.instance_id.clone(), hello.name.clone());
        self.asked.entry(worker).or_insert_with(who);
    }

    /// Records that a worker's result is used. The worker may have left since.
    pub(super) fn took_part(&mut self, worker: WorkerId, work: WorkId) {
        if let Some((instance_id, name)) = self.asked.get(&worker) {
            self.participation.add(instance_id, name, work.parameter_tag);
        }
    }

    /// Evicted processes by instance id, with the reason.
    pub(super) fn evicted(&self) -> BTreeMap<String, String> {
        let why = |(instance_id, _)| (String::from(instance_id), "it was evicted before".into());
        self.suspects.iter().map(why).collect()
    }

    /// Moves an evicted worker's contributions to the suspects: they are not to be trusted.
    pub(super) fn mark_suspect(&mut self, instance_id: &str, name: &str) {
        self.participation.mark_suspect(instance_id, name, &mut self.suspects);
    }

    /// The evicted workers, and what they contributed.
    pub(super) fn suspects(&self) -> &Participation {
        &self.suspects
    }

    /// Ends the epoch in the ledger and returns its lines.
    pub(super) fn end_epoch(&mut self, epoch: u32, stopped: Option<&Stopped>) -> String {
        self.ledger.end_epoch(epoch, stopped.map(ToString::to_string).as_deref())
    }

    /// The rules that stop the job, after the epochs that have ended.
    pub(super) fn watch(&self) -> Watch {
        Watch::after(self.job.fit.stopping, &self.history)
    }

    /// The row of the epoch, if it ends with this unit of work, which has just been closed.
    pub(super) fn row_after(&self, work: WorkId) -> Option<Box<EpochRow>> {
        let ends = self.loaded.facts.ends_epoch(work.phase, work.step);
        ends.then(|| Box::new(self.row(work.epoch)))
    }

    pub(super) fn store(&self) -> &Arc<ShardStore> {
        &self.loaded.store
    }

    /// The current parameters in wire format.
    pub(super) fn parameters(&self) -> Bytes {
        self.parameters.clone()
    }

    /// How a worker gets the parameters with this tag.
    pub(super) fn parameters_for(
        &mut self,
        worker: WorkerId,
        tag: u64,
        worker_slots: Option<&WorkerSlots>,
    ) -> Sent {
        if self.sent.insert(worker, tag) == Some(tag) {
            return Sent::Before;
        }
        match (self.parameter_slot, worker_slots) {
            (Some(slot), Some(worker_slots)) => {
                worker_slots.mark_in_use(slot);
                Sent::InSlot(slot)
            }
            _ => Sent::Bytes(self.parameters()),
        }
    }

    /// Forgets which parameters a worker has: after reconnecting it has none.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.sent.remove(&worker);
    }

    /// Opens the reduction tree of a unit of work.
    pub(super) fn begin(&mut self, work: WorkId) {
        let facts = &self.loaded.facts;
        let present = facts.present(work.phase, work.step);
        self.reduction = Some(Reduction::new(Tree::new(facts.shards), &present));
        self.results.clear();
        if work.phase == Phase::Train && work.step == 0 {
            (self.figures, self.epoch) = (Epoch::default(), work.epoch);
            self.clock.begin_epoch();
        }
        self.clock.begin_step();
    }

    /// Whether a result has the shape and the sample count that its work requires.
    pub(super) fn fits(&self, work: WorkId, node: Node, sum: &Sum) -> bool {
        let facts = &self.loaded.facts;
        let values = self.workload.gradient_len(work.into());
        let of_shard = |shard| u64::from(facts.samples(work.phase, work.step, shard));
        let samples: u64 = (node.first..node.end).map(of_shard).sum();
        let pieces = (node.first..node.end).filter(|&shard| of_shard(shard) > 0).count();
        let Figures { samples: computed, correct, counts, sums, .. } = &sum.figures;
        let counts_fit = *computed == samples
            && *correct <= samples
            && self.workload.layout(work.phase.split()).fits(samples, counts, sums);
        sum.len() == values && counts_fit && sum.sample_digests.len() == pieces
    }

    /// Stores a new result and returns its id.
    pub(super) fn store_result(&mut self, sum: Sum) -> ResultId {
        self.came += 1;
        let result = ResultId(self.came);
        self.results.insert(result, sum);
        result
    }

    /// Drops a result.
    pub(super) fn discard(&mut self, result: ResultId) {
        self.results.remove(&result);
    }

    /// Puts a result into the tree as this node.
    pub(super) fn accept(&mut self, result: ResultId, node: Node) {
        let started = Instant::now();
        let Some(sum) = self.results.remove(&result) else {
            unreachable!("the control machine accepts what has come only")
        };
        let (Some(reduction), pool) = (&mut self.reduction, &self.pool) else { return };
        // Duplicates are dropped, and so are results that this one makes redundant.
        let _ = reduction
            .insert(node, sum, |left, right| left.join_within_bounds(right, |values| pool.take(values)));
        self.clock.reduced(started);
    }

    /// Training samples in a unit of work.
    pub(super) fn samples(&self, work: WorkId) -> u64 {
        if work.phase == Phase::Train { self.loaded.facts.plan.step_len(work.step).into() } else { 0 }
    }

    /// Closes the tree: adds the remaining sums and, in training, computes the next parameters. Returns whether the
    /// loss is finite.
    pub(super) fn close(&mut self, work: WorkId) -> bool {
        let started = Instant::now();
        let sum = self.reduction.take().and_then(|mut tree| tree.take_root(Sum::join));
        let Some(sum) = sum else { unreachable!("the control machine closes complete trees only") };
        let (samples, is_finite) = (sum.figures.samples, sum.figures.loss_sum.is_finite());
        self.enter_into_ledger(work, &sum.sample_digests);
        let figures = sum.figures.clone();
        match work.phase {
            Phase::Train => {
                self.figures.train += figures;
                self.accumulate(work.step, sum);
            }
            Phase::Validate => *self.figures.validation.get_or_insert_default() += figures,
            Phase::Test => *self.figures.test.get_or_insert_default() += figures,
        }
        self.clock.reduced(started);
        self.clock.end_step(work.phase, samples);
        is_finite
    }

    fn enter_into_ledger(&mut self, work: WorkId, digests: &[[u8; 32]]) {
        let facts = &self.loaded.facts;
        for (&shard, digest) in facts.present(work.phase, work.step).iter().zip(digests) {
            let samples = facts.samples(work.phase, work.step, shard);
            self.ledger.piece(work.epoch, work.phase, shard, samples.into(), digest);
        }
    }

    /// Adds a mini-batch to those before it, and takes the optimizer's step if it is the last one of the step.
    fn accumulate(&mut self, batch: u32, sum: Sum) {
        let sum = match self.accumulated.take() {
            None => sum,
            Some(mut before) => {
                before.join_within_bounds(sum, |values| self.pool.take(values));
                before
            }
        };
        if self.loaded.facts.accumulation.completes(batch) {
            self.take_optimizer_step(&sum);
        } else {
            self.accumulated = Some(sum);
        }
    }

    fn take_optimizer_step(&mut self, sum: &Sum) {
        let (mut next, slot) = self.next_buffer();
        self.optimizer.step_of_sum(
            self.steps_taken + 1,
            bytemuck::cast_slice(&self.parameters),
            sum,
            &mut next,
        );
        (self.parameters, self.parameter_slot) = (next.into_bytes(), slot);
        self.steps_taken += 1;
    }

    /// The epoch that has begun last, from 0. The position is ahead of it between an epoch's end and the next one's first
    /// step.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Loss and metrics of that epoch so far.
    pub(super) fn figures(&self) -> &Figures {
        &self.figures.train
    }

    /// Ends the epoch: its row counts from now on. Returns the row.
    pub(super) fn end_row(&mut self, epoch: u32) -> EpochRow {
        let row = self.row(epoch);
        self.history.push(row.clone());
        self.take_note();
        row
    }

    /// What people should be warned of in this row, unless the one before it gave the same warning.
    pub(super) fn warning(&self, row: &EpochRow) -> Option<String> {
        let before = self.history.iter().rev().find(|before| before.epoch < row.epoch);
        let warned = before.is_some_and(|before| before.warning(self.constant_loss).is_some());
        row.warning(self.constant_loss).filter(|_| !warned)
    }

    fn take_note(&mut self) {
        let learning_rate = self.job.compile.optimizer.get("learning_rate").unwrap_or_default();
        self.optimizer.take_note(learning_rate, &self.history);
    }

    /// The epoch's history row, without the hash of its weights.
    fn row(&self, epoch: u32) -> EpochRow {
        let Epoch { train, validation, test } = &self.figures;
        let seconds = self.clock.epoch().as_secs_f64();
        EpochRow { seconds, ..self.workload.row(epoch, train, validation.as_ref(), test.as_ref()) }
    }
}

/// Training speed: running means over recent steps, in milliseconds.
#[derive(Debug)]
pub(super) struct Clock {
    epoch: Instant,
    /// The time that this epoch took before the coordinator restarted.
    before: Duration,
    step: Instant,
    first_result: Option<Instant>,
    reduce: Duration,
    /// How long each worker's slots were busy with the current step.
    busy: BTreeMap<WorkerId, Duration>,
    pub(super) step_ms: f64,
    pub(super) compute_ms: f64,
    pub(super) wait_ms: f64,
    pub(super) wire_ms: f64,
    pub(super) reduce_ms: f64,
    pub(super) samples_per_second: f64,
}

/// Weight of the newest step in the running means.
const NEWEST: f64 = 0.1;

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            epoch: now,
            before: Duration::ZERO,
            step: now,
            first_result: None,
            reduce: Duration::ZERO,
            busy: BTreeMap::new(),
            step_ms: 0.0,
            compute_ms: 0.0,
            wait_ms: 0.0,
            wire_ms: 0.0,
            reduce_ms: 0.0,
            samples_per_second: 0.0,
        }
    }

    fn begin_epoch(&mut self) {
        self.epoch = Instant::now();
        self.before = Duration::ZERO;
    }

    /// Resumes an epoch that had already taken this long.
    fn resume_after(&mut self, before: Duration) {
        self.epoch = Instant::now();
        self.before = before;
    }

    /// Time since the epoch began.
    pub(super) fn epoch(&self) -> Duration {
        self.before + self.epoch.elapsed()
    }

    fn begin_step(&mut self) {
        self.step = Instant::now();
        self.first_result = None;
        self.reduce = Duration::ZERO;
        self.busy.clear();
    }

    /// Records a result, with the time that each of the worker's slots was busy with its part.
    pub(super) fn result(&mut self, worker: WorkerId, busy_a_slot: Duration) {
        self.first_result.get_or_insert_with(Instant::now);
        *self.busy.entry(worker).or_default() += busy_a_slot;
    }

    fn reduced(&mut self, since: Instant) {
        self.reduce += since.elapsed();
    }

    fn end_step(&mut self, phase: Phase, samples: u64) {
        if phase != Phase::Train {
            return;
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let step = ms(self.step.elapsed());
        let compute = ms(self.busy.values().copied().max().unwrap_or_default()).min(step);
        let wait = self.first_result.map_or(0.0, |first| ms(first.elapsed()));
        let reduce = ms(self.reduce);
        let wire = (step - compute - reduce).max(0.0);
        let new = [step, compute, wait, wire, reduce, samples as f64 / step * 1e3];
        let means = [
            &mut self.step_ms,
            &mut self.compute_ms,
            &mut self.wait_ms,
            &mut self.wire_ms,
            &mut self.reduce_ms,
            &mut self.samples_per_second,
        ];
        for (mean, new) in means.into_iter().zip(new) {
            *mean = if *mean == 0.0 { new } else { *mean + (new - *mean) * NEWEST };
        }
    }
}
