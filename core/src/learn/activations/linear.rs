//! No activation: Keras' `linear`.

use super::{Function, Hidden};
use crate::learn::elementwise::add_bias;

/// `x`.
pub(crate) struct Linear;

impl Function for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn apply(&self, _z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {}

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Linear {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias(z, bias);
    }

    fn backward(&self, _delta: &mut [f32], _outputs: &[f32]) {}
}
