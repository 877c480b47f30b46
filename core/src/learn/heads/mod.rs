//! Heads: a head is a loss with everything that it needs at the end of a model; one head per file.
//!
//! A head defines the activation that the output layer must have (the two are computed together, because
//! computing them separately loses digits), the targets that it can learn and the number of outputs that these
//! need, the loss, and its gradient. To add a head, add a file with a [`Head`] and a line in the registry below.
//!
//! [`piece`](super::piece) flushes subnormal numbers to zero before it calls `forward` and `backward`, so heads need not
//! handle them. Numbers that are not finite pass through and make the loss not finite; the control machine handles that.

mod binary_crossentropy;
mod categorical_crossentropy;
mod huber;
mod mean_absolute_error;
mod mean_squared_error;
mod options;

use super::activations::Activation;
use crate::data::schema::{Target, Truth};
use crate::registry::registry;

pub use options::{LossOption, LossOptions};

registry! {
    /// A loss function.
    pub enum Loss: dyn Head, "loss", "losses" {
        /// `-(y log p + (1 - y) log (1 - p))`, the mean over a sample's labels and over the samples.
        BinaryCrossentropy = binary_crossentropy::BinaryCrossentropy,
        /// `-Σ y_i log p_i`, the mean over the samples.
        CategoricalCrossentropy = categorical_crossentropy::CATEGORICAL,
        /// Squared near the target and linear far from it, the mean over a sample's numbers and over the samples.
        Huber = huber::Huber,
        /// `Σ |z_i - y_i| / k`, the mean over the samples.
        MeanAbsoluteError = mean_absolute_error::MeanAbsoluteError | "mae",
        /// `Σ (z_i - y_i)² / k`, the mean over the samples.
        MeanSquaredError = mean_squared_error::MeanSquaredError | "mse",
        /// The categorical cross-entropy, as Keras calls it where targets are classes.
        SparseCategoricalCrossentropy = categorical_crossentropy::SPARSE,
    }
}

/// The interface of a loss.
pub(crate) trait Head: Sync {
    /// Keras' name.
    fn name(&self) -> &'static str;

    /// The activation that the output layer must have.
    fn activation(&self) -> Activation;

    /// The outputs that the loss needs, for errors: "probabilities".
    fn needs(&self) -> &'static str;

    /// The options that the loss has, by name.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// How many outputs the loss needs to learn this target.
    ///
    /// # Errors
    /// What the loss needs instead, if it can't learn this target.
    fn outputs(&self, target: Target) -> Result<u32, &'static str>;

    /// The sum of the samples' weighted losses, added in row order ([`Aim::sum`]). `z`, `[rows, width]`, has the sums of the output layer and
    /// becomes the model's outputs.
    fn forward(&self, z: &mut [f32], aim: Aim<'_>, scratch: &mut LossScratch) -> f64;

    /// The gradient with respect to `z` of the sum of the losses, without their weights; overwrites the outputs,
    /// `[rows, width]`.
    fn backward(&self, outputs: &mut [f32], aim: Aim<'_>);

    /// The mean loss of a constant prediction, the same for every sample; a trained model's loss is below it. `None` if the
    /// loss does not say.
    fn of_a_constant(&self, _outputs: usize, _truth: Truth<'_>) -> Option<f64> {
        None
    }
}

/// What the outputs of some rows are to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim<'a> {
    /// Outputs of a row.
    pub(crate) width: usize,
    /// The rows' targets.
    pub(crate) truth: Truth<'a>,
    /// The options of the loss.
    pub(crate) options: LossOptions,
    /// `[rows]` weights; empty if each counts as one.
    pub(crate) weights: &'a [f32],
}

impl Aim<'_> {
    /// The sum of the rows' losses, each times its weight.
    fn sum(self, losses: impl Iterator<Item = f64>) -> f64 {
        let weight = |row: usize| self.weights.get(row).map_or(1.0, |weight| f64::from(*weight));
        losses.enumerate().fold(0.0, |sum, (row, loss)| sum + weight(row) * loss)
    }

    /// Multiplies the gradient of each row by its weight.
    pub(crate) fn weigh(self, gradients: &mut [f32]) {
        for (row, weight) in gradients.chunks_exact_mut(self.width).zip(self.weights) {
            row.iter_mut().for_each(|slope| *slope *= weight);
        }
    }
}

impl Loss {
    /// The activation that the output layer must have.
    pub fn activation(self) -> Activation {
        self.get().activation()
    }

    /// The outputs that the loss needs, for errors: "probabilities".
    pub fn needs(self) -> &'static str {
        self.get().needs()
    }

    /// The options that the loss has, by name.
    pub fn options(self) -> &'static [&'static str] {
        self.get().options()
    }

    /// How many outputs the loss needs to learn this target.
    ///
    /// # Errors
    /// What the loss needs instead, if it can't learn this target.
    pub fn outputs(self, target: Target) -> Result<u32, &'static str> {
        self.get().outputs(target)
    }

    /// The losses that can learn this target, with the activation and the number of outputs that each needs.
    pub fn that_learn(target: Target) -> impl Iterator<Item = (Self, Activation, u32)> {
        let fitting = move |&loss: &Self| Some((loss, loss.activation(), loss.outputs(target).ok()?));
        Self::ALL.iter().filter_map(fitting)
    }

    /// The mean loss of a model that predicts the same for every sample.
    pub(crate) fn of_a_constant(self, outputs: usize, truth: Truth<'_>) -> Option<f64> {
        self.get().of_a_constant(outputs, truth)
    }
}

