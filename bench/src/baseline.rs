//! The single-process baseline: the article's fit in this process, with one thread per core.
//!
//! Threads take the pieces of a step from one counter. When all pieces are computed, each thread sums its own section
//! of the parameters over all gradients, in the order of the reduction tree, and takes the optimizer's step there.
//! Then every thread copies the sections of the others. So there are two barriers per step:
//!
//! ```text
//! pieces ─ barrier ─ a section: sums, optimizer ─ barrier ─ copy sections ─ pieces …
//! ```
//!
//! Additions are done in the same order as in a cluster, so the bits are the same. Nothing is sent, saved or printed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use anyhow::Context as _;
use millefeuille_core::blas;
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_core::learn::sum::{self, AdditionOrder, AdditionScratch};
use millefeuille_core::learn::tree::Tree;
use sha2::{Digest as _, Sha256};

use crate::barrier::Barrier;
use crate::fit::{Article, Figures, Fit};

/// Computes one fit.
pub(crate) fn run(epochs: u32) -> anyhow::Result<Fit> {
    let article = Article::load()?;
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let shared = Shared::new(&article, epochs, threads);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let start = |thread| {
            scope.spawn({
                let shared = &shared;
                move || Thread::new(shared, thread).fit()
            })
        };
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    });
    let (seconds, parameters) = outcomes.into_iter().next().context("there is no thread")?;
    Ok(Fit {
        seconds,
        weights_sha256: hex::encode(Sha256::digest(bytemuck::cast_slice::<f32, u8>(&parameters))),
        epochs: shared.figures.into_inner().unwrap_or_else(PoisonError::into_inner),
        blas_kernel: blas::kernel(),
        blas_version: blas::version(),
    })
}

/// State that the threads share.
struct Shared<'a> {
    article: &'a Article,
    epochs: u32,
    threads: usize,
    plan: Plan,
    barrier: Barrier,
    /// The next piece that no thread has taken, of the step and of the evaluation.
    next_piece: AtomicU32,
    next_evaluation: AtomicU32,
    /// By shard.
    slots: Vec<RwLock<Slot>>,
    /// By split and shard: validation, then test.
    evaluations: Vec<Mutex<sum::Figures>>,
    /// The newest parameters, in one section per thread.
    sections: Vec<RwLock<Vec<f32>>>,
    figures: Mutex<Vec<Figures>>,
}

/// A shard's part of the step.
#[derive(Default)]
struct Slot {
    /// The shard's order in the epoch.
    order: Vec<u32>,
    gradient: Vec<f32>,
    figures: sum::Figures,
}

impl<'a> Shared<'a> {
    fn new(article: &'a Article, epochs: u32, threads: usize) -> Self {
        let shards = article.spec.shards;
        let parameters = article.model.parameter_count();
        let slot = |_| RwLock::new(Slot { gradient: vec![0.0; parameters], ..Slot::default() });
        let section = |thread| RwLock::new(vec![0.0; section(parameters, threads, thread).len()]);
        Self {
            article,
            epochs,
            threads,
            plan: Plan::new(article.spec.sizes.train, article.spec.batch_size, shards),
            barrier: Barrier::new(threads),
            next_piece: AtomicU32::new(0),
            next_evaluation: AtomicU32::new(0),
            slots: (0..shards).map(slot).collect(),
            evaluations: (0..2 * shards).map(|_| Mutex::default()).collect(),
            sections: (0..threads).map(section).collect(),
            figures: Mutex::default(),
        }
    }

    fn shards(&self) -> u32 {
        self.article.spec.shards
    }
}

/// The section of the parameters that a thread sums.
fn section(parameters: usize, threads: usize, thread: usize) -> Range<usize> {
    parameters * thread / threads..parameters * (thread + 1) / threads
}

/// One thread, with its copy of the parameters.
struct Thread<'a> {
    shared: &'a Shared<'a>,
    number: usize,
    parameters: Vec<f32>,
    optimizer: OptimizerState,
    scratch: Scratch,
    addition: AdditionScratch,
    /// The epoch's figures, kept by the first thread.
    figures: sum::Figures,
}

impl<'a> Thread<'a> {
    fn new(shared: &'a Shared<'a>, number: usize) -> Self {
        let Article { model, spec, optimizer, .. } = shared.article;
        Self {
            shared,
            number,
            parameters: model.initial_parameters(spec.seed),
            optimizer: OptimizerState::new(optimizer, model.parameter_count()),
            scratch: Scratch::default(),
            addition: AdditionScratch::default(),
            figures: sum::Figures::default(),
        }
    }

    /// Runs the fit. Returns its seconds, and the final parameters.
    fn fit(mut self) -> (f64, Vec<f32>) {
        self.shared.barrier.wait();
        let started = Instant::now();
        for epoch in 0..self.shared.epochs {
            self.figures = sum::Figures::default();
            for step in 0..self.shared.plan.steps() {
                self.step(epoch, step);
            }
            self.evaluate();
        }
        (started.elapsed().as_secs_f64(), self.parameters)
    }

