//! Plain gradient descent on the mean of the samples' gradients: `w ← w - learning_rate · (Σ g / count)`.

use super::{Key, ParameterSlice, Rule, problem_of_learning_rate};
use crate::learn::elementwise::{add_and_descend, descend};

/// `w ← w - learning_rate · gradient`.
pub(crate) struct Sgd;

impl Rule for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn keys(&self) -> &'static [Key] {
        &[Key { name: "learning_rate", default: 0.1, problem: problem_of_learning_rate }]
    }

    fn state_names(&self) -> &'static [&'static str] {
        &[]
    }

    fn step(&self, values: &[f32], part: ParameterSlice<'_>) {
        let ParameterSlice { parameters, gradient, count, out, .. } = part;
        match gradient {
            (left, Some(right)) => add_and_descend(parameters, left, right, count, values[0], out),
            (sum, None) => descend(parameters, sum, count, values[0], out),
        }
    }
}
