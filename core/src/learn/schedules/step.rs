//! A lower rate at `every` so many steps: times `factor` each time.

use super::functions::power;
use super::{ScheduleKey, Shape, number, problem_of_factor, problem_of_steps, whole};

/// `rate · factor^⌊step / every⌋`.
pub(crate) struct Step;

impl Shape for Step {
    fn name(&self) -> &'static str {
        "step"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        const {
            &[
                whole("every", None, "Steps from one fall of the rate to the next", problem_of_steps),
                number("factor", Some(0.1), "The factor of the rate at each fall", problem_of_factor),
            ]
        }
    }

    fn rate(&self, values: &[f64], rate: f64, step: u64) -> f64 {
        let [every, factor] = values[..2] else { unreachable!("a value for each key") };
        rate * power(factor, (step as f64 / every).floor())
    }
}
