//! A data set: all samples there are, decoded and checked.

use thiserror::Error;

use super::formats::idx::file::IdxError;
use super::grouped;
use super::schema::Schema;

/// Everything there is to learn from and to test with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// What each sample is.
    pub schema: Schema,
    /// What trains and what validates.
    pub train: Samples,
    /// What tests.
    pub test: Samples,
    /// The files that it comes from, in the order in which a job's hash has them.
    pub files: Vec<DataFile>,
}

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// What it is called in a receipt, wherever it lies.
    pub name: String,
    /// SHA-256, in hex, of its content, uncompressed.
    pub sha256: String,
}

/// Samples in file order, laid out by a [`Schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// How many there are.
    pub len: u32,
    /// `[len]` features, each as wide as the schema's.
    pub features: Vec<u8>,
    /// `[len]` targets.
    pub targets: Vec<u8>,
}

/// Why files do not make a data set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DataError {
    /// A file is not what it should be.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// Images and labels differ in number.
    #[error(
        "{labels_file}: {} labels for the {} images in {images_file} (put two files of one data set here)",
        grouped(*labels), grouped(*images)
    )]
    Counts {
        /// Where the images are.
        images_file: String,
        /// How many they are.
        images: u64,
        /// Where the labels are.
        labels_file: String,
        /// How many they are.
        labels: u64,
    },
    /// Training and test images differ in shape.
    #[error(
        "{test_file}: images of {} × {} pixels, but those in {train_file} have {} × {} \
         (put two files of one data set here)", test.0, test.1, train.0, train.1
    )]
    Shapes {
        /// Where the training images are.
        train_file: String,
        /// Their rows and columns.
        train: (usize, usize),
        /// Where the test images are.
        test_file: String,
        /// Their rows and columns.
        test: (usize, usize),
    },
    /// A label is not a class.
    #[error("{file}: the label at index {} is {value} (there are {classes} classes, 0 to {})", grouped(*index), classes - 1)]
    Label {
        /// Where the labels are.
        file: String,
        /// Which label, from 0.
        index: u64,
        /// What it is.
        value: u32,
        /// How many classes there are.
        classes: u32,
    },
}
