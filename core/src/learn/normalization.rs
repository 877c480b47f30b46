//! The loops of layer normalization (J. Ba, J. Kiros and G. Hinton, 2016), over rows of `width` values:
//!
//! ```text
//! n = (x - mean) · s,  s = 1 / √(variance + ε)       y = n γ + β
//! dγ = Σ dy n          dβ = Σ dy                     dx = s (d - mean(d) - n · mean(d n)),  d = dy γ
//! ```
//!
//! Means over a row are summed in 16 lanes, then lane by lane: the same order for every instruction set.

use super::elementwise::for_every_level;

const LANES: usize = 16;

/// `Σ f(a, b)` over two rows, in a fixed order.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += f(*a, *b);
    }
    lanes.iter().fold(0.0, |sum, lane| sum + lane)
}

for_every_level! {
    /// `normalized ← n` and `scales ← s`, `[rows]`, of `x`, `[rows, width]`.
    pub fn normalize(x: &[f32], width: usize, epsilon: f32, normalized: &mut [f32], scales: &mut [f32]) {
        let rows = x.chunks_exact(width).zip(normalized.chunks_exact_mut(width)).zip(scales);
        for ((x, normalized), scale) in rows {
            let mean = sum_of(x, x, |x, _| x) / width as f32;
            let variance = sum_of(x, x, |x, _| (x - mean) * (x - mean)) / width as f32;
            *scale = 1.0 / (variance + epsilon).sqrt();
            for (n, x) in normalized.iter_mut().zip(x) {
                *n = (x - mean) * *scale;
            }
        }
    }

    /// `out ← n γ + β`.
    pub fn stretch(normalized: &[f32], gamma: &[f32], beta: &[f32], out: &mut [f32]) {
        let rows = normalized.chunks_exact(gamma.len()).zip(out.chunks_exact_mut(gamma.len()));
        for (normalized, out) in rows {
            for (((out, n), gamma), beta) in out.iter_mut().zip(normalized).zip(gamma).zip(beta) {
                *out = n * gamma + beta;
            }
        }
    }

    /// `sums ← Σ rows` of `dy n`, top to bottom.
    pub fn gradient_of_gamma(delta: &[f32], normalized: &[f32], sums: &mut [f32]) {
        sums.fill(0.0);
        let rows = delta.chunks_exact(sums.len()).zip(normalized.chunks_exact(sums.len()));
        for (delta, normalized) in rows {
            for ((sum, delta), n) in sums.iter_mut().zip(delta).zip(normalized) {
                *sum += delta * n;
            }
        }
    }

    /// `delta ← dx`; it comes with `dy`.
    pub fn pass_back(delta: &mut [f32], gamma: &[f32], normalized: &[f32], scales: &[f32]) {
        let width = gamma.len();
        let rows = delta.chunks_exact_mut(width).zip(normalized.chunks_exact(width)).zip(scales);
        for ((delta, normalized), scale) in rows {
            for (delta, gamma) in delta.iter_mut().zip(gamma) {
                *delta *= gamma;
            }
            let mean = sum_of(delta, delta, |delta, _| delta) / width as f32;
            let slope = sum_of(delta, normalized, |delta, n| delta * n) / width as f32;
            for (delta, n) in delta.iter_mut().zip(normalized) {
                *delta = scale * (*delta - mean - n * slope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check::{self, COLUMNS};

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let rows = a.len() / COLUMNS;
            let (mut normalized, mut scales, mut out) = (a.to_vec(), vec![0.0; rows], a.to_vec());
            normalize::at(level, a, COLUMNS, 0.001, &mut normalized, &mut scales);
            let (gamma, beta) = (&b[..COLUMNS], &c[..COLUMNS]);
            stretch::at(level, &normalized, gamma, beta, &mut out);
            let (mut sums, mut delta) = (vec![0.0; COLUMNS], c.to_vec());
            gradient_of_gamma::at(level, &delta, &normalized, &mut sums);
            pass_back::at(level, &mut delta, gamma, &normalized, &scales);
            [normalized, scales, out, sums, delta].concat()
        });
    }

    #[test]
    fn a_row_has_mean_0_and_variance_1_afterwards() {
        let x: Vec<f32> = (0..2 * COLUMNS).map(|i| (i * i % 101) as f32).collect();
        let (mut n, mut scales) = (vec![0.0; x.len()], [0.0; 2]);
        normalize(&x, COLUMNS, 1e-3, &mut n, &mut scales);
        for row in n.chunks(COLUMNS) {
            let mean: f32 = row.iter().sum::<f32>() / COLUMNS as f32;
            let variance: f32 = row.iter().map(|n| n * n).sum::<f32>() / COLUMNS as f32;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
    }
}
