//! What a worker must know of a job.

use crate::data::split::Sizes;
use crate::job::{Layer, Loss};

/// What a worker must know of a job to compute any piece of it.
///
/// The optimizer, the number of epochs and the metrics are not here: they stay with the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The seed of every random number.
    pub seed: u64,
    /// Into how many shards each split is cut.
    pub shards: u32,
    /// Samples in a step, over the whole cluster; the job's `replicas` are multiplied in.
    pub batch_size: u32,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Every input value is multiplied by this.
    pub scale: f32,
    /// Input values of a sample.
    pub inputs: u32,
    /// Outputs of the last layer: the classes of the labels.
    pub classes: u32,
    /// The layers, from input to output.
    pub layers: Vec<Layer>,
    /// What is minimised.
    pub loss: Loss,
    /// How many samples each split has.
    pub sizes: Sizes,
}
