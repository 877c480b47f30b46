//! Mean absolute error, for targets that are numbers: the mean over a sample's `k` numbers of `|z - y|`.
//!
//! The gradient by `z` is `sign(z - y) / k`.

use super::{Aim, Head, LossScratch, columns, mean_over_numbers, outputs_of_numbers, slopes_of_numbers};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;

/// `Σ |z_i - y_i| / k`.
pub(crate) struct MeanAbsoluteError;

impl Head for MeanAbsoluteError {
    fn name(&self) -> &'static str {
        "mean_absolute_error"
    }

    fn activation(&self) -> Activation {
        Activation::Linear
    }

    fn needs(&self) -> &'static str {
        "plain numbers"
    }

    fn outputs(&self, target: Target) -> Result<u32, &'static str> {
        outputs_of_numbers(target)
    }

    fn forward(&self, z: &mut [f32], aim: Aim<'_>, _scratch: &mut LossScratch) -> f64 {
        mean_over_numbers(z, aim, f64::abs)
    }

    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>) {
        // The sign of NaN is NaN, that of 0 is 0.
        slopes_of_numbers(outputs, aim, |error| if error == 0.0 { 0.0 } else { error.signum() });
    }

    /// The prediction is the median, and its loss the mean distance from it.
    fn of_a_constant(&self, outputs: usize, truth: Truth<'_>) -> Option<f64> {
        let distances = columns(outputs, truth).map(|mut numbers| {
            numbers.sort_unstable_by(f64::total_cmp);
            let median = numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN);
            numbers.iter().map(|y| (y - median).abs()).sum::<f64>() / numbers.len() as f64
        });
        Some(distances.sum::<f64>() / outputs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::heads::tests::aim;

    #[test]
    fn the_loss_of_a_sample_is_the_mean_of_its_differences() {
        let (mut z, truth) = ([1.0, 2.0, 3.0, -1.0], Truth::Reals(&[0.0, 2.0, 1.0, 1.0]));
        assert_eq!(MeanAbsoluteError.forward(&mut z, aim(2, truth), &mut LossScratch::default()), 2.5);
        MeanAbsoluteError.backward(&mut z, aim(2, truth));
        assert_eq!(z, [0.5, 0.0, 0.5, -0.5]);
    }

    #[test]
    fn a_constant_is_as_far_away_as_the_median() {
        let truth = Truth::Reals(&[1.0, 5.0, 9.0, 5.0, 2.0, 5.0]);
        assert_eq!(MeanAbsoluteError.of_a_constant(2, truth), Some((8.0 / 3.0) / 2.0));
    }

    #[test]
    fn nan_outputs_give_a_nan_loss() {
        let aim = aim(1, Truth::Reals(&[0.0]));
        let mut z = [f32::NAN];
        assert!(MeanAbsoluteError.forward(&mut z, aim, &mut LossScratch::default()).is_nan());
        MeanAbsoluteError.backward(&mut z, aim);
        assert!(z[0].is_nan());
    }
}
