//! Four files put together: training and test images with their labels.
//!
//! [`Dataset::decode`] is a function of the files' bytes. The two pairs are decoded side by side, because the
//! start of a command waits for it; the result does not depend on that. What no file can know of itself is
//! checked here: as many labels as images, one shape of image, labels that are classes.

use std::thread;

use thiserror::Error;

use super::idx::{Idx, IdxError, Kind};
use super::{NamedFile, grouped};

/// The files of a data set, as MNIST's are named; each may have `.gz` behind its name.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// How many classes there are: labels go from 0 to 9.
pub const CLASSES: u8 = 10;

/// Everything there is to learn from and to test with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The training file: what trains and what validates.
    pub train: Samples,
    /// The test file; its images have the training images' shape.
    pub test: Samples,
    /// SHA-256, in hex, of each uncompressed file, in the order of [`FILES`].
    pub hashes: [String; 4],
}

/// Images with their labels, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// Rows and columns of an image.
    pub image: (usize, usize),
    /// `[samples, rows · columns]`, row-major.
    pub pixels: Vec<u8>,
    /// `[samples]`, each below [`CLASSES`].
    pub labels: Vec<u8>,
}

impl Samples {
    /// How many samples there are.
    pub fn len(&self) -> u32 {
        self.labels.len() as u32
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of an image.
    pub fn width(&self) -> usize {
        self.image.0 * self.image.1
    }
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
    #[error("{file}: the label at index {} is {value} (there are {CLASSES} classes, 0 to 9)", grouped(*index))]
    Label {
        /// Where the labels are.
        file: String,
        /// Which label, from 0.
        index: u64,
        /// What it is.
        value: u8,
    },
}

impl Dataset {
    /// Decodes `files`, given in the order of [`FILES`], and checks them against each other.
    ///
    /// # Errors
    ///
    /// The first [`DataError`], training files first.
    pub fn decode(files: [NamedFile; 4]) -> Result<Self, DataError> {
        let [train_file, _, test_file, _] = files.each_ref().map(|file| file.name.clone());
        let [train_images, train_labels, test_images, test_labels] = files;
        let (train, test) = thread::scope(|scope| {
            let test = scope.spawn(|| pair(test_images, test_labels));
            let train = pair(train_images, train_labels);
            (train, test.join().expect("bad files give errors"))
        });
        let ((train, [images, labels]), (test, [test_images, test_labels])) = (train?, test?);
        if train.image != test.image {
            return Err(DataError::Shapes { train_file, train: train.image, test_file, test: test.image });
        }
        Ok(Self { train, test, hashes: [images, labels, test_images, test_labels] })
    }
}

/// Samples and the two files' hashes.
fn pair(images: NamedFile, labels: NamedFile) -> Result<(Samples, [String; 2]), DataError> {
    let (images_file, labels_file) = (images.name.clone(), labels.name.clone());
    let images = Idx::decode(images, Kind::Images)?;
    let labels = Idx::decode(labels, Kind::Labels)?;
    if images.dims[0] != labels.dims[0] {
        let [images, labels] = [images.dims[0] as u64, labels.dims[0] as u64];
        return Err(DataError::Counts { images_file, images, labels_file, labels });
    }
    check_labels(labels_file, &labels.values)?;
    let image = (images.dims[1], images.dims[2]);
    let samples = Samples { image, pixels: images.values, labels: labels.values };
    Ok((samples, [images.sha256, labels.sha256]))
}

fn check_labels(file: String, labels: &[u8]) -> Result<(), DataError> {
    match labels.iter().position(|&label| label >= CLASSES) {
        None => Ok(()),
        Some(index) => Err(DataError::Label { file, index: index as u64, value: labels[index] }),
    }
}
