//! Root mean squared error: the root of the mean over all samples, never a mean of roots.
//!
//! `rmse` is short for it. A history has it under the name that the job gives.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_numbers};
use crate::data::schema::Target;

/// The metric by one of its names.
pub(crate) struct RootMeanSquaredError(&'static str);

/// By its short name.
pub(crate) const SHORT: RootMeanSquaredError = RootMeanSquaredError("rmse");
/// By its long name.
pub(crate) const LONG: RootMeanSquaredError = RootMeanSquaredError("root_mean_squared_error");

impl Measure for RootMeanSquaredError {
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
        Some((sums[0] / samples as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_mean_over_the_samples() {
        assert_eq!(SHORT.figure(Tallied { samples: 4, counts: &[], sums: &[9.0] }), Some(1.5));
    }
}
