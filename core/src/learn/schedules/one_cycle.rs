//! One cycle (L. Smith and N. Topin, 2018, *Super-Convergence*): up to the rate, then down to almost nothing, each along half
//! a cosine. Keys and defaults are those of PyTorch's `OneCycleLR`, except that `warmup_steps`, where it is given, is the
//! length of the rise, instead of the share `pct_start` of all steps.

use super::cosine::falling;
use super::{ScheduleKey, Shape, number, problem_of_divisor, problem_of_share, problem_of_steps, whole};

/// From `rate / div_factor` up to `rate`, then down to `rate / div_factor / final_div_factor` at `total_steps`.
pub(crate) struct OneCycle;

impl Shape for OneCycle {
    fn name(&self) -> &'static str {
        "one_cycle"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        const {
            &[
                whole("total_steps", None, "Steps of the whole cycle", problem_of_steps),
                number(
                    "pct_start",
                    Some(0.3),
                    "The share of the steps in which the rate rises",
                    problem_of_share,
                ),
                number(
                    "div_factor",
                    Some(25.0),
                    "The highest rate divided by the first one",
                    problem_of_divisor,
                ),
                number(
                    "final_div_factor",
                    Some(1e4),
                    "The first rate divided by the last one",
                    problem_of_divisor,
                ),
            ]
        }
    }

    fn rate(&self, values: &[f64], rate: f64, step: u64) -> f64 {
        let [total, share, divisor, last, warm_up] = values[..5] else {
            unreachable!("a value for each key")
        };
        let (first, end) = (rate / divisor, rate / divisor / last);
        let (step, top) = (step as f64, if warm_up > 0.0 { warm_up.min(total) } else { share * total });
        if step < top {
            return rate - (rate - first) * falling(step / top);
        }
        let way = if total > top { (step - top) / (total - top) } else { 1.0 };
        end + (rate - end) * falling(way)
    }

    fn warms_up(&self) -> bool {
        true
    }
}
