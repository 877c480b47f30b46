//! A directory with four IDX files, named as MNIST's are: training and test images with their labels.
//!
//! People have them as `train-images-idx3-ubyte`, `train-images.idx3-ubyte` or `emnist-letters-train-images-idx3-ubyte`,
//! each also with `.gz`, for the test set with `t10k` or `test`; in the directory itself or where torchvision puts them.
//!
//! The two pairs are decoded in parallel, because a command can't start before; the result does not depend on
//! that. This module checks what spans several files: as many labels as images, and the same image shape in both
//! pairs.

pub mod file;
pub mod mnist;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread;

use self::file::{Element, Idx, Kind};
use super::array::{Array, Values};
use super::{Content, Files, Format, Request};
use crate::data::NamedFile;
use crate::data::address::is_address;
use crate::data::dataset::{DataError, DataFile};
use crate::data::part::{Part, RawFeatures};
use crate::data::request::Wanted;
use crate::failure::{Failure, FailureKind};

/// A file's part in a data set.
#[derive(Clone, Copy)]
struct Role {
    /// Words for the split in the file's name, the usual one first.
    split: &'static [&'static str],
    kind: Kind,
}

const TRAIN: &[&str] = &["train"];
const TEST: &[&str] = &["t10k", "test"];

/// The files of a data set, in its order.
const ROLES: [Role; 4] = [
    Role { split: TRAIN, kind: Kind::Images },
    Role { split: TRAIN, kind: Kind::Labels },
    Role { split: TEST, kind: Kind::Images },
    Role { split: TEST, kind: Kind::Labels },
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

    fn read(&self, directory: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let wrong = |what: String| Err(Failure::at(FailureKind::Data, directory.display(), what));
        // A store has no directories: what is missing there is said of a file.
        if !is_address(directory) && !files.is_directory(directory) {
            let what = if files.exists(directory)? {
                "is a file, not a directory"
            } else {
                "there is no such directory"
            };
            return wrong(format!("{what} (data.source, or --data, names one with the four IDX files)"));
        }
        let named = |role: &Role| named(&role.find(directory, files)?, role.kind, files);
        let files = ROLES.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        content(files, request.wanted)
    }
}

/// MNIST, which is built into the program.
///
/// # Errors
/// If it were damaged.
pub fn mnist() -> Result<Content, Failure> {
    content(mnist::files(), Wanted::default())
}

/// Decodes the four files, in a data set's order.
///
/// # Errors
/// The first problem found.
pub fn content(files: Vec<NamedFile>, wanted: Wanted) -> Result<Content, Failure> {
    let Ok([train_images, train_labels, test_images, test_labels]) = <[NamedFile; 4]>::try_from(files) else {
        unreachable!("four files were read")
    };
    let (train, test) = thread::scope(|scope| {
        let test = scope.spawn(|| Pair::decode(test_images, test_labels));
        let train = Pair::decode(train_images, train_labels);
        (train, test.join().expect("bad files give errors"))
    });
    let (train, test) = (train?, test?);
    train.check_shape(&test)?;
    let files = [&train.images, &train.labels, &test.images, &test.labels].map(File::data_file).to_vec();
    Ok(Content { train: train.into_part(wanted)?, test: Some(test.into_part(wanted)?), files })
}

impl Role {
    /// Its file, raw or gzipped.
    fn find(self, directory: &Path, files: &dyn Files) -> Result<PathBuf, Failure> {
        let inner = directory.join(TORCHVISION);
        for directory in [directory, &inner] {
            if !files.is_directory(directory) {
                continue;
            }
            let names = files.list(directory)?;
            let mut found: Vec<&String> = names.iter().filter(|name| self.has(name)).collect();
            // A file and its gzipped copy are one, and so are the two ways to write its name.
            found.sort_by_key(|name| (canonical(name), name.contains(".idx"), name.ends_with(".gz")));
            let others = found.iter().find(|name| canonical(name) != canonical(found[0]));
            match (found.first(), others) {
                (Some(name), None) => return Ok(directory.join(name)),
                (Some(name), Some(other)) => {
                    let what =
                        format!("which is to be read, {name} or {other}? (give each data set a directory)");
                    return Err(Failure::at(FailureKind::Data, directory.display(), what));
                }
                (None, _) => {}
            }
        }
        let [name, dotted] = ["-", "."].map(|mark| self.usual_name(mark));
        let what = format!("missing (neither it nor {name}.gz nor {dotted} is there, nor in {TORCHVISION})");
        Err(Failure::at(FailureKind::Data, directory.join(name).display(), what))
    }

