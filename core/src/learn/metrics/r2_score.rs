//! R², the coefficient of determination: `1 - Σ (z - y)² / Σ (y - mean of y)²`, the mean over a sample's numbers if it has
//! several (Keras' `class_aggregation="uniform_average"`).
//!
//! `Σ (y - mean)²` comes from the sums of `y` and of `y²`, in `f64`. It is not defined where it can't be told from rounding,
//! as for targets that are all equal.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_numbers};
use crate::data::schema::Target;

/// The coefficient of determination.
pub(crate) struct R2Score;

impl Measure for R2Score {
    fn name(&self) -> Cow<'static, str> {
        "r2_score".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_numbers(target)
    }

    fn tally(&self) -> Tally {
        Tally::Variation
    }

    fn figure(&self, Tallied { samples, sums, .. }: Tallied<'_>) -> Option<f64> {
        let samples = samples as f64;
        let (numbers, _) = sums.as_chunks::<3>();
        let total = numbers.iter().try_fold(0.0, |total, &[sum, squares, errors]| {
            let variation = squares - sum * sum / samples;
            // Each of the additions may have been off by half an epsilon of the sum.
            let is_more_than_rounding = variation > samples * f64::EPSILON * squares;
            is_more_than_rounding.then_some(total + (1.0 - errors / variation))
        });
        Some(total? / numbers.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r2(samples: u64, sums: &[f64]) -> Option<f64> {
        R2Score.figure(Tallied { samples, counts: &[], sums })
    }

    #[test]
    fn it_is_that_of_scikit_learn() {
        // The example of scikit-learn's `r2_score`: y = 3, -0.5, 2, 7 with the predictions 2.5, 0, 2, 8. Their sum is 11.5,
        // that of their squares 62.25, and the squared differences are 0.25 + 0.25 + 0 + 1. So the variation is
        // 62.25 - 11.5² / 4 = 29.1875, and R² is 1 - 1.5 / 29.1875 = 0.9486…, as its documentation says.
        let first = r2(4, &[11.5, 62.25, 1.5]).unwrap();
        assert!((first - 0.948_608_137).abs() < 1e-9, "{first}");
        // A second number that is predicted by its mean has 0.
        assert_eq!(r2(4, &[11.5, 62.25, 1.5, 11.5, 62.25, 29.1875]), Some(first / 2.0));
    }

    #[test]
    fn equal_targets_have_none() {
        let (y, samples) = (f64::from(0.1f32), 1000);
        let sum = |value: f64| (0..samples).fold(0.0, |sum, _| sum + value);
        assert_eq!(r2(samples, &[sum(y), sum(y * y), 1.0]), None);
        assert_eq!(r2(1, &[2.0, 4.0, 0.0]), None);
    }
}
