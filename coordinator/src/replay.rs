//! A run computed again, in this process alone: the same pieces, the same tree, the same optimizer, so the same bits.
//!
//! What a cluster does over workers happens here over threads: each takes the next shard that has samples in the step,
//! computes its piece, and adds it to the tree. The order in which pieces come does not show in the sum. Nothing is read
//! from the run but its job and, if asked for, the state of a checkpoint to begin from.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use millefeuille_core::control::Phase;
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::optimizer::OptimizerState;
use millefeuille_core::learn::piece::{Learner, Scratch, ShardSamples};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::{Figures, Sum};
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_proto::buffer::{Buffer, Pool};

use crate::runs::Checkpoint;
use crate::runs::receipt::weights_sha256;
use millefeuille_core::view::EpochRow;

/// What computes: the data, the model, and as many threads as there are scratch buffers.
#[derive(Debug)]
pub struct Replay<'a> {
    store: &'a ShardStore,
    spec: &'a Spec,
    model: &'a Model,
    plan: Plan,
    threads: Vec<Scratch>,
    pool: Pool,
}

/// A training between two steps.
#[derive(Clone, Debug)]
pub struct State {
    /// The epoch under way, from 0.
    pub epoch: u32,
    /// The step that comes next, from 0.
    step: u32,
    /// The epoch so far.
    train: Figures,
    parameters: Vec<f32>,
    optimizer: OptimizerState,
}

impl State {
    /// Before the first step.
    pub fn beginning(job: &Job, model: &Model) -> Self {
        Self {
            epoch: 0,
            step: 0,
            train: Figures::default(),
            parameters: model.initial_parameters(job.seed),
            optimizer: OptimizerState::new(&job.compile.optimizer, model.parameter_count()),
        }
    }

    /// As a checkpoint has it.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let partial = &checkpoint.partial;
        Self {
            epoch: checkpoint.position.epoch,
            step: checkpoint.position.step,
            train: Figures { loss_sum: partial.loss_sum, correct: partial.correct, samples: partial.samples },
            parameters: checkpoint.values(),
            optimizer: checkpoint.optimizer.clone(),
        }
    }
}

impl<'a> Replay<'a> {
    /// Computes with so many threads. BLAS must have been told to use one a call.
    pub fn new(store: &'a ShardStore, spec: &'a Spec, model: &'a Model, threads: u32) -> Self {
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        let threads = (0..threads.clamp(1, spec.shards)).map(|_| Scratch::default()).collect();
        Self { store, spec, model, plan, threads, pool: Pool::default() }
    }

    /// Computes what is left of the epoch, and evaluates: its line of history, with the time that this took.
    pub fn finish_epoch(&mut self, state: &mut State) -> EpochRow {
        let started = Instant::now();
        let orders: Vec<_> = (0..self.spec.shards)
            .map(|shard| self.plan.order(self.spec.seed, state.epoch, shard, self.spec.shuffle))
            .collect();
        while state.step < self.plan.steps() {
            self.step(state, &orders);
        }
        let validation = self.evaluate(&state.parameters, Phase::Validate);
        let test = self.evaluate(&state.parameters, Phase::Test).unwrap_or_default();
        let row = EpochRow {
            epoch: u64::from(state.epoch) + 1,
            loss: state.train.loss(),
            accuracy: state.train.accuracy(),
            val_loss: validation.map(|sums| sums.loss()),
            val_accuracy: validation.map(|sums| sums.accuracy()),
            test_loss: test.loss(),
            test_accuracy: test.accuracy(),
            seconds: started.elapsed().as_secs_f64(),
            weights_sha256: weights_sha256(bytemuck::cast_slice(&state.parameters)),
        };
        (state.epoch, state.step, state.train) = (state.epoch + 1, 0, Figures::default());
        row
    }

    /// Loss and accuracy over a split that is held out; nothing over one without samples.
    pub fn evaluate(&mut self, parameters: &[f32], phase: Phase) -> Option<Figures> {
        let present = (0..self.spec.shards).filter(|&shard| shard < self.spec.sizes.of(phase.split()));
        let sum = self.sum(parameters, phase, &present.collect::<Vec<_>>(), |learner, samples, scratch| {
            Sum::of_piece(None, &learner.evaluate_piece(samples, scratch))
        });
        sum.map(|sum| sum.figures)
    }

    fn step(&mut self, state: &mut State, orders: &[Vec<u32>]) {
        let (epoch, step) = (state.epoch, state.step);
        let (plan, pool, len) = (self.plan, self.pool.clone(), self.model.parameter_count());
        let present: Vec<u32> = plan.present(step).into_iter().collect();
        let sum = self.sum(&state.parameters, Phase::Train, &present, |learner, samples, scratch| {
            let piece = plan.piece(step, samples.shard);
            let order = &orders[samples.shard as usize][piece.start as usize..piece.end as usize];
            let mut gradient = pool.take(len);
            let outcome = learner.train_piece(samples, order, epoch.into(), &mut gradient, scratch);
            Sum::of_piece(Some(gradient), &outcome)
        });
        let sum = sum.expect("a step of the plan has samples");
        let mut next = self.pool.take(len);
        state.optimizer.step_of_sum(&state.parameters, &sum, &mut next);
        state.parameters.copy_from_slice(&next);
        state.train += sum.figures;
        state.step += 1;
    }

    /// The sum over the pieces of these shards, along the tree; nothing over none.
    fn sum(
        &mut self,
        parameters: &[f32],
        phase: Phase,
        present: &[u32],
        compute: impl Fn(&Learner<'_>, &ShardSamples<'_>, &mut Scratch) -> Sum<Buffer> + Sync,
    ) -> Option<Sum<Buffer>> {
        let Self { store, spec, model, threads, pool, .. } = self;
        let pool = &*pool;
        let join = |left: &mut Sum<Buffer>, right| left.join_within_bounds(right, |values| pool.take(values));
        let learner = Learner { model, spec, parameters };
        let tree = Reduction::new(Tree::new(spec.shards), &present.iter().copied().collect());
        let (shards, reduction) = (Mutex::new(present.iter()), Mutex::new(tree));
        let work = |scratch: &mut Scratch| {
            while let Some(shard) = next(&shards) {
                let piece = compute(&learner, &samples(store, phase, shard), scratch);
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

fn next(shards: &Mutex<std::slice::Iter<'_, u32>>) -> Option<u32> {
    lock(shards).next().copied()
}

fn samples(store: &ShardStore, phase: Phase, index: u32) -> ShardSamples<'_> {
    let stored =
        store.get(Shard { split: phase.split(), index }).expect("the store has every shard of the job");
    ShardSamples::of(&stored.samples, index, store.shards())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
