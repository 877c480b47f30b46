//! Metrics, reported besides the loss; one metric per file, or one family.
//!
//! A metric is a figure of a [`Tally`]: of counts and sums over samples, which are added up over pieces as losses are. It
//! is therefore exact over any number of shards, never a mean of means. Metrics that need the same tally share it. The
//! accuracy's count has a field of its own beside the others ([`Figures`](super::sum::Figures)), since most jobs have no
//! other; the [`Layout`] says where the rest lies.
//!
//! Training steps keep at most [`LIGHT`] numbers, so that tallies don't slow each step down. A tally that is more has a
//! [lighter](Tally::lighter) one in its place, or its metrics are not measured on the training batches.
//!
//! To add a metric, add a file with a [`Measure`], and a variant, its name and its arm here. One that needs other counts
//! or sums adds a variant to [`Tally`] too.

mod accuracy;
mod area;
mod auc;
mod confusion_matrix;
mod f1_score;
mod mean_errors;
mod pr_auc;
mod precision;
mod r2_score;
mod recall;
mod tally;
mod top_k_accuracy;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::data::schema::Target;
use crate::data::split::Split;
use crate::registry::ParseNameError;

pub use area::binned_roc_area;
pub use confusion_matrix::{Confusion, OfClass};
pub(crate) use tally::{Rows, Tally};
pub use top_k_accuracy::TopKAccuracy;

/// Training steps keep at most this many counts and sums.
pub const LIGHT: usize = 4096;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The share of samples whose largest output is the right class.
    Accuracy,
    /// The share of samples whose class is among the k largest outputs.
    TopKAccuracy(TopKAccuracy),
    /// Of the samples predicted to be of a class, the share that are: the mean over the classes.
    Precision,
    /// Of the samples of a class, the share predicted to be: the mean over the classes.
    Recall,
    /// The harmonic mean of precision and recall of a class: the mean over the classes.
    F1Score,
    /// How many samples of each class are predicted to be of each class; it has no figure of its own.
    ConfusionMatrix,
    /// The area under the ROC curve of two classes.
    Auc,
    /// The area under the precision-recall curve of two classes.
    PrAuc,
    /// The mean squared error.
    Mse,
    /// The same by its long name.
    MeanSquaredError,
    /// The mean absolute error.
    Mae,
    /// The same by its long name.
    MeanAbsoluteError,
    /// The root of the mean squared error.
    RootMeanSquaredError,
    /// The same by its short name.
    Rmse,
    /// The coefficient of determination.
    R2Score,
}

impl Metric {
    /// Those with a fixed name.
    pub(crate) const NAMED: [Self; 14] = [
        Self::Accuracy,
        Self::Precision,
        Self::Recall,
        Self::F1Score,
        Self::ConfusionMatrix,
        Self::Auc,
        Self::PrAuc,
        Self::Mse,
        Self::MeanSquaredError,
        Self::Mae,
        Self::MeanAbsoluteError,
        Self::RootMeanSquaredError,
        Self::Rmse,
        Self::R2Score,
    ];

    /// What its file says of it.
    fn get(&self) -> &dyn Measure {
        match self {
            Self::Accuracy => &accuracy::Accuracy,
            Self::TopKAccuracy(top) => top,
            Self::Precision => &precision::Precision,
            Self::Recall => &recall::Recall,
            Self::F1Score => &f1_score::F1Score,
            Self::ConfusionMatrix => &confusion_matrix::ConfusionMatrix,
            Self::Auc => &auc::Auc,
            Self::PrAuc => &pr_auc::PrAuc,
            Self::Mse => &mean_errors::MSE,
            Self::MeanSquaredError => &mean_errors::MEAN_SQUARED_ERROR,
            Self::Mae => &mean_errors::MAE,
            Self::MeanAbsoluteError => &mean_errors::MEAN_ABSOLUTE_ERROR,
            Self::RootMeanSquaredError => &mean_errors::ROOT_MEAN_SQUARED_ERROR,
            Self::Rmse => &mean_errors::RMSE,
            Self::R2Score => &r2_score::R2Score,
        }
    }

