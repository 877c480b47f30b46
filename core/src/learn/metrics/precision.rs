//! Precision of a class: of the samples that are predicted to be of it, the share that are.
//!
//! The figure is the mean over all classes of the data, each with the same weight (scikit-learn's
//! `average="macro"`); a class that is never predicted has 0. Keras' metric of two classes is the figure of class 1 alone,
//! which `evaluate` shows too.

use std::borrow::Cow;

use super::tally::{ByClass, mean_over_classes};
use super::{Measure, Tallied, Tally, of_classes};
use crate::data::schema::Target;

/// Of the samples predicted to be of a class, the share that are.
pub(crate) struct Precision;

impl Measure for Precision {
    fn name(&self) -> Cow<'static, str> {
        "precision".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::ByClass
    }

    fn figure(&self, tallied: Tallied<'_>) -> Option<f64> {
        mean_over_classes(tallied, ByClass::precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_mean_over_the_classes() {
        // Of class 0: 4 samples, 3 of them predicted, and 5 predictions in all. Of class 1: 2, 0 and 1. Of class 2: none.
        let tallied = Tallied { samples: 6, counts: &[3, 0, 0, 5, 1, 0, 4, 2, 0], sums: &[] };
        assert_eq!(Precision.figure(tallied), Some((3.0 / 5.0 + 0.0 + 0.0) / 3.0));
    }
}
