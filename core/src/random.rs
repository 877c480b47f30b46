//! Every random number of a job, as a function of its coordinates.
//!
//! There is no shared stream: the numbers of a piece depend only on its coordinates, not on the machine or the order.
//! A 32-byte ChaCha8 key is laid out as four little-endian `u64`: seed, purpose, and two coordinates; the stream and
//! the word position are two more.
//!
//! | purpose | key | stream | word |
//! | --- | --- | --- | --- |
//! | dropout | seed, 1, epoch, layer | sample (its index in the data set) | unit |
//! | shuffle | seed, 2, epoch, shard | 0 | consumed by Fisher–Yates |
//! | initial weights | seed, 3, layer, 0 | 0 | entry (row-major); consumed by rejection if normal |
//! | order before the split | seed, 4, 0, 0 | 0 | consumed by Fisher–Yates |
//!
//! Only ChaCha's raw words are used; the mappings to floats and permutations are this module's own, because
//! those of the `rand` crate may change between its versions. Golden values in the tests pin them.

use crate::learn::elementwise::exp_of_double;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const DROPOUT: u64 = 1;
const SHUFFLE: u64 = 2;
const INITIAL: u64 = 3;
const SPLIT: u64 = 4;

fn words(seed: u64, purpose: u64, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose, a, b]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The random words of one dropout layer in one epoch; each sample has a run of its own.
pub struct DropoutWords(ChaCha8Rng);

impl DropoutWords {
    /// The words of dropout layer `layer` (its index among the job's layers) in `epoch` (from 0).
    pub fn new(seed: u64, epoch: u64, layer: u64) -> Self {
        Self(words(seed, DROPOUT, epoch, layer))
    }

    /// Fills `units` with the words of `sample` (its index in the training data, before any shuffle).
    pub fn fill(&mut self, sample: u64, units: &mut [u32]) {
        self.0.set_stream(sample);
        self.0.set_word_pos(0);
        for unit in units {
            *unit = self.0.next_u32();
        }
    }
}

/// The order in which `shard` goes through its `len` samples in `epoch` (from 0): a permutation of `0..len`.
pub fn shuffled(seed: u64, epoch: u64, shard: u64, len: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    shuffle(seed, epoch, shard, &mut order);
    order
}

/// Makes that order of `0..len`.
///
/// Fisher–Yates from the last place down, each place drawn without bias by Lemire's multiply-and-reject
/// (ACM TOMACS 29, 2019, "Fast Random Integer Generation in an Interval").
pub fn shuffle(seed: u64, epoch: u64, shard: u64, order: &mut [u32]) {
    permute(words(seed, SHUFFLE, epoch, shard), order);
}

/// The order of `len` samples before they are split: a permutation of `0..len`.
pub fn split_order(seed: u64, len: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    permute(words(seed, SPLIT, 0, 0), &mut order);
    order
}

fn permute(mut rng: ChaCha8Rng, order: &mut [u32]) {
    for last in (1..order.len() as u32).rev() {
        order.swap(last as usize, below(&mut rng, last + 1) as usize);
    }
}

/// Uniform in `0..bound`; `bound` is not 0.
fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(rng.next_u32()) * u64::from(bound);
        if product as u32 >= threshold {
            return (product >> 32) as u32;
        }
    }
}

/// Fills `entries` (a kernel, row-major) with values from a normal distribution around 0 with this `deviation`, cut off at
/// two deviations. Drawn by rejection: uniform values, each kept with a probability of `exp(-x² / 2)`.
pub fn truncated_normal(seed: u64, layer: u64, deviation: f32, entries: &mut [f32]) {
    let mut rng = words(seed, INITIAL, layer, 0);
    let mut unit = || f64::from(rng.next_u32() >> 8) * (1.0 / f64::from(1 << 24));
    for entry in entries {
        let x = loop {
            let (x, kept) = (unit() * 4.0 - 2.0, unit());
            if kept < exp_of_double(-0.5 * x * x) {
                break x;
            }
        };
        *entry = x as f32 * deviation;
    }
}

/// Fills `entries` (a kernel, row-major) with values uniform in `[-limit, limit)`, on a grid of 2²⁴ values.
pub fn uniform(seed: u64, layer: u64, limit: f32, entries: &mut [f32]) {
    let mut rng = words(seed, INITIAL, layer, 0);
    for entry in entries {
        let unit = (rng.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32);
        *entry = (unit * 2.0 - 1.0) * limit;
    }
}
