//! Mean squared error: the mean over the samples, and over a sample's numbers, of `(z - y)²`.
//!
//! Keras knows it by two names, and a history has it under the name that the job gives.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_numbers};
use crate::data::schema::Target;

/// The metric by one of its names.
pub(crate) struct MeanSquaredError(&'static str);

/// By its short name.
pub(crate) const SHORT: MeanSquaredError = MeanSquaredError("mse");
/// By its long name.
pub(crate) const LONG: MeanSquaredError = MeanSquaredError("mean_squared_error");

impl Measure for MeanSquaredError {
    fn name(&self) -> Cow<'static, str> {
        self.0.into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_numbers(target)
    }

    fn tally(&self) -> Tally {
        Tally::SquaredErrors
    }

    fn rises(&self) -> bool {
        false
    }

    fn figure(&self, Tallied { samples, sums, .. }: Tallied<'_>) -> Option<f64> {
        Some(sums[0] / samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_mean_over_the_samples() {
        assert_eq!(SHORT.figure(Tallied { samples: 4, counts: &[], sums: &[9.0] }), Some(2.25));
    }
}
