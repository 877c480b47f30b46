//! A constant factor for each `decay_steps` steps; Keras' `ExponentialDecay`.

use super::functions::power;
use super::{Form, ScheduleKey, Shape, anything, number, problem_of_factor, problem_of_steps, whole};

/// `rate · decay_rate^(step / decay_steps)`, with the exponent rounded down if `staircase`.
pub(crate) struct Exponential;

impl Shape for Exponential {
    fn name(&self) -> &'static str {
        "exponential"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        const {
            &[
                whole(
                    "decay_steps",
                    None,
                    "Steps for which the rate is multiplied by `decay_rate` once",
                    problem_of_steps,
                ),
                number("decay_rate", None, "The factor", problem_of_factor),
                ScheduleKey {
                    name: "staircase",
                    meaning: "Whether the rate falls at every `decay_steps` steps at once, and not smoothly",
                    default: Some(0.0),
                    form: Form::Flag,
                    problem: anything,
                },
            ]
        }
    }

    fn rate(&self, values: &[f64], rate: f64, step: u64) -> f64 {
        let [decay_steps, decay_rate, staircase] = values[..3] else { unreachable!("a value for each key") };
        let exponent = step as f64 / decay_steps;
        rate * power(decay_rate, if staircase == 0.0 { exponent } else { exponent.floor() })
    }
}
