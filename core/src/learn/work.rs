//! Units of work: the pieces of each, and how a piece is computed.
//!
//! A unit of work is a training step, or the evaluation of a split. The job's [`Spec`] alone determines its
//! pieces. Every process that computes a piece (a worker, the coordinator when results differ, `verify`) does so
//! through this module.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use super::metrics::{Confusion, Layout, Metric};
use super::model::Model;
use super::piece::{Learner, PieceOutcome, Scratch, ShardView};
use super::spec::Spec;
use super::sum::{Figures, Sum};
use super::tree::{Node, Reduction};
use crate::data::plan::{self, Plan};
use crate::data::schema::Truths;
use crate::data::shard::{ShardSamples, ShardStore};
use crate::data::split::Split;
use crate::view::{EpochMetric, EpochRow};

/// A unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The split that is computed: the training split, or a held-out split to evaluate.
    pub split: Split,
    /// The epoch, from 0.
    pub epoch: u32,
    /// The training step within the epoch, from 0; 0 in evaluation.
    pub step: u32,
}

impl Unit {
    /// A training step.
    pub fn train(epoch: u32, step: u32) -> Self {
        Self { split: Split::Train, epoch, step }
    }

    /// The evaluation of a split after an epoch.
    pub fn evaluate(split: Split, epoch: u32) -> Self {
        Self { split, epoch, step: 0 }
    }
}

/// The figure of a metric; `None` where its tally is not kept, or defines none.
fn metric_of(metric: Metric, layout: &Layout, figures: &Figures) -> Option<f64> {
    let (samples, counts, sums) = (figures.samples, &figures.counts[..], &figures.sums[..]);
    layout.tallied(metric.tally(), samples, (counts, sums)).and_then(|tallied| metric.figure(tallied))
}

/// The parts of a job that its pieces need.
#[derive(Debug)]
pub struct Workload {
    spec: Spec,
    model: Model,
    plan: Plan,
    /// Each shard's order in the epoch requested last.
    orders: Mutex<BTreeMap<u32, ShuffledOrder>>,
}

/// A shard's order in one epoch.
#[derive(Debug)]
struct ShuffledOrder {
    /// `None` before the first one.
    epoch: Option<u32>,
    samples: Arc<Vec<u32>>,
}