    /// The name, as in a job file; a history has the figures under it.
    pub fn name(&self) -> Cow<'static, str> {
        self.get().name()
    }

    /// Checks that the metric can be computed for this target.
    ///
    /// # Errors
    /// What the metric needs instead.
    pub fn fits(&self, target: Target) -> Result<(), &'static str> {
        self.get().fits(target)
    }

    /// What is counted for it.
    pub(crate) fn tally(&self) -> Tally {
        self.get().tally()
    }

    /// Whether it is one number, which a history can have.
    pub(crate) fn is_a_number(&self) -> bool {
        !matches!(self, Self::ConfusionMatrix)
    }

    /// Whether more of it is better.
    pub fn rises(&self) -> bool {
        self.get().rises()
    }

    /// The figure; `None` if it is not defined for these samples, as the area under a curve where there is one class only.
    pub(crate) fn figure(&self, tallied: Tallied<'_>) -> Option<f64> {
        self.get().figure(tallied).filter(|figure| tallied.samples > 0 && figure.is_finite())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl FromStr for Metric {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMED.into_iter().find(|metric| metric.name() == text);
        let top = || TopKAccuracy::named(text).map(Self::TopKAccuracy);
        named.or_else(top).ok_or_else(|| {
            let names: Vec<Cow<'_, str>> = Self::NAMED.iter().map(Self::name).collect();
            let known: Vec<&str> = names.iter().map(AsRef::as_ref).chain(["top_5_accuracy"]).collect();
            // Keras' short name of the accuracy is nearer to `auc` than to its own.
            let meant = if text == "acc" { "accuracy" } else { text };
            ParseNameError::unknown("metric", meant, "metrics", &known)
        })
    }
}

/// The interface of a metric.
pub(crate) trait Measure: Sync {
    /// Keras' name.
    fn name(&self) -> Cow<'static, str>;

    /// Checks that the metric can be computed for this target.
    ///
    /// # Errors
    /// What the metric needs instead.
    fn fits(&self, target: Target) -> Result<(), &'static str>;

    /// What is counted for it.
    fn tally(&self) -> Tally;

    /// Whether more of it is better.
    fn rises(&self) -> bool {
        true
    }

    /// The figure that follows from its tally; `None` if these samples define none.
    fn figure(&self, tallied: Tallied<'_>) -> Option<f64>;
}

/// What a tally has counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tallied<'a> {
    /// The number of samples.
    pub(crate) samples: u64,
    pub(crate) counts: &'a [u64],
    pub(crate) sums: &'a [f64],
}

/// What a metric of classes needs.
fn of_classes(target: Target) -> Result<(), &'static str> {
    match target {
        Target::Class { .. } => Ok(()),
        Target::Reals { .. } => Err("targets that are classes"),
    }
}

/// What a metric of two classes needs.
fn of_two_classes(target: Target) -> Result<(), &'static str> {
    match target {
        Target::Class { classes: 2 } => Ok(()),
        Target::Class { .. } | Target::Reals { .. } => Err("targets of two classes"),
    }
}

/// What a metric of numbers needs.
fn of_numbers(target: Target) -> Result<(), &'static str> {
    match target {
        Target::Reals { .. } => Ok(()),
        Target::Class { .. } => Err("targets that are numbers"),
    }
}

/// Where the tallies of a split lie among its counts and sums. The accuracy's is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    places: Vec<Place>,
    counts: usize,
    sums: usize,
}

/// Where a tally lies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tally: Tally,
    counts: Range<usize>,
    sums: Range<usize>,
}

impl Layout {
    /// The tallies of these metrics, for samples of this split.
    pub fn of(metrics: &[Metric], target: Target, split: Split) -> Self {
        let mut layout = Self::default();
        for tally in metrics.iter().map(Metric::tally).filter(|tally| *tally != Tally::Correct) {
            let most = if split == Split::Train { LIGHT } else { usize::MAX };
            let has_room = |tally: &Tally| {
                let (counts, sums) = tally.size(target);
                counts.saturating_add(sums) <= most - layout.counts - layout.sums
            };
            if layout.place(tally).is_none() {
                let kept = [Some(tally), tally.lighter()].into_iter().flatten().find(has_room);
                kept.into_iter().for_each(|tally| layout.append(tally, target));
            }
        }
        layout
    }

