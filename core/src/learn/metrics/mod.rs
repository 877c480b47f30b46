//! Metrics, reported besides the loss; one metric per file.
//!
//! A metric is a sum over samples, never a mean of means, so that it is exact over any number of shards. To add a
//! metric, add a file with a [`Measure`] and a line in the registry below.

mod accuracy;

use crate::data::schema::{Target, Truth};
use crate::registry::registry;

registry! {
    /// A metric.
    pub enum Metric: dyn Measure, "metric", "metrics" {
        /// The share of samples whose largest output is the right class.
        Accuracy = accuracy::Accuracy,
    }
}

/// The interface of a metric.
pub(crate) trait Measure: Sync {
    /// Keras' name.
    fn name(&self) -> &'static str;

    /// Checks that the metric can be computed for this target.
    ///
    /// # Errors
    /// What the metric needs instead.
    fn fits(&self, target: Target) -> Result<(), &'static str>;

    /// How many samples of `outputs`, `[samples, width]`, count for the metric.
    fn count(&self, outputs: &[f32], width: usize, truth: Truth<'_>) -> u64;
}

impl Metric {
    /// Checks that the metric can be computed for this target.
    ///
    /// # Errors
    /// What the metric needs instead.
    pub fn fits(self, target: Target) -> Result<(), &'static str> {
        self.get().fits(target)
    }
}
