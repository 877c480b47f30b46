//! The coordinator computes a node itself: where workers' answers differ, and where an audit has nobody else to ask.
//!
//! The samples are here anyway. The arithmetic may not be: a cluster that lives on has the kernel that its CPU
//! selects, and a job may have pinned another. Then there is no answer, and trials do without it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use millefeuille_core::control::{Phase, WorkId};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::{Learner, Scratch, ShardSamples};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::{Node, Reduction};
use millefeuille_program::kernel;
use millefeuille_proto::buffer::Pool;

use super::messages::Sum;

/// A node to compute, with all that this needs.
pub(super) struct Task {
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) kernel: BlasKernel,
    pub(super) spec: Spec,
    pub(super) plan: Plan,
    pub(super) model: Arc<Model>,
    pub(super) store: Arc<ShardStore>,
    pub(super) parameters: Bytes,
    pub(super) pool: Pool,
}

impl Task {
    /// The node's sum; none if this process does not compute as the job needs it.
    pub(super) fn compute(&self) -> Option<Sum> {
        if !kernel::has(&self.kernel) {
            return None;
        }
        let (mut scratch, take) = (Scratch::default(), |values| self.pool.take(values));
        let mut reduction = Reduction::over(self.node, &self.present());
        for shard in self.node.first..self.node.end {
            if let Some(sum) = self.piece(shard, &mut scratch) {
                reduction.insert(Node::leaf(shard), sum, |left: &mut Sum, right| {
                    left.join_within_bounds(right, take)
                });
            }
        }
        let mut sum = reduction.take_root(Sum::join)?;
        sum.settle(|| take(self.model.parameter_count()));
        Some(sum)
    }

    /// The node's shards that have samples in this work.
    fn present(&self) -> BTreeSet<u32> {
        let Self { work, node, spec, plan, .. } = self;
        let has_samples = |&shard: &u32| match work.phase {
            Phase::Train => !plan.piece(work.step, shard).is_empty(),
            Phase::Validate | Phase::Test => shard < spec.sizes.of(work.phase.split()),
        };
        (node.first..node.end).filter(has_samples).collect()
    }

    /// One shard's piece; none if it has no samples in this work.
    fn piece(&self, index: u32, scratch: &mut Scratch) -> Option<Sum> {
        let Self { work, spec, plan, model, .. } = self;
        let stored = self.store.get(Shard { split: work.phase.split(), index })?;
        let samples = ShardSamples::of(&stored.samples, index, spec.shards);
        let learner = Learner { model, spec, parameters: bytemuck::cast_slice(&self.parameters) };
        let mut gradient = None;
        let outcome = if work.phase == Phase::Train {
            let order = plan.order(spec.seed, work.epoch, index, spec.shuffle);
            let place = plan.piece(work.step, index);
            if place.is_empty() {
                return None;
            }
            let order = &order[place.start as usize..place.end as usize];
            let buffer = gradient.insert(self.pool.take(model.parameter_count()));
            learner.train_piece(&samples, order, work.epoch.into(), buffer, scratch)
        } else {
            learner.evaluate_piece(&samples, scratch)
        };
        Some(Sum::of_piece(gradient, &outcome))
    }
}
