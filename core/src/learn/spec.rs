//! What a worker must know of a job.

use std::ops::RangeInclusive;

use super::heads::{Loss, LossOptions};
use super::layers::{Layer, Normalization, Regularizer};
use super::limits::{self, MAX_LAYERS, POSITIVE, SHARDS, UNITS};
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
    /// Its options.
    pub options: LossOptions,
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

    /// The number of parameters.
    pub fn parameters(&self) -> u64 {
        limits::parameters(self.inputs() as u64, &self.layers)
    }

    /// Checks all that holds for the spec of a valid job, so that a spec from another process is as good as one.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), String> {
        within("`shards`", self.shards, SHARDS)?;
        within("`batch_size`", self.batch_size, POSITIVE)?;
        if !self.scale.is_normal() {
            return Err(format!("inputs cannot be multiplied by {}", self.scale));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(format!("{} layers are too many, {MAX_LAYERS} the most", self.layers.len()));
        }
        for layer in &self.layers {
            match *layer {
                Layer::Dense(dense) => {
                    within("the number of units", dense.units, UNITS)?;
                    let Regularizer { l1, l2 } = dense.kernel_regularizer;
                    if [l1, l2].into_iter().any(|factor| Regularizer::problem_of(factor).is_some()) {
                        return Err(format!("a regulariser is {l1}, {l2}"));
                    }
                }
                Layer::LayerNormalization(Normalization { epsilon, .. }) => {
                    if Normalization::problem_of(epsilon).is_some() {
                        return Err(format!("an epsilon is {epsilon}"));
                    }
                }
                Layer::Dropout { rate } if (0.0..1.0).contains(&rate) => {}
                Layer::Dropout { rate } => return Err(format!("a dropout rate is {rate}")),
            }
        }
        for option in self.options.all() {
            if let Some(problem) = option.problem {
                return Err(format!("{} is {}: {problem}", option.name, option.value));
            }
        }
        self.check_layers()?;
        for metric in &self.metrics {
            metric.fits(self.schema.target).map_err(|needs| format!("{metric} needs {needs}"))?;
        }
        limits::check_parameters(self.inputs() as u64, &self.layers)
    }

    /// Checks that the layers can learn the target by the loss, as those of a valid job can.
    ///
    /// # Errors
    /// What is wrong with the layers.
    fn check_layers(&self) -> Result<(), String> {
        let (loss, activation) = (self.loss, self.loss.activation());
        let outputs = loss.outputs(self.schema.target).map_err(|needs| format!("{loss} needs {needs}"))?;
        let hidden = |layer: &Layer| match layer {
            Layer::Dense(dense) => dense.activation.fits_hidden_layers(),
            Layer::Dropout { .. } | Layer::LayerNormalization(_) => true,
        };
        match self.layers.split_last() {
            Some((Layer::Dense(last), rest))
                if (last.units, last.activation) == (outputs, activation) && rest.iter().all(hidden) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "the layers do not end in {activation} with {outputs} units, and have it there only"
            )),
        }
    }
}

fn within(what: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), String> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(format!("{what} is {value}, not from {} to {}", range.start(), range.end())),
    }
}
