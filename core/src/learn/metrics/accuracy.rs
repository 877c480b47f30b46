//! Accuracy: the share of samples whose largest output (the first, if several are equal) is the correct class. One
//! output alone is the probability of class 1, which is predicted above one half, as Keras' `binary_accuracy` has it.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_classes};
use crate::data::schema::Target;

/// The share of correct classifications.
pub(crate) struct Accuracy;

impl Measure for Accuracy {
    fn name(&self) -> Cow<'static, str> {
        "accuracy".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::Correct
    }

    fn figure(&self, Tallied { samples, counts, .. }: Tallied<'_>) -> Option<f64> {
        Some(counts[0] as f64 / samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_share_of_correct_samples() {
        assert_eq!(Accuracy.figure(Tallied { samples: 4, counts: &[3], sums: &[] }), Some(0.75));
    }
}
