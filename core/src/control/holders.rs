//! Which workers hold the samples of each shard.
//!
//! Work is assigned to workers that hold its samples. With many workers and shards, each worker holds few of them, so
//! that this index saves a look at every worker for every shard.

use std::collections::BTreeMap;

use super::ids::WorkerId;
use crate::data::shard::Shard;

/// The workers that hold each shard, in the order in which they joined.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<Shard, Vec<WorkerId>>);

impl Holders {
    /// The workers that hold this shard.
    pub(super) fn of(&self, shard: Shard) -> &[WorkerId] {
        self.0.get(&shard).map_or(&[], Vec::as_slice)
    }

    /// Whether this worker holds this shard.
    pub(super) fn holds(&self, worker: WorkerId, shard: Shard) -> bool {
        self.of(shard).binary_search(&worker).is_ok()
    }

    /// The worker holds the shard now.
    pub(super) fn add(&mut self, shard: Shard, worker: WorkerId) {
        let holders = self.0.entry(shard).or_default();
        if let Err(place) = holders.binary_search(&worker) {
            holders.insert(place, worker);
        }
    }

    /// The worker does not hold the shard any more.
    pub(super) fn remove(&mut self, shard: Shard, worker: WorkerId) {
        let Some(holders) = self.0.get_mut(&shard) else { return };
        if let Ok(place) = holders.binary_search(&worker) {
            holders.remove(place);
        }
    }
}
