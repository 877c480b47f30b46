//! The training, validation and test splits.
//!
//! As in Keras, the *last* share of the training file is the validation split, cut off before any shuffle, and
//! the test file is a split of its own. A split counts its samples from 0: validation sample 0 is the first after
//! the cut.

use std::fmt;

/// A part of the data, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The samples that the model is trained on.
    Train,
    /// The end of the training file: evaluated after each epoch, never trained on.
    Validation,
    /// The test file.
    Test,
}

impl Split {
    /// All splits, in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// `train`, `validation` or `test`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many samples each split has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The size of [`Split::Train`].
    pub train: u32,
    /// The size of [`Split::Validation`].
    pub validation: u32,
    /// The size of [`Split::Test`].
    pub test: u32,
}

impl Sizes {
    /// Splits a training file of `train_file` samples: the first ⌊n · (1 - `validation_split`)⌋ train.
    ///
    /// The product is computed in `f64`, exactly as Keras does
    /// (`keras.src.trainers.data_adapters.data_adapter_utils`, `train_validation_split`), so that equal jobs
    /// split at equal places. A validation split so large that no training samples are left gives `train: 0`; the
    /// job decides whether that is allowed.
    pub fn new(train_file: u32, test_file: u32, validation_split: f64) -> Self {
        let train = (f64::from(train_file) * (1.0 - validation_split)).floor() as u32;
        let train = train.min(train_file);
        Self { train, validation: train_file - train, test: test_file }
    }

    /// The size of `split`.
    pub fn of(&self, split: Split) -> u32 {
        match split {
            Split::Train => self.train,
            Split::Validation => self.validation,
            Split::Test => self.test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_article_trains_on_the_first_48_000() {
        let sizes = Sizes::new(60_000, 10_000, 0.2);
        assert_eq!(sizes, Sizes { train: 48_000, validation: 12_000, test: 10_000 });
    }

    #[test]
    fn the_split_is_rounded_as_in_keras() {
        // 1 - 0.9 is a little below 0.1 in f64, so ten samples leave none to train, in Keras too.
        assert_eq!(Sizes::new(10, 1, 0.9).train, 0);
        assert_eq!(Sizes::new(10, 1, 0.0).train, 10);
        assert_eq!(Sizes::new(7, 1, 0.5).train, 3);
    }
}
