//! Heads: a head is a loss with everything that it needs at the end of a model; one head per file.
//!
//! A head defines the activation that the output layer must have (the two are computed together, because
//! computing them separately loses digits), the targets that it can learn and the number of outputs that these
//! need, the loss, and its gradient. To add a head, add a file with a [`Head`] and a line in the registry below.
//!
//! [`piece`](super::piece) flushes subnormal numbers to zero before it calls `forward` and `backward`, so heads need not
//! handle them. Numbers that are not finite pass through and make the loss not finite; the control machine handles that.

mod categorical_crossentropy;
mod mean_squared_error;

use super::activations::Activation;
use crate::data::schema::{Target, Truth};
use crate::registry::registry;

registry! {
    /// A loss function.
    pub enum Loss: dyn Head, "loss", "losses" {
        /// `-Σ y_i log p_i`, the mean over the samples.
        CategoricalCrossentropy = categorical_crossentropy::CategoricalCrossentropy,
        /// `Σ (z_i - y_i)² / k`, the mean over the samples.
        MeanSquaredError = mean_squared_error::MeanSquaredError,
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

    /// How many outputs the loss needs to learn this target.
    ///
    /// # Errors
    /// What the loss needs instead, if it can't learn this target.
    fn outputs(&self, target: Target) -> Result<u32, &'static str>;

    /// The sum of the samples' losses, added in row order. `z`, `[rows, width]`, has the sums of the output layer and
    /// becomes the model's outputs.
    fn forward(&self, z: &mut [f32], width: usize, truth: Truth<'_>, scratch: &mut LossScratch) -> f64;

    /// The gradient of that sum with respect to `z`; overwrites the outputs, `[rows, width]`.
    fn backward(&self, outputs: &mut [f32], width: usize, truth: Truth<'_>);

    /// The mean loss of a constant prediction, the same for every sample; a trained model's loss is below it. `None` if the
    /// loss does not say.
    fn of_a_constant(&self, _outputs: usize, _truth: Truth<'_>) -> Option<f64> {
        None
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

    /// How many outputs the loss needs to learn this target.
    ///
    /// # Errors
    /// What the loss needs instead, if it can't learn this target.
    pub fn outputs(self, target: Target) -> Result<u32, &'static str> {
        self.get().outputs(target)
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
