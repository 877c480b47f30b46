//! The sigmoid linear unit, `x · sigmoid(x)`, also called swish (Elfwing, Uchibe and Doya, 2017).

use super::{Function, Hidden};
use crate::learn::elementwise::{exp_of_double, known, multiply_assign};

/// `x / (1 + exp(-x))`.
pub(crate) struct Silu;

impl Function for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        silu(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Silu {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_silu(z, bias);
    }

    fn add_bias_with_slopes(&self, z: &mut [f32], bias: &[f32], slopes: &mut [f32]) {
        add_bias_silu_with_slopes(z, bias, slopes);
    }

    fn needs_slopes(&self) -> bool {
        true
    }

    fn backward(&self, delta: &mut [f32], slopes: &[f32]) {
        multiply_assign(delta, slopes);
    }
}

pointwise!(silu_of, slope_of => silu, add_bias_silu, add_bias_silu_with_slopes);

#[inline(always)]
fn silu_of(x: f32) -> f32 {
    // Minus infinity is bounded in the exponent only: -∞ · 0 is not a number, as in Keras.
    let x = f64::from(x);
    let share = 1.0 / (1.0 + exp_of_double(-x));
    known(if x < -700.0 { x * 0.0 } else { x * share } as f32)
}

/// `s · (1 + x · (1 - s))`, where `s = sigmoid(x)`.
#[inline(always)]
fn slope_of(x: f32) -> f32 {
    let x = f64::from(x).clamp(-700.0, 700.0);
    let e = exp_of_double(-x);
    let share = 1.0 / (1.0 + e);
    known((share * (1.0 + x * (e * share))) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn it_is_within_two_units_of_the_last_place_with_the_same_bits_everywhere() {
        check::function(silu, silu::at, silu_of, |x| x / (1.0 + (-x).exp()));
    }

    #[test]
    fn its_slope_is_its_derivative() {
        check::slope(silu_of, slope_of, |x| x / (1.0 + (-x).exp()));
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut both, mut slopes) = (a.to_vec(), a.to_vec(), a.to_vec());
            add_bias_silu::at(level, &mut above, &b[..check::COLUMNS]);
            add_bias_silu_with_slopes::at(level, &mut both, &b[..check::COLUMNS], &mut slopes);
            assert_eq!(check::bits(&above), check::bits(&both));
            [above, slopes].concat()
        });
    }
}
