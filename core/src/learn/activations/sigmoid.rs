//! The logistic sigmoid, `1 / (1 + exp(-x))`.

use super::{Function, Hidden};
use crate::learn::elementwise::{exp_of, for_every_level, known};

/// `1 / (1 + exp(-x))`.
pub(crate) struct Sigmoid;

impl Function for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        sigmoid(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Sigmoid {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_sigmoid(z, bias);
    }

    fn backward(&self, delta: &mut [f32], outputs: &[f32]) {
        sigmoid_backward(delta, outputs);
    }
}

pointwise!(sigmoid_of => sigmoid, add_bias_sigmoid);

for_every_level! {
    /// The backward pass: `delta ← delta · a · (1 - a)`, where `a` are the outputs.
    pub fn sigmoid_backward(delta: &mut [f32], outputs: &[f32]) {
        for (delta, output) in delta.iter_mut().zip(outputs) {
            *delta = *delta * output * (1.0 - output);
        }
    }
}

/// `1 / (1 + exp(-x))`, from `exp(-|x|)`, so that nothing overflows and the left tail keeps its digits.
#[inline(always)]
fn sigmoid_of(x: f32) -> f32 {
    let e = exp_of(-x.abs());
    let denominator = 1.0 + e;
    let numerator = if x < 0.0 { e } else { 1.0 };
    let quotient = numerator / denominator;
    // The part of `e` that the sum lost is put back to first order; without it the left tail is 2.2 units
    // off.
    let lost = e - (denominator - 1.0);
    known(quotient - quotient * lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn it_is_within_two_units_of_the_last_place_with_the_same_bits_everywhere() {
        check::function(sigmoid, sigmoid::at, sigmoid_of, |x| 1.0 / (1.0 + (-x).exp()));
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut back) = (a.to_vec(), a.to_vec());
            add_bias_sigmoid::at(level, &mut above, &b[..check::COLUMNS]);
            sigmoid_backward::at(level, &mut back, b);
            [above, back].concat()
        });
    }

    #[test]
    fn extreme_inputs_saturate() {
        let mut values = [f32::NEG_INFINITY, -200.0, -0.0, 0.0, 200.0, f32::INFINITY, -88.0];
        sigmoid(&mut values);
        // The true value of the last is subnormal.
        assert_eq!(values, [0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 0.0]);
    }
}
