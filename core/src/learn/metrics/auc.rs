//! AUC: the area under the ROC curve of two classes. [`area`] says how exact it is.

use std::borrow::Cow;

use super::{Measure, Tallied, Tally, area, of_two_classes};
use crate::data::schema::Target;

/// The area under the ROC curve.
pub(crate) struct Auc;

impl Measure for Auc {
    fn name(&self) -> Cow<'static, str> {
        "auc".into()
    }

    fn fits(&self, target: Target) -> Result<(), &'static str> {
        of_two_classes(target)
    }

    fn tally(&self) -> Tally {
        Tally::Scores
    }

    fn figure(&self, tallied: Tallied<'_>) -> Option<f64> {
        area::of_roc(tallied.counts)
    }
}
