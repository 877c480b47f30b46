//! RMSprop (G. Hinton, lecture 6e of *Neural Networks for Machine Learning*, 2012), as Keras has it:
//!
//! ```text
//! w ← w - w · learning_rate · weight_decay
//! v ← ρ v + (1 - ρ) g²
//! centered            a ← ρ a + (1 - ρ) g       d = v - a² + ε, else d = v + ε
//! without momentum    w ← w - learning_rate · g / √d
//! with momentum μ     m ← μ m + learning_rate · g / √d       w ← w - m
//! ```

use super::adam::{BETA_1, EPSILON, RATE, mean, problem_of_beta};
use super::{DECAY, Key, ParameterSlice, Rule, decayed, problem_of_decay, share_lost};
use crate::learn::elementwise::{for_every_level, known};

/// A step divided by the root of a moving average of squares.
pub(crate) struct RmsProp;

impl Rule for RmsProp {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn keys(&self) -> &'static [Key] {
        const {
            &[
                RATE,
                Key::number(
                    "rho",
                    BETA_1.default,
                    "How slowly the average of the squares forgets",
                    problem_of_beta,
                ),
                EPSILON,
                Key::optional(
                    "momentum",
                    "The share of the step before that a step goes on with",
                    problem_of_beta,
                ),
                Key::flag(
                    "centered",
                    "Whether the variance of the gradient divides, in place of its mean square",
                ),
                Key::optional("weight_decay", DECAY, problem_of_decay),
            ]
        }
    }

    fn state_names(&self, values: &[f32]) -> &'static [&'static str] {
        match (values[3] != 0.0, values[4] != 0.0) {
            (false, false) => &["velocity"],
            (false, true) => &["velocity", "average_gradient"],
            (true, false) => &["velocity", "momentum"],
            (true, true) => &["velocity", "average_gradient", "momentum"],
        }
    }

    fn step(&self, values: &[f32], part: ParameterSlice<'_>) {
        let [rate, rho, epsilon, momentum, centered, decay] = values[..6] else {
            unreachable!("a value for each key")
        };
        let ParameterSlice { parameters, gradient, count, state, out, .. } = part;
        let mut state = state.into_iter();
        let velocity = state.next().unwrap_or_else(|| unreachable!("RMSprop has a velocity"));
        let average = if centered == 0.0 { None } else { state.next() };
        mean(gradient.0, gradient.1.unwrap_or_default(), count, out);
        average_squares(velocity, out, rho);
        match average {
            Some(average) => {
                average_gradients(average, out, rho);
                scale_centered(velocity, average, rate, epsilon, out);
            }
            None => scale(velocity, rate, epsilon, out),
        }
        if let (Some(momentums), true) = (state.next(), momentum != 0.0) {
            accumulate(momentums, out, momentum);
            out.copy_from_slice(momentums);
        }
        go_down(parameters, share_lost(rate, decay), out);
    }
}

for_every_level! {
    /// `average ← rho · average + (1 - rho) · g²`.
    pub fn average_squares(average: &mut [f32], gradient: &[f32], rho: f32) {
        for (average, g) in average.iter_mut().zip(gradient) {
            *average = rho * *average + (1.0 - rho) * (g * g);
        }
    }

    /// `average ← rho · average + (1 - rho) · g`.
    pub fn average_gradients(average: &mut [f32], gradient: &[f32], rho: f32) {
        for (average, g) in average.iter_mut().zip(gradient) {
            *average = rho * *average + (1.0 - rho) * g;
        }
    }

    /// `out ← rate · out / √(velocity + epsilon)`; `out` comes with the gradient.
    pub fn scale(velocity: &[f32], rate: f32, epsilon: f32, out: &mut [f32]) {
        for (out, v) in out.iter_mut().zip(velocity) {
            *out = rate * *out / (v + epsilon).sqrt();
        }
    }

    /// `out ← rate · out / √(velocity - average² + epsilon)`; `out` comes with the gradient.
    pub fn scale_centered(velocity: &[f32], average: &[f32], rate: f32, epsilon: f32, out: &mut [f32]) {
        for ((out, v), a) in out.iter_mut().zip(velocity).zip(average) {
            *out = known(rate * *out / (v - a * a + epsilon).sqrt());
        }
    }

    /// `momentums ← momentum · momentums + step`.
    pub fn accumulate(momentums: &mut [f32], step: &[f32], momentum: f32) {
        for (m, step) in momentums.iter_mut().zip(step) {
            *m = momentum * *m + step;
        }
    }

    /// `out ← (parameters - parameters · decay) - out`.
    pub fn go_down(parameters: &[f32], decay: f32, out: &mut [f32]) {
        for (out, parameter) in out.iter_mut().zip(parameters) {
            *out = decayed(*parameter, decay) - *out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;
    use crate::learn::optimizers::{Optimizer, OptimizerKind, OptimizerState};

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let (mut v, mut g, mut m) = (b.to_vec(), c.to_vec(), b.to_vec());
            average_squares::at(level, &mut v, a, 0.9);
            v.iter_mut().for_each(|v| *v = v.abs());
            average_gradients::at(level, &mut g, a, 0.9);
            let (mut plain, mut centered) = (a.to_vec(), a.to_vec());
            scale::at(level, &v, 0.01, 1e-7, &mut plain);
            scale_centered::at(level, &v, &g, 0.01, 1e-7, &mut centered);
            accumulate::at(level, &mut m, a, 0.5);
            let mut down = c.to_vec();
            go_down::at(level, a, 0.01, &mut down);
            [v, g, plain, centered, m, down].concat()
        });
    }

    /// The formulas of the module, in `f64`.
    #[test]
    fn its_steps_are_those_of_the_formula() {
        for (momentum, centered) in [(0.0, 0.0), (0.9, 0.0), (0.0, 1.0), (0.5, 1.0)] {
            let mut optimizer = Optimizer::new(OptimizerKind::RmsProp);
            let settings = [
                ("learning_rate", 0.1),
                ("momentum", momentum),
                ("centered", centered),
                ("weight_decay", 0.01),
            ];
            settings.iter().for_each(|(name, value)| assert!(optimizer.set(name, *value)));
            let mut state = OptimizerState::new(&optimizer, 1);
            let (mut w, mut parameter) = (0.5f64, [0.5f32]);
            let (mut v, mut a, mut m) = (0.0f64, 0.0f64, 0.0f64);
            for (step, g) in (1..).zip([0.3f64, -0.7, 1.1, 0.2]) {
                w -= w * 0.1 * 0.01;
                v = 0.9 * v + 0.1 * g * g;
                a = 0.9 * a + 0.1 * g;
                let d = if centered == 0.0 { v + 1e-7 } else { v - a * a + 1e-7 };
                m = f64::from(momentum) * m + 0.1 * g / d.sqrt();
                w -= m;
                let mut out = [0.0];
                state.step(step, 0, &parameter, (&[g as f32 * 2.0], None), 2, &mut out);
                parameter = out;
                assert!(
                    (f64::from(parameter[0]) - w).abs() < 2e-6,
                    "{momentum} {centered}: {parameter:?}, not {w}"
                );
            }
        }
    }
}
