//! Functions of one `f64` for schedules, which give the same bits on every machine; those of the C library may not.

/// `cos(x)` for `x` in `[0, π]`, within 1e-15 of it, by its series at the nearest of 0, π/2 and π.
pub(super) fn cos(x: f64) -> f64 {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};
    if x > PI - FRAC_PI_4 {
        -cos_near_0(PI - x)
    } else if x > FRAC_PI_4 {
        sin_near_0(FRAC_PI_2 - x)
    } else {
        cos_near_0(x)
    }
}

fn cos_near_0(x: f64) -> f64 {
    // Horner's scheme for Σ (-x²)ⁿ / (2n)!
    [16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0]
        .iter()
        .fold(1.0, |sum, n| 1.0 - sum * x * x / (n * (n - 1.0)))
}

fn sin_near_0(x: f64) -> f64 {
    x * [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0]
        .iter()
        .fold(1.0, |sum, n| 1.0 - sum * x * x / (n * (n - 1.0)))
}

/// `base^exponent` for a base in `(0, 1)` and an exponent of at least 0: whole powers by squaring, and `exp(f ln base)` for
/// the fraction `f` that is left.
pub(super) fn power(base: f64, exponent: f64) -> f64 {
    let (mut whole, fraction) = (exponent.floor(), exponent - exponent.floor());
    let (mut square, mut product) = (base, 1.0);
    while whole > 0.0 && square > 0.0 {
        if whole % 2.0 == 1.0 {
            product *= square;
        }
        square *= square;
        whole = (whole / 2.0).floor();
    }
    let product = if whole > 0.0 { 0.0 } else { product };
    if fraction == 0.0 { product } else { product * exp_near_0(fraction * ln(base)) }
}

/// `ln(x)` of a normal number: `e ln 2 + 2 artanh(s)` with `x = 2ᵉ m`, `m` in `[√½, √2)` and `s = (m - 1) / (m + 1)`.
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let mut exponent = ((x.to_bits() >> 52) & 0x7ff) as f64 - 1023.0;
    let mut m = f64::from_bits((x.to_bits() & MANTISSA) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        (m, exponent) = (m / 2.0, exponent + 1.0);
    }
    let s = (m - 1.0) / (m + 1.0);
    let series = (0..12).rev().fold(0.0, |sum, n| sum * s * s + 1.0 / f64::from(2 * n + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

/// `exp(x)` for `x` of at most 0: the series of `exp(x / 1024)`, squared ten times.
fn exp_near_0(x: f64) -> f64 {
    let small = x / 1024.0;
    let series = (1..=14).rev().fold(1.0, |sum, n| 1.0 + sum * small / f64::from(n));
    (0..10).fold(series, |value, _| value * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_those_of_the_library_to_many_digits() {
        for step in 0..=1000 {
            let share = f64::from(step) / 1000.0;
            let x = std::f64::consts::PI * share;
            assert!((cos(x) - x.cos()).abs() < 1e-14, "cos {x}");
            for base in [0.001, 0.1, 0.5, 0.96, 0.999_99] {
                let exponent = share * 50.0;
                let (got, wanted) = (power(base, exponent), f64::powf(base, exponent));
                assert!((got - wanted).abs() <= 1e-11 * wanted, "{base}^{exponent}: {got}, not {wanted}");
            }
        }
        assert_eq!((power(0.5, 0.0), power(0.5, 3.0), power(0.5, 1e9)), (1.0, 0.125, 0.0));
    }
}
