//! Confusion matrix: how many samples of each class are predicted to be of each class.
//!
//! It is no number, so a history has no column for it: `evaluate` and `show run` print it.

use std::borrow::Cow;

use serde::Serialize;

use super::tally::ByClass;
use super::{Measure, Tallied, Tally};
use crate::data::schema::Target;

/// Counts, `[classes, classes]`.
pub(crate) struct ConfusionMatrix;

/// The most classes: a matrix of this many is 8 MiB of counts for each piece of an evaluation.
pub(crate) const MOST_CLASSES: u32 = 1024;

impl Measure for ConfusionMatrix {
    fn name(&self) -> Cow<'static, str> {
        "confusion_matrix".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        match target {
            Target::Class { classes: 0..=MOST_CLASSES } => Ok(()),
            Target::Class { .. } => Err("targets of 1024 classes at most"),
            Target::Reals { .. } => Err("targets that are classes"),
        }
    }

    fn tally(&self) -> Tally {
        Tally::Confusion
    }

    fn figure(&self, _tallied: Tallied<'_>) -> Option<f64> {
        None
    }
}

/// A confusion matrix of some samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[classes, classes]`: a row for each class, a column for each prediction.
    pub matrix: Vec<Vec<u64>>,
}

/// The figures of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OfClass {
    /// The class.
    pub class: usize,
    /// Its samples.
    pub samples: u64,
    /// Of the samples predicted to be of the class, the share that are.
    pub precision: f64,
    /// Of its samples, the share predicted to be.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1_score: f64,
}

impl Confusion {
    /// The matrix of these counts, row by row.
    pub(crate) fn new(counts: &[u64]) -> Self {
        let classes = counts.len().isqrt();
        Self { matrix: counts.chunks_exact(classes.max(1)).map(<[u64]>::to_vec).collect() }
    }

    /// The figures of each class.
    pub fn by_class(&self) -> impl Iterator<Item = OfClass> {
        self.matrix.iter().enumerate().map(|(class, row)| {
            let of_class = ByClass {
                correct: row[class],
                predicted: self.matrix.iter().map(|row| row[class]).sum(),
                actual: row.iter().sum(),
            };
            OfClass {
                class,
                samples: of_class.actual,
                precision: of_class.precision(),
                recall: of_class.recall(),
                f1_score: of_class.f1_score(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_class_follow_from_it() {
        // Class 1: 4 samples, 3 of them predicted, and 5 predictions in all.
        let confusion = Confusion::new(&[1, 2, 0, 1, 3, 0, 0, 0, 0]);
        let figures: Vec<_> = confusion.by_class().collect();
        let of =
            OfClass { class: 1, samples: 4, precision: 3.0 / 5.0, recall: 3.0 / 4.0, f1_score: 6.0 / 9.0 };
        assert_eq!(figures[1], of);
        let none = OfClass { class: 2, samples: 0, precision: 0.0, recall: 0.0, f1_score: 0.0 };
        assert_eq!(figures[2], none, "there is none, and none is predicted");
    }

    #[test]
    fn it_has_a_limit() {
        let fits = |classes| ConfusionMatrix.fits(Target::Class { classes });
        assert_eq!((fits(1024), fits(1025).is_err()), (Ok(()), true));
    }
}
