//! The hyperbolic tangent.
//!
//! In `f64`, from `exp(2|x|)`; near zero, where that would lose digits, by its series.

use super::{Function, Hidden};
use crate::learn::elementwise::{exp_of_double, for_every_level, known};

/// `tanh(x)`.
pub(crate) struct Tanh;

impl Function for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        tanh(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Tanh {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_tanh(z, bias);
    }

    fn backward(&self, delta: &mut [f32], outputs: &[f32]) {
        tanh_backward(delta, outputs);
    }
}

pointwise!(tanh_of => tanh, add_bias_tanh);

for_every_level! {
    /// The backward pass: `delta ← delta · (1 - a²)`, where `a` are the outputs.
    pub fn tanh_backward(delta: &mut [f32], outputs: &[f32]) {
        for (delta, output) in delta.iter_mut().zip(outputs) {
            *delta *= 1.0 - output * output;
        }
    }
}

#[inline(always)]
fn tanh_of(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let far = 1.0 - 2.0 / (exp_of_double(2.0 * size) + 1.0);
    let square = size * size;
    let near = size + size * square * (2.0 / 15.0 * square - 1.0 / 3.0);
    let tanh = if size < 0.02 { near } else { far };
    known((tanh as f32).copysign(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn it_is_within_two_units_of_the_last_place_with_the_same_bits_everywhere() {
        check::function(tanh, tanh::at, tanh_of, f64::tanh);
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut back) = (a.to_vec(), a.to_vec());
            add_bias_tanh::at(level, &mut above, &b[..check::COLUMNS]);
            tanh_backward::at(level, &mut back, b);
            [above, back].concat()
        });
    }
}
