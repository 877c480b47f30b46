//! Softmax, `exp(x_i) / Σ exp(x_j)` over a row; only for output layers.
//!
//! Every exponent is relative to the row's largest, so that none overflows. Numbers that are not finite pass
//! through: they make the loss not finite, and the caller handles that.

use super::{Function, Hidden};
use crate::learn::elementwise;

/// `exp(x_i) / Σ exp(x_j)`, over a row.
pub(crate) struct Softmax;

impl Function for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn apply(&self, z: &mut [f32], units: usize, scratch: &mut Vec<f32>) {
        subtract_largest(z, units);
        exponentials_to_shares(z, units, scratch);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        None
    }
}

/// The index of the largest value (the first, if several are equal); NaN is skipped.
pub(in crate::learn) fn largest(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (place, value) in row.iter().enumerate() {
        if *value > best.1 {
            best = (place, *value);
        }
    }
    best.0
}

/// Subtracts from each row of `z`, `[rows, units]`, its largest value.
pub(in crate::learn) fn subtract_largest(z: &mut [f32], units: usize) {
    for row in z.chunks_exact_mut(units) {
        let largest = row[largest(row)];
        row.iter_mut().for_each(|value| *value -= largest);
    }
}

/// `z ← exp(z)`, divided by the row's sum, which is stored in `totals`, `[rows]`.
pub(in crate::learn) fn exponentials_to_shares(z: &mut [f32], units: usize, totals: &mut Vec<f32>) {
    elementwise::exp(z);
    totals.clear();
    for row in z.chunks_exact_mut(units) {
        let total = row.iter().fold(0.0, |sum, value| sum + value);
        row.iter_mut().for_each(|value| *value /= total);
        totals.push(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_skips_nan() {
        assert_eq!(largest(&[1.0, f32::NAN, 2.0]), 2);
        assert_eq!(largest(&[f32::NAN, 1.0, 2.0]), 2);
        assert_eq!(largest(&[f32::NAN; 2]), 0);
    }

    #[test]
    fn large_inputs_do_not_overflow() {
        let mut z = [1000.0, 1000.0, -1000.0, 0.0, 0.0, 0.0];
        Softmax.apply(&mut z, 3, &mut Vec::new());
        assert_eq!(z[..3], [0.5, 0.5, 0.0]);
        assert_eq!(z[3..], [1.0 / 3.0; 3]);
    }
}
