//! What a coordinator may ask of this worker.
//!
//! A worker can't know who its coordinator is, and one that computes wrong sizes is as bad as one that means harm. So
//! everything that a message asks for is checked here before memory is allocated for it: against the job (its shards,
//! steps and nodes, whose own limits [`Spec::check`](millefeuille_core::learn::spec::Spec::check) has checked), and
//! against the memory that this worker may use. A message that contradicts the job ends the session; a job that is
//! too large for this worker ends the worker, because it would come again.

use std::collections::BTreeSet;

use millefeuille_core::control::Phase;
use millefeuille_core::data::shard::{Shard, shard_len};
use millefeuille_core::learn::memory;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::Tree;
use millefeuille_core::learn::work::Workload;
use millefeuille_proto::convert;
use millefeuille_proto::session::{Hold, ShardToHold, Work};

use crate::link::Trouble;

/// The memory that the work of a session may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// In bytes.
    pub(crate) limit: u64,
    /// Of these, the samples that the worker has announced to keep.
    pub(crate) cache: u64,
    /// Pieces computed at once.
    pub(crate) slots: u32,
}

impl Memory {
    /// Checks that a job fits.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn check_job(self, spec: &Spec) -> Result<(), Trouble> {
        self.check(self.of_job(spec), "the job")
    }

    /// Checks that the samples of a `Hold` fit beside the job. Those within the cache that this worker announced were
    /// offered, and always fit.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn check_hold(self, spec: &Spec, hold: &Hold) -> Result<(), Trouble> {
        let held = hold.shards.iter().map(|shard| memory::of_samples(spec, shard.samples));
        let held = held.fold(0, u64::saturating_add);
        if held <= self.cache {
            return Ok(());
        }
        self.check(self.of_job(spec).saturating_add(held), "the job with the shards that are to be held")
    }

    /// Checks that the sums of so many nodes fit beside the job.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn check_nodes(self, spec: &Spec, nodes: usize) -> Result<(), Trouble> {
        let sums = memory::of_parameters(spec).saturating_mul(nodes as u64);
        self.check(self.of_job(spec).saturating_add(sums), "the job with the nodes that are to be added")
    }

    fn of_job(self, spec: &Spec) -> u64 {
        memory::of_job(spec, self.slots)
    }

    fn check(self, needed: u64, what: &str) -> Result<(), Trouble> {
        if needed <= self.limit {
            return Ok(());
        }
        Err(Trouble::TooLarge(format!(
            "{what} needs {} MB of memory, and this worker may use {} MB; raise --memory, or use fewer --slots",
            needed.div_ceil(1_000_000),
            self.limit / 1_000_000
        )))
    }
}

/// Checks that a `Hold` names shards of this job, each once, as large as the job has them.
///
/// # Errors
/// What is wrong with the first that is not so.
pub(crate) fn check_hold(spec: &Spec, hold: &Hold) -> Result<(), Trouble> {
    let mut seen = BTreeSet::new();
    for asked in &hold.shards {
        let &ShardToHold { shard, samples, bytes, ref sha256 } = asked;
        if shard.index >= spec.shards {
            return Err(no_such_shard(shard));
        }
        let there = shard_len(spec.sizes.of(shard.split), spec.shards, shard.index);
        if samples != there {
            return Err(Trouble::lost(format!(
                "shard {shard} has {there} samples in this job, not {samples}"
            )));
        }
        let expected = u64::from(samples).saturating_mul(spec.schema.sample_bytes() as u64);
        if bytes != expected {
            return Err(Trouble::lost(format!(
                "shard {shard} has {expected} bytes in this job, not {bytes}"
            )));
        }
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Trouble::lost(format!("the hash of shard {shard} is no SHA-256")));
        }
        if !seen.insert(shard) {
            return Err(Trouble::lost(format!("shard {shard} is to be held twice")));
        }
    }
    Ok(())
}

/// Checks that a unit of work is one of this job, and that each of its nodes has something to compute.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_work(workload: &Workload, work: &Work) -> Result<(), Trouble> {
    let (id, steps) = (work.id, workload.plan().steps());
    if id.phase == Phase::Train && id.step >= steps {
        return Err(Trouble::lost(format!("there is no step {} in an epoch of {steps}", id.step)));
    }
    if id.epoch == u32::MAX {
        return Err(Trouble::lost(format!("there is no epoch {}", id.epoch)));
    }
    let tree = Tree::new(workload.spec().shards);
    for &node in &work.nodes {
        convert::in_tree(node, &tree)?;
        if workload.present(id.into(), node.first..node.end).is_empty() {
            return Err(Trouble::lost(format!("there are no samples in node {node} of this work")));
        }
    }
    Ok(())
}

fn no_such_shard(shard: Shard) -> Trouble {
    Trouble::lost(format!("there is no shard {shard} in this job"))
}
