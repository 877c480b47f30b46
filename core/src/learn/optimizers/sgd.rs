//! Gradient descent on the mean of the samples' gradients, `g = Σ g / count`, as Keras has it:
//!
//! ```text
//! w ← w - w · learning_rate · weight_decay
//! without momentum    w ← w - learning_rate · g
//! with momentum μ     v ← μ v - g · learning_rate       w ← w + v
//! Nesterov's          the same                          w ← w + μ v - g · learning_rate
//! ```

use super::adam::mean;
use super::{
    DECAY, Key, LEARNING_RATE, ParameterSlice, Rule, decayed, problem_of_decay, problem_of_learning_rate,
    share_lost,
};
use crate::learn::elementwise::{add_and_descend, descend, for_every_level};

/// Gradient descent.
pub(crate) struct Sgd;

impl Rule for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn keys(&self) -> &'static [Key] {
        const {
            &[
                Key::number("learning_rate", 0.1, LEARNING_RATE, problem_of_learning_rate),
                Key::optional(
                    "momentum",
                    "The share of the step before that a step goes on with",
                    problem_of_momentum,
                ),
                Key::flag("nesterov", "Whether the momentum is Nesterov's"),
                Key::optional("weight_decay", DECAY, problem_of_decay),
            ]
        }
    }

    fn state_names(&self, values: &[f32]) -> &'static [&'static str] {
        if values[1] == 0.0 { &[] } else { &["momentum"] }
    }

    fn step(&self, values: &[f32], part: ParameterSlice<'_>) {
        let [rate, momentum, nesterov, decay] = values[..4] else { unreachable!("a value for each key") };
        let decay = share_lost(rate, decay);
        let ParameterSlice { parameters, gradient, count, mut state, out, .. } = part;
        match (&mut state[..], gradient) {
            ([velocity], (left, right)) => {
                mean(left, right.unwrap_or_default(), count, out);
                accelerate(velocity, out, rate, momentum);
                let own = if nesterov == 0.0 { 0.0 } else { rate };
                let kept = if nesterov == 0.0 { 1.0 } else { momentum };
                move_on(parameters, velocity, kept, own, decay, out);
            }
            (_, (left, right)) if decay > 0.0 => {
                mean(left, right.unwrap_or_default(), count, out);
                descend_lighter(parameters, rate, decay, out);
            }
            (_, (left, Some(right))) => add_and_descend(parameters, left, right, count, rate, out),
            (_, (sum, None)) => descend(parameters, sum, count, rate, out),
        }
    }
}

for_every_level! {
    /// `velocity ← momentum · velocity - gradient · rate`.
    pub fn accelerate(velocity: &mut [f32], gradient: &[f32], rate: f32, momentum: f32) {
        for (velocity, g) in velocity.iter_mut().zip(gradient) {
            *velocity = momentum * *velocity - g * rate;
        }
    }

    /// `out ← (parameters - parameters · decay) + kept · velocity - out · rate`; `out` comes with the gradient.
    pub fn move_on(
        parameters: &[f32], velocity: &[f32], kept: f32, rate: f32, decay: f32, out: &mut [f32],
    ) {
        for ((out, parameter), velocity) in out.iter_mut().zip(parameters).zip(velocity) {
            *out = decayed(*parameter, decay) + (kept * velocity - *out * rate);
        }
    }

    /// `out ← (parameters - parameters · decay) - rate · out`; `out` comes with the gradient.
    pub fn descend_lighter(parameters: &[f32], rate: f32, decay: f32, out: &mut [f32]) {
        for (out, parameter) in out.iter_mut().zip(parameters) {
            *out = decayed(*parameter, decay) - rate * *out;
        }
    }
}

fn problem_of_momentum(momentum: f32) -> Option<&'static str> {
    (!(0.0..1.0).contains(&momentum)).then_some("not a share; give at least 0 and less than 1, such as 0.9")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::elementwise::check;

    #[test]
    fn its_loops_give_the_same_bits_with_every_instruction_set() {
        check::loops(|level, a, b, c| {
            let (mut velocity, mut out, mut lighter) = (b.to_vec(), c.to_vec(), c.to_vec());
            accelerate::at(level, &mut velocity, a, 0.1, 0.9);
            move_on::at(level, a, &velocity, 0.9, 0.1, 0.001, &mut out);
            descend_lighter::at(level, a, 0.1, 0.001, &mut lighter);
            [velocity, out, lighter].concat()
        });
    }
}
