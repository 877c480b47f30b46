//! Clipping of gradients, before the optimizer's step, as Keras has it: each number (`clipvalue`), each variable by its own
//! norm (`clipnorm`), or all of them by their common norm (`global_clipnorm`).
//!
//! The gradient is that of the mean loss. A norm is summed in an order that the job alone decides: within a section of a
//! variable in 16 lanes, then lane by lane, then section by section. Which thread adds which section does not show.

use std::ops::Range;

use rayon::iter::ParallelIterator as _;
use rayon::slice::{ParallelSlice as _, ParallelSliceMut as _};

use super::{Key, counts};
use crate::learn::elementwise::for_every_level;
use crate::learn::sum::SECTION;

/// Keras' keys, which every optimizer has. 0 means none.
pub(super) const KEYS: &[Key] = &[
    Key::optional(
        "clipnorm",
        "Scales each kernel and each bias whose gradient has a larger norm to this norm; 0 does not",
        problem_of_bound,
    ),
    Key::optional(
        "clipvalue",
        "Brings each number of the gradient within plus or minus this one; 0 does not",
        problem_of_bound,
    ),
    Key::optional(
        "global_clipnorm",
        "Scales the whole gradient, if its norm is larger, to this norm; 0 does not",
        problem_of_bound,
    ),
];

/// How a gradient is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Clipping {
    /// Each variable whose norm is larger is scaled to this norm.
    Norm(f32),
    /// Each number is brought within plus or minus this one.
    Value(f32),
    /// If the norm of all variables is larger, all are scaled by the same factor.
    GlobalNorm(f32),
}

impl Clipping {
    /// The clipping with these values of the keys; a valid job names one at most.
    pub(super) fn of(values: &[f32]) -> Option<Self> {
        match *values {
            [0.0, 0.0, 0.0] => None,
            [0.0, 0.0, bound] => Some(Self::GlobalNorm(bound)),
            [0.0, bound, _] => Some(Self::Value(bound)),
            [bound, ..] => Some(Self::Norm(bound)),
            [] => None,
        }
    }

    /// Clips `gradient`, which has these variables.
    pub(super) fn apply(self, gradient: &mut [f32], variables: &[Range<usize>]) {
        match self {
            Self::Value(bound) => gradient.par_chunks_mut(SECTION).for_each(|part| clamp(part, bound)),
            Self::Norm(bound) => {
                for variable in variables {
                    let part = &mut gradient[variable.clone()];
                    let squares = sum_of_squares(part);
                    shrink(part, bound, squares);
                }
            }
            Self::GlobalNorm(bound) => {
                let parts = variables.iter().map(|variable| sum_of_squares(&gradient[variable.clone()]));
                let squares = parts.fold(0.0, |sum, part| sum + part);
                shrink(gradient, bound, squares);
            }
        }
    }
}

/// Scales `gradient` by `bound / norm` if the norm is larger than the bound.
fn shrink(gradient: &mut [f32], bound: f32, squares: f64) {
    let norm = squares.sqrt();
    if norm > f64::from(bound) {
        let factor = (f64::from(bound) / norm) as f32;
        gradient.par_chunks_mut(SECTION).for_each(|part| scale(part, factor));
    }
}

/// `Σ x²`, in a fixed order.
fn sum_of_squares(values: &[f32]) -> f64 {
    let of_section = |section: &[f32]| {
        let mut lanes = [0.0; LANES];
        add_squares(section, &mut lanes);
        lanes.iter().fold(0.0, |sum, lane| sum + lane)
    };
    let sections: Vec<f64> = values.par_chunks(SECTION).map(of_section).collect();
    sections.iter().fold(0.0, |sum, section| sum + section)
}

const LANES: usize = 16;

for_every_level! {
    /// `x ← x`, or `±bound` if it is further from 0.
    pub fn clamp(values: &mut [f32], bound: f32) {
        for value in values {
            // Comparisons let NaN pass.
            let below = if *value > bound { bound } else { *value };
            *value = if below < -bound { -bound } else { below };
        }
    }

    /// `x ← x · factor`.
    pub fn scale(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }

    /// Adds the squares of the values to the lanes in turn.
    pub fn add_squares(values: &[f32], lanes: &mut [f64; LANES]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value) * f64::from(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
}

fn problem_of_bound(bound: f32) -> Option<&'static str> {
    (bound != 0.0 && !counts(bound))
        .then_some("gradients cannot be clipped to this; give a finite number above 0, such as 1.0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let (mut clamped, mut scaled, mut lanes) = (a.to_vec(), b.to_vec(), [0.0; LANES]);
            clamp::at(level, &mut clamped, 1.5);
            scale::at(level, &mut scaled, 0.3);
            add_squares::at(level, c, &mut lanes);
            [clamped, scaled, lanes.map(|lane| lane as f32).to_vec()].concat()
        });
    }

    #[test]
    fn gradients_are_clipped_as_keras_clips_them() {
        let clipped = |clipping: Clipping| {
            let mut gradient = [3.0, 4.0, 0.0, -12.0, 0.5];
            clipping.apply(&mut gradient, &[0..2, 2..4, 4..5]);
            gradient
        };
        assert_eq!(clipped(Clipping::Value(1.0)), [1.0, 1.0, 0.0, -1.0, 0.5]);
        assert_eq!(clipped(Clipping::Norm(2.5)), [1.5, 2.0, 0.0, -2.5, 0.5]);
        let norm = (9.0f64 + 16.0 + 144.0 + 0.25).sqrt();
        let factor = (6.5 / norm) as f32;
        assert_eq!(clipped(Clipping::GlobalNorm(6.5)), [3.0, 4.0, 0.0, -12.0, 0.5].map(|g: f32| g * factor));
        assert_eq!(clipped(Clipping::GlobalNorm(20.0)), [3.0, 4.0, 0.0, -12.0, 0.5]);
    }

    #[test]
    fn a_gradient_that_is_no_number_stays_none() {
        for clipping in [Clipping::Value(1.0), Clipping::Norm(1.0), Clipping::GlobalNorm(1.0)] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut gradient = [1.0, bad];
                clipping.apply(&mut gradient, &[0..1, 1..2]);
                let stays = matches!(clipping, Clipping::Value(_)) && bad == f32::INFINITY;
                assert_eq!(gradient[1].is_finite(), stays, "{clipping:?} {bad}");
            }
        }
    }
}
