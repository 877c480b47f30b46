//! Accuracy: the share of samples whose largest output (the first, if several are equal) is the correct class.

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
        rows.filter(|(row, label)| largest(row) == **label as usize).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_outputs_is_the_prediction() {
        assert_eq!(Accuracy.count(&[1.0; 6], 3, Truth::Classes(&[0, 1])), 1);
        assert_eq!(Accuracy.count(&[0.0, 0.4, 0.6, 0.5, 0.3, 0.2], 3, Truth::Classes(&[2, 0])), 2);
    }
}
