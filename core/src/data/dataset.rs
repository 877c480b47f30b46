//! A data set: all samples, decoded and checked.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::formats::idx::file::IdxError;
use super::grouped;
use super::inputs::Inputs;
use super::schema::{Schema, sides};
use super::split::Sizes;
use crate::failure::{Failure, FailureKind};

/// All training and test samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The layout of each sample.
    pub schema: Schema,
    /// The training samples, and after them the validation split.
    pub train: Samples,
    /// The test samples.
    pub test: Samples,
    /// How many samples each split has.
    pub sizes: Sizes,
    /// What the model takes and answers, in the words of the data.
    pub inputs: Inputs,
    /// The files that the data set was read from, in the order that a job's hash uses.
    pub files: Vec<DataFile>,
}

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The file's name in a receipt, wherever it is stored.
    pub name: String,
    /// SHA-256, in hex, of the uncompressed content.
    pub sha256: String,
}

impl DataFile {
    /// The file at this path, with its uncompressed content.
    pub fn of(path: &Path, content: &[u8]) -> Self {
        let name = path.file_name().map_or_else(|| "data".into(), |name| name.to_string_lossy());
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_string();
        Self { name, sha256: hex::encode(Sha256::digest(content)) }
    }
}

/// Samples in file order, laid out by a [`Schema`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// The number of samples.
    pub len: u32,
    /// `[len]` features, each as wide as the schema's.
    pub features: Vec<u8>,
    /// `[len]` targets.
    pub targets: Vec<u8>,
    /// `[len]` weights; empty if the schema has none.
    pub weights: Vec<f32>,
}

/// Why files could not be read as a data set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DataError {
    /// A file is not valid IDX.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// The number of images differs from the number of labels.
    #[error(
        "{labels_file}: {} labels for the {} images in {images_file} (put two files of one data set here)",
        grouped(*labels), grouped(*images)
    )]
    Counts {
        /// The file with the images.
        images_file: String,
        /// How many they are.
        images: u64,
        /// The file with the labels.
        labels_file: String,
        /// How many they are.
        labels: u64,
    },
    /// Training and test images differ in shape.
    #[error(
        "{test_file}: images of {} pixels, but those in {train_file} have {} (put two files of one data set here)",
        sides(test),
        sides(train)
    )]
    Shapes {
        /// The file with the training images.
        train_file: String,
        /// Their rows and columns, or the number of values in a row.
        train: Vec<u32>,
        /// The file with the test images.
        test_file: String,
        /// As `train`.
        test: Vec<u32>,
    },
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::new(FailureKind::Data, error.to_string())
    }
}
