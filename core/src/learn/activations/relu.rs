//! The rectifier, `max(0, x)`.

use super::{Function, Hidden};
use crate::learn::elementwise::{for_every_level, known};

/// `max(0, x)`.
pub(crate) struct Relu;

impl Function for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        relu(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Relu {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_relu(z, bias);
    }

    fn backward(&self, delta: &mut [f32], outputs: &[f32]) {
        relu_backward(delta, outputs);
    }
}

pointwise!(relu_of => relu, add_bias_relu);

for_every_level! {
    /// The backward pass: `delta` where the output is above 0, otherwise 0, also at 0 itself, as in Keras.
    pub fn relu_backward(delta: &mut [f32], outputs: &[f32]) {
        for (delta, output) in delta.iter_mut().zip(outputs) {
            *delta = if *output > 0.0 { *delta } else { 0.0 };
        }
    }
}

/// NaN stays NaN, so that it shows in the loss. Adding zero turns what counts as zero into zero.
#[inline(always)]
fn relu_of(x: f32) -> f32 {
    known(if x < 0.0 { 0.0 } else { x + 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn it_is_exact_with_the_same_bits_everywhere() {
        check::function(relu, relu::at, relu_of, |x| if x < 0.0 { 0.0 } else { x });
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut back) = (a.to_vec(), a.to_vec());
            add_bias_relu::at(level, &mut above, &b[..check::COLUMNS]);
            relu_backward::at(level, &mut back, b);
            [above, back].concat()
        });
    }

    #[test]
    fn the_gradient_at_zero_is_zero() {
        let mut delta = [1.0, 2.0, 3.0];
        relu_backward(&mut delta, &[0.0, 0.5, -0.0]);
        assert_eq!(delta, [0.0, 2.0, 0.0]);
    }
}
