//! From a step's gradients to the next parameters.
//!
//! An optimizer divides the sum of the per-sample gradients by the step's own number of samples: a mean taken
//! earlier, shard by shard, would weigh the samples of a small shard more. Its state stays with the
//! coordinator; workers never see it.

use super::elementwise;
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
