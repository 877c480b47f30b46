//! A job, as its pieces need it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use millefeuille_core::control::{Phase, WorkId};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::Node;

/// What is known of a job, and what follows from it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) spec: Spec,
    pub(crate) model: Model,
    plan: Plan,
    /// Each shard's order in the epoch for which it was asked last.
    orders: Mutex<BTreeMap<u32, Order>>,
}

/// A shard's order in one epoch.
#[derive(Debug)]
struct Order {
    epoch: u32,
    samples: Arc<Vec<u32>>,
}

impl Job {
    pub(crate) fn new(number: u64, spec: Spec) -> Self {
        let model = Model::new(spec.inputs as usize, &spec.layers);
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        Self { number, spec, model, plan, orders: Mutex::default() }
    }

    /// A shard's order in an epoch, and which part of it a step takes.
    pub(crate) fn part(&self, work: WorkId, shard: u32) -> (Arc<Vec<u32>>, Range<usize>) {
        let Range { start, end } = self.plan.piece(work.step, shard);
        (self.order(work.epoch, shard), start as usize..end as usize)
    }

    /// The shards of a node that have samples in a unit of work.
    pub(crate) fn present(&self, work: WorkId, node: Node) -> BTreeSet<u32> {
        let has_samples = |&shard: &u32| match work.phase {
            Phase::Train => !self.plan.piece(work.step, shard).is_empty(),
            Phase::Validate | Phase::Test => shard < self.spec.sizes.of(work.phase.split()),
        };
        (node.first..node.end).filter(has_samples).collect()
    }

    fn order(&self, epoch: u32, shard: u32) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = orders.entry(shard).or_insert_with(|| Order { epoch: u32::MAX, samples: Arc::default() });
        if order.epoch != epoch {
            // In the place of the epoch before, unless a piece of it is still computed.
            if Arc::get_mut(&mut order.samples).is_none() {
                order.samples = Arc::default();
            }
            let samples = Arc::get_mut(&mut order.samples).expect("nobody else has a new one");
            self.plan.order_into(self.spec.seed, epoch, shard, self.spec.shuffle, samples);
            order.epoch = epoch;
        }
        Arc::clone(&order.samples)
    }
}
