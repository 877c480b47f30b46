//! The functions that work on one number at a time, over slices: exponentials, biases, sums, updates. Those of
//! activations are in their own files, made with the same macro.
//!
//! Nothing here calls the C library. Its `expf` differs between versions, so two machines would disagree in
//! the last bit, and it is slow. `exp` and `log` are polynomials (the coefficients and the reduction of the
//! argument are those of Cephes' `expf` and `logf`, S. L. Moshier, 1992), without fused multiply-add, within
//! 2 units in the last place of the true value. Subnormal numbers are zero ([`subnormals`](super::subnormals)).
//!
//! Every loop is plain Rust, compiled up to three times: for the baseline of the architecture, for AVX2 and
//! for AVX-512. The widest one that the CPU has is chosen at run time. All of them give the same bits,
//! because Rust neither contracts `a * b + c` nor reorders a sum: a wider register only computes more of the
//! same at once. Column sums run over the rows in order, column beside column.
//!
//! A result that is not a number is always [`NOT_A_NUMBER`], the one that x86 arithmetic makes by itself:
//! which of two operands' payloads survives an addition is up to the compiler, so there must be only one.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(test)]
pub(in crate::learn) mod check;

/// The one NaN that computations here return: the one that x86 makes of `0 · ∞`.
pub const NOT_A_NUMBER: f32 = f32::from_bits(0xffc0_0000);

/// Whether no value is infinite or not a number.
pub fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    // Without an early exit, which would keep the compiler from taking several at once.
    !values.iter().fold(false, |odd, value| odd | (value.to_bits() & EXPONENT == EXPONENT))
}

/// Instruction sets that the loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::learn) enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Those of this CPU, the widest last.
    fn available() -> impl Iterator<Item = Self> {
        let candidates = [
            Some(Self::Baseline),
            #[cfg(target_arch = "x86_64")]
            is_x86_feature_detected!("avx2").then_some(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            has_avx512().then_some(Self::Avx512),
        ];
        candidates.into_iter().flatten()
    }

    pub(in crate::learn) fn widest() -> Self {
        let most = MOST.load(Ordering::Relaxed);
        Self::available().take(most).last().unwrap_or(Self::Baseline)
    }
}

/// How many of the available instruction sets may be used.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// From now on this process uses the `most` narrowest instruction sets that its CPU has, at least one. That changes
/// its speed and nothing else, which tests of whole processes show.
pub fn narrow_to(most: usize) {
    MOST.store(most.max(1), Ordering::Relaxed);
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
}

