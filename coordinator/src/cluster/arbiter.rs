//! The coordinator computes a node itself: when workers' results differ, or when an audit has no other worker to
//! assign it to.
//!
//! The coordinator has the samples anyway. It may not have the arithmetic: a long-running cluster uses the kernel
//! that its CPU selects, and a job may have pinned another. Then a process of its own, with the job's kernel, computes
//! the node, one at a time. If that can't be, there is no result, for the rest of the job, and result validation
//! continues without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millefeuille_core::control::{Facts, WorkId};
use millefeuille_core::data::shard::{Shard, ShardSamples, ShardStore};
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::tree::Node;
use millefeuille_core::learn::work::{Unit, Workload};
use millefeuille_program::kernel::{self, NodeTask};
use millefeuille_proto::buffer::Pool;
use tokio::sync::Semaphore;
use tracing::warn;

use super::sums::Sum;

/// How a job's nodes are computed in the coordinator.
#[derive(Debug)]
pub(super) struct Arbiter {
    facts: Facts,
    workload: Arc<Workload>,
    store: Arc<ShardStore>,
    pool: Pool,
    /// One process at a time computes elsewhere; closed once that has failed.
    elsewhere: Semaphore,
}

impl Arbiter {
    pub(super) fn new(facts: Facts, workload: Arc<Workload>, store: Arc<ShardStore>, pool: Pool) -> Self {
        Self { facts, workload, store, pool, elsewhere: Semaphore::new(1) }
    }

    /// The sum of a node with these parameters, computed in a thread of its own; `None` if no process here has the job's
    /// arithmetic.
    pub(super) async fn compute(self: Arc<Self>, work: WorkId, node: Node, parameters: Bytes) -> Option<Sum> {
        let kernel = self.facts.kernel_request.parse().unwrap_or(BlasKernel::Native);
        let arbiter = Arc::clone(&self);
        if kernel::has(&kernel) {
            let here = move || arbiter.here(work.into(), node, &parameters);
            // A panic has been logged; result validation continues without this sum.
            return tokio::task::spawn_blocking(here).await.unwrap_or_default();
        }
        let _turn = self.elsewhere.acquire().await.ok()?;
        let there = move || arbiter.there(&kernel, work.into(), node, parameters);
        let sum = tokio::task::spawn_blocking(there).await.unwrap_or_default();
        if sum.is_none() {
            self.elsewhere.close();
        }
        sum
    }

    fn samples(&self, unit: Unit, index: u32) -> Option<&ShardSamples> {
        Some(&self.store.get(Shard { split: unit.split, index })?.samples)
    }

    fn here(&self, unit: Unit, node: Node, parameters: &Bytes) -> Option<Sum> {
        let (samples, take) = (|index| self.samples(unit, index), |values| self.pool.take(values));
        self.workload.sum_of_node(unit, node, samples, bytemuck::cast_slice(parameters), take)
    }

    fn there(&self, kernel: &BlasKernel, unit: Unit, node: Node, parameters: Bytes) -> Option<Sum> {
        let present = self.workload.present(unit, node.first..node.end).into_iter();
        let samples: Option<BTreeMap<_, _>> =
            present.map(|index| Some((index, self.samples(unit, index)?.clone()))).collect();
        let task = NodeTask {
            spec: self.workload.spec(),
            kernel,
            arithmetic: &self.facts.arithmetic,
            shapes_fingerprint: &self.facts.shapes_fingerprint,
            unit,
            node,
            parameters,
            samples: samples?,
        };
        match kernel::compute_elsewhere(task, |gradient| self.pool.adopt(gradient)) {
            Ok(sum) => Some(sum),
            Err(reason) => {
                warn!("the coordinator cannot settle which result is right, until this job ends: {reason}");
                None
            }
        }
    }
}
