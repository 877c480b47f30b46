//! What is counted and summed over samples, so that metrics follow from it.
//!
//! Counts are integers, so their order does not matter. Sums are `f64`, added in the order of the rows within a piece and
//! in the order of the reduction tree between pieces.

use super::{Tallied, area};
use crate::data::schema::{Target, Truth};
use crate::learn::activations::softmax::largest;

/// Outputs and targets of some samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// The model's outputs, `[samples, width]`.
    pub(crate) outputs: &'a [f32],
    pub(crate) width: usize,
    pub(crate) truth: Truth<'a>,
}

/// What is counted or summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// One count: samples whose class is predicted.
    Correct,
    /// One count: samples whose class is among the k most probable ones.
    InTop(u32),
    /// For each class, how many samples of it are predicted to be of it; then for each class, how many are predicted to be
    /// of it; then for each class, how many are of it.
    ByClass,
    /// `[classes, classes]` counts: a row is a class, a column a prediction.
    Confusion,
    /// How many samples of class 0 have a score in each [bin](area::bin), then the same of class 1.
    Scores,
    /// The same in [coarse bins](area::coarse_bin).
    CoarseScores,
    /// One sum: of the squared differences, the mean over a sample's numbers.
    SquaredErrors,
    /// One sum: of the absolute differences, the mean over a sample's numbers.
    AbsoluteErrors,
    /// For each number of a target three sums: of the targets, of their squares, of the squared differences.
    Variation,
}

impl Tally {
    /// What is counted in its place where it is too much to count.
    pub(crate) fn lighter(self) -> Option<Self> {
        (self == Self::Scores).then_some(Self::CoarseScores)
    }

    /// The number of its counts and of its sums.
    pub(crate) fn size(self, target: Target) -> (usize, usize) {
        let (classes, width) = match target {
            Target::Class { classes } => (classes as usize, 0),
            Target::Reals { width } => (0, width as usize),
        };
        match self {
            Self::Correct | Self::InTop(_) => (1, 0),
            Self::ByClass => (classes.saturating_mul(3), 0),
            Self::Confusion => (classes.saturating_mul(classes), 0),
            Self::Scores => (2 * area::BINS, 0),
            Self::CoarseScores => (2 * area::COARSE_BINS, 0),
            Self::SquaredErrors | Self::AbsoluteErrors => (0, 1),
            Self::Variation => (0, width.saturating_mul(3)),
        }
    }

    /// Adds rows.
    pub(crate) fn add(self, rows: Rows<'_>, counts: &mut [u64], sums: &mut [f64]) {
        match self {
            Self::Correct => counts[0] += rows.correct(),
            Self::InTop(k) => {
                counts[0] += rows.of_classes().filter(|(row, y)| rank(row, *y) < k as usize).count() as u64
            }
            Self::ByClass => {
                let (correct, rest) = counts.split_at_mut(counts.len() / 3);
                let (predicted, actual) = rest.split_at_mut(correct.len());
                for (row, class) in rows.of_classes() {
                    let prediction = predicted_class(row);
                    correct[class] += u64::from(prediction == class);
                    predicted[prediction] += 1;
                    actual[class] += 1;
                }
            }
            Self::Confusion => {
                let classes = counts.len().isqrt();
                rows.of_classes()
                    .for_each(|(row, class)| counts[class * classes + predicted_class(row)] += 1);
            }
            Self::Scores => {
                rows.of_classes().for_each(|(row, class)| counts[class * area::BINS + area::bin(row)] += 1)
            }
            Self::CoarseScores => rows
                .of_classes()
                .for_each(|(row, class)| counts[class * area::COARSE_BINS + area::coarse_bin(row)] += 1),
            Self::SquaredErrors => sums[0] += rows.mean_errors(|difference| difference * difference),
            Self::AbsoluteErrors => sums[0] += rows.mean_errors(f64::abs),
            Self::Variation => {
                for (row, truth) in rows.of_numbers() {
                    for ((sums, z), y) in sums.as_chunks_mut::<3>().0.iter_mut().zip(row).zip(truth) {
                        let (z, y) = (f64::from(*z), f64::from(*y));
                        sums[0] += y;
                        sums[1] += y * y;
                        sums[2] += (z - y) * (z - y);
                    }
                }
            }
        }
    }

