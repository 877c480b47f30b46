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
use super::{Files, Format};
use crate::data::NamedFile;
use crate::data::dataset::{DataError, DataFile, Dataset, Samples};
use crate::data::schema::{Element, Features, Schema, Target};
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

/// Labels go from 0 to 9.
const TARGET: Target = Target::Class { classes: 10 };

/// Four IDX files in a directory.
pub(crate) struct IdxDirectory;

impl Format for IdxDirectory {
    fn name(&self) -> &'static str {
        "idx"
    }

    fn claims(&self, path: &Path) -> bool {
        path.extension().is_none()
    }

    fn target(&self) -> Option<Target> {
        Some(TARGET)
    }

    fn read(&self, directory: &Path, files: &dyn Files) -> Result<Vec<NamedFile>, Failure> {
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
        FILES.iter().map(|(name, kind)| named(&find(directory, name, files)?, *kind, files)).collect()
    }

    fn decode(&self, files: Vec<NamedFile>) -> Result<Dataset, DataError> {
        let Ok([train_images, train_labels, test_images, test_labels]) = <[NamedFile; 4]>::try_from(files)
        else {
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
        let hashes = train.hashes.into_iter().chain(test.hashes);
        let file =
            |(&(name, _), sha256): (&(&str, Kind), String)| DataFile { name: name.to_string(), sha256 };
        Ok(Dataset {
            schema: Schema {
                features: Features { element: Element::U8, shape: train.shape },
                target: TARGET,
            },
            train: train.samples,
            test: test.samples,
            files: FILES.iter().zip(hashes).map(file).collect(),
        })
    }
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
    samples: Samples,
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
    check_labels(labels_file, &labels.values)?;
    let len = labels.values.len() as u32;
    Ok(Pair {
        samples: Samples { len, features: images.values, targets: labels.values },
        shape: images.dims[1..].iter().map(|&side| side as u32).collect(),
        hashes: [images.sha256, labels.sha256],
    })
}

fn check_labels(file: String, labels: &[u8]) -> Result<(), DataError> {
    let Target::Class { classes } = TARGET else { unreachable!("labels are classes") };
    match TARGET.first_unknown(labels) {
        None => Ok(()),
        Some((index, value)) => Err(DataError::Label { file, index: index as u64, value, classes }),
    }
}