/// Per-row scratch space, reused from one piece to the next.
#[derive(Debug, Default)]
pub(crate) struct LossScratch {
    pub(crate) totals: Vec<f32>,
    pub(crate) chosen: Vec<f32>,
}

/// How many outputs a loss of plain numbers needs.
fn outputs_of_numbers(target: Target) -> Result<u32, &'static str> {
    match target {
        Target::Reals { width } => Ok(width),
        Target::Class { .. } => Err("targets that are numbers"),
    }
}

/// The sum over the samples of the mean over a sample's numbers of `loss(z - y)`.
fn mean_over_numbers(z: &[f32], aim: Aim<'_>, loss: impl Fn(f64) -> f64) -> f64 {
    let rows = z.chunks_exact(aim.width).zip(aim.truth.reals().chunks_exact(aim.width));
    let of_row = |(z, y): (&[f32], &[f32])| {
        let losses = z.iter().zip(y).map(|(z, y)| loss(f64::from(*z - y)));
        losses.fold(0.0, |sum, loss| sum + loss) / aim.width as f64
    };
    aim.sum(rows.map(of_row))
}

/// `z ← slope(z - y) / width`: the gradient of [`mean_over_numbers`].
fn slopes_of_numbers(outputs: &mut [f32], aim: Aim<'_>, slope: impl Fn(f32) -> f32) {
    for (z, y) in outputs.iter_mut().zip(aim.truth.reals()) {
        *z = slope(*z - y) / aim.width as f32;
    }
}

/// A column of the targets at a time.
fn columns(outputs: usize, truth: Truth<'_>) -> impl Iterator<Item = Vec<f64>> {
    let column = move |column| truth.reals().iter().skip(column).step_by(outputs).map(|&y| f64::from(y));
    (0..outputs).map(move |index| column(index).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An aim without options and weights.
    pub(crate) fn aim(width: usize, truth: Truth<'_>) -> Aim<'_> {
        Aim { width, truth, options: LossOptions::default(), weights: &[] }
    }

    /// Truths of each kind that a loss can learn, for 4 rows.
    fn truths(loss: Loss) -> Vec<(Truth<'static>, usize)> {
        let classes: &[(u32, &[u32])] = &[(2, &[0, 1, 1, 0]), (3, &[2, 0, 1, 1])];
        let of_classes = classes.iter().filter_map(|&(classes, labels)| {
            Some((Truth::Classes(labels), loss.outputs(Target::Class { classes }).ok()? as usize))
        });
        let reals: &[f32] = &[0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let of_reals =
            loss.outputs(Target::Reals { width: 2 }).ok().map(|width| (Truth::Reals(reals), width as usize));
        of_classes.chain(of_reals).collect()
    }

    #[test]
    fn every_gradient_is_the_slope_of_its_loss() {
        for &loss in Loss::ALL {
            let truths = truths(loss);
            assert!(!truths.is_empty(), "{loss} learns something");
            for (truth, width) in truths {
                let plain = LossOptions::default();
                let options = LossOptions { label_smoothing: 0.25, delta: 0.75 };
                for options in [plain, options] {
                    for weights in [&[][..], &[0.5, 3.0, 0.0, 1.0]] {
                        check_slopes(loss, Aim { width, truth, options, weights });
                    }
                }
            }
        }
    }

    fn check_slopes(loss: Loss, aim: Aim<'_>) {
        let z: Vec<f32> = (0..4 * aim.width).map(|i| (i as f32 * 0.7).sin() * 2.0 + 0.11).collect();
        let loss_at = |z: &[f32]| {
            let mut z = z.to_vec();
            (loss.get().forward(&mut z, aim, &mut LossScratch::default()), z)
        };
        let (_, mut gradient) = loss_at(&z);
        loss.get().backward(&mut gradient, aim);
        aim.weigh(&mut gradient);
        for (place, got) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut z = z.clone();
                z[place] += by;
                (loss_at(&z).0, f64::from(z[place]))
            };
            let ((above, from), (below, to)) = (moved(1e-2), moved(-1e-2));
            let slope = (above - below) / (from - to);
            assert!((f64::from(*got) - slope).abs() < 2e-4, "{loss} {aim:?} {place}: {got}, not {slope}");
        }
    }

    #[test]
    fn losses_are_known_by_keras_short_names_too() {
        assert_eq!("mse".parse(), Ok(Loss::MeanSquaredError));
        assert_eq!("mae".parse(), Ok(Loss::MeanAbsoluteError));
        assert_eq!(Loss::MeanSquaredError.to_string(), "mean_squared_error");
    }

    #[test]
    fn who_can_learn_a_target_is_known() {
        let learns = |target, loss| Loss::that_learn(target).any(|(other, ..)| other == loss);
        let (ten, number) = (Target::Class { classes: 10 }, Target::Reals { width: 1 });
        assert!(learns(ten, Loss::CategoricalCrossentropy) && !learns(ten, Loss::BinaryCrossentropy));
        assert!(learns(number, Loss::MeanSquaredError) && !learns(number, Loss::CategoricalCrossentropy));
    }
}
