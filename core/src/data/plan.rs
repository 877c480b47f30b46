//! The plan: the samples that make up each step.
//!
//! An epoch is a sequence of *positions*, 0 to n - 1. Position p is the ⌊p/S⌋-th sample of shard p mod S, in the
//! order that this shard has in this epoch; step t takes positions `[t·b, min((t+1)·b, n))`. This has the
//! following consequences, on which the rest of the project relies:
//!
//! - Each sample is used exactly once in an epoch, whatever n, b and S are. Nothing needs to divide evenly: the
//!   last step may be smaller, as in Keras.
//! - A full step takes ⌊b/S⌋ or ⌈b/S⌉ samples of every shard, always a contiguous *run* of the shard's order, so
//!   that (step, shard) identifies a piece.
//! - Without a shuffle, positions are file order for every S. With a shuffle, each shard is shuffled on its own,
//!   so that a worker needs only the samples of its shards.
//!
//! The plan does not say which worker computes a shard: it is the same for every cluster.

use std::collections::BTreeSet;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::shard;
use super::split::{Sizes, Split};
use crate::random;

/// The steps of an epoch over `samples` samples in `shards` shards, with `batch` samples per step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    samples: u32,
    batch: u32,
    shards: u32,
}

impl Plan {
    /// # Panics
    ///
    /// If `batch` or `shards` is 0, which no job allows.
    pub fn new(samples: u32, batch: u32, shards: u32) -> Self {
        assert!(batch > 0, "a step has at least one sample");
        assert!(shards > 0, "a job has at least one shard");
        Self { samples, batch, shards }
    }

    /// How many steps an epoch has.
    pub fn steps(&self) -> u32 {
        self.samples.div_ceil(self.batch)
    }

    /// How many samples an epoch has.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// How many samples step `t` has: the batch size, or what remains for the last step; 0 after the last step.
    pub fn step_len(&self, t: u32) -> u32 {
        let Range { start, end } = self.positions(t);
        end - start
    }

    /// The positions of step `t`.
    pub fn positions(&self, t: u32) -> Range<u32> {
        let start = u64::from(t) * u64::from(self.batch);
        let at_most = |position: u64| position.min(self.samples.into()) as u32;
        at_most(start)..at_most(start + u64::from(self.batch))
    }

    /// How many samples shard `s` has.
    pub fn shard_len(&self, s: u32) -> u32 {
        self.before(s, self.samples)
    }

    /// The piece of shard `s` in step `t`: a run of places in the shard's [order](Self::order).
    pub fn piece(&self, t: u32, s: u32) -> Range<u32> {
        let Range { start, end } = self.positions(t);
        self.before(s, start)..self.before(s, end)
    }

    /// The shards that have samples in step `t`; the others are absent from its sum.
    pub fn present(&self, t: u32) -> BTreeSet<u32> {
        let positions = self.positions(t);
        let distinct = positions.len().min(self.shards as usize);
        positions.take(distinct).map(|position| self.locate(position).0).collect()
    }

    /// How many samples shard `s` has in a unit of work: in step `t` of training, or in the evaluation of a whole
    /// split.
    pub fn share(&self, split: Split, sizes: Sizes, t: u32, s: u32) -> u32 {
        match split {
            Split::Train => self.piece(t, s).len() as u32,
            Split::Validation | Split::Test => shard::shard_len(sizes.of(split), self.shards, s),
        }
    }

    /// The shard of `position`, and the place in the shard's order.
    pub fn locate(&self, position: u32) -> (u32, u32) {
        (position % self.shards, position / self.shards)
    }

    /// The order of shard `s` in `epoch` (from 0): a permutation of the shard's samples.
    pub fn order(&self, seed: u64, epoch: u32, s: u32, shuffle: bool) -> Vec<u32> {
        let mut order = Vec::new();
        self.order_into(seed, epoch, s, shuffle, &mut order);
        order
    }

    /// Like [`Self::order`], but reuses the memory of another order.
    pub fn order_into(&self, seed: u64, epoch: u32, s: u32, shuffle: bool, order: &mut Vec<u32>) {
        order.clear();
        order.extend(0..self.shard_len(s));
        if shuffle {
            random::shuffle(seed, epoch.into(), s.into(), order);
        }
    }

    /// The indices in the split of the samples that shard `s` contributes to step `t`, in the order in which they
    /// are gathered. `order` is the shard's order in that epoch.
    pub fn indices(&self, order: &[u32], t: u32, s: u32) -> impl Iterator<Item = u64> {
        let Range { start, end } = self.piece(t, s);
        let gathered = &order[start as usize..end as usize];
        let shards = u64::from(self.shards);
        gathered.iter().map(move |&k| u64::from(k) * shards + u64::from(s))
    }

    /// How many positions below `position` belong to shard `s`.
    fn before(&self, s: u32, position: u32) -> u32 {
        shard::shard_len(position, self.shards, s)
    }
}

/// The digest of the samples that a piece gathered: SHA-256 over their indices in the split, each as 8 bytes,
/// little-endian, in the order in which they were gathered.
///
/// A worker computes it from the samples it gathered; every process with the [`Plan`] can compute the expected
/// digest.
pub fn digest(indices: impl IntoIterator<Item = u64>) -> [u8; 32] {
    let bytes = indices.into_iter().fold(Sha256::new(), |hash, index| hash.chain_update(index.to_le_bytes()));
    bytes.finalize().into()
}
