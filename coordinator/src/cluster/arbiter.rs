//! The coordinator computes a node itself: when workers' results differ, or when an audit has no other worker to
//! assign it to.
//!
//! The coordinator has the samples anyway. It may not have the arithmetic: a long-running cluster uses the kernel
//! that its CPU selects, and a job may have pinned another. Then there is no result, and result validation continues
//! without it.

use std::sync::Arc;

use bytes::Bytes;
use millefeuille_core::control::WorkId;
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::piece::Scratch;
use millefeuille_core::learn::tree::{Node, Reduction};
use millefeuille_core::learn::work::Workload;
use millefeuille_program::kernel;
use millefeuille_proto::buffer::Pool;

use super::sums::Sum;

/// A node to compute, with everything needed for it.
pub(super) struct Task {
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) kernel: BlasKernel,
    pub(super) workload: Arc<Workload>,
    pub(super) store: Arc<ShardStore>,
    pub(super) parameters: Bytes,
    pub(super) pool: Pool,
}

impl Task {
    /// The node's sum, or `None` if this process does not have the job's arithmetic.
    pub(super) fn compute(&self) -> Option<Sum> {
        if !kernel::has(&self.kernel) {
            return None;
        }
        let (mut scratch, take) = (Scratch::default(), |values| self.pool.take(values));
        let present = self.workload.present(self.work.into(), self.node.first..self.node.end);
        let mut reduction = Reduction::over(self.node, &present);
        for shard in present {
            let sum = self.piece(shard, &mut scratch)?;
            reduction
                .insert(Node::leaf(shard), sum, |left: &mut Sum, right| left.join_within_bounds(right, take));
        }
        let mut sum = reduction.take_root(Sum::join)?;
        sum.settle(|| take(self.workload.model().parameter_count()));
        Some(sum)
    }

    fn piece(&self, index: u32, scratch: &mut Scratch) -> Option<Sum> {
        let Self { work, workload, store, parameters, pool, .. } = self;
        let samples = &store.get(Shard { split: work.phase.split(), index })?.samples;
        let parameters = bytemuck::cast_slice(parameters);
        let take = |values| pool.take(values);
        Some(workload.sum_of((*work).into(), index, samples, parameters, take, scratch))
    }
}
