//! What is minimised: from the last layer's sums to the loss, the score and the gradient.
//!
//! An output activation and its loss are computed together, because apart they lose digits: the cross-entropy
//! of a softmax is `ln Σ exp(z) - z_label`, which stays finite where the probability itself has become 0.
//! Every exponent is taken relative to the row's largest, so that none overflows. The gradient by the sums
//! `z` is then simply `p - y` (C. Bishop, *Pattern Recognition and Machine Learning*, 2006, equation 4.109).
//!
//! Numbers that are not finite pass through: they make the loss not finite, which somebody else decides
//! about.

use super::elementwise;
use super::subnormals::flushed;

/// The loss and the score of some samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// The sum of their losses, added in row order.
    pub loss_sum: f64,
    /// For how many of them the largest output, the first of equals, is the label's.
    pub correct: u64,
}

/// `z ← softmax(z)` by rows, for `z` `[rows, classes]`. `totals` is overwritten.
pub(super) fn softmax(z: &mut [f32], classes: usize, totals: &mut Vec<f32>) {
    flushed(|| {
        subtract_largest(z, classes);
        exponentials_to_shares(z, classes, totals);
    });
}

/// Softmax with categorical cross-entropy: `z` `[labels, classes]` becomes the probabilities.
pub(super) fn softmax_crossentropy(
    z: &mut [f32],
    classes: usize,
    labels: &[u8],
    totals: &mut Vec<f32>,
    chosen: &mut Vec<f32>,
) -> Score {
    flushed(|| {
        subtract_largest(z, classes);
        chosen.clear();
        chosen.extend(z.chunks_exact(classes).zip(labels).map(|(row, label)| row[usize::from(*label)]));
        exponentials_to_shares(z, classes, totals);
        elementwise::log(totals);

        let losses =
            totals.iter().zip(&*chosen).map(|(total, chosen)| f64::from(*total) - f64::from(*chosen));
        let hits =
            z.chunks_exact(classes).zip(labels).filter(|(row, label)| largest(row) == usize::from(**label));
        Score { loss_sum: losses.fold(0.0, |sum, loss| sum + loss), correct: hits.count() as u64 }
    })
}

/// The gradient of the summed cross-entropy by the softmax's inputs, from its outputs: 1 less at the labels.
pub(super) fn subtract_labels(probabilities: &mut [f32], classes: usize, labels: &[u8]) {
    flushed(|| {
        for (row, label) in probabilities.chunks_exact_mut(classes).zip(labels) {
            row[usize::from(*label)] -= 1.0;
        }
    });
}

/// The place of the largest value, the first of equals; values that are not numbers are passed over.
fn largest(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (place, value) in row.iter().enumerate() {
        if *value > best.1 {
            best = (place, *value);
        }
    }
    best.0
}

fn subtract_largest(z: &mut [f32], classes: usize) {
    for row in z.chunks_exact_mut(classes) {
        let largest = row[largest(row)];
        row.iter_mut().for_each(|value| *value -= largest);
    }
}

/// `z ← exp(z)`, divided by the row's sum, which stays behind in `totals`.
fn exponentials_to_shares(z: &mut [f32], classes: usize, totals: &mut Vec<f32>) {
    elementwise::exp(z);
    totals.clear();
    for row in z.chunks_exact_mut(classes) {
        let total = row.iter().fold(0.0, |sum, value| sum + value);
        row.iter_mut().for_each(|value| *value /= total);
        totals.push(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(z: &mut [f32], labels: &[u8]) -> Score {
        softmax_crossentropy(z, 3, labels, &mut Vec::new(), &mut Vec::new())
    }

    #[test]
    fn the_loss_stays_finite_where_the_probability_is_zero() {
        let mut z = [0.0, 500.0, -500.0];
        assert_eq!(score(&mut z, &[2]), Score { loss_sum: 1000.0, correct: 0 });
        assert_eq!(z, [0.0, 1.0, 0.0]);
    }

    #[test]
    fn of_equal_outputs_the_first_counts() {
        let mut z = [1.0; 6];
        let score = score(&mut z, &[0, 1]);
        assert_eq!(score.correct, 1);
        assert!((score.loss_sum - 2.0 * 3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_number_that_is_none_makes_the_loss_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            for place in 0..3 {
                let mut z = [0.0; 3];
                z[place] = bad;
                assert!(score(&mut z, &[1]).loss_sum.is_nan());
                assert!(z.iter().any(|p| p.is_nan()));
            }
        }
        assert!(score(&mut [f32::NEG_INFINITY; 3], &[1]).loss_sum.is_nan());
    }

    #[test]
    fn the_largest_is_found_beside_nan() {
        assert_eq!(largest(&[1.0, f32::NAN, 2.0]), 2);
        assert_eq!(largest(&[f32::NAN, 1.0, 2.0]), 2);
        assert_eq!(largest(&[f32::NAN; 2]), 0);
    }
}
