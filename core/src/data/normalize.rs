//! Normalisation of features: an offset and a divisor for each, fitted to the training split.
//!
//! | `normalize` | `(x - offset) / divisor` | Keras, scikit-learn |
//! | --- | --- | --- |
//! | `scale` | `(x - min) / (max - min)` | `MinMaxScaler` |
//! | `standardize` | `(x - mean) / √variance` | `Normalization`, `StandardScaler` |
//!
//! A table's columns each have their own; the values of an image share one. The divisor is 1 where all values are equal.
//! Means and variances are exact to the last bits of `f64`: their sums are added as a balanced tree, in sample order.
//! Subtraction and division are single operations of `f32`, so every program that has them gives the same bits.

use serde::{Deserialize, Serialize};

/// How features are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Not at all.
    #[default]
    None,
    /// To the range 0 to 1.
    Scale,
    /// To the mean 0 and the variance 1.
    Standardize,
}

impl Normalize {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::None, Self::Scale, Self::Standardize];

    /// Its name in a job file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scale => "scale",
            Self::Standardize => "standardize",
        }
    }
}

/// Offsets and divisors: one for each feature, or one of each for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalizer {
    /// What is subtracted.
    pub offset: Vec<f32>,
    /// By what the difference is divided.
    pub divisor: Vec<f32>,
}

/// Below this many numbers, a sum is added one by one.
const LEAF: usize = 32;

impl Normalizer {
    /// Fits to `[samples, width]` values, which are finite. `shared` says whether all features have one offset and divisor.
    /// `None` if nothing is normalised.
    pub fn fit(how: Normalize, values: &[f32], width: usize, shared: bool) -> Option<Self> {
        let width = if shared { 1 } else { width };
        let fitted = |fit: &dyn Fn(usize) -> (f32, f32)| {
            let (offset, divisor) = (0..width).map(fit).unzip();
            Self { offset, divisor }
        };
        match how {
            Normalize::None => None,
            Normalize::Scale => Some(fitted(&|column| range(values, column, width))),
            Normalize::Standardize => Some(fitted(&|column| moments(values, column, width))),
        }
    }

    /// Normalises `[samples, width]` values.
    pub fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_mut(self.offset.len()) {
            for ((value, offset), divisor) in row.iter_mut().zip(&self.offset).zip(&self.divisor) {
                *value = (*value - offset) / divisor;
            }
        }
    }
}

/// Minimum, and maximum less minimum.
fn range(values: &[f32], column: usize, width: usize) -> (f32, f32) {
    let column = || values.iter().skip(column).step_by(width).copied();
    let (low, high) =
        column().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low < high { (low, divisor(high - low)) } else { (column().next().unwrap_or(0.0), 1.0) }
}

/// Mean and standard deviation.
fn moments(values: &[f32], column: usize, width: usize) -> (f32, f32) {
    let samples = values.len() / width;
    let of = |sample: usize| f64::from(values[sample * width + column]);
    let mean = sum(0, samples, &of) / samples.max(1) as f64;
    let variance = sum(0, samples, &|sample| (of(sample) - mean).powi(2)) / samples.max(1) as f64;
    (mean as f32, divisor(variance.sqrt() as f32))
}

/// A number to divide by: 1 in place of what is no normal number.
fn divisor(spread: f32) -> f32 {
    if spread.is_normal() { spread } else { 1.0 }
}

/// The mean of the finite values of `[samples]`, or 0 if there are none.
pub(super) fn mean(values: &[f32]) -> f32 {
    let present = values.iter().filter(|value| !value.is_nan()).count();
    let of = |sample: usize| if values[sample].is_nan() { 0.0 } else { f64::from(values[sample]) };
    (sum(0, values.len(), &of) / present.max(1) as f64) as f32
}

/// The sum over `first..end`, added as a balanced tree.
fn sum(first: usize, end: usize, of: &impl Fn(usize) -> f64) -> f64 {
    if end - first <= LEAF {
        return (first..end).map(of).sum();
    }
    let middle = first + (end - first) / 2;
    sum(first, middle, of) + sum(middle, end, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [f32; 8] = [1.0, 10.0, 2.0, 10.0, 3.0, 10.0, 6.0, 10.0];

    #[test]
    fn a_column_is_scaled_to_its_own_range() {
        let normalization = Normalizer::fit(Normalize::Scale, &TABLE, 2, false).unwrap();
        let mut values = TABLE;
        normalization.apply(&mut values);
        assert_eq!(values, [0.0, 0.0, 0.2, 0.0, 0.4, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_column_is_standardized_by_the_variance_of_all_its_values() {
        let normalization = Normalizer::fit(Normalize::Standardize, &TABLE, 2, false).unwrap();
        // Mean 3, squared differences 4, 1, 0 and 9: variance 3.5.
        assert_eq!(normalization.offset, [3.0, 10.0]);
        assert_eq!(normalization.divisor, [3.5_f32.sqrt(), 1.0]);
    }

    #[test]
    fn an_image_has_one_range() {
        let normalization = Normalizer::fit(Normalize::Scale, &[0.0, 51.0, 255.0, 0.0], 2, true).unwrap();
        let mut values = [51.0, 255.0];
        normalization.apply(&mut values);
        assert_eq!(values, [0.2, 1.0]);
    }

    #[test]
    fn sums_are_exact_where_adding_one_by_one_is_not() {
        // Added one by one in f64, ten million times 0.1 (f32) is off by more than the last bits of f32 allow for.
        let values = vec![0.1_f32; 1_000_000];
        assert_eq!(mean(&values), 0.1);
        assert_eq!(moments(&values, 0, 1), (0.1, 1.0));
    }
}
