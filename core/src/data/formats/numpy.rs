//! NumPy's arrays: `.npy` (one array, a table of numbers) and `.npz` (several by name), by the crates `npyz` and `zip`.
//!
//! An `.npz` has its training samples as `x_train` and `y_train`, as Keras' files do, or as `x` and `y`, or as scikit-learn
//! names them, `data` and `target`; and perhaps a test set, `x_test` and `y_test`. `target` in the job names another array
//! to learn; the features are then in the only other array of as many samples. `sample_weight` names the array of their
//! weights; those of the test set are then in `w_test`, say, beside `w_train`. Bytes with more than one axis beside the
//! samples', which are images, stay bytes; all other numbers become `f32`.
//!
//! Targets may be whole numbers (classes, or numbers to learn), rows of a single 1 among zeros (classes, one-hot), or
//! numbers. Arrays of Python objects are refused: to read them is to run their code.

use std::io::{Cursor, Read as _};
use std::path::Path;

use npyz::{NpyHeader, Order};
use zip::ZipArchive;

use super::array::{self, Array, Values};
use super::{Content, Files, Format, Request};
use crate::data::dataset::DataFile;
use crate::data::part::{Cells, Part, TableColumn};
use crate::data::request::{ColumnName, TableLayout, Wanted};
use crate::data::table::{Known, Plan, Use};
use crate::failure::{Failure, FailureKind};

/// One array: a table of numbers.
pub(crate) struct Npy;

/// Several arrays by name.
pub(crate) struct Npz;

/// The most bytes of a file, inflated.
const MAX_BYTES: u64 = 16 << 30;

impl Format for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }

    fn claims(&self, path: &Path) -> bool {
        has_ending(path, "npy")
    }

    fn read(&self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let bytes = files.read(path, &|_| MAX_BYTES + 1)?;
        let array = decode(path.display().to_string(), &bytes)?;
        let [rows, width] = array.shape[..] else {
            let axes = array.shape.len();
            return Err(
                array.failure(format_args!("has {axes} axes, and a table has two (samples, columns)"))
            );
        };
        let names = (0..width).map(|number| number.to_string()).collect();
        let plan = Plan::new(&array.place, names, request.layout, request.wanted, request.known)?;
        array.check_finite()?;
        let mut columns = Vec::new();
        for (place, planned) in
            plan.columns.iter().enumerate().filter(|(_, planned)| planned.is_for != Use::Dropped)
        {
            let numbers = (0..rows).map(|row| array.values.number(row * width + place)).collect();
            columns.push((
                planned.is_for,
                TableColumn { name: planned.name.clone(), cells: Cells::Numbers(numbers) },
            ));
        }
        let train = plan.part(&array.place, columns)?;
        Ok(Content { train, test: None, files: vec![DataFile::of(path, &bytes)] })
    }
}

impl Format for Npz {
    fn name(&self) -> &'static str {
        "npz"
    }

    fn claims(&self, path: &Path) -> bool {
        has_ending(path, "npz")
    }

    fn read(&self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let bytes = files.read(path, &|_| MAX_BYTES + 1)?;
        let mut archive = Archive::open(path.display().to_string(), &bytes)?;
        let names = archive.names();
        if let Known::Model(_) = request.known
            && let Some(features) = to_predict(&names)
        {
            let train = archive.part(Arrays { features, targets: None, weights: None }, request.wanted)?;
            return Ok(Content { train, test: None, files: Vec::new() });
        }
        let chosen = Names::of(&archive.file, &names, request.layout)?;
        let train = archive.part(chosen.train(), request.wanted)?;
        let test = chosen.test().map(|test| archive.part(test, request.wanted)).transpose()?;
        Ok(Content { train, test, files: vec![DataFile::of(path, &bytes)] })
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// The names of the arrays to read.
struct Names {
    features: String,
    targets: String,
    weights: Option<String>,
    has_test: bool,
    test_weights: Option<String>,
}

/// The arrays of a part.
#[derive(Clone, Copy)]
struct Arrays<'n> {
    features: &'n str,
    targets: Option<&'n str>,
    weights: Option<&'n str>,
}

/// The names that people give to features and targets.
const PAIRS: [(&str, &str); 4] =
    [("x_train", "y_train"), ("x", "y"), ("data", "target"), ("images", "labels")];

/// The array of the samples to predict for.
fn to_predict(names: &[String]) -> Option<&str> {
    let known = ["x", "x_test", "data", "images", "x_train"];
    let found = known.into_iter().find(|known| names.iter().any(|name| name == known));
    match names {
        [name] => Some(name),
        _ => found,
    }
}

