//! PR AUC: the area under the precision-recall curve of two classes, in steps. [`area`] says how exact it is.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, area, of_two_classes};
use crate::data::schema::Target;

/// The area under the precision-recall curve.
pub(crate) struct PrAuc;

impl Measure for PrAuc {
    fn name(&self) -> Cow<'static, str> {
        "pr_auc".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_two_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::Scores
    }

    fn figure(&self, tallied: Tallied<'_>) -> Option<f64> {
        area::of_precision_and_recall(tallied.counts)
    }
}
