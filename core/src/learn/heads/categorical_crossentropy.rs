//! Categorical cross-entropy of a softmax, for targets that are classes.
//!
//! It is `ln Σ exp(z) - z_label`, which stays finite where the probability itself has become 0. The gradient by the
//! sums `z` is then simply `p - y` (C. Bishop, *Pattern Recognition and Machine Learning*, 2006, equation 4.109).
//!
//! Keras has two names for it, one for targets in one-hot rows and one for class numbers. Here targets are class numbers
//! either way, so both names compute the same. With label smoothing, which only the first has in Keras, the target is
//! `y_i (1 - s) + s / n`.

use super::{Aim, Head, LossScratch};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;
use crate::learn::activations::softmax::{exponentials_to_shares, subtract_largest};
use crate::learn::elementwise;

/// `-Σ y_i log p_i`.
pub(crate) struct CategoricalCrossentropy {
    name: &'static str,
    options: &'static [&'static str],
}

/// Under its name for one-hot rows.
pub(crate) const CATEGORICAL: CategoricalCrossentropy =
    CategoricalCrossentropy { name: "categorical_crossentropy", options: &["label_smoothing"] };

/// Under its name for class numbers.
pub(crate) const SPARSE: CategoricalCrossentropy =
    CategoricalCrossentropy { name: "sparse_categorical_crossentropy", options: &[] };

impl Head for CategoricalCrossentropy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn options(&self) -> &'static [&'static str] {
        self.options
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

    fn forward(&self, z: &mut [f32], aim: Aim<'_>, scratch: &mut LossScratch) -> f64 {
        let (labels, width, LossScratch { totals, chosen }) = (aim.truth.classes(), aim.width, scratch);
        let smoothing = aim.options.label_smoothing;
        subtract_largest(z, width);
        chosen.clear();
        let rows = z.chunks_exact(width).zip(labels);
        if smoothing == 0.0 {
            chosen.extend(rows.map(|(row, &label)| row[label as usize]));
        } else {
            chosen.extend(rows.map(|(row, &label)| smoothed(row, label as usize, smoothing)));
        }
        exponentials_to_shares(z, width, totals);
        elementwise::log(totals);

        let losses =
            totals.iter().zip(&*chosen).map(|(total, chosen)| f64::from(*total) - f64::from(*chosen));
        aim.sum(losses)
    }

    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>) {
        let smoothing = aim.options.label_smoothing;
        for (row, &label) in outputs.chunks_exact_mut(aim.width).zip(aim.truth.classes()) {
            if smoothing != 0.0 {
                row.iter_mut().for_each(|p| *p -= smoothing / aim.width as f32);
            }
            row[label as usize] -= 1.0 - smoothing;
        }
    }

    /// Every class is as likely as any other.
    fn of_a_constant(&self, outputs: usize, _truth: Truth<'_>) -> Option<f64> {
        Some((outputs as f64).ln())
    }
}

/// `Σ y_i z_i` for the smoothed target of a row.
fn smoothed(row: &[f32], label: usize, smoothing: f32) -> f32 {
    let (smoothing, classes) = (f64::from(smoothing), row.len() as f64);
    let sum = row.iter().fold(0.0, |sum, z| sum + f64::from(*z));
    ((1.0 - smoothing) * f64::from(row[label]) + smoothing / classes * sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::heads::LossOptions;
    use crate::learn::heads::tests::aim;

    fn loss(z: &mut [f32], labels: &[u32]) -> f64 {
        CATEGORICAL.forward(z, aim(3, Truth::Classes(labels)), &mut LossScratch::default())
    }

    #[test]
    fn a_smoothed_target_is_spread_over_the_classes() {
        let options = LossOptions { label_smoothing: 0.3, ..LossOptions::default() };
        let aim = Aim { options, ..aim(3, Truth::Classes(&[1])) };
        let mut z = [0.5, -1.0, 2.0];
        let got = CATEGORICAL.forward(&mut z, aim, &mut LossScratch::default());
        let targets = [0.1, 0.8, 0.1];
        let wanted: f64 = z.iter().zip(targets).map(|(p, y)| -y * f64::from(*p).ln()).sum();
        assert!((got - wanted).abs() < 1e-6, "{got}, not {wanted}");
        let outputs = z;
        CATEGORICAL.backward(&mut z, aim);
        for ((got, p), y) in z.iter().zip(outputs).zip(targets) {
            assert!((f64::from(*got) - (f64::from(p) - y)).abs() < 1e-7);
        }
    }

    #[test]
    fn a_constant_has_the_logarithm_of_the_classes_for_its_loss() {
        let constant = CATEGORICAL.of_a_constant(3, Truth::Classes(&[0, 2]));
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
        CATEGORICAL.backward(&mut outputs, aim(3, Truth::Classes(&[0, 2])));
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
        assert_eq!(CATEGORICAL.outputs(Target::Class { classes: 7 }), Ok(7));
        assert!(CATEGORICAL.outputs(Target::Reals { width: 2 }).is_err());
    }
}
