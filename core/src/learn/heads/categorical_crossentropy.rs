//! Categorical cross-entropy of a softmax, for targets that are classes.
//!
//! It is `ln Σ exp(z) - z_label`, which stays finite where the probability itself has become 0. The gradient by the
//! sums `z` is then simply `p - y` (C. Bishop, *Pattern Recognition and Machine Learning*, 2006, equation 4.109).

use super::{Head, LossScratch};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;
use crate::learn::activations::softmax::{exponentials_to_shares, subtract_largest};
use crate::learn::elementwise;

/// `-Σ y_i log p_i`.
pub(crate) struct CategoricalCrossentropy;

impl Head for CategoricalCrossentropy {
    fn name(&self) -> &'static str {
        "categorical_crossentropy"
    }

    fn activation(&self) -> Activation {
        Activation::Softmax
    }

    fn needs(&self) -> &'static str {
        "probabilities"
    }

    fn outputs(&self, target: Target) -> Result<u32, &'static str> {
        match target {
            Target::Class { classes } => Ok(classes),
            Target::Reals { .. } => Err("targets that are classes"),
        }
    }

    fn forward(&self, z: &mut [f32], width: usize, truth: Truth<'_>, scratch: &mut LossScratch) -> f64 {
        let (labels, LossScratch { totals, chosen }) = (truth.classes(), scratch);
        subtract_largest(z, width);
        chosen.clear();
        chosen.extend(z.chunks_exact(width).zip(labels).map(|(row, &label)| row[label as usize]));
        exponentials_to_shares(z, width, totals);
        elementwise::log(totals);

        let losses =
            totals.iter().zip(&*chosen).map(|(total, chosen)| f64::from(*total) - f64::from(*chosen));
        losses.fold(0.0, |sum, loss| sum + loss)
    }

    fn backward(&self, outputs: &mut [f32], width: usize, truth: Truth<'_>) {
        for (row, &label) in outputs.chunks_exact_mut(width).zip(truth.classes()) {
            row[label as usize] -= 1.0;
        }
    }

    /// Every class is as likely as any other.
    fn of_a_constant(&self, outputs: usize, _truth: Truth<'_>) -> Option<f64> {
        Some((outputs as f64).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(z: &mut [f32], labels: &[u32]) -> f64 {
        CategoricalCrossentropy.forward(z, 3, Truth::Classes(labels), &mut LossScratch::default())
    }

    #[test]
    fn a_constant_has_the_logarithm_of_the_classes_for_its_loss() {
        let constant = CategoricalCrossentropy.of_a_constant(3, Truth::Classes(&[0, 2]));
        assert_eq!(constant, Some(3_f64.ln()));
        assert!((loss(&mut [0.5; 6], &[0, 2]) / 2.0 - 3_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_loss_stays_finite_where_the_probability_is_zero() {
        let mut z = [0.0, 500.0, -500.0];
        assert_eq!(loss(&mut z, &[2]), 1000.0);
        assert_eq!(z, [0.0, 1.0, 0.0]);
    }

    #[test]
    fn equal_outputs_have_the_loss_of_a_uniform_guess() {
        assert!((loss(&mut [1.0; 6], &[0, 1]) - 2.0 * 3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_is_one_less_at_the_labels() {
        let mut outputs = [0.5, 0.25, 0.25, 0.0, 1.0, 0.0];
        CategoricalCrossentropy.backward(&mut outputs, 3, Truth::Classes(&[0, 2]));
        assert_eq!(outputs, [-0.5, 0.25, 0.25, 0.0, 1.0, -1.0]);
    }

    #[test]
    fn nan_and_infinite_outputs_give_a_nan_loss() {
        for bad in [f32::NAN, f32::INFINITY] {
            for place in 0..3 {
                let mut z = [0.0; 3];
                z[place] = bad;
                assert!(loss(&mut z, &[1]).is_nan());
                assert!(z.iter().any(|p| p.is_nan()));
            }
        }
        assert!(loss(&mut [f32::NEG_INFINITY; 3], &[1]).is_nan());
    }

    #[test]
    fn it_accepts_only_classes_as_targets() {
        assert_eq!(CategoricalCrossentropy.outputs(Target::Class { classes: 7 }), Ok(7));
        assert!(CategoricalCrossentropy.outputs(Target::Reals { width: 2 }).is_err());
    }
}