impl Names {
    fn of(file: &str, names: &[String], layout: &TableLayout) -> Result<Self, Failure> {
        let has = |name: &str| names.iter().any(|other| other == name);
        let wrong = |what: String| Failure::at(FailureKind::Data, file, what);
        let named = |key: &str, column: &ColumnName| {
            let name = column.to_string();
            let none = || wrong(format!("{key}: there is no array {name}; there are {}", names.join(", ")));
            has(&name).then_some(name.clone()).ok_or_else(none)
        };
        let weights =
            layout.sample_weight.as_ref().map(|column| named("sample_weight", column)).transpose()?;
        let test_weights = weights.as_ref().and_then(|name| name.strip_suffix("_train"));
        let test_weights = test_weights.map(|name| format!("{name}_test")).filter(|name| has(name));
        let (features, targets) = match layout.target.first() {
            Some(target) => {
                let target = named("target", target)?;
                let is_other = |name: &&String| **name != target && Some(*name) != weights.as_ref();
                let others: Vec<_> =
                    names.iter().filter(is_other).filter(|name| !name.ends_with("_test")).collect();
                let [features] = others[..] else {
                    return Err(wrong(format!(
                        "beside {target} there are {} arrays, and one should have the features",
                        others.len()
                    )));
                };
                (features.clone(), target)
            }
            None => {
                let pair = PAIRS.iter().find(|(features, targets)| has(features) && has(targets));
                let (features, targets) = pair.ok_or_else(|| {
                    wrong(format!(
                        "which arrays have the samples? (name them x_train and y_train, or set target; there are {})",
                        names.join(", ")
                    ))
                })?;
                (features.to_string(), targets.to_string())
            }
        };
        let has_test = has("x_test") && has("y_test");
        Ok(Self { features, targets, weights, has_test, test_weights })
    }

    fn train(&self) -> Arrays<'_> {
        let Self { features, targets, weights, .. } = self;
        Arrays { features, targets: Some(targets), weights: weights.as_deref() }
    }

    fn test(&self) -> Option<Arrays<'_>> {
        let weights = self.test_weights.as_deref();
        self.has_test.then_some(Arrays { features: "x_test", targets: Some("y_test"), weights })
    }
}

/// The arrays of an `.npz`.
struct Archive<'a> {
    file: String,
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

impl<'a> Archive<'a> {
    fn open(file: String, bytes: &'a [u8]) -> Result<Self, Failure> {
        match ZipArchive::new(Cursor::new(bytes)) {
            Ok(zip) => Ok(Self { file, zip }),
            Err(error) => {
                let what =
                    format!("is no archive of arrays: {error} (copy it again, or save it by numpy.savez)");
                Err(Failure::at(FailureKind::Data, file, what))
            }
        }
    }

    fn names(&self) -> Vec<String> {
        // A name that cannot be decoded is none of those that are looked for.
        let names = self.zip.file_names().flatten();
        let mut names: Vec<String> =
            names.filter_map(|name| name.strip_suffix(".npy").map(str::to_string)).collect();
        names.sort();
        names
    }

    fn array(&mut self, name: &str) -> Result<Array, Failure> {
        let place = format!("{}, array {name}", self.file);
        let failure = |what: String| Failure::at(FailureKind::Data, &place, what);
        let mut bytes = Vec::new();
        let entry = self.zip.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|error| failure(format!("cannot be read: {error}")))?;
        let read = entry.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| failure(format!("is damaged: {error} (copy the file again)")))?;
        decode(place, &bytes)
    }

    fn part(&mut self, names: Arrays<'_>, wanted: Wanted) -> Result<Part, Failure> {
        let features = self.array(names.features)?;
        let len = features.shape[0];
        let mut of_each = |name: &str, what: &str| {
            let array = self.array(name)?;
            match array.shape[0] {
                found if found == len => Ok(array),
                found => {
                    let what = format!("{found} {what} for the {len} samples of {}", features.place);
                    Err(array.failure(what))
                }
            }
        };
        let targets = names.targets.map(|name| of_each(name, "targets")?.into_targets(wanted)).transpose()?;
        let weights = names.weights.map(|name| of_each(name, "weights")?.into_weights()).transpose()?;
        let name = features.place.clone();
        // A table of bytes is a table of numbers.
        let are_images = features.shape.len() > 2;
        Ok(Part { name, len, features: features.into_features(are_images)?, targets, weights })
    }
}

/// Decodes the array of a file, or of an entry of an archive.
fn decode(place: String, bytes: &[u8]) -> Result<Array, Failure> {
    let failure = |what: String| Failure::at(FailureKind::Data, &place, what);
    let mut data = bytes;
    let header = NpyHeader::from_reader(&mut data);
    let header = header.map_err(|error| failure(format!("is no NumPy array: {error}")))?;
    if header.uses_pickled_array() {
        let what = "has Python objects, which are not read (save it with a numeric dtype)";
        return Err(failure(what.to_string()));
    }
    let side = |&side: &u64| usize::try_from(side).unwrap_or(usize::MAX);
    let shape: Vec<usize> = header.shape().iter().map(side).collect();
    if shape.is_empty() || shape.contains(&0) {
        return Err(failure(format!("has the shape {shape:?}: no samples")));
    }
    if u32::try_from(shape[0]).is_err() {
        return Err(failure("has more than 4,294,967,295 samples".to_string()));
    }
    let dtype = header.dtype().descr();
    let dtype = dtype.trim_matches('\'');
    let other = || {
        failure(format!(
            "has values of type {dtype}; booleans, integers and floats of 16 to 64 bits are read"
        ))
    };
    let width = array::width_of(dtype).ok_or_else(other)?;
    let len = shape.iter().try_fold(width, |len, &side| len.checked_mul(side));
    if len != Some(data.len()) {
        let what =
            format!("has {} bytes of values, not the {shape:?} of {dtype} that it promises", data.len());
        return Err(failure(what));
    }
    let values = Values::decode(dtype, data.to_vec()).ok_or_else(other)?;
    let array = Array { place, shape, values };
    Ok(if header.order() == Order::Fortran { array.transposed() } else { array })
}
