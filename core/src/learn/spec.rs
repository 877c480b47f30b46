//! What a worker must know of a job.

use super::heads::Loss;
use super::layers::Layer;
use super::metrics::Metric;
use crate::data::schema::Schema;
use crate::data::split::Sizes;

/// What a worker must know of a job to compute any piece of it.
///
/// The optimizer and the number of epochs are not here: they stay with the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The seed of every random number.
    pub seed: u64,
    /// How many shards each split is partitioned into.
    pub shards: u32,
    /// Samples in a step, over the whole cluster; the job's `replicas` are multiplied in.
    pub batch_size: u32,
    /// Whether each epoch has its own random order.
    pub shuffle: bool,
    /// The factor that multiplies every input value.
    pub scale: f32,
    /// The layout of a sample.
    pub schema: Schema,
    /// The layers, from input to output.
    pub layers: Vec<Layer>,
    /// The loss.
    pub loss: Loss,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// How many samples each split has.
    pub sizes: Sizes,
}

impl Spec {
    /// Input values of a sample.
    pub fn inputs(&self) -> usize {
        self.schema.features.width()
    }

    /// Checks that the layers can learn the target by the loss, as those of a valid job can.
    ///
    /// # Errors
    /// What is wrong with the layers.
    pub fn check_layers(&self) -> Result<(), String> {
        let (loss, activation) = (self.loss, self.loss.activation());
        let outputs = loss.outputs(self.schema.target).map_err(|needs| format!("{loss} needs {needs}"))?;
        let hidden = |layer: &Layer| match layer {
            Layer::Dense { activation, .. } => activation.fits_hidden_layers(),
            Layer::Dropout { .. } => true,
        };
        match self.layers.split_last() {
            Some((&Layer::Dense { units, activation: last }, rest))
                if (units, last) == (outputs, activation) && rest.iter().all(hidden) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "the layers do not end in {activation} with {outputs} units, and have it there only"
            )),
        }
    }
}
