//! When a job stops before its last epoch, and which epoch was its best.
//!
//! Both are functions of the history: of one figure of every finished epoch. The control machine follows it with a
//! [`Watch`], once, as each epoch ends. Whoever has the history, as after a restart or for `verify`, comes to the same.

use std::fmt::{self, Display, Formatter};

use super::monitor::Monitor;
use crate::view::EpochRow;

/// Stops where a figure no longer improves; Keras' callback `EarlyStopping`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// The figure.
    pub monitor: Monitor,
    /// After how many epochs without an improvement training stops. With 0, it stops at the first one.
    pub patience: u32,
    /// By how much a figure has to be better to count as an improvement.
    pub min_delta: f64,
    /// Whether the model is that of the best epoch; otherwise that of the last.
    pub restore_best: bool,
}

impl Default for EarlyStopping {
    /// Keras' defaults.
    fn default() -> Self {
        Self { monitor: Monitor::VAL_LOSS, patience: 0, min_delta: 0.0, restore_best: false }
    }
}

/// Stops once a figure is good enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopAt {
    /// The figure.
    pub metric: Monitor,
    /// The value that is good enough.
    pub value: f64,
}

/// The rules of a job; by default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stopping {
    /// Stops where a figure no longer improves.
    pub early: Option<EarlyStopping>,
    /// Stops once a figure is good enough.
    pub at: Option<StopAt>,
}

/// Why and when a job has stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopped {
    /// The last epoch, from 1.
    pub epoch: u64,
    /// The rule.
    pub reason: Reason,
}

/// Why a job has stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// A figure no longer improves.
    NoImprovement {
        /// The figure.
        monitor: Monitor,
        /// Its best value, in epoch `epoch`, from 1; `None` if it never had one.
        best: Option<(u64, f64)>,
    },
    /// A figure is good enough.
    Reached {
        /// The figure.
        metric: Monitor,
        /// Its value.
        value: f64,
    },
}

impl Display for Stopped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "stopped after epoch {}: ", self.epoch)?;
        match self.reason {
            Reason::NoImprovement { monitor, best: Some((epoch, value)) } => {
                write!(f, "{monitor} was best in epoch {epoch}, with {value}")
            }
            Reason::NoImprovement { monitor, best: None } => write!(f, "{monitor} was never a number"),
            Reason::Reached { metric, value } => write!(f, "{metric} is {value}"),
        }
    }
}

/// Follows the history of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    rules: Stopping,
    /// The best epoch so far, from 1, with its figure.
    best: Option<(u64, f64)>,
    /// Epochs since.
    waited: u32,
    stopped: Option<Stopped>,
}

impl Watch {
    /// Before the first epoch.
    pub fn new(rules: Stopping) -> Self {
        Self { rules, best: None, waited: 0, stopped: None }
    }

    /// After these epochs, or as many of them as there are before a rule stops the job.
    pub fn after(rules: Stopping, history: &[EpochRow]) -> Self {
        let mut watch = Self::new(rules);
        for row in history {
            if watch.stopped.is_none() {
                watch.see(row);
            }
        }
        watch
    }

    /// An epoch has ended. Returns whether it is the best so far.
    pub fn see(&mut self, row: &EpochRow) -> bool {
        let mut is_best = false;
        if let Some(EarlyStopping { monitor, patience, min_delta, .. }) = self.rules.early {
            self.waited = self.waited.saturating_add(1);
            let value = monitor.of(row).unwrap_or(f64::NAN);
            if monitor.improves(value, self.best.map(|(_, best)| best), min_delta) {
                (self.best, self.waited, is_best) = (Some((row.epoch, value)), 0, true);
            } else if self.waited >= patience && row.epoch > 1 {
                let reason = Reason::NoImprovement { monitor, best: self.best };
                self.stopped = Some(Stopped { epoch: row.epoch, reason });
            }
        }
        if let Some(StopAt { metric, value: goal }) = self.rules.at
            && let Some(value) = metric.of(row).filter(|value| metric.reaches(*value, goal))
        {
            let reason = Reason::Reached { metric, value };
            self.stopped.get_or_insert(Stopped { epoch: row.epoch, reason });
        }
        is_best
    }

    /// Why and when the job has stopped; `None` if it goes on.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// The epoch, from 1, whose model is the result, if it is not the last one.
    pub fn restored(&self) -> Option<u64> {
        let restores = self.rules.early.is_some_and(|early| early.restore_best);
        self.best.filter(|_| restores).map(|(epoch, _)| epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(losses: &[f64]) -> Vec<EpochRow> {
        let row = |(epoch, &loss): (u64, &f64)| EpochRow {
            epoch,
            loss,
            val_loss: Some(loss),
            ..EpochRow::default()
        };
        (1..).zip(losses).map(row).collect()
    }

    fn after(early: EarlyStopping, losses: &[f64]) -> Watch {
        Watch::after(Stopping { early: Some(early), at: None }, &rows(losses))
    }

    #[test]
    fn training_stops_after_so_many_epochs_without_an_improvement() {
        let early = EarlyStopping { patience: 2, restore_best: true, ..EarlyStopping::default() };
        assert_eq!(after(early, &[1.0, 0.5, 0.6]).stopped(), None);
        let watch = after(early, &[1.0, 0.5, 0.6, 0.5, 0.1]);
        let stopped = watch.stopped().unwrap();
        assert_eq!((stopped.epoch, watch.restored()), (4, Some(2)));
        assert_eq!(stopped.to_string(), "stopped after epoch 4: val_loss was best in epoch 2, with 0.5");
        assert_eq!(after(early, &[1.0, 0.5, 0.6, 0.4, 0.6]).stopped(), None);
    }

    #[test]
    fn without_patience_it_stops_at_the_first_epoch_that_is_no_improvement() {
        let early = EarlyStopping::default();
        assert_eq!(after(early, &[1.0, 0.5, 0.5]).stopped().unwrap().epoch, 3);
        assert_eq!(after(early, &[f64::NAN]).stopped(), None, "as Keras, which never stops after the first");
        assert_eq!(after(early, &[1.0, 0.5]).restored(), None);
    }

    #[test]
    fn small_improvements_do_not_count() {
        let early = EarlyStopping { patience: 1, min_delta: 0.1, ..EarlyStopping::default() };
        assert_eq!(after(early, &[1.0, 0.95]).stopped().unwrap().epoch, 2);
        assert_eq!(after(early, &[1.0, 0.85, 0.7]).stopped(), None);
    }

    #[test]
    fn training_stops_once_a_figure_is_good_enough() {
        let at = StopAt { metric: Monitor::VAL_LOSS, value: 0.5 };
        let stopping = Stopping { early: None, at: Some(at) };
        let stopped = Watch::after(stopping, &rows(&[1.0, 0.5, 0.1])).stopped().unwrap();
        assert_eq!(stopped.to_string(), "stopped after epoch 2: val_loss is 0.5");
    }

    #[test]
    fn epoch_by_epoch_it_comes_to_the_same_as_from_the_whole_history() {
        let early = EarlyStopping { patience: 2, ..EarlyStopping::default() };
        let stopping = Stopping { early: Some(early), at: None };
        let rows = rows(&[1.0, 0.9, 0.95, 0.8, 0.81, 0.82]);
        for split in 0..=rows.len() {
            let mut watch = Watch::after(stopping, &rows[..split]);
            rows[split..].iter().for_each(|row| _ = watch.see(row));
            assert_eq!(watch, Watch::after(stopping, &rows));
        }
    }
}