    /// Whether these can be the counts of so many samples.
    pub(crate) fn fits(self, samples: u64, counts: &[u64]) -> bool {
        let total = |counts: &[u64]| counts.iter().try_fold(0, |sum: u64, &count| sum.checked_add(count));
        let all = Some(samples);
        match self {
            Self::Correct | Self::InTop(_) => counts.iter().all(|count| *count <= samples),
            Self::ByClass => {
                let (correct, rest) = counts.split_at(counts.len() / 3);
                let (predicted, actual) = rest.split_at(correct.len());
                let bounds = predicted.iter().zip(actual).map(|(predicted, actual)| predicted.min(actual));
                total(predicted) == all
                    && total(actual) == all
                    && correct.iter().zip(bounds).all(|(correct, bound)| correct <= bound)
            }
            Self::Confusion | Self::Scores | Self::CoarseScores => total(counts) == all,
            Self::SquaredErrors | Self::AbsoluteErrors | Self::Variation => counts.is_empty(),
        }
    }
}

impl<'a> Rows<'a> {
    /// Samples whose class is predicted.
    pub(crate) fn correct(self) -> u64 {
        self.of_classes().filter(|(row, class)| predicted_class(row) == *class).count() as u64
    }

    fn of_classes(self) -> impl Iterator<Item = (&'a [f32], usize)> {
        let classes = self.truth.classes().iter().map(|class| *class as usize);
        self.outputs.chunks_exact(self.width).zip(classes)
    }

    fn of_numbers(self) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
        self.outputs.chunks_exact(self.width).zip(self.truth.reals().chunks_exact(self.width))
    }

    /// The sum over the samples of the mean of a function of a sample's differences.
    fn mean_errors(self, error: impl Fn(f64) -> f64) -> f64 {
        let mean = |(row, truth): (&[f32], &[f32])| {
            let errors = row.iter().zip(truth).map(|(z, y)| error(f64::from(*z) - f64::from(*y)));
            errors.fold(0.0, |sum, error| sum + error) / self.width as f64
        };
        self.of_numbers().map(mean).fold(0.0, |sum, mean| sum + mean)
    }
}

/// What [`Tally::ByClass`] has counted of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByClass {
    /// Its samples that are predicted to be of it.
    pub(crate) correct: u64,
    /// The samples that are predicted to be of it.
    pub(crate) predicted: u64,
    /// Its samples.
    pub(crate) actual: u64,
}

impl ByClass {
    /// Every class.
    pub(crate) fn all(counts: &[u64]) -> impl ExactSizeIterator<Item = Self> {
        let classes = counts.len() / 3;
        let at = move |class| Self {
            correct: counts[class],
            predicted: counts[classes + class],
            actual: counts[2 * classes + class],
        };
        (0..classes).map(at)
    }

    /// `correct / predicted`.
    pub(crate) fn precision(self) -> f64 {
        share(self.correct, self.predicted)
    }

    /// `correct / actual`.
    pub(crate) fn recall(self) -> f64 {
        share(self.correct, self.actual)
    }

    /// `2 correct / (predicted + actual)`.
    pub(crate) fn f1_score(self) -> f64 {
        share(2 * self.correct, self.predicted + self.actual)
    }
}

/// `part / whole`, and 0 of nothing, as Keras has it.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean of a figure over the classes.
pub(crate) fn mean_over_classes(tallied: Tallied<'_>, figure: fn(ByClass) -> f64) -> Option<f64> {
    let classes = ByClass::all(tallied.counts);
    let number = classes.len() as f64;
    Some(classes.map(figure).fold(0.0, |sum, figure| sum + figure) / number)
}

