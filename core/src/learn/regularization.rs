//! Regularisation of kernels: `l1 Σ |w| + l2 Σ w²` is a part of each sample's loss, as in Keras, where it is a part of each
//! batch's mean loss.

use super::elementwise::for_every_level;
use super::layers::Regularizer;
use super::subnormals::flushed;

/// What a kernel adds to the loss of a sample, summed in the order of the kernel.
pub(super) fn penalty(Regularizer { l1, l2 }: Regularizer, kernel: &[f32]) -> f64 {
    flushed(|| {
        let of_weight = |w: &f32| {
            let w = f64::from(*w);
            f64::from(l1) * w.abs() + f64::from(l2) * w * w
        };
        let lanes = kernel.chunks(LANES).fold([0.0; LANES], |mut lanes, chunk| {
            lanes.iter_mut().zip(chunk).for_each(|(lane, w)| *lane += of_weight(w));
            lanes
        });
        lanes.iter().fold(0.0, |sum, lane| sum + lane)
    })
}

const LANES: usize = 8;

/// Adds the gradient of `samples` penalties to the gradient of a kernel.
pub(super) fn add_gradient(
    Regularizer { l1, l2 }: Regularizer,
    samples: usize,
    kernel: &[f32],
    gradient: &mut [f32],
) {
    let samples = samples as f32;
    add_slopes(kernel, samples * l1, samples * 2.0 * l2, gradient);
}

for_every_level! {
    /// `gradient ← gradient + (l1 · sign(w) + l2 · w)`.
    pub fn add_slopes(kernel: &[f32], l1: f32, l2: f32, gradient: &mut [f32]) {
        for (gradient, w) in gradient.iter_mut().zip(kernel) {
            let above = if *w > 0.0 { l1 } else { 0.0 };
            let size = if *w < 0.0 { -l1 } else { above };
            *gradient += size + l2 * w;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn its_loop_gives_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, _| {
            let mut gradient = b.to_vec();
            add_slopes::at(level, a, 0.1, 0.3, &mut gradient);
            gradient
        });
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_penalty() {
        let regularizer = Regularizer { l1: 0.25, l2: 0.5 };
        let kernel = [1.5, -0.5, 0.75, 0.0];
        assert_eq!(penalty(regularizer, &kernel), 0.25 * 2.75 + 0.5 * (2.25 + 0.25 + 0.5625));
        let mut gradient = [1.0; 4];
        add_gradient(regularizer, 3, &kernel, &mut gradient);
        assert_eq!(gradient, [1.0 + 3.0 * 1.75, 1.0 + 3.0 * -0.75, 1.0 + 3.0 * 1.0, 1.0]);
    }
}
