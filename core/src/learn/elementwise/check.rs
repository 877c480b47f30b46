//! Checks for every elementwise loop: results within 2 units of the last place, one canonical NaN, no subnormal numbers, and
//! equal bits with every instruction set.

use std::hint::black_box;

use super::{Level, NOT_A_NUMBER};
use crate::learn::subnormals::flushed;

/// Checks a function of one number, by itself and at every level: it is within two units of the last place of
/// `truth`, gives the bits of `scalar`, and makes of every NaN the same one.
pub(in crate::learn) fn function(
    function: fn(&mut [f32]),
    at: fn(Level, &mut [f32]),
    scalar: fn(f32) -> f32,
    truth: fn(f64) -> f64,
) {
    let (error, place) = worst(function, truth);
    assert!(error <= 2.0, "at {place:e} it is {error} units off");

    let mut values = [f32::NAN, -f32::NAN, f32::from_bits(0x7fc1_2345), f32::from_bits(0xff80_0001)];
    function(&mut values);
    assert!(values.iter().all(|value| value.to_bits() == NOT_A_NUMBER.to_bits()));

    let inputs = floats();
    let wanted: Vec<f32> = flushed(|| inputs.iter().map(|x| black_box(scalar)(*x)).collect());
    for level in Level::available() {
        let mut got = inputs.clone();
        at(level, &mut got);
        assert!(bits(&got) == bits(&wanted), "{level:?}");
    }
}

/// Checks that `slope` is the derivative of `function`, against differences of `truth`, also where it is infinite,
/// or no number.
pub(in crate::learn) fn slope(function: fn(f32) -> f32, slope: fn(f32) -> f32, truth: fn(f64) -> f64) {
    for step in -4000..=4000 {
        let (x, h) = (step as f32 / 200.0, 1e-5);
        let wanted = (truth(f64::from(x) + h) - truth(f64::from(x) - h)) / (2.0 * h);
        assert!((f64::from(slope(x)) - wanted).abs() < 1e-8 + 2e-7 * wanted.abs(), "at {x}: {wanted}");
        assert!(function(x).is_finite());
    }
    assert_eq!((slope(f32::INFINITY), slope(f32::NEG_INFINITY)), (1.0, 0.0));
    assert_eq!(slope(-f32::NAN).to_bits(), NOT_A_NUMBER.to_bits());
}

/// Checks that loops over three slices of 11 rows of [`COLUMNS`] give the same bits at every level, whether the thread
/// flushes subnormal numbers already or not.
pub(in crate::learn) fn loops(results: impl Fn(Level, &[f32], &[f32], &[f32]) -> Vec<f32>) {
    for numbers in [matrix, tiny] {
        let [a, b, c] = [1, 2, 3].map(numbers);
        let baseline = bits(&results(Level::Baseline, &a, &b, &c));
        for level in Level::available() {
            assert!(bits(&results(level, &a, &b, &c)) == baseline, "{level:?}");
            assert!(bits(&flushed(|| results(level, &a, &b, &c))) == baseline, "{level:?}");
        }
    }
}

/// Leaves a remainder for every register width.
pub(in crate::learn) const COLUMNS: usize = 37;

/// Every 1009th of all floats, of either sign, and the neighbourhoods of all powers of two.
fn floats() -> Vec<f32> {
    let spread = (0..u32::MAX).step_by(1009).map(f32::from_bits);
    let edges = (0..=0x1ffu32).flat_map(|top| [-2, -1, 0, 1, 2].map(|d| (top << 23).wrapping_add_signed(d)));
    let special = [89.0, 88.722_84, 88.722_83, -87.336_55, -103.972_08, -103.972_1, -104.0];
    spread.chain(edges.map(f32::from_bits)).chain(special).collect()
}

/// The distance of `got` from `wanted`, in units of the last place of the nearest float. A zero is right for any
/// subnormal number.
fn ulps(got: f32, wanted: f64) -> f64 {
    if wanted.abs() < f64::from(f32::MIN_POSITIVE) && got == 0.0 {
        return 0.0;
    }
    let nearest = wanted as f32;
    if nearest.is_infinite() || nearest.is_nan() {
        let same = got == nearest || (got.is_nan() && nearest.is_nan());
        return if same { 0.0 } else { f64::INFINITY };
    }
    let exponent = ((nearest.to_bits() >> 23) & 0xff).max(1) as i32;
    (f64::from(got) - wanted).abs() / 2f64.powi(exponent - 127 - 23)
}

fn worst(function: fn(&mut [f32]), truth: fn(f64) -> f64) -> (f64, f32) {
    let inputs = floats();
    let mut outputs = inputs.clone();
    function(&mut outputs);
    let errors = inputs.iter().zip(outputs).map(|(&x, got)| {
        let counts_as = if x.is_subnormal() { 0.0 } else { x };
        (ulps(got, truth(f64::from(counts_as))), x)
    });
    errors.fold((0.0, 0.0), |worst, next| if next.0 > worst.0 { next } else { worst })
}

pub(in crate::learn) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Finite numbers of moderate size.
pub(in crate::learn) fn matrix(salt: u32) -> Vec<f32> {
    (0..COLUMNS as u32 * 11)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8) as f32 / (1 << 21) as f32 - 4.0)
        .collect()
}

/// Numbers from 2⁻¹⁴⁹ to 2⁻¹¹⁹ and their negatives: more than half are subnormal, and what is made of the others
/// often is.
pub(in crate::learn) fn tiny(salt: u32) -> Vec<f32> {
    let scattered =
        (0..COLUMNS as u32 * 11).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(salt) ^ (i << 7));
    scattered.map(|word| f32::from_bits((word & 0x83ff_ffff) >> (word % 2 * 2) | (word & 1 << 31))).collect()
}
