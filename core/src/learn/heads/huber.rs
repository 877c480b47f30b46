//! Huber's loss, for targets that are numbers (P. Huber, 1964, *Robust Estimation of a Location Parameter*): with `e = z -
//! y`, it is `e² / 2` up to a distance of `delta`, and `delta (|e| - delta / 2)` beyond, so that outliers pull less.
//!
//! The gradient by `z` is `e / k`, bounded by `±delta / k`.

use super::{Aim, Head, LossScratch, mean_over_numbers, outputs_of_numbers, slopes_of_numbers};
use crate::data::schema::Target;
use crate::learn::activations::Activation;

/// `e² / 2`, or `delta (|e| - delta / 2)` where that is less.
pub(crate) struct Huber;

impl Head for Huber {
    fn name(&self) -> &'static str {
        "huber"
    }

    fn activation(&self) -> Activation {
        Activation::Linear
    }

    fn needs(&self) -> &'static str {
        "plain numbers"
    }

    fn options(&self) -> &'static [&'static str] {
        &["delta"]
    }

    fn outputs(&self, target: Target) -> Result<u32, &'static str> {
        outputs_of_numbers(target)
    }

    fn forward(&self, z: &mut [f32], aim: Aim<'_>, _scratch: &mut LossScratch) -> f64 {
        let delta = f64::from(aim.options.delta);
        mean_over_numbers(z, aim, |error| {
            let size = error.abs();
            if size > delta { delta * (size - 0.5 * delta) } else { 0.5 * error * error }
        })
    }

    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>) {
        let delta = aim.options.delta;
        slopes_of_numbers(outputs, aim, |error| error.clamp(-delta, delta));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::schema::Truth;
    use crate::learn::heads::LossOptions;

    #[test]
    fn it_is_squared_near_the_target_and_linear_far_from_it() {
        let options = LossOptions { delta: 2.0, ..LossOptions::default() };
        let aim = Aim { width: 2, truth: Truth::Reals(&[0.0, 0.0, 1.0, 1.0]), options, weights: &[] };
        let mut z = [1.0, -5.0, 1.0, 4.0];
        assert_eq!(
            Huber.forward(&mut z, aim, &mut LossScratch::default()),
            (0.5 + 8.0) / 2.0 + (0.0 + 4.0) / 2.0
        );
        Huber.backward(&mut z, aim);
        assert_eq!(z, [0.5, -1.0, 0.0, 1.0]);
    }

    #[test]
    fn nan_outputs_give_a_nan_loss() {
        let aim = crate::learn::heads::tests::aim(1, Truth::Reals(&[0.0]));
        let mut z = [f32::NAN];
        assert!(Huber.forward(&mut z, aim, &mut LossScratch::default()).is_nan());
        Huber.backward(&mut z, aim);
        assert!(z[0].is_nan());
    }
}