/// Defines a function over slices whose body is compiled for every [`Level`].
///
/// `name(…)` runs the widest; `name::at(level, …)` lets the tests compare them.
macro_rules! for_every_level {
    ($($(#[$doc:meta])* pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        #[allow(unreachable_pub)] // Some modules use theirs only privately.
        pub fn $name($($argument: $type),*) {
            $name::at($crate::learn::elementwise::Level::widest(), $($argument),*);
        }

        mod $name {
            #[allow(unused_imports)] // Not every loop needs more than its arguments.
            use super::*;
            use $crate::learn::elementwise::Level;

            #[allow(unsafe_code)] // The call of a function that needs more than the baseline of the CPU.
            pub(super) fn at(level: Level, $($argument: $type),*) {
                #[inline(always)]
                fn body($($argument: $type),*) $body

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    body($($argument),*);
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512($($argument: $type),*) {
                    body($($argument),*);
                }

                $crate::learn::subnormals::flushed(|| match level {
                    Level::Baseline => body($($argument),*),
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `Level::available` gives this level only to a CPU that has these instructions.
                    Level::Avx2 => unsafe { avx2($($argument),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    Level::Avx512 => unsafe { avx512($($argument),*) },
                });
            }
        }
    )*};
}

pub(in crate::learn) use for_every_level;

for_every_level! {
    /// `x ← exp(x)`.
    pub fn exp(values: &mut [f32]) {
        for value in values {
            *value = exp_of(*value);
        }
    }

    /// `x ← ln(x)`.
    pub fn log(values: &mut [f32]) {
        for value in values {
            *value = log_of(*value);
        }
    }

    /// `z ← z + bias`, for every row of `z` `[rows, units]` and `bias` `[units]`.
    pub fn add_bias(z: &mut [f32], bias: &[f32]) {
        for row in z.chunks_exact_mut(bias.len()) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    }

    /// `sums ← Σ rows`, top to bottom, of `values` `[rows, columns]` into `sums` `[columns]`.
    pub fn column_sums(values: &[f32], sums: &mut [f32]) {
        sums.fill(0.0);
        for row in values.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }

    /// `out ← bytes · scale`.
    pub fn scaled_bytes(bytes: &[u8], scale: f32, out: &mut [f32]) {
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = f32::from(*byte) * scale;
        }
    }

    /// `out ← floats · scale`, from floats of 32 bits, little-endian.
    pub fn scaled_floats(bytes: &[u8], scale: f32, out: &mut [f32]) {
        for (out, float) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *out = f32::from_le_bytes(*float) * scale;
        }
    }

    /// `sum ← sum + addend`.
    pub fn add_assign(sum: &mut [f32], addend: &[f32]) {
        for (sum, addend) in sum.iter_mut().zip(addend) {
            *sum += addend;
        }
    }

    /// `out ← left + right`.
    pub fn sum(left: &[f32], right: &[f32], out: &mut [f32]) {
        for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
            *out = left + right;
        }
    }

    /// `product ← product · factor`.
    pub fn multiply_assign(product: &mut [f32], factor: &[f32]) {
        for (product, factor) in product.iter_mut().zip(factor) {
            *product *= factor;
        }
    }

    /// Turns the words of dropout into factors: `factor ← kept` where `word ≥ threshold`, 0 elsewhere.
    pub fn dropout_factors(words: &[u32], threshold: u32, kept: f32, factors: &mut [f32]) {
        for (factor, word) in factors.iter_mut().zip(words) {
            *factor = if *word >= threshold { kept } else { 0.0 };
        }
    }

    /// `out ← inputs · factors`.
    pub fn multiply(inputs: &[f32], factors: &[f32], out: &mut [f32]) {
        for ((out, input), factor) in out.iter_mut().zip(inputs).zip(factors) {
            *out = input * factor;
        }
    }

    /// Plain gradient descent on the mean of `count` gradients: `out ← parameters - rate · (sum / count)`.
    pub fn descend(parameters: &[f32], sum: &[f32], count: f32, rate: f32, out: &mut [f32]) {
        for ((out, parameter), sum) in out.iter_mut().zip(parameters).zip(sum) {
            *out = parameter - rate * (sum / count);
        }
    }

    /// [`add_assign()`] and [`descend()`] in one pass over memory: the sum is `left + right`.
    pub fn add_and_descend(
        parameters: &[f32], left: &[f32], right: &[f32], count: f32, rate: f32, out: &mut [f32],
    ) {
        for (((out, parameter), left), right) in out.iter_mut().zip(parameters).zip(left).zip(right) {
            *out = parameter - rate * ((left + right) / count);
        }
    }
}

/// Added to a small number and taken away again, rounds it to an integer, to nearest even; its low bits then
/// are that integer's.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2²³

/// `exp(x)`: with `x = n ln 2 + r`, `2ⁿ exp(r)`.
#[inline(always)]
pub(in crate::learn) fn exp_of(x: f32) -> f32 {
    // Beyond these, the result is 0 or infinite whatever the digits. Comparisons let NaN pass.
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < -104.0 { -104.0 } else { bounded };

    let shifted = bounded * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = bounded - n * LN2_HIGH - n * LN2_LOW;

    let polynomial =
        polynomial(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    let mantissa = polynomial * (r * r) + r + 1.0;

    // Half of the exponent at a time, since 2ⁿ alone may be infinite, or zero, where the product is neither.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let half = n >> 1;
    known(mantissa * power_of_two(half) * power_of_two(n.wrapping_sub(half)))
}

/// `exp(x)` in `f64`, within 5e-12 of it, for activations that would lose digits in `f32`. Beyond ±700 it stays
/// what it is there.
#[inline(always)]
pub(crate) fn exp_of_double(x: f64) -> f64 {
    const ROUNDER: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
    // Comparisons let NaN pass.
    let bounded = if x > 700.0 { 700.0 } else { x };
    let bounded = if bounded < -700.0 { -700.0 } else { bounded };
    let shifted = bounded * std::f64::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = bounded - n * 0.693_147_180_369_123_8 - n * 1.908_214_929_270_587_7e-10;
    let mut polynomial = 2.485_958_983_458_905_4e-5;
    for coefficient in [
        1.989_928_557_562_589_6e-4,
        1.388_885_403_566_671e-3,
        8.333_298_469_800_589e-3,
        4.166_666_671_901_226e-2,
        1.666_666_671_902_893_5e-1,
        0.5,
    ] {
        polynomial = polynomial * r + coefficient;
    }
    let mantissa = polynomial * (r * r) + r + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()) as i64;
    mantissa * f64::from_bits((n.wrapping_add(1023) as u64) << 52)
}