    fn step(&mut self, epoch: u32, step: u32) {
        let shared = self.shared;
        while let Some(shard) = next(&shared.next_piece, shared.shards()) {
            self.piece(epoch, step, shard);
        }
        shared.barrier.wait();
        shared.next_piece.store(0, Ordering::Relaxed);
        self.reduce(epoch, step);
        shared.barrier.wait();
        self.copy_sections();
    }

    fn piece(&mut self, epoch: u32, step: u32, shard: u32) {
        let Shared { article, plan, slots, .. } = self.shared;
        let mut slot = slots[shard as usize].write().unwrap_or_else(PoisonError::into_inner);
        let Slot { order, gradient, figures } = &mut *slot;
        if step == 0 {
            *order = plan.order(article.spec.seed, epoch, shard, article.spec.shuffle);
        }
        let Range { start, end } = plan.piece(step, shard);
        let order = &order[start as usize..end as usize];
        let samples = article.samples(Split::Train, shard);
        let learner = Learner { model: &article.model, spec: &article.spec, parameters: &self.parameters };
        let outcome = learner.train_piece(&samples, order, epoch.into(), gradient, &mut self.scratch);
        *figures = outcome.figures;
    }

    /// Sums this thread's section over the shards, and takes the optimizer's step there.
    fn reduce(&mut self, epoch: u32, step: u32) {
        let plan = &self.shared.plan;
        let taken = u64::from(epoch) * u64::from(plan.steps()) + u64::from(step) + 1;
        let present = plan.present(step);
        let slots: Vec<_> = present.iter().map(|&shard| read(&self.shared.slots[shard as usize])).collect();
        let terms: Vec<_> = slots.iter().map(|slot| slot.gradient.as_slice()).collect();
        let order = order(self.shared.shards(), &present);
        let count = plan.step_len(step).into();
        let section = section(self.parameters.len(), self.shared.threads, self.number);
        let first = section.start;
        let mut next = self.shared.sections[self.number].write().unwrap_or_else(PoisonError::into_inner);
        sum::add_section(&order, &terms, section, &mut self.addition, |block, left, right| {
            let out = &mut next[block.start - first..block.end - first];
            let parameters = &self.parameters[block.clone()];
            self.optimizer.step(taken, block.start, parameters, (left, right), count, out);
        });
        if self.number == 0 {
            self.figures += total(slots.iter().map(|slot| slot.figures.clone()), &order);
        }
    }

    fn copy_sections(&mut self) {
        let Shared { sections, threads, .. } = self.shared;
        for (thread, values) in sections.iter().enumerate() {
            let place = section(self.parameters.len(), *threads, thread);
            self.parameters[place].copy_from_slice(&read(values));
        }
    }

    fn evaluate(&mut self) {
        let shared = self.shared;
        let shards = shared.shards();
        while let Some(task) = next(&shared.next_evaluation, 2 * shards) {
            let split = if task < shards { Split::Validation } else { Split::Test };
            let samples = shared.article.samples(split, task % shards);
            let Article { model, spec, .. } = shared.article;
            let learner = Learner { model, spec, parameters: &self.parameters };
            let outcome = learner.evaluate_piece(&samples, &mut self.scratch);
            *lock(&shared.evaluations[task as usize]) = outcome.figures;
        }
        shared.barrier.wait();
        if self.number == 0 {
            shared.next_evaluation.store(0, Ordering::Relaxed);
            self.note_figures();
        }
        shared.barrier.wait();
    }

    fn note_figures(&self) {
        let shards = self.shared.shards();
        let order = order(shards, &(0..shards).collect());
        let scores: Vec<_> = self.shared.evaluations.iter().map(|figures| lock(figures).clone()).collect();
        let (validation, test) = scores.split_at(scores.len() / 2);
        let [validation, test] = [validation, test].map(|scores| total(scores.iter().cloned(), &order));
        let figures = Figures {
            loss: self.figures.loss(),
            accuracy: self.figures.accuracy(),
            val_loss: validation.loss(),
            val_accuracy: validation.accuracy(),
            test_loss: test.loss(),
            test_accuracy: test.accuracy(),
        };
        lock(&self.shared.figures).push(figures);
    }
}

/// The reduction tree's order over these shards.
fn order(shards: u32, present: &BTreeSet<u32>) -> AdditionOrder {
    AdditionOrder::over(Tree::new(shards).root(), present).expect("a step has samples")
}

fn total(figures: impl Iterator<Item = sum::Figures>, order: &AdditionOrder) -> sum::Figures {
    order.fold(figures, &mut Vec::new(), |left, right| *left += right).expect("every shard has figures")
}

/// The next of `count` tasks.
fn next(counter: &AtomicU32, count: u32) -> Option<u32> {
    Some(counter.fetch_add(1, Ordering::Relaxed)).filter(|&task| task < count)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_cover_everything_once() {
        let ends: Vec<_> = (0..3).map(|thread| section(10, 3, thread)).collect();
        assert_eq!(ends, [0..3, 3..6, 6..10]);
    }
}