    fn append(&mut self, tally: Tally, target: Target) {
        let ((first_count, first_sum), (counts, sums)) = ((self.counts, self.sums), tally.size(target));
        (self.counts, self.sums) = (first_count + counts, first_sum + sums);
        let (counts, sums) = (first_count..self.counts, first_sum..self.sums);
        self.places.push(Place { tally, counts, sums });
    }

    /// Where a tally lies, or the one in its place.
    fn place(&self, tally: Tally) -> Option<&Place> {
        self.places.iter().find(|place| place.tally == tally || tally.lighter() == Some(place.tally))
    }

    /// How many counts there are.
    pub fn counts(&self) -> usize {
        self.counts
    }

    /// How many sums there are.
    pub fn sums(&self) -> usize {
        self.sums
    }

    /// Adds rows to every tally.
    pub(crate) fn add(&self, rows: Rows<'_>, counts: &mut [u64], sums: &mut [f64]) {
        for place in &self.places {
            place.tally.add(rows, &mut counts[place.counts.clone()], &mut sums[place.sums.clone()]);
        }
    }

    /// What a tally has counted; `None` if it is not kept here.
    pub(crate) fn tallied<'a>(
        &self,
        tally: Tally,
        samples: u64,
        (counts, sums): (&'a [u64], &'a [f64]),
    ) -> Option<Tallied<'a>> {
        let place = self.place(tally)?;
        let (counts, sums) = (counts.get(place.counts.clone())?, sums.get(place.sums.clone())?);
        Some(Tallied { samples, counts, sums })
    }

    /// Whether counts can be those of this many samples: a worker's may be anything.
    pub fn fits(&self, samples: u64, counts: &[u64], sums: &[f64]) -> bool {
        (counts.len(), sums.len()) == (self.counts, self.sums)
            && self.places.iter().all(|place| place.tally.fits(samples, &counts[place.counts.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let top = TopKAccuracy::named("top_3_accuracy").map(Metric::TopKAccuracy);
        for metric in Metric::NAMED.into_iter().chain(top) {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        let error = |text: &str| text.parse::<Metric>().unwrap_err().to_string();
        assert_eq!(error("f1_scor"), "unknown metric; did you mean `f1_score`?");
        assert!(error("zzz").ends_with("r2_score, top_5_accuracy"), "{}", error("zzz"));
    }

    #[test]
    fn metrics_share_tallies_and_heavy_ones_are_not_kept_in_training() {
        let target = Target::Class { classes: 100 };
        let metrics = [Metric::Accuracy, Metric::Precision, Metric::ConfusionMatrix, Metric::F1Score];
        let sizes = |split| {
            let layout = Layout::of(&metrics, target, split);
            (layout.counts(), layout.sums())
        };
        assert_eq!(sizes(Split::Test), (300 + 10_000, 0));
        assert_eq!(sizes(Split::Train), (300, 0));
        assert_eq!(Layout::of(&[Metric::Accuracy], target, Split::Test), Layout::default());
        // Several that are light alone may be too many together.
        let (top, classes) =
            (TopKAccuracy::named("top_3_accuracy"), Target::Class { classes: LIGHT as u32 / 3 });
        let metrics: Vec<_> = [Metric::Recall].into_iter().chain(top.map(Metric::TopKAccuracy)).collect();
        assert_eq!(Layout::of(&metrics, classes, Split::Train).counts(), LIGHT);
        let metrics = [&metrics[..], &[Metric::Auc]].concat();
        assert!(Layout::of(&metrics, classes, Split::Train).counts() <= LIGHT);
    }

    #[test]
    fn a_layout_refuses_what_cannot_be() {
        let target = Target::Class { classes: 2 };
        let layout = Layout::of(&[Metric::F1Score], target, Split::Test);
        // Of class 0: two samples, one of them predicted; of class 1: one sample, predicted twice.
        let counts = [1, 1, 1, 2, 2, 1];
        assert!(layout.fits(3, &counts, &[]));
        assert!(!layout.fits(2, &counts, &[]) && !layout.fits(3, &counts[1..], &[]));
        assert!(!layout.fits(3, &counts, &[0.5]));
        assert!(!layout.fits(3, &[1, 1, u64::MAX, 4, 2, 1], &[]), "it does not overflow");
    }
}
