//! Accuracy: the share of samples whose largest output (the first, if several are equal) is the correct class. One
//! output alone is the probability of class 1, which is predicted above one half, as Keras' `binary_accuracy` has it.

use super::Measure;
use crate::data::schema::{Target, Truth};
use crate::learn::activations::softmax::largest;

/// The share of correct classifications.
pub(crate) struct Accuracy;

impl Measure for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        match target {
            Target::Class { .. } => Ok(()),
            Target::Reals { .. } => Err("targets that are classes"),
        }
    }

    fn count(&self, outputs: &[f32], width: usize, truth: Truth<'_>) -> u64 {
        let rows = outputs.chunks_exact(width).zip(truth.classes());
        rows.filter(|(row, label)| predicted(row) == **label as usize).count() as u64
    }
}

/// The class that a row of outputs predicts.
fn predicted(row: &[f32]) -> usize {
    match *row {
        [probability] => usize::from(probability > 0.5),
        _ => largest(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_output_predicts_class_1_above_one_half() {
        assert_eq!(Accuracy.count(&[0.5, 0.51, 0.2, f32::NAN], 1, Truth::Classes(&[0, 1, 1, 0])), 3);
    }

    #[test]
    fn the_first_of_equal_outputs_is_the_prediction() {
        assert_eq!(Accuracy.count(&[1.0; 6], 3, Truth::Classes(&[0, 1])), 1);
        assert_eq!(Accuracy.count(&[0.0, 0.4, 0.6, 0.5, 0.3, 0.2], 3, Truth::Classes(&[2, 0])), 2);
    }
}
