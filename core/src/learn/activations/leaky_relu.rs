//! The leaky rectifier, with Keras' slope of 0.2 below zero.

use super::{Function, Hidden};
use crate::learn::elementwise::{for_every_level, known};

/// The slope below zero: the default of Keras' `leaky_relu`.
const SLOPE: f32 = 0.2;

/// `max(0.2 x, x)`.
pub(crate) struct LeakyRelu;

impl Function for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        leaky_relu(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for LeakyRelu {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_leaky_relu(z, bias);
    }

    fn backward(&self, delta: &mut [f32], outputs: &[f32]) {
        leaky_relu_backward(delta, outputs);
    }
}

pointwise!(leaky_relu_of => leaky_relu, add_bias_leaky_relu);

for_every_level! {
    /// The backward pass: `delta` where the output is above 0, otherwise `0.2 delta`, also at 0 itself, as in Keras.
    pub fn leaky_relu_backward(delta: &mut [f32], outputs: &[f32]) {
        for (delta, output) in delta.iter_mut().zip(outputs) {
            *delta = if *output > 0.0 { *delta } else { SLOPE * *delta };
        }
    }
}

/// Adding zero turns what counts as zero into zero.
#[inline(always)]
fn leaky_relu_of(x: f32) -> f32 {
    known(if x < 0.0 { SLOPE * x } else { x + 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn it_is_exact_with_the_same_bits_everywhere() {
        let truth = |x| if x < 0.0 { f64::from(SLOPE) * x } else { x };
        check::function(leaky_relu, leaky_relu::at, leaky_relu_of, truth);
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut back) = (a.to_vec(), a.to_vec());
            add_bias_leaky_relu::at(level, &mut above, &b[..check::COLUMNS]);
            leaky_relu_backward::at(level, &mut back, b);
            [above, back].concat()
        });
    }
}
