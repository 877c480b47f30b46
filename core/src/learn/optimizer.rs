//! From a step's gradients to the next parameters.
//!
//! An optimizer divides the sum of the per-sample gradients by the step's own number of samples: a mean taken
//! earlier, shard by shard, would weigh the samples of a small shard more. Its state stays with the
//! coordinator; workers never see it.

use std::ops::Deref;

use rayon::iter::{IndexedParallelIterator as _, ParallelIterator as _};
use rayon::slice::ParallelSliceMut as _;

use super::elementwise;
use super::sum::{self, Room, SECTION, Sum};
use crate::job::Optimizer;

/// An optimizer with what it remembers between steps.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerState {
    /// Plain gradient descent remembers nothing.
    Sgd {
        /// The factor of the mean gradient.
        learning_rate: f32,
    },
}

impl OptimizerState {
    /// The state before the first step of a model with so many `_parameters`.
    pub fn new(optimizer: &Optimizer, _parameters: usize) -> Self {
        match *optimizer {
            Optimizer::Sgd { learning_rate } => Self::Sgd { learning_rate },
        }
    }

    /// One step: `out` becomes the parameters after it.
    ///
    /// `gradient_sum` is the sum of the gradients of `count` samples, at least one. All slices are of equal length: a
    /// model's, or the same part of it.
    pub fn step(&self, parameters: &[f32], gradient_sum: &[f32], count: u64, out: &mut [f32]) {
        check(out, count, &[parameters, gradient_sum]);
        match *self {
            Self::Sgd { learning_rate } => {
                elementwise::descend(parameters, gradient_sum, count as f32, learning_rate, out);
            }
        }
    }

    /// [`step`](Self::step) with what is still to be added of `sum`, with all cores: each adds its sections, and takes the step
    /// there while they are in its caches.
    pub fn step_of_sum<B>(&self, parameters: &[f32], sum: &Sum<B>, out: &mut [f32])
    where
        B: Deref<Target = [f32]> + Sync,
    {
        let (len, count) = (out.len(), sum.figures.samples);
        check(out, count, &[parameters]);
        out.par_chunks_mut(SECTION).enumerate().for_each_init(Room::default, |room, (index, out)| {
            let section = sum::section(len, index).expect("there is a section for each part of the output");
            let first = section.start;
            sum::add_section(sum.order(), sum.terms(), section, room, |block, left, right| {
                let parameters = &parameters[block.clone()];
                let out = &mut out[block.start - first..block.end - first];
                match right {
                    Some(right) => self.step_of_halves(parameters, [left, right], count, out),
                    None => self.step(parameters, left, count, out),
                }
            });
        });
    }

    /// [`step`](Self::step) with the sum `left + right`, in one pass over memory and with the same bits.
    pub fn step_of_halves(
        &self,
        parameters: &[f32],
        [left, right]: [&[f32]; 2],
        count: u64,
        out: &mut [f32],
    ) {
        check(out, count, &[parameters, left, right]);
        match *self {
            Self::Sgd { learning_rate } => {
                elementwise::add_and_descend(parameters, left, right, count as f32, learning_rate, out);
            }
        }
    }
}

fn check(out: &[f32], count: u64, slices: &[&[f32]]) {
    assert!(count > 0, "a step has samples");
    assert!(slices.iter().all(|slice| slice.len() == out.len()), "a gradient is as long as the parameters");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_sum_has_the_bits_of_adding_it_first() {
        use crate::learn::sum::{Figures, Sum};

        let len = 2 * SECTION + 11;
        let numbers = |salt: u32| -> Vec<f32> {
            let spread = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(salt));
            spread.map(|bits| f32::from_bits(bits & 0xbfff_ffff)).collect()
        };
        let parameters = numbers(1);
        let state = OptimizerState::new(&Optimizer::Sgd { learning_rate: 0.1 }, len);
        let figures = Figures { loss_sum: 0.0, correct: 0, samples: 100 };
        let mut sum = Sum::new(Some(numbers(2)), figures, Vec::new());
        for terms in 1..=4 {
            let mut settled = sum.clone();
            settled.settle(|| vec![0.0; len]);
            let (mut apart, mut fused) = (vec![0.0; len], vec![0.0; len]);
            state.step(&parameters, &settled.terms()[0], sum.figures.samples, &mut apart);
            state.step_of_sum(&parameters, &sum, &mut fused);
            assert!(apart.iter().zip(&fused).all(|(a, b)| a.to_bits() == b.to_bits()), "{terms} terms");
            sum.join(Sum::new(Some(numbers(2 + terms)), figures, Vec::new()));
        }
    }

    #[test]
    fn a_step_of_two_halves_has_the_bits_of_adding_them_first() {
        let numbers = |salt: u32| -> Vec<f32> {
            let spread = (0..1003u32).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(salt));
            spread.map(|bits| f32::from_bits(bits & 0xbfff_ffff)).collect()
        };
        let (parameters, left, right) = (numbers(1), numbers(2), numbers(3));
        let state = OptimizerState::new(&Optimizer::Sgd { learning_rate: 0.1 }, parameters.len());

        let mut sum = left.clone();
        elementwise::add_assign(&mut sum, &right);
        let (mut apart, mut fused) = (vec![0.0; 1003], vec![0.0; 1003]);
        state.step(&parameters, &sum, 437, &mut apart);
        state.step_of_halves(&parameters, [&left, &right], 437, &mut fused);

        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&apart), bits(&fused));
    }
}
