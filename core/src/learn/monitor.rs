//! What early stopping and schedules look at: one figure of every finished epoch, named as in `history.jsonl`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::metrics::Metric;
use crate::registry::{ParseNameError, suggestion};
use crate::view::EpochRow;

/// A figure of an epoch: `loss`, `val_loss`, or a metric with or without `val_`.
///
/// Figures of the test set are none: a model chosen by them would be tested by what it was chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Whether the figure is over the validation split; otherwise it is over the training split.
    pub validation: bool,
    /// The metric; `None` is the loss.
    pub metric: Option<Metric>,
}

impl Monitor {
    /// Keras' default.
    pub const VAL_LOSS: Self = Self { validation: true, metric: None };

    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        let figures =
            || std::iter::once(None).chain(Metric::NAMED.into_iter().filter(Metric::is_a_number).map(Some));
        [false, true]
            .into_iter()
            .flat_map(move |validation| figures().map(move |metric| Self { validation, metric }))
    }

    /// The figure in a row of the history; `None` if the row has no such figure.
    pub fn of(self, row: &EpochRow) -> Option<f64> {
        match (self.validation, self.metric) {
            (false, None) => Some(row.loss),
            (true, None) => row.val_loss,
            (false, Some(metric)) => row.metric(&metric.name())?.train,
            (true, Some(metric)) => row.metric(&metric.name())?.validation,
        }
    }

    /// Whether more of it is better.
    pub fn rises(self) -> bool {
        self.metric.is_some_and(|metric| metric.rises())
    }

    /// Whether a value is better by more than `min_delta` than the best one before, if there is one.
    pub fn improves(self, value: f64, best: Option<f64>, min_delta: f64) -> bool {
        let Some(best) = best else { return !value.is_nan() };
        if self.rises() { value > best + min_delta } else { value < best - min_delta }
    }

    /// Whether a value is at least as good as a goal.
    pub fn reaches(self, value: f64, goal: f64) -> bool {
        if self.rises() { value >= goal } else { value <= goal }
    }
}

impl Display for Monitor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let split = if self.validation { "val_" } else { "" };
        match self.metric {
            None => write!(f, "{split}loss"),
            Some(metric) => write!(f, "{split}{metric}"),
        }
    }
}

impl FromStr for Monitor {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let (validation, name) = text.strip_prefix("val_").map_or((false, text), |name| (true, name));
        if name == "loss" {
            return Ok(Self { validation, metric: None });
        }
        if let Some(metric) = name.parse().ok().filter(Metric::is_a_number) {
            return Ok(Self { validation, metric: Some(metric) });
        }
        if text.starts_with("test_") {
            let what = "a model chosen by the test set would no longer be tested by it; monitor the validation split";
            return Err(ParseNameError(what.to_string()));
        }
        let names: Vec<_> = Self::all().map(|monitor| monitor.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Err(ParseNameError(format!("unknown figure; {}", suggestion(text, "figures", &names))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_as_in_the_history() {
        let names: Vec<_> = Monitor::all().map(|monitor| monitor.to_string()).collect();
        assert_eq!(names[..3], ["loss", "accuracy", "precision"]);
        assert!(
            names.contains(&"val_r2_score".to_owned()) && !names.contains(&"confusion_matrix".to_owned())
        );
        assert!("val_top_3_accuracy".parse::<Monitor>().is_ok());
        for name in names {
            assert_eq!(name.parse::<Monitor>().unwrap().to_string(), name);
        }
        assert!("test_loss".parse::<Monitor>().unwrap_err().to_string().contains("validation"));
    }

    #[test]
    fn losses_fall_and_accuracies_rise() {
        let [loss, accuracy] = ["val_loss", "val_accuracy"].map(|name| name.parse::<Monitor>().unwrap());
        assert!(loss.improves(0.4, Some(0.5), 0.05) && !loss.improves(0.46, Some(0.5), 0.05));
        assert!(accuracy.improves(0.6, Some(0.5), 0.05) && !accuracy.improves(0.4, Some(0.5), 0.0));
        assert!(loss.improves(9.0, None, 0.0) && !loss.improves(f64::NAN, None, 0.0));
        assert!(loss.reaches(0.5, 0.5) && accuracy.reaches(0.5, 0.5) && !accuracy.reaches(0.4, 0.5));
    }
}