/// `ln(1 + exp(x))` in `f64`, within 1e-11 of it: `max(x, 0) + ln(1 + e)` with `e = exp(-|x|)`. With `s = e / (2 + e)`,
/// at most ⅓, the logarithm is `2 artanh(s)`, whose series converges quickly.
#[inline(always)]
pub(in crate::learn) fn softplus(x: f64) -> f64 {
    let e = exp_of_double(-x.abs());
    let s = e / (2.0 + e);
    let square = s * s;
    let mut series = 1.0 / 23.0;
    for odd in [21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    // Comparisons let NaN pass.
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + 2.0 * s * series
}

/// `ln(x)`: with `x = 2ᵉ (1 + m)` and `1 + m` in `[√½, √2)`, `e ln 2 + ln(1 + m)`.
#[inline(always)]
fn log_of(x: f32) -> f32 {
    // Subtracting √½ from the bits makes the exponent field change where the mantissa passes √2.
    let offset = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32;
    let exponent = (offset >> 23) as f32;
    let m = f32::from_bits(
        ((offset & 0x007f_ffff) as u32).wrapping_add(std::f32::consts::FRAC_1_SQRT_2.to_bits()),
    ) - 1.0;

    let square = m * m;
    let polynomial = polynomial(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let tail = polynomial * m * square + exponent * LN2_LOW - 0.5 * square;
    let finite = m + tail + exponent * LN2_HIGH;

    let finite = if x == f32::INFINITY { x } else { finite };
    // Also false for NaN.
    let result = if x > 0.0 { finite } else { NOT_A_NUMBER };
    // Zero, and what counts as zero. Not `x == 0.0`: the compiler may compare bits instead, which know no mode.
    if x.abs() < f32::MIN_POSITIVE { f32::NEG_INFINITY } else { result }
}

/// ln 2 in two parts; a product of the first with a small integer is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Horner's scheme, highest power first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum * x + coefficient;
    }
    sum
}

/// `2ⁿ`, for `n` of a normal number.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x`, or [`NOT_A_NUMBER`] for any other NaN.
#[inline(always)]
pub(in crate::learn) fn known(x: f32) -> f32 {
    if x.is_nan() { NOT_A_NUMBER } else { x }
}

#[cfg(test)]
mod tests {
    use super::check::{COLUMNS, bits, matrix, tiny};
    use super::*;

    #[test]
    fn exp_and_log_are_within_two_units_of_the_last_place_with_the_same_bits_everywhere() {
        check::function(exp, exp::at, exp_of, f64::exp);
        check::function(log, log::at, log_of, f64::ln);
    }

