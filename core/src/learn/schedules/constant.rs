//! A constant learning rate.

use super::{ScheduleKey, Shape};

/// The same rate throughout.
pub(crate) struct Constant;

impl Shape for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn keys(&self) -> &'static [ScheduleKey] {
        &[]
    }

    fn rate(&self, _values: &[f64], rate: f64, _step: u64) -> f64 {
        rate
    }
}
