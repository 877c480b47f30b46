//! F1 score of a class: the harmonic mean of its precision and its recall, `2 correct / (predicted + actual)`.
//!
//! The figure is the mean over all classes of the data, each with the same weight (scikit-learn's and Keras'
//! `average="macro"`); a class that is neither there nor predicted has 0. `evaluate` shows the figures by class.

use std::borrow::Cow;

use super::tally::{ByClass, mean_over_classes};
use super::{Measure, Tallied, Tally, of_classes};
use crate::data::schema::Target;

/// The harmonic mean of precision and recall.
pub(crate) struct F1Score;

impl Measure for F1Score {
    fn name(&self) -> Cow<'static, str> {
        "f1_score".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::ByClass
    }

    fn figure(&self, tallied: Tallied<'_>) -> Option<f64> {
        mean_over_classes(tallied, ByClass::f1_score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_mean_over_the_classes() {
        // Of class 0: 4 samples, 3 of them predicted, and 5 predictions in all. Of class 1: 2, 0 and 1. Of class 2: none.
        let tallied = Tallied { samples: 6, counts: &[3, 0, 0, 5, 1, 0, 4, 2, 0], sums: &[] };
        assert_eq!(F1Score.figure(tallied), Some((6.0 / 9.0 + 0.0 + 0.0) / 3.0));
    }
}