    #[test]
    fn the_other_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let words: Vec<u32> = a.iter().map(|x| x.to_bits().wrapping_mul(2_654_435_761)).collect();
            let bytes: Vec<u8> = words.iter().map(|word| *word as u8).collect();
            let mut results = vec![a.to_vec(); 11];
            add_bias::at(level, &mut results[0], &b[..COLUMNS]);
            column_sums::at(level, b, &mut results[1][..COLUMNS]);
            scaled_bytes::at(level, &bytes, 1.0 / 255.0, &mut results[2]);
            add_assign::at(level, &mut results[3], b);
            multiply_assign::at(level, &mut results[4], b);
            dropout_factors::at(level, &words, 1 << 31, 2.0, &mut results[5]);
            multiply::at(level, b, c, &mut results[6]);
            descend::at(level, b, c, 500.0, 0.1, &mut results[7]);
            add_and_descend::at(level, b, c, a, 500.0, 0.1, &mut results[8]);
            sum::at(level, b, c, &mut results[9]);
            scaled_floats::at(level, bytemuck::cast_slice(b), 1.0 / 255.0, &mut results[10]);
            results.concat()
        });
    }

    #[test]
    fn softplus_is_the_logarithm_of_one_and_an_exponential() {
        for step in -4000..=4000 {
            let x = f64::from(step) / 100.0;
            let wanted = x.max(0.0) + (-x.abs()).exp().ln_1p();
            assert!((softplus(x) - wanted).abs() <= 1e-11 * wanted, "{x}: {} and {wanted}", softplus(x));
        }
        assert_eq!((softplus(1e30), softplus(f64::INFINITY)), (1e30, f64::INFINITY));
        assert!(softplus(-1e30) < 1e-300 && softplus(f64::NAN).is_nan());
    }

    #[test]
    fn extreme_inputs_give_limits() {
        let inputs = [f32::NEG_INFINITY, -200.0, -0.0, 0.0, 200.0, f32::INFINITY];
        let apply = |function: fn(&mut [f32])| {
            let mut values = inputs;
            function(&mut values);
            values
        };
        assert_eq!(apply(exp), [0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY]);
        assert_eq!(apply(log)[2..4], [f32::NEG_INFINITY; 2]);
        assert_eq!(apply(log)[5], f32::INFINITY);
        assert!(apply(log)[..2].iter().all(|log| log.is_nan()));
    }

    /// One operation as it has to be, by operations that know no mode: its exact result, rounded to 24 bits
    /// whatever its size, and zero if that is below the normal numbers.
    fn modelled(operation: fn(f64, f64) -> f64, a: f32, b: f32) -> f32 {
        const UP: f64 = (1u64 << 60) as f64;
        let counts_as = |x: f32| if x.is_subnormal() { f64::from(x) * 0.0 } else { f64::from(x) };
        let rounded = (operation(counts_as(a), counts_as(b)) * UP) as f32;
        let small = f64::from(rounded.abs()) < f64::from(f32::MIN_POSITIVE) * UP;
        if small { 0.0f32.copysign(rounded) } else { (f64::from(rounded) / UP) as f32 }
    }

    #[test]
    fn loops_flush_subnormal_operands_and_results_like_the_model() {
        let [plus, times]: [fn(f64, f64) -> f64; 2] = [|a, b| a + b, |a, b| a * b];
        let (a, b) = (tiny(1), tiny(2));
        let large: Vec<f32> = matrix(3).iter().map(|x| x / 64.0).collect();
        let wanted = |operation, a: &[f32], b: &[f32]| -> Vec<f32> {
            a.iter().zip(b).map(|(a, b)| modelled(operation, *a, *b)).collect()
        };
        let (sums, products) = (wanted(plus, &a, &b), wanted(times, &a, &large));
        let kept = |values: &[f32]| values.iter().filter(|value| **value != 0.0).count();
        assert!(
            [kept(&sums), kept(&products)].iter().all(|kept| (20..387).contains(kept)),
            "both kinds occur"
        );
        for level in Level::available() {
            let [mut added, mut multiplied, mut apart, mut summed] = [(); 4].map(|()| a.clone());
            add_assign::at(level, &mut added, &b);
            multiply_assign::at(level, &mut multiplied, &large);
            multiply::at(level, &a, &large, &mut apart);
            sum::at(level, &a, &b, &mut summed);
            assert!(bits(&added) == bits(&sums) && bits(&summed) == bits(&sums), "{level:?}");
            assert!(bits(&multiplied) == bits(&products) && bits(&apart) == bits(&products), "{level:?}");
        }
    }

    #[test]
    fn functions_treat_subnormal_numbers_as_zero() {
        let apply = |function: fn(&mut [f32]), x| {
            let mut values = [x];
            function(&mut values);
            values[0]
        };
        let subnormal = f32::from_bits(0x0040_0000);
        assert_eq!(apply(exp, subnormal), 1.0);
        assert_eq!(apply(exp, -88.0), 0.0, "its true value is subnormal");
        assert_eq!(apply(log, subnormal), f32::NEG_INFINITY);
    }

    #[test]
    fn dropout_keeps_units_whose_word_is_at_least_the_threshold() {
        let mut factors = [9.0; 4];
        dropout_factors(&[0, 99, 100, u32::MAX], 100, 2.0, &mut factors);
        assert_eq!(factors, [0.0, 0.0, 2.0, 2.0]);
    }

    #[test]
    fn column_sums_add_the_rows() {
        let mut sums = [9.0; 2];
        column_sums(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut sums);
        assert_eq!(sums, [9.0, 12.0]);
    }
}