/// The class that a row of outputs predicts: the largest one, the first if several are equal. One output alone is the
/// probability of class 1, which is predicted above one half, as Keras' `binary_accuracy` has it.
fn predicted_class(row: &[f32]) -> usize {
    match *row {
        [probability] => usize::from(probability > 0.5),
        _ => largest(row),
    }
}

/// How many classes are before this one, if they are sorted by their outputs, equal ones by their number.
fn rank(row: &[f32], class: usize) -> usize {
    match row {
        [_] => usize::from(predicted_class(row) != class),
        _ => {
            let own = row[class];
            let is_before = |(other, value): (usize, &f32)| *value > own || (*value == own && other < class);
            row.iter().enumerate().filter(|other| is_before(*other)).count()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a tally has counted of these rows.
    fn tallied(tally: Tally, target: Target, rows: Rows<'_>) -> (Vec<u64>, Vec<f64>) {
        let (counts, sums) = tally.size(target);
        let (mut counts, mut sums) = (vec![0; counts], vec![0.0; sums]);
        tally.add(rows, &mut counts, &mut sums);
        assert!(tally.fits(rows.outputs.len() as u64 / rows.width as u64, &counts));
        (counts, sums)
    }

    const THREE: Target = Target::Class { classes: 3 };
    /// The predictions are 0, 2, 1, 0: the last row has two equal outputs.
    const OUTPUTS: [f32; 12] = [0.5, 0.3, 0.2, 0.1, 0.2, 0.7, 0.3, 0.6, 0.1, 0.4, 0.4, 0.2];

    #[test]
    fn classes_are_counted() {
        let rows = Rows { outputs: &OUTPUTS, width: 3, truth: Truth::Classes(&[0, 1, 1, 1]) };
        assert_eq!(rows.correct(), 2);
        let counts = |tally| tallied(tally, THREE, rows).0;
        assert_eq!(counts(Tally::Correct), [2]);
        assert_eq!(counts(Tally::InTop(1)), [2], "the first of equal outputs is the prediction");
        assert_eq!(counts(Tally::InTop(2)), [4]);
        assert_eq!(counts(Tally::ByClass), [1, 1, 0, /* predicted */ 2, 1, 1, /* actual */ 1, 3, 0]);
        assert_eq!(counts(Tally::Confusion), [1, 0, 0, /* of class 1 */ 1, 1, 1, /* of class 2 */ 0, 0, 0]);
    }

    #[test]
    fn one_output_predicts_class_1_above_one_half() {
        let outputs = [0.5, 0.51, 0.2, f32::NAN];
        let rows = Rows { outputs: &outputs, width: 1, truth: Truth::Classes(&[0, 1, 1, 0]) };
        assert_eq!(rows.correct(), 3);
        let two = Target::Class { classes: 2 };
        assert_eq!(tallied(Tally::InTop(1), two, rows).0, [3]);
        assert_eq!(tallied(Tally::InTop(2), two, rows).0, [4]);
        assert_eq!(tallied(Tally::Confusion, two, rows).0, [2, 0, 1, 1]);
    }

    #[test]
    fn errors_are_summed() {
        // The differences are 1, -2 and 0, 4.
        let rows =
            Rows { outputs: &[1.0, 0.0, 3.0, 4.0], width: 2, truth: Truth::Reals(&[0.0, 2.0, 3.0, 0.0]) };
        let sums = |tally| tallied(tally, Target::Reals { width: 2 }, rows).1;
        assert_eq!(sums(Tally::SquaredErrors), [(1.0 + 4.0) / 2.0 + 16.0 / 2.0]);
        assert_eq!(sums(Tally::AbsoluteErrors), [1.5 + 2.0]);
        assert_eq!(sums(Tally::Variation), [3.0, 9.0, 1.0, /* of the second numbers */ 2.0, 4.0, 20.0]);
    }
}
