//! Mean squared error, for targets that are numbers: the mean over a sample's `k` numbers of `(z - y)²`.
//!
//! The gradient by `z` is `2 (z - y) / k`.

use super::{Head, LossScratch};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;

/// `Σ (z_i - y_i)² / k`.
pub(crate) struct MeanSquaredError;

impl Head for MeanSquaredError {
    fn name(&self) -> &'static str {
        "mse"
    }

    fn activation(&self) -> Activation {
        Activation::Linear
    }

    fn needs(&self) -> &'static str {
        "plain numbers"
    }

    fn outputs(&self, target: Target) -> Result<u32, &'static str> {
        match target {
            Target::Reals { width } => Ok(width),
            Target::Class { .. } => Err("targets that are numbers"),
        }
    }

    fn forward(&self, z: &mut [f32], width: usize, truth: Truth<'_>, _scratch: &mut LossScratch) -> f64 {
        let samples = z.chunks_exact(width).zip(truth.reals().chunks_exact(width));
        let losses = samples.map(|(z, y)| squares(z, y) / width as f64);
        losses.fold(0.0, |sum, loss| sum + loss)
    }

    fn backward(&self, outputs: &mut [f32], width: usize, truth: Truth<'_>) {
        for (z, y) in outputs.iter_mut().zip(truth.reals()) {
            *z = 2.0 * (*z - y) / width as f32;
        }
    }

    /// The prediction is the mean, and its loss the variance.
    fn of_a_constant(&self, outputs: usize, truth: Truth<'_>) -> Option<f64> {
        let variances = (0..outputs).map(|column| {
            let numbers = || truth.reals().iter().skip(column).step_by(outputs).map(|&y| f64::from(y));
            let samples = numbers().count() as f64;
            let mean = numbers().sum::<f64>() / samples;
            numbers().map(|y| (y - mean) * (y - mean)).sum::<f64>() / samples
        });
        Some(variances.sum::<f64>() / outputs as f64)
    }
}

fn squares(z: &[f32], y: &[f32]) -> f64 {
    let differences = z.iter().zip(y).map(|(z, y)| f64::from(*z - y));
    differences.fold(0.0, |sum, difference| sum + difference * difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_a_sample_is_the_mean_of_its_squared_errors() {
        let (mut z, truth) = ([1.0, 2.0, 3.0, -1.0], Truth::Reals(&[0.0, 2.0, 1.0, 1.0]));
        assert_eq!(MeanSquaredError.forward(&mut z, 2, truth, &mut LossScratch::default()), 0.5 + 4.0);
        MeanSquaredError.backward(&mut z, 2, truth);
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
        let loss =
            MeanSquaredError.forward(&mut [f32::NAN], 1, Truth::Reals(&[0.0]), &mut LossScratch::default());
        assert!(loss.is_nan());
    }
}
