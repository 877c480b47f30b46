//! A directory with four IDX files, named as MNIST's are: training and test images with their labels.
//!
//! The two pairs are decoded in parallel, because a command can't start before; the result does not depend on
//! that. This module checks what spans several files: as many labels as images, the same image shape in both
//! pairs, and labels that are classes.

pub mod file;
pub mod mnist;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread;

use self::file::{Idx, Kind};
use super::{Content, Files, Format, Request};
use crate::data::NamedFile;
use crate::data::dataset::{DataError, DataFile};
use crate::data::part::{Part, RawFeatures, RawTargets, TargetValues};
use crate::failure::{Failure, FailureKind};

/// The files of a data set, named as MNIST's are. Each may have the suffix `.gz`, and a dot for its second hyphen, as programs
/// that unpack archives name them.
const FILES: [(&str, Kind); 4] = [
    ("train-images-idx3-ubyte", Kind::Images),
    ("train-labels-idx1-ubyte", Kind::Labels),
    ("t10k-images-idx3-ubyte", Kind::Images),
    ("t10k-labels-idx1-ubyte", Kind::Labels),
];

/// Where torchvision puts the files within the directory that it is given.
const TORCHVISION: &str = "MNIST/raw";

/// Four IDX files in a directory.
pub(crate) struct IdxDirectory;

impl Format for IdxDirectory {
    fn name(&self) -> &'static str {
        "idx"
    }

    fn claims(&self, path: &Path) -> bool {
        path.extension().is_none()
    }

    fn has_test_set(&self) -> bool {
        true
    }

    fn read(&self, directory: &Path, _: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let wrong = |what| Err(Failure::at(FailureKind::Data, directory.display(), what));
        if !files.exists(directory)? {
            return wrong(
                "there is no such directory (data.source, or --data, names one with the four IDX files)",
            );
        }
        if !files.is_directory(directory) {
            return wrong(
                "is a file, not a directory (data.source, or --data, names one with the four IDX files)",
            );
        }
        let named = |(name, kind): &(&str, Kind)| named(&find(directory, name, files)?, *kind, files);
        let files = FILES.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        content(files)
    }
}

/// MNIST, which is built into the program.
///
/// # Errors
/// If it were damaged.
pub fn mnist() -> Result<Content, Failure> {
    content(mnist::files())
}

/// Decodes the four files, in a data set's order.
///
/// # Errors
/// The first problem found.
pub fn content(files: Vec<NamedFile>) -> Result<Content, Failure> {
    decode(files).map_err(|error| Failure::new(FailureKind::Data, error.to_string()))
}

fn decode(files: Vec<NamedFile>) -> Result<Content, DataError> {
    let Ok([train_images, train_labels, test_images, test_labels]) = <[NamedFile; 4]>::try_from(files) else {
        unreachable!("four files were read")
    };
    let (train_file, test_file) = (train_images.name.clone(), test_images.name.clone());
    let (train, test) = thread::scope(|scope| {
        let test = scope.spawn(|| pair(test_images, test_labels));
        let train = pair(train_images, train_labels);
        (train, test.join().expect("bad files give errors"))
    });
    let (train, test) = (train?, test?);
    if train.shape != test.shape {
        return Err(DataError::Shapes { train_file, train: train.shape, test_file, test: test.shape });
    }
    let hashes = train.hashes.iter().chain(&test.hashes);
    let file = |(&(name, _), sha256): (&(&str, Kind), &String)| DataFile {
        name: name.to_string(),
        sha256: sha256.clone(),
    };
    let files = FILES.iter().zip(hashes).map(file).collect();
    Ok(Content { train: train.part, test: Some(test.part), files })
}

/// The file of this name, raw or gzipped.
fn find(directory: &Path, name: &str, files: &dyn Files) -> Result<PathBuf, Failure> {
    let dotted = name.replacen("-idx", ".idx", 1);
    for directory in [directory, &directory.join(TORCHVISION)] {
        for name in [name, &dotted] {
            for path in [directory.join(name), directory.join(format!("{name}.gz"))] {
                if files.exists(&path)? {
                    return Ok(path);
                }
            }
        }
    }
    let what = format!("missing (neither it nor {name}.gz nor {dotted} is there, nor in {TORCHVISION})");
    Err(Failure::at(FailureKind::Data, directory.join(name).display(), what))
}

fn named(path: &Path, kind: Kind, files: &dyn Files) -> Result<NamedFile, Failure> {
    let bytes = files.read(path, &|start| file::worth_reading(start, kind))?;
    Ok(NamedFile { name: path.display().to_string(), bytes: Cow::Owned(bytes) })
}

/// Images with their labels.
struct Pair {
    part: Part,
    /// Rows and columns of an image, or the number of values in a row.
    shape: Vec<u32>,
    hashes: [String; 2],
}

fn pair(images: NamedFile, labels: NamedFile) -> Result<Pair, DataError> {
    let (images_file, labels_file) = (images.name.clone(), labels.name.clone());
    let images = Idx::decode(images, Kind::Images)?;
    let labels = Idx::decode(labels, Kind::Labels)?;
    if images.dims[0] != labels.dims[0] {
        let [images, labels] = [images.dims[0] as u64, labels.dims[0] as u64];
        return Err(DataError::Counts { images_file, images, labels_file, labels });
    }
    let shape: Vec<u32> = images.dims[1..].iter().map(|&side| side as u32).collect();
    let values = TargetValues::Labels(labels.values.iter().map(|&label| label.into()).collect());
    let targets = RawTargets { file: labels_file, columns: Vec::new(), values };
    let features = RawFeatures::Bytes { shape: shape.clone(), values: images.values };
    let part = Part { name: images_file, len: labels.values.len(), features, targets: Some(targets) };
    Ok(Pair { part, shape, hashes: [images.sha256, labels.sha256] })
}
