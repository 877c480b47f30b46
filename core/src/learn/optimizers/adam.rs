//! Adam (D. Kingma and J. Ba, 2015, algorithm 1, with the step size of section 2), as Keras has it:
//!
//! ```text
//! m ← m + (g - m) (1 - β₁)        α = learning_rate √(1 - β₂ᵗ) / (1 - β₁ᵗ)
//! v ← v + (g² - v) (1 - β₂)       w ← w - m α / (√v + ε)
//! ```
//!
//! [`AdamW`](super::adamw) is the same, after the weights have decayed.

use super::decayed;
use super::{Key, LEARNING_RATE, ParameterSlice, Rule, counts, problem_of_learning_rate};
use crate::learn::elementwise::for_every_level;

/// Adaptive moment estimation.
pub(crate) struct Adam;

impl Rule for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn keys(&self) -> &'static [Key] {
        &[RATE, BETA_1, BETA_2, EPSILON]
    }

    fn state_names(&self, _values: &[f32]) -> &'static [&'static str] {
        STATE
    }

    fn step(&self, values: &[f32], part: ParameterSlice<'_>) {
        let [rate, beta_1, beta_2, epsilon] = values[..4] else { unreachable!("a value for each key") };
        step(Rates { rate, beta_1, beta_2, epsilon, decay: 0.0 }, part);
    }
}

pub(super) const RATE: Key = Key::number("learning_rate", 0.001, LEARNING_RATE, problem_of_learning_rate);
pub(super) const BETA_1: Key =
    Key::number("beta_1", 0.9, "How slowly the average of the gradients forgets", problem_of_beta);
pub(super) const BETA_2: Key =
    Key::number("beta_2", 0.999, "How slowly the average of the squares forgets", problem_of_beta);
pub(super) const EPSILON: Key = Key::number(
    "epsilon",
    1e-7,
    "Added to what divides, so that nothing is divided by 0",
    problem_of_epsilon,
);
pub(super) const STATE: &[&str] = &["momentum", "velocity"];

/// The settings of a step.
pub(super) struct Rates {
    pub(super) rate: f32,
    pub(super) beta_1: f32,
    pub(super) beta_2: f32,
    pub(super) epsilon: f32,
    /// The share that each weight loses before the step.
    pub(super) decay: f32,
}

/// The step of both optimizers.
pub(super) fn step(rates: Rates, part: ParameterSlice<'_>) {
    let Rates { rate, beta_1, beta_2, epsilon, decay } = rates;
    let ParameterSlice { parameters, gradient, count, step, mut state, out } = part;
    let [momentum, velocity] = &mut state[..] else { unreachable!("Adam has two state arrays") };
    let unbiased = |beta: f32| 1.0 - power(f64::from(beta), step);
    let alpha = (f64::from(rate) * unbiased(beta_2).sqrt() / unbiased(beta_1)) as f32;
    mean(gradient.0, gradient.1.unwrap_or_default(), count, out);
    move_average(momentum, out, 1.0 - beta_1);
    move_average_of_squares(velocity, out, 1.0 - beta_2);
    descend_adaptively(parameters, momentum, velocity, [alpha, epsilon, decay], out);
}

for_every_level! {
    /// `out ← (left + right) / count`, or `left / count` if there is no right one.
    pub fn mean(left: &[f32], right: &[f32], count: f32, out: &mut [f32]) {
        if right.is_empty() {
            for (out, left) in out.iter_mut().zip(left) {
                *out = left / count;
            }
        }
        for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
            *out = (left + right) / count;
        }
    }

    /// `average ← average + (g - average) · share`.
    pub fn move_average(average: &mut [f32], gradient: &[f32], share: f32) {
        for (average, g) in average.iter_mut().zip(gradient) {
            *average += (g - *average) * share;
        }
    }

    /// `average ← average + (g² - average) · share`.
    pub fn move_average_of_squares(average: &mut [f32], gradient: &[f32], share: f32) {
        for (average, g) in average.iter_mut().zip(gradient) {
            *average += (g * g - *average) * share;
        }
    }

    /// `out ← (parameters - parameters · decay) - m · alpha / (√v + epsilon)`, with `rates` alpha, epsilon, decay.
    pub fn descend_adaptively(
        parameters: &[f32], m: &[f32], v: &[f32], rates: [f32; 3], out: &mut [f32],
    ) {
        let [alpha, epsilon, decay] = rates;
        for (((out, parameter), m), v) in out.iter_mut().zip(parameters).zip(m).zip(v) {
            *out = decayed(*parameter, decay) - m * alpha / (v.sqrt() + epsilon);
        }
    }
}

/// `baseⁿ`, by squaring: gives the same bits on every machine, which the library function does not guarantee.
fn power(base: f64, mut n: u64) -> f64 {
    let (mut square, mut product) = (base, 1.0);
    while n > 0 {
        if n % 2 == 1 {
            product *= square;
        }
        square *= square;
        n /= 2;
    }
    product
}

pub(super) fn problem_of_beta(beta: f32) -> Option<&'static str> {
    (!(0.0..1.0).contains(&beta)).then_some("not a share; give at least 0 and less than 1, such as 0.9")
}

fn problem_of_epsilon(epsilon: f32) -> Option<&'static str> {
    let problem = "nothing to divide by safely; give a finite number from about 1.2e-38 on, such as 1e-7";
    (!counts(epsilon)).then_some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let (mut whole, mut halves) = (vec![0.0; a.len()], vec![0.0; a.len()]);
            mean::at(level, a, &[], 7.0, &mut whole);
            mean::at(level, a, b, 7.0, &mut halves);
            let (mut m, mut v, mut out) = (b.to_vec(), c.to_vec(), vec![0.0; a.len()]);
            move_average::at(level, &mut m, a, 0.1);
            move_average_of_squares::at(level, &mut v, a, 0.001);
            v.iter_mut().for_each(|v| *v = v.abs());
            descend_adaptively::at(level, a, &m, &v, [0.001, 1e-7, 0.0], &mut out);
            let mut lighter = vec![0.0; a.len()];
            descend_adaptively::at(level, a, &m, &v, [0.001, 1e-7, 0.01], &mut lighter);
            [whole, halves, m, v, out, lighter].concat()
        });
    }

    #[test]
    fn powers_are_computed_by_multiplication() {
        assert_eq!([0, 1, 2, 5, 10].map(|n| power(0.5, n)), [1.0, 0.5, 0.25, 0.03125, 0.000_976_562_5]);
    }
}
