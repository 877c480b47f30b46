//! The Gaussian error linear unit, `x · Φ(x)`, where `Φ` is the normal distribution (Hendrycks and Gimpel, 2016);
//! exact, as Keras' default.
//!
//! In `f64`: with `t = 1 / (1 + 0.28 |x|)`, `Φ(-|x|) = exp(-x²/2) · t · P(t)`. `P` is a polynomial fitted to 15
//! standard deviations, with a relative error of 5e-10, so that the left tail keeps its digits.

use super::{Function, Hidden};
use crate::learn::elementwise::{exp_of_double, known, multiply_assign};

/// `x · Φ(x)`.
pub(crate) struct Gelu;

impl Function for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn apply(&self, z: &mut [f32], _units: usize, _room: &mut Vec<f32>) {
        gelu(z);
    }

    fn hidden(&self) -> Option<&dyn Hidden> {
        Some(self)
    }
}

impl Hidden for Gelu {
    fn add_bias(&self, z: &mut [f32], bias: &[f32]) {
        add_bias_gelu(z, bias);
    }

    fn add_bias_with_slopes(&self, z: &mut [f32], bias: &[f32], slopes: &mut [f32]) {
        add_bias_gelu_with_slopes(z, bias, slopes);
    }

    fn needs_slopes(&self) -> bool {
        true
    }

    fn backward(&self, delta: &mut [f32], slopes: &[f32]) {
        multiply_assign(delta, slopes);
    }
}

pointwise!(gelu_of, slope_of => gelu, add_bias_gelu, add_bias_gelu_with_slopes);

/// Beyond this many standard deviations `Φ(-|x|)` counts as zero, and `x · Φ(x)` with it.
const TAIL: f64 = 15.0;

/// `Φ(x)`, and `exp(-x²/2)`, for `|x|` up to [`TAIL`].
#[inline(always)]
fn normal(x: f64) -> (f64, f64) {
    let density = exp_of_double(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.28 * x.abs());
    let mut polynomial = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        polynomial = polynomial * t + coefficient;
    }
    let tail = density * t * polynomial;
    (if x < 0.0 { tail } else { 1.0 - tail }, density)
}

/// Highest power first.
const POLYNOMIAL: [f64; 12] = [
    0.010_747_978_382_656_562,
    -0.080_541_311_697_305_55,
    0.251_150_962_242_556_2,
    -0.409_119_053_354_018,
    0.368_716_041_483_971_3,
    -0.226_436_776_630_886_3,
    0.138_609_313_067_947_83,
    0.029_195_266_665_953_613,
    0.092_179_613_488_729_55,
    0.102_018_064_326_507_43,
    0.111_778_747_933_818_26,
    0.111_701_154_088_999_58,
];

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    let x = f64::from(x);
    let (share, _) = normal(x.clamp(-TAIL, TAIL));
    // Minus infinity times zero is not a number, as in Keras.
    let share = if x < -TAIL { 0.0 } else { share };
    known((x * share) as f32)
}

/// `Φ(x) + x · exp(-x²/2) / √(2π)`.
#[inline(always)]
fn slope_of(x: f32) -> f32 {
    const FACTOR: f64 = 0.398_942_280_401_432_7;
    let x = f64::from(x).clamp(-TAIL, TAIL);
    let (share, density) = normal(x);
    known((share + x * density * FACTOR) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    fn truth(x: f64) -> f64 {
        x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }

    #[test]
    fn it_is_within_two_units_of_the_last_place_with_the_same_bits_everywhere() {
        check::function(gelu, gelu::at, gelu_of, truth);
    }

    #[test]
    fn its_slope_is_its_derivative() {
        check::slope(gelu_of, slope_of, truth);
    }

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let (mut above, mut both, mut slopes) = (a.to_vec(), a.to_vec(), a.to_vec());
            add_bias_gelu::at(level, &mut above, &b[..check::COLUMNS]);
            add_bias_gelu_with_slopes::at(level, &mut both, &b[..check::COLUMNS], &mut slopes);
            assert_eq!(check::bits(&above), check::bits(&both));
            [above, slopes].concat()
        });
    }
}
