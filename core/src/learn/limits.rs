//! The limits of a model and of its plan.
//!
//! A [job](crate::job) is checked against them when it is read, a [`Spec`](super::spec::Spec) when it comes from
//! another process. So code that computes one need not check sizes for overflow.

use std::ops::RangeInclusive;

use super::layers::{Dense, Layer};

/// More shards are of no use: each worker needs at most one, and there are at most 1,024 workers.
pub const SHARDS: RangeInclusive<u32> = 1..=1024;
/// The range of counts that must be at least 1.
pub const POSITIVE: RangeInclusive<u32> = 1..=u32::MAX;
/// Large enough for any model; small enough that sizes never overflow.
pub const UNITS: RangeInclusive<u32> = 1..=65_536;
/// The largest number of layers.
pub const MAX_LAYERS: usize = 256;
/// 1 GiB of `f32`: a typing error gives an error, not a process that runs out of memory.
pub const MAX_PARAMETERS: u64 = 1 << 28;

/// The number of parameters of layers above `inputs` input values.
pub fn parameters(inputs: u64, layers: &[Layer]) -> u64 {
    let (mut width, mut parameters) = (inputs, 0_u64);
    for layer in layers {
        match *layer {
            Layer::Dense(Dense { units, use_bias, .. }) => {
                let (units, rows) = (u64::from(units), width.saturating_add(use_bias.into()));
                parameters = parameters.saturating_add(rows.saturating_mul(units));
                width = units;
            }
            Layer::LayerNormalization(_) => parameters = parameters.saturating_add(width.saturating_mul(2)),
            Layer::Dropout { .. } => {}
        }
    }
    parameters
}

/// Checks that layers above `inputs` input values do not have too many parameters.
///
/// # Errors
/// If they have.
pub fn check_parameters(inputs: u64, layers: &[Layer]) -> Result<(), String> {
    match parameters(inputs, layers) {
        0..=MAX_PARAMETERS => Ok(()),
        parameters => {
            Err(format!("{parameters} parameters are too many, {MAX_PARAMETERS} the most; use fewer units"))
        }
    }
}
