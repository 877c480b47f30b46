//! Binary cross-entropy of sigmoids: for targets that are one of two classes, with one output, the probability of class 1;
//! or for numbers from 0 to 1, each an independent label with an output of its own.
//!
//! Per label it is `ln(1 + exp(z)) - y z`, which stays finite where the probability itself has become 0 or 1. The loss of
//! a sample is the mean over its `k` labels, and the gradient by `z` then `(p - y) / k` (C. Bishop, *Pattern Recognition
//! and Machine Learning*, 2006, equation 4.109).

use super::{Aim, Head, LossOptions, LossScratch, columns};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::Activation;
use crate::learn::activations::sigmoid::sigmoid;
use crate::learn::elementwise::softplus;

/// `-(y log p + (1 - y) log (1 - p))`.
pub(crate) struct BinaryCrossentropy;

impl Head for BinaryCrossentropy {
    fn name(&self) -> &'static str {
        "binary_crossentropy"
    }

    fn activation(&self) -> Activation {
        Activation::Sigmoid
    }

    fn needs(&self) -> &'static str {
        "a probability for each label"
    }

    fn options(&self) -> &'static [&'static str] {
        &["label_smoothing"]
    }

    fn outputs(&self, target: Target) -> Result<u32, &'static str> {
        match target {
            Target::Class { classes: 2 } => Ok(1),
            Target::Class { .. } => Err("targets of two classes, or numbers from 0 to 1"),
            Target::Reals { width } => Ok(width),
        }
    }

    fn forward(&self, z: &mut [f32], aim: Aim<'_>, _scratch: &mut LossScratch) -> f64 {
        let width = aim.width as f64;
        let mut labels = labels(aim);
        let rows = z.chunks_exact(aim.width).map(|row| {
            let losses = row.iter().map(|z| {
                let (z, y) = (f64::from(*z), f64::from(labels.next().unwrap_or(f32::NAN)));
                softplus(z) - y * z
            });
            losses.fold(0.0, |sum, loss| sum + loss) / width
        });
        let sum = aim.sum(rows);
        sigmoid(z);
        sum
    }

    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>) {
        for (p, y) in outputs.iter_mut().zip(labels(aim)) {
            *p = (*p - y) / aim.width as f32;
        }
    }

    /// The prediction is the share of ones, and its loss the entropy.
    fn of_a_constant(&self, outputs: usize, truth: Truth<'_>) -> Option<f64> {
        let shares: Vec<f64> = match truth {
            Truth::Classes(classes) => vec![classes.iter().sum::<u32>().into()],
            Truth::Reals(_) => columns(outputs, truth).map(|labels| labels.iter().sum()).collect(),
        };
        let samples = match truth {
            Truth::Classes(classes) => classes.len(),
            Truth::Reals(reals) => reals.len() / outputs,
        };
        let entropy = |p: f64| -> f64 {
            let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
            term(p) + term(1.0 - p)
        };
        Some(shares.iter().map(|ones| entropy(ones / samples as f64)).sum::<f64>() / outputs as f64)
    }
}

/// The labels of all rows, smoothed.
fn labels<'a>(
    Aim { truth, options: LossOptions { label_smoothing, .. }, .. }: Aim<'a>,
) -> impl Iterator<Item = f32> + 'a {
    let (classes, reals): (&[u32], &[f32]) = match truth {
        Truth::Classes(classes) => (classes, &[]),
        Truth::Reals(reals) => (&[], reals),
    };
    let labels = classes.iter().map(|&class| class as f32).chain(reals.iter().copied());
    labels.map(move |y| y * (1.0 - label_smoothing) + 0.5 * label_smoothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::heads::tests::aim;

    fn loss(z: &mut [f32], aim: Aim<'_>) -> f64 {
        BinaryCrossentropy.forward(z, aim, &mut LossScratch::default())
    }

    #[test]
    fn the_loss_stays_finite_where_the_probability_is_zero() {
        let mut z = [-1000.0, 1000.0, 0.0];
        assert_eq!(loss(&mut z, aim(1, Truth::Classes(&[1, 1, 0]))), 1000.0 + 2f64.ln());
        assert_eq!(z, [0.0, 1.0, 0.5]);
        BinaryCrossentropy.backward(&mut z, aim(1, Truth::Classes(&[1, 1, 0])));
        assert_eq!(z, [-1.0, 0.0, 0.5]);
    }

    #[test]
    fn independent_labels_are_a_mean() {
        let of_two = loss(&mut [0.5, -1.5], aim(2, Truth::Reals(&[1.0, 0.0])));
        let one_by_one = loss(&mut [0.5, -1.5], aim(1, Truth::Reals(&[1.0, 0.0])));
        assert!((2.0 * of_two - one_by_one).abs() < 1e-12);
    }

    #[test]
    fn smoothed_labels_are_nearer_to_one_half() {
        let options = LossOptions { label_smoothing: 0.5, ..LossOptions::default() };
        let smoothed = loss(&mut [2.0], Aim { options, ..aim(1, Truth::Classes(&[1])) });
        assert_eq!(smoothed, loss(&mut [2.0], aim(1, Truth::Reals(&[0.75]))));
    }

    #[test]
    fn a_constant_has_the_entropy_for_its_loss() {
        let of = |outputs, truth| BinaryCrossentropy.of_a_constant(outputs, truth).unwrap();
        assert!((of(1, Truth::Classes(&[0, 1, 1, 0])) - 2f64.ln()).abs() < 1e-12);
        assert!((of(2, Truth::Reals(&[0.0, 1.0, 1.0, 1.0])) - 2f64.ln() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn it_accepts_two_classes_and_numbers() {
        assert_eq!(BinaryCrossentropy.outputs(Target::Class { classes: 2 }), Ok(1));
        assert_eq!(BinaryCrossentropy.outputs(Target::Reals { width: 3 }), Ok(3));
        assert!(BinaryCrossentropy.outputs(Target::Class { classes: 3 }).is_err());
    }

    #[test]
    fn nan_outputs_give_a_nan_loss() {
        assert!(loss(&mut [f32::NAN], aim(1, Truth::Classes(&[0]))).is_nan());
        assert!(!loss(&mut [f32::INFINITY], aim(1, Truth::Classes(&[0]))).is_finite());
    }
}
