//! Top-k accuracy: the share of samples whose class is among the k largest outputs. A job names k: `top_5_accuracy`.
//!
//! Keras' `top_k_categorical_accuracy` counts a class as within the k largest if fewer than k outputs are larger. Here equal
//! outputs are ordered by their class, so that k = 1 is the accuracy.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, of_classes};
use crate::data::schema::Target;

/// The share of samples whose class is among the k largest outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopKAccuracy {
    /// At least 1.
    k: u32,
}

impl TopKAccuracy {
    /// The metric of this name, `top_5_accuracy` for example.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("top_")?.strip_suffix("_accuracy")?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        Some(Self { k: digits.parse().ok().filter(|_| is_plain)? })
    }
}

impl Measure for TopKAccuracy {
    fn name(&self) -> Cow<'static, str> {
        format!("top_{}_accuracy", self.k).into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::InTop(self.k)
    }

    fn figure(&self, Tallied { samples, counts, .. }: Tallied<'_>) -> Option<f64> {
        Some(counts[0] as f64 / samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_k() {
        assert_eq!(TopKAccuracy::named("top_5_accuracy"), Some(TopKAccuracy { k: 5 }));
        for name in
            ["top_0_accuracy", "top_05_accuracy", "top_+5_accuracy", "top__accuracy", "top_k_accuracy"]
        {
            assert_eq!(TopKAccuracy::named(name), None, "{name}");
        }
        assert_eq!(TopKAccuracy { k: 12 }.name(), "top_12_accuracy");
    }

    #[test]
    fn it_is_the_share_of_samples_in_the_top() {
        let top = TopKAccuracy { k: 5 };
        assert_eq!(top.figure(Tallied { samples: 8, counts: &[7], sums: &[] }), Some(0.875));
    }
}
