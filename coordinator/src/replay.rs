//! Recomputes a run in this process alone: with the same pieces, the same tree and the same optimizer, the result has
//! the same bits.
//!
//! A cluster distributes work over workers, this module over threads: each takes the next shard that has samples in
//! the step, computes its piece, and adds it to the tree. The sum does not depend on the order of the pieces. Of the
//! run, only the job is read and, if requested, a checkpoint to start from.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use millefeuille_core::data::shard::{Shard, ShardSamples, ShardStore};
use millefeuille_core::data::split::Split;
use millefeuille_core::job::Job;
use millefeuille_core::learn::accumulation::Accumulation;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::Scratch;
use millefeuille_core::learn::sum::{Figures, Sum};
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::{Unit, Workload};
use millefeuille_proto::buffer::{Buffer, Pool};

use crate::runs::Checkpoint;
use crate::runs::receipt::weights_sha256;
use millefeuille_core::view::EpochRow;

/// The replayer: the data, the model, and as many threads as there are scratch buffers.
#[derive(Debug)]
pub struct Replay<'a> {
    store: &'a ShardStore,
    workload: &'a Workload,
    threads: Vec<Scratch>,
    pool: Pool,
}

/// The state of a training between two steps.
#[derive(Clone, Debug)]
pub struct ReplayState {
    /// The current epoch, from 0.
    pub epoch: u32,
    /// The next step, from 0.
    step: u32,
    /// The figures of the epoch so far.
    train: Figures,
    parameters: Vec<f32>,
    optimizer: OptimizerState,
    /// The job's learning rate, which a schedule may lower after epochs.
    learning_rate: f32,
    accumulation: Accumulation,
    /// The rows of the epochs before.
    history: Vec<EpochRow>,
}

impl ReplayState {
    /// The state before the first step, with these parameters.
    pub fn beginning(job: &Job, workload: &Workload, parameters: Vec<f32>) -> Self {
        let model = workload.model();
        Self {
            epoch: 0,
            step: 0,
            train: Figures::default(),
            parameters,
            optimizer: OptimizerState::of_model(&job.compile.optimizer, &job.compile.schedule, model),
            learning_rate: job.compile.optimizer.get("learning_rate").unwrap_or_default(),
            accumulation: job.accumulation(workload.plan().steps()),
            history: Vec::new(),
        }
    }

    /// The state in a checkpoint, after the epochs with these rows.
    pub fn of(checkpoint: &Checkpoint, job: &Job, workload: &Workload, history: &[EpochRow]) -> Self {
        let mut state = Self {
            epoch: checkpoint.position.epoch,
            step: checkpoint.position.step,
            train: checkpoint.partial.figures(),
            optimizer: checkpoint.optimizer.clone(),
            history: history.to_vec(),
            ..Self::beginning(job, workload, checkpoint.values())
        };
        state.take_note();
        state
    }

    fn take_note(&mut self) {
        self.optimizer.take_note(self.learning_rate, &self.history);
    }
}

impl<'a> Replay<'a> {
    /// Creates a replayer with this many threads. BLAS must already be set to one thread per call.
    pub fn new(store: &'a ShardStore, workload: &'a Workload, threads: u32) -> Self {
        let threads = (0..threads.clamp(1, workload.spec().shards)).map(|_| Scratch::default()).collect();
        Self { store, workload, threads, pool: Pool::default() }
    }

    /// Computes the rest of the epoch, and evaluates. Returns the epoch's history row, with the time that this took.
    pub fn finish_epoch(&mut self, state: &mut ReplayState) -> EpochRow {
        let started = Instant::now();
        while state.step < self.workload.plan().steps() {
            self.step(state);
        }
        let validation = self.evaluate(&state.parameters, Split::Validation);
        let test = self.evaluate(&state.parameters, Split::Test);
        let row = EpochRow {
            seconds: started.elapsed().as_secs_f64(),
            weights_sha256: weights_sha256(bytemuck::cast_slice(&state.parameters)),
            ..self.workload.row(state.epoch, &state.train, validation.as_ref(), test.as_ref())
        };
        (state.epoch, state.step, state.train) = (state.epoch + 1, 0, Figures::default());
        state.history.push(row.clone());
        state.take_note();
        row
    }

    /// Loss and metrics on a held-out split; `None` if the split is empty.
    pub fn evaluate(&mut self, parameters: &[f32], split: Split) -> Option<Figures> {
        self.sum(parameters, Unit::evaluate(split, 0)).map(|sum| sum.figures)
    }

    /// The mini-batches of the next step of the optimizer, and the step.
    fn step(&mut self, state: &mut ReplayState) {
        let taken = state.accumulation.steps_before(state.epoch, state.step);
        let mut sum = self.batch(state);
        while !state.accumulation.completes(state.step - 1) {
            let next = self.batch(state);
            sum.join_within_bounds(next, |values| self.pool.take(values));
        }
        let mut next = self.pool.take(self.workload.model().parameter_count());
        state.optimizer.step_of_sum(taken + 1, &state.parameters, &sum, &mut next);
        state.parameters.copy_from_slice(&next);
    }

    fn batch(&mut self, state: &mut ReplayState) -> Sum<Buffer> {
        let sum = self.sum(&state.parameters, Unit::train(state.epoch, state.step));
        let sum = sum.expect("a step of the plan has samples");
        state.train += sum.figures.clone();
        state.step += 1;
        sum
    }

    /// The sum over the pieces of a unit of work, along the tree; `None` if there are no pieces.
    fn sum(&mut self, parameters: &[f32], unit: Unit) -> Option<Sum<Buffer>> {
        let Self { store, workload, threads, pool } = self;
        let take = |values| pool.take(values);
        let join = |left: &mut Sum<Buffer>, right| left.join_within_bounds(right, take);
        let shards = workload.spec().shards;
        let present = workload.present(unit, 0..shards);
        let reduction = Mutex::new(Reduction::new(Tree::new(shards), &present));
        let next = Mutex::new(present.into_iter());
        let work = |scratch: &mut Scratch| {
            loop {
                let Some(shard) = lock(&next).next() else { return };
                let samples = samples(store, unit.split, shard);
                let piece = workload.sum_of(unit, shard, samples, parameters, take, scratch);
                lock(&reduction).insert(Node::leaf(shard), piece, join);
            }
        };
        thread::scope(|scope| {
            for scratch in threads {
                scope.spawn(|| work(scratch));
            }
        });
        reduction.into_inner().unwrap_or_else(PoisonError::into_inner).take_root(Sum::join)
    }
}

fn samples(store: &ShardStore, split: Split, index: u32) -> &ShardSamples {
    &store.get(Shard { split, index }).expect("the store has every shard of the job").samples
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
