//! What is reported beside the loss, one metric a file.
//!
//! A metric is a sum over samples, so that it is exact over any number of shards, and never a mean of means. A new one is a
//! file with a [`Measure`], and a line in the registry below.

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

/// What a metric's file says of it.
pub(crate) trait Measure: Sync {
    /// Keras' name.
    fn name(&self) -> &'static str;

    /// Whether it can be had of this target.
    ///
    /// # Errors
    /// What it needs instead.
    fn fits(&self, target: Target) -> Result<(), &'static str>;

    /// For how many samples it holds, of `outputs` `[samples, width]`.
    fn count(&self, outputs: &[f32], width: usize, truth: Truth<'_>) -> u64;
}

impl Metric {
    /// Whether it can be had of this target.
    ///
    /// # Errors
    /// What it needs instead.
    pub fn fits(self, target: Target) -> Result<(), &'static str> {
        self.get().fits(target)
    }
}
