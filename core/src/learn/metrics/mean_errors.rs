//! Means of errors: over the samples, and over a sample's numbers, of `(z - y)²` or `|z - y|`, or the root of such a mean
//! (over all samples, never a mean of roots).
//!
//! Keras knows each by a long name, people also by a short one, and a history has it under the name that the job gives.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_numbers};
use crate::data::schema::Target;

/// A metric by one of its names.
pub(crate) struct MeanError {
    name: &'static str,
    /// The sum that it is the mean of.
    tally: Tally,
    /// Whether it is the root of the mean.
    is_root: bool,
}

pub(crate) const MSE: MeanError = MeanError { name: "mse", tally: Tally::SquaredErrors, is_root: false };
pub(crate) const MEAN_SQUARED_ERROR: MeanError = MeanError { name: "mean_squared_error", ..MSE };
pub(crate) const MAE: MeanError = MeanError { name: "mae", tally: Tally::AbsoluteErrors, ..MSE };
pub(crate) const MEAN_ABSOLUTE_ERROR: MeanError = MeanError { name: "mean_absolute_error", ..MAE };
pub(crate) const RMSE: MeanError = MeanError { name: "rmse", is_root: true, ..MSE };
pub(crate) const ROOT_MEAN_SQUARED_ERROR: MeanError = MeanError { name: "root_mean_squared_error", ..RMSE };

impl Measure for MeanError {
    fn name(&self) -> Cow<'static, str> {
        self.name.into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_numbers(target)
    }

    fn tally(&self) -> Tally {
        self.tally
    }

    fn rises(&self) -> bool {
        false
    }

    fn figure(&self, Tallied { samples, sums, .. }: Tallied<'_>) -> Option<f64> {
        let mean = sums[0] / samples as f64;
        Some(if self.is_root { mean.sqrt() } else { mean })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_means_over_the_samples_and_roots_of_such_means() {
        let figure = |metric: MeanError| metric.figure(Tallied { samples: 4, counts: &[], sums: &[9.0] });
        assert_eq!([MSE, MEAN_SQUARED_ERROR, MAE, MEAN_ABSOLUTE_ERROR].map(figure), [Some(2.25); 4]);
        assert_eq!([RMSE, ROOT_MEAN_SQUARED_ERROR].map(figure), [Some(1.5); 2]);
    }
}
