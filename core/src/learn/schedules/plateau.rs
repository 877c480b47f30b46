//! A lower rate where a figure no longer improves; Keras' callback `ReduceLROnPlateau`.
//!
//! The rate is a function of the history: of the monitored figure of all finished epochs. So nothing of it needs to be kept
//! with a checkpoint, and a run that is resumed has the rate that it would have had.

use super::{
    ScheduleKey, Shape, anything, number, problem_of_factor, problem_of_rate, problem_of_steps, whole,
};
use crate::learn::monitor::Monitor;
use crate::view::EpochRow;

/// After `patience` epochs without an improvement by more than `min_delta`: `rate ← max(rate · factor, min_lr)`.
pub(crate) struct ReduceOnPlateau;

impl Shape for ReduceOnPlateau {
    fn name(&self) -> &'static str {
        "reduce_on_plateau"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        const {
            &[
                number("factor", Some(0.1), "The factor of the rate", problem_of_factor),
                whole(
                    "patience",
                    Some(10.0),
                    "Epochs without an improvement after which the rate falls",
                    problem_of_steps,
                ),
                number(
                    "min_delta",
                    Some(1e-4),
                    "By how much a figure has to be better to count as an improvement",
                    problem_of_rate,
                ),
                whole("cooldown", Some(0.0), "Epochs after a fall that do not count", anything),
                number("min_lr", Some(0.0), "The lowest rate", problem_of_rate),
            ]
        }
    }

    fn rate(&self, _values: &[f64], rate: f64, _step: u64) -> f64 {
        rate
    }

    fn watches(&self) -> bool {
        true
    }

    fn after(&self, values: &[f64], rate: f32, monitor: Monitor, history: &[EpochRow]) -> f32 {
        let [factor, patience, min_delta, cooldown, min_rate] = values[..5] else {
            unreachable!("a value for each key")
        };
        let mut rate = f64::from(rate);
        let (mut best, mut waited, mut cooling) = (None, 0.0, 0.0);
        for value in history.iter().filter_map(|row| monitor.of(row)) {
            if cooling > 0.0 {
                cooling -= 1.0;
                waited = 0.0;
            }
            if monitor.improves(value, best, min_delta) {
                best = Some(value);
                waited = 0.0;
            } else if cooling == 0.0 {
                waited += 1.0;
                if waited >= patience && rate > min_rate {
                    rate = (rate * factor).max(min_rate);
                    (cooling, waited) = (cooldown, 0.0);
                }
            }
        }
        rate as f32
    }
}