    /// Whether a file of this name has this part.
    fn has(self, name: &str) -> bool {
        let name = canonical(name);
        let Some((words, form)) = name.rsplit_once("-idx") else { return false };
        let is_form = form.starts_with(|rank: char| rank.is_ascii_digit());
        let splits = self.split.iter().any(|split| words.split('-').any(|word| word == *split));
        is_form && splits && words.ends_with(&format!("{}s", self.kind.sample()))
    }

    fn usual_name(self, mark: &str) -> String {
        let [_, _, _, rank] = self.kind.magic();
        format!("{}-{}{mark}idx{rank}-ubyte", self.split[0], self.kind)
    }
}

/// A file's name as MNIST's are written: without `.gz`, with a hyphen for the dot that programs that unpack archives write.
fn canonical(name: &str) -> String {
    name.strip_suffix(".gz").unwrap_or(name).replacen(".idx", "-idx", 1)
}

fn named(path: &Path, kind: Kind, files: &dyn Files) -> Result<NamedFile, Failure> {
    let bytes = files.read(path, &|start| file::worth_reading(start, kind))?;
    Ok(NamedFile { name: path.display().to_string(), bytes: Cow::Owned(bytes) })
}

/// A decoded file with its name.
struct File {
    name: String,
    idx: Idx,
}

impl File {
    fn decode(file: NamedFile, kind: Kind) -> Result<Self, DataError> {
        Ok(Self { name: file.name.clone(), idx: Idx::decode(file, kind)? })
    }

    fn data_file(&self) -> DataFile {
        let name =
            Path::new(&self.name).file_name().map_or_else(Default::default, |name| name.to_string_lossy());
        DataFile { name: canonical(&name), sha256: self.idx.sha256.clone() }
    }
}

/// Images with their labels.
struct Pair {
    images: File,
    labels: File,
}

impl Pair {
    fn decode(images: NamedFile, labels: NamedFile) -> Result<Self, DataError> {
        let (images, labels) = (File::decode(images, Kind::Images)?, File::decode(labels, Kind::Labels)?);
        let [count, label_count] = [&images, &labels].map(|file| file.idx.dims[0] as u64);
        if count != label_count {
            return Err(DataError::Counts {
                images_file: images.name,
                images: count,
                labels_file: labels.name,
                labels: label_count,
            });
        }
        Ok(Self { images, labels })
    }

    /// Rows and columns of an image, or the number of values in a row.
    fn shape(&self) -> Vec<u32> {
        self.images.idx.dims[1..].iter().map(|&side| side as u32).collect()
    }

    fn check_shape(&self, test: &Self) -> Result<(), DataError> {
        if self.shape() == test.shape() {
            return Ok(());
        }
        Err(DataError::Shapes {
            train_file: self.images.name.clone(),
            train: self.shape(),
            test_file: test.images.name.clone(),
            test: test.shape(),
        })
    }

    fn into_part(self, wanted: Wanted) -> Result<Part, Failure> {
        let Self { images, labels } = self;
        // A byte for each sample is a label, whatever the loss would learn.
        let wanted = match (labels.idx.element, &labels.idx.dims[..]) {
            (Element::U8, [_]) => Wanted { classes: true, ..wanted },
            _ => wanted,
        };
        let targets = labels.idx.into_array(labels.name).into_targets(wanted)?;
        let (name, len) = (images.name.clone(), images.idx.dims[0]);
        let features = images.idx.into_features(images.name)?;
        Ok(Part { name, len, features, targets: Some(targets), weights: None })
    }
}

impl Idx {
    /// Its samples as features: bytes as they are, other numbers as `f32`. `name` is the file's.
    ///
    /// # Errors
    /// The first value that is no finite number.
    pub fn into_features(self, name: String) -> Result<RawFeatures, Failure> {
        self.into_array(name).into_features(true)
    }

    fn into_array(self, place: String) -> Array {
        let Self { dims: shape, element, values, sha256: _ } = self;
        let values = Values::decode(element.dtype(), values).expect("every type of IDX is one of NumPy's");
        Array { place, shape, values }
    }
}
