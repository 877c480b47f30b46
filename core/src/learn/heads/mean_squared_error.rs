//! Mean squared error, for targets that are numbers: the mean over a sample's `k` numbers of `(z - y)²`.
//!
//! The gradient by `z` is `2 (z - y) / k`.

use super::{Aim, Head, LossScratch, columns, mean_over_numbers, outputs_of_numbers, slopes_of_numbers};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;

/// `Σ (z_i - y_i)² / k`.
pub(crate) struct MeanSquaredError;

impl Head for MeanSquaredError {
    fn name(&self) -> &'static str {
        "mean_squared_error"
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
        mean_over_numbers(z, aim, |error| error * error)
    }

    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>) {
        slopes_of_numbers(outputs, aim, |error| 2.0 * error);
    }

    /// The prediction is the mean, and its loss the variance.
    fn of_a_constant(&self, outputs: usize, truth: Truth<'_>) -> Option<f64> {
        let variances = columns(outputs, truth).map(|numbers| {
            let samples = numbers.len() as f64;
            let mean = numbers.iter().sum::<f64>() / samples;
            numbers.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / samples
        });
        Some(variances.sum::<f64>() / outputs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::heads::tests::aim;

    #[test]
    fn the_loss_of_a_sample_is_the_mean_of_its_squared_errors() {
        let (mut z, truth) = ([1.0, 2.0, 3.0, -1.0], Truth::Reals(&[0.0, 2.0, 1.0, 1.0]));
        let aim = aim(2, truth);
        assert_eq!(MeanSquaredError.forward(&mut z, aim, &mut LossScratch::default()), 0.5 + 4.0);
        MeanSquaredError.backward(&mut z, aim);
        assert_eq!(z, [1.0, 0.0, 2.0, -2.0]);
    }

    #[test]
    fn a_constant_has_the_variance_for_its_loss() {
        // The variances are 4 and 0.
        let truth = Truth::Reals(&[1.0, 5.0, 5.0, 5.0]);
        assert_eq!(MeanSquaredError.of_a_constant(2, truth), Some(2.0));
    }

    #[test]
    fn it_accepts_only_numbers_as_targets() {
        assert_eq!(MeanSquaredError.outputs(Target::Reals { width: 3 }), Ok(3));
        assert!(MeanSquaredError.outputs(Target::Class { classes: 3 }).is_err());
    }

    #[test]
    fn nan_outputs_give_a_nan_loss() {
        let aim = aim(1, Truth::Reals(&[0.0]));
        assert!(MeanSquaredError.forward(&mut [f32::NAN], aim, &mut LossScratch::default()).is_nan());
    }
}
