//! Half a cosine from the rate down to `alpha` times the rate, over `decay_steps` (I. Loshchilov and F. Hutter, 2017,
//! *SGDR*, without its restarts); Keras' `CosineDecay`.

use super::functions::cos;
use super::{ScheduleKey, Shape, number, problem_of_share, problem_of_steps, whole};

/// `rate ((1 - alpha) (1 + cos(π step / decay_steps)) / 2 + alpha)`.
pub(crate) struct Cosine;

impl Shape for Cosine {
    fn name(&self) -> &'static str {
        "cosine"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        const {
            &[
                whole("decay_steps", None, "Steps until the rate is at its lowest", problem_of_steps),
                number("alpha", Some(0.0), "The lowest rate, as a share of the highest", problem_of_share),
            ]
        }
    }

    fn rate(&self, values: &[f64], rate: f64, step: u64) -> f64 {
        let [decay_steps, alpha] = values[..2] else { unreachable!("a value for each key") };
        rate * ((1.0 - alpha) * falling(step as f64 / decay_steps) + alpha)
    }
}

/// From 1 to 0, along half a cosine, for a share from 0 to 1 of the way.
pub(super) fn falling(share: f64) -> f64 {
    0.5 * (1.0 + cos(std::f64::consts::PI * share.min(1.0)))
}