impl Workload {
    /// Derives the model and the plan from a spec.
    pub fn new(spec: Spec) -> Self {
        let model = Model::new(spec.inputs(), &spec.layers);
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        Self { spec, model, plan, orders: Mutex::default() }
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The layers.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which samples make up which step.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The accuracy, if the job lists it as a metric.
    pub fn accuracy(&self, figures: &Figures) -> Option<f64> {
        self.spec.metrics.contains(&Metric::Accuracy).then(|| figures.accuracy())
    }

    /// Where the tallies of the job's other metrics lie among the counts and sums of this split.
    pub fn layout(&self, split: Split) -> Layout {
        Layout::of(&self.spec.metrics, self.spec.schema.target, split)
    }

    /// The figures of the job's other metrics, by name, in the job's order. A figure is `None` where its tally is not kept,
    /// or defines none.
    pub fn metrics(&self, split: Split, figures: &Figures) -> impl Iterator<Item = (String, Option<f64>)> {
        let layout = self.layout(split);
        self.other_metrics().map(move |metric| (metric.to_string(), metric_of(metric, &layout, figures)))
    }

    /// The metrics that a history has besides the accuracy.
    fn other_metrics(&self) -> impl Iterator<Item = Metric> {
        self.spec.metrics.iter().copied().filter(|metric| *metric != Metric::Accuracy && metric.is_a_number())
    }

    /// The confusion matrix of a held-out split, if the job asks for it.
    pub fn confusion(&self, figures: &Figures) -> Option<Confusion> {
        let layout = self.layout(Split::Validation);
        let (counts, sums) = (&figures.counts[..], &figures.sums[..]);
        let tallied = layout.tallied(Metric::ConfusionMatrix.tally(), figures.samples, (counts, sums))?;
        Some(Confusion::new(tallied.counts))
    }

    /// The history row of an epoch (from 0), without its duration and the hash of its weights.
    pub fn row(
        &self,
        epoch: u32,
        train: &Figures,
        validation: Option<&Figures>,
        test: Option<&Figures>,
    ) -> EpochRow {
        let (in_training, held_out) = (self.layout(Split::Train), self.layout(Split::Validation));
        let metrics = self.other_metrics().map(|metric| EpochMetric {
            name: metric.to_string(),
            train: metric_of(metric, &in_training, train),
            validation: validation.and_then(|figures| metric_of(metric, &held_out, figures)),
            test: test.and_then(|figures| metric_of(metric, &held_out, figures)),
        });
        EpochRow {
            epoch: u64::from(epoch) + 1,
            loss: train.loss(),
            accuracy: self.accuracy(train),
            val_loss: validation.map(Figures::loss),
            val_accuracy: validation.and_then(|figures| self.accuracy(figures)),
            test_loss: test.map(Figures::loss),
            test_accuracy: test.and_then(|figures| self.accuracy(figures)),
            metrics: metrics.collect(),
            seconds: 0.0,
            weights_sha256: String::new(),
        }
    }

    /// The mean loss over these training samples of a model that predicts the same for each, which has the mean of their
    /// weights: a yardstick for people.
    pub fn constant_loss(&self, store: &ShardStore) -> Option<f64> {
        let (target, mut truths, mut weights) = (store.schema().target, Truths::default(), Vec::new());
        for (_, stored) in store.iter().filter(|(shard, _)| shard.split == Split::Train) {
            truths.extend(target, stored.samples.targets());
            weights.extend(stored.samples.all_weights());
        }
        let mean_weight = weights.iter().sum::<f64>() / weights.len() as f64;
        let constant = self.spec.loss.of_a_constant(self.model.outputs(), truths.get(target))?;
        Some(if weights.is_empty() { constant } else { mean_weight * constant })
    }

    /// The shards among these that have samples in a unit of work; the others are absent from its sum.
    pub fn present(&self, unit: Unit, shards: Range<u32>) -> BTreeSet<u32> {
        let sizes = self.spec.sizes;
        shards.filter(|&shard| self.plan.share(unit.split, sizes, unit.step, shard) > 0).collect()
    }

    /// Computes the piece of a shard. In a training step, `gradient`, as long as the parameters, is overwritten
    /// with the sum of the samples' gradients. An evaluation leaves it unchanged.
    fn compute(
        &self,
        unit: Unit,
        shard: u32,
        samples: &ShardSamples,
        parameters: &[f32],
        gradient: &mut [f32],
        scratch: &mut Scratch,
    ) -> PieceOutcome {
        let learner = Learner { model: &self.model, spec: &self.spec, parameters };
        let samples = ShardView { shard, shards: self.spec.shards, samples };
        if unit.split != Split::Train {
            return learner.evaluate_piece(&samples, scratch);
        }
        let Range { start, end } = self.plan.piece(unit.step, shard);
        let order = self.order(unit.epoch, shard);
        learner.train_piece(
            &samples,
            &order[start as usize..end as usize],
            unit.epoch.into(),
            gradient,
            scratch,
        )
    }

    /// Like [`Self::compute`], with a gradient of its own: `take` provides the buffer for the given number of
    /// values; an evaluation has no gradient.
    pub fn piece<B: DerefMut<Target = [f32]>>(
        &self,
        unit: Unit,
        shard: u32,
        samples: &ShardSamples,
        parameters: &[f32],
        take: impl FnOnce(usize) -> B,
        scratch: &mut Scratch,
    ) -> (Option<B>, PieceOutcome) {
        let mut gradient = match self.gradient_len(unit) {
            0 => None,
            values => Some(take(values)),
        };
        let out = gradient.as_deref_mut().unwrap_or_default();
        let outcome = self.compute(unit, shard, samples, parameters, out, scratch);
        (gradient, outcome)
    }

    /// Like [`Self::piece`], but returns a sum of one piece.
    pub fn sum_of<B: DerefMut<Target = [f32]>>(
        &self,
        unit: Unit,
        shard: u32,
        samples: &ShardSamples,
        parameters: &[f32],
        take: impl FnOnce(usize) -> B,
        scratch: &mut Scratch,
    ) -> Sum<B> {
        let (gradient, outcome) = self.piece(unit, shard, samples, parameters, take, scratch);
        Sum::of_piece(gradient, outcome)
    }

    /// The sum over a node's present shards, whose samples `samples` provides, added up. `None` if it lacks some, or no
    /// shard is present.
    pub fn sum_of_node<'s, B: DerefMut<Target = [f32]>>(
        &self,
        unit: Unit,
        node: Node,
        samples: impl Fn(u32) -> Option<&'s ShardSamples>,
        parameters: &[f32],
        take: impl Fn(usize) -> B,
    ) -> Option<Sum<B>> {
        let (mut scratch, present) = (Scratch::default(), self.present(unit, node.first..node.end));
        let mut reduction = Reduction::over(node, &present);
        for shard in present {
            let sum = self.sum_of(unit, shard, samples(shard)?, parameters, &take, &mut scratch);
            reduction.insert(Node::leaf(shard), sum, |left: &mut Sum<B>, right| {
                left.join_within_bounds(right, &take)
            });
        }
        let mut sum = reduction.take_root(Sum::join)?;
        sum.settle(|| take(self.model.parameter_count()));
        Some(sum)
    }

    /// The number of values of a piece's gradient; 0 in evaluation.
    pub fn gradient_len(&self, unit: Unit) -> usize {
        if unit.split == Split::Train { self.model.parameter_count() } else { 0 }
    }

    /// The digests of the samples that the pieces of these shards gather, ascending, without those of absent shards.
    pub fn digests(&self, unit: Unit, shards: Range<u32>) -> Vec<[u8; 32]> {
        self.present(unit, shards).into_iter().map(|shard| self.digest(unit, shard)).collect()
    }

    fn digest(&self, unit: Unit, shard: u32) -> [u8; 32] {
        if unit.split == Split::Train {
            return plan::digest(self.plan.indices(&self.order(unit.epoch, shard), unit.step, shard));
        }
        let shards = u64::from(self.spec.shards);
        let samples = 0..self.plan.share(unit.split, self.spec.sizes, unit.step, shard);
        plan::digest(samples.map(|k| u64::from(k) * shards + u64::from(shard)))
    }

    fn order(&self, epoch: u32, shard: u32) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order =
            orders.entry(shard).or_insert_with(|| ShuffledOrder { epoch: None, samples: Arc::default() });
        if order.epoch != Some(epoch) {
            // Reuse the memory of the previous epoch's order, unless a piece still uses it.
            if Arc::get_mut(&mut order.samples).is_none() {
                order.samples = Arc::default();
            }
            let samples = Arc::get_mut(&mut order.samples).expect("a new order is not shared");
            self.plan.order_into(self.spec.seed, epoch, shard, self.spec.shuffle, samples);
            order.epoch = Some(epoch);
        }
        Arc::clone(&order.samples)
    }
}
