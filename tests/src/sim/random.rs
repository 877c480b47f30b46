//! Random numbers from a seed, for faults and delays. SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

use std::ops::RangeInclusive;
use std::time::Duration;

/// A stream of numbers that its seed determines.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed, 0x6d69_6c6c_6566_6575))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    pub(crate) fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.within(range.start() * 1000..=range.end() * 1000))
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.within(0..=of.len() as u64 - 1) as usize]
    }
}

/// A hash of two numbers; `mix(a, b)` is not `mix(b, a)`.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    finish(finish(a ^ 0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ finish(b))
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
