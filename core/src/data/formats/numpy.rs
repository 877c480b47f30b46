//! NumPy's arrays: `.npy` (one array, a table of numbers) and `.npz` (several by name), by the crates `npyz` and `zip`.
//!
//! An `.npz` has its training samples as `x_train` and `y_train`, as Keras' files do, or as `x` and `y`, or as scikit-learn
//! names them, `data` and `target`; and perhaps a test set, `x_test` and `y_test`. `target` in the job names another array
//! to learn; the features are then in the only other array of as many samples. Bytes with more than one axis beside the
//! samples', which are images, stay bytes; all other numbers become `f32`.
//!
//! Targets may be whole numbers (classes, or numbers to learn), rows of a single 1 among zeros (classes, one-hot), or
//! numbers. Arrays of Python objects are refused: to read them is to run their code.

use std::io::{Cursor, Read as _};
use std::path::Path;

use npyz::{NpyHeader, Order};
use zip::ZipArchive;

use super::{Content, Files, Format, Request};
use crate::data::dataset::DataFile;
use crate::data::labels::{self, FOR_NUMBERS};
use crate::data::part::{Cells, Part, RawFeatures, RawTargets, TableColumn, TargetValues};
use crate::data::request::{ColumnName, Wanted};
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
        let file = Place { file: path.display().to_string(), array: None };
        let array = Array::decode(file, &bytes)?;
        let [rows, width] = array.shape[..] else {
            return Err(array
                .place
                .failure(format!("has {} axes, and a table has two (samples, columns)", array.shape.len())));
        };
        let names = (0..width).map(|number| number.to_string()).collect();
        let plan = Plan::new(&array.place.file, names, request.layout, request.wanted, request.known)?;
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
        let train = plan.part(&array.place.file, columns)?;
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
            let train = archive.part(features, None, request.wanted)?;
            return Ok(Content { train, test: None, files: Vec::new() });
        }
        let chosen = Names::of(&archive.file, &names, &request.layout.target)?;
        let train = archive.part(&chosen.features, chosen.targets.as_deref(), request.wanted)?;
        let test = match &chosen.test {
            Some((features, targets)) => Some(archive.part(features, Some(targets), request.wanted)?),
            None => None,
        };
        Ok(Content { train, test, files: vec![DataFile::of(path, &bytes)] })
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// The names of the arrays to read.
struct Names {
    features: String,
    targets: Option<String>,
    test: Option<(String, String)>,
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
    fn of(file: &str, names: &[String], target: &[ColumnName]) -> Result<Self, Failure> {
        let has = |name: &str| names.iter().any(|other| other == name);
        let wrong = |what: String| Failure::at(FailureKind::Data, file, what);
        let test = (has("x_test") && has("y_test")).then(|| ("x_test".to_string(), "y_test".to_string()));
        if let Some(target) = target.first() {
            let target = target.to_string();
            if !has(&target) {
                return Err(wrong(format!(
                    "target: there is no array {target}; there are {}",
                    names.join(", ")
                )));
            }
            let others: Vec<_> =
                names.iter().filter(|name| **name != target && !name.ends_with("_test")).collect();
            return match others[..] {
                [features] => Ok(Self { features: features.clone(), targets: Some(target), test }),
                _ => Err(wrong(format!(
                    "beside {target} there are {} arrays, and one should have the features",
                    others.len()
                ))),
            };
        }
        let pair = PAIRS.iter().find(|(features, targets)| has(features) && has(targets));
        match pair {
            Some((features, targets)) => {
                Ok(Self { features: (*features).into(), targets: Some((*targets).into()), test })
            }
            None => Err(wrong(format!(
                "which arrays have the samples? (name them x_train and y_train, or set target; there are {})",
                names.join(", ")
            ))),
        }
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
        let place = Place { file: self.file.clone(), array: Some(name.to_string()) };
        let mut bytes = Vec::new();
        let entry = self.zip.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|error| place.failure(format!("cannot be read: {error}")))?;
        let read = entry.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| place.failure(format!("is damaged: {error} (copy the file again)")))?;
        Array::decode(place, &bytes)
    }

    fn part(&mut self, features: &str, targets: Option<&str>, wanted: Wanted) -> Result<Part, Failure> {
        let features = self.array(features)?;
        let targets = targets.map(|targets| self.array(targets)).transpose()?;
        let len = features.shape[0];
        if let Some(targets) = &targets
            && targets.shape[0] != len
        {
            let what = format!("{} targets for the {len} samples of {}", targets.shape[0], features.place);
            return Err(targets.place.failure(what));
        }
        let targets = targets.map(|targets| targets.into_targets(wanted)).transpose()?;
        let name = features.place.to_string();
        Ok(Part { name, len, features: features.into_features()?, targets })
    }
}

/// Where an array is, for errors.
#[derive(Clone, Debug)]
struct Place {
    file: String,
    array: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.array {
            Some(array) => write!(f, "{}, array {array}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

impl Place {
    fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::at(FailureKind::Data, self, what)
    }
}

/// An array, its samples first.
struct Array {
    place: Place,
    /// With at least one axis and no axis of length 0.
    shape: Vec<usize>,
    values: Values,
}

/// The numbers of an array, row-major.
enum Values {
    Bytes(Vec<u8>),
    Whole(Vec<i64>),
    Floats(Vec<f32>),
}

impl Values {
    fn number(&self, index: usize) -> f32 {
        match self {
            Self::Bytes(values) => values[index].into(),
            Self::Whole(values) => values[index] as f32,
            Self::Floats(values) => values[index],
        }
    }

    fn into_numbers(self) -> Vec<f32> {
        match self {
            Self::Bytes(values) => values.into_iter().map(f32::from).collect(),
            Self::Whole(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Floats(values) => values,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Whole(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }
}

/// Decodes values of `N` bytes.
fn decoded<const N: usize, T>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

impl Array {
    fn decode(place: Place, bytes: &[u8]) -> Result<Self, Failure> {
        let mut data = bytes;
        let header = NpyHeader::from_reader(&mut data);
        let header = header.map_err(|error| place.failure(format!("is no NumPy array: {error}")))?;
        if header.uses_pickled_array() {
            return Err(
                place.failure("has Python objects, which are not read (save it with a numeric dtype)")
            );
        }
        let shape: Vec<usize> =
            header.shape().iter().map(|&side| usize::try_from(side).unwrap_or(usize::MAX)).collect();
        if shape.is_empty() || shape.contains(&0) {
            return Err(place.failure(format!("has the shape {shape:?}: no samples")));
        }
        if u32::try_from(shape[0]).is_err() {
            return Err(place.failure("has more than 4,294,967,295 samples"));
        }
        let dtype = header.dtype().descr();
        let dtype = dtype.trim_matches('\'');
        let len = shape.iter().try_fold(1_usize, |len, &side| len.checked_mul(side));
        let width = dtype.get(2..).and_then(|bytes| bytes.parse::<usize>().ok()).unwrap_or(0);
        let expected = len.and_then(|len| len.checked_mul(width));
        if width == 0 || expected != Some(data.len()) {
            let what =
                format!("has {} bytes of values, not the {shape:?} of {dtype} that it promises", data.len());
            return Err(place.failure(what));
        }
        let values = match dtype {
            "|u1" => Values::Bytes(data.to_vec()),
            "|b1" => Values::Bytes(data.iter().map(|&byte| u8::from(byte != 0)).collect()),
            "|i1" => Values::Whole(decoded(data, |bytes| i8::from_le_bytes(bytes).into())),
            "<u2" => Values::Whole(decoded(data, |bytes| u16::from_le_bytes(bytes).into())),
            "<i2" => Values::Whole(decoded(data, |bytes| i16::from_le_bytes(bytes).into())),
            "<u4" => Values::Whole(decoded(data, |bytes| u32::from_le_bytes(bytes).into())),
            "<i4" => Values::Whole(decoded(data, |bytes| i32::from_le_bytes(bytes).into())),
            "<u8" => {
                Values::Whole(decoded(data, |bytes| u64::from_le_bytes(bytes).try_into().unwrap_or(i64::MAX)))
            }
            "<i8" => Values::Whole(decoded(data, i64::from_le_bytes)),
            "<f4" => Values::Floats(decoded(data, f32::from_le_bytes)),
            "<f8" => Values::Floats(decoded(data, |bytes| f64::from_le_bytes(bytes) as f32)),
            other => {
                let what = format!(
                    "has values of type {other}; booleans, integers, float32 and float64 are read, little-endian"
                );
                return Err(place.failure(what));
            }
        };
        let array = Self { place, shape, values };
        Ok(if header.order() == Order::Fortran { array.transposed() } else { array })
    }

    /// The same array, row-major, of one whose first axis is the one that varies fastest.
    fn transposed(self) -> Self {
        let Self { place, shape, values } = self;
        let place_of = |index: usize| {
            let (mut rest, mut place, mut stride) = (index, 0, values.len());
            for side in shape.iter().rev() {
                stride /= side;
                place += rest % side * stride;
                rest /= side;
            }
            place
        };
        let order: Vec<usize> = (0..values.len()).map(place_of).collect();
        let values = match values {
            Values::Bytes(values) => Values::Bytes(order.iter().map(|&place| values[place]).collect()),
            Values::Whole(values) => Values::Whole(order.iter().map(|&place| values[place]).collect()),
            Values::Floats(values) => Values::Floats(order.iter().map(|&place| values[place]).collect()),
        };
        Self { place, shape, values }
    }

    fn check_finite(&self) -> Result<(), Failure> {
        let Values::Floats(values) = &self.values else { return Ok(()) };
        let Some(index) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let width = (values.len() / self.shape[0]).max(1);
        let (sample, value) = (index / width + 1, index % width);
        let what =
            format!("sample {sample}, value {value} is {}, no finite number of 32 bits", values[index]);
        Err(self.place.failure(what))
    }

    fn into_features(self) -> Result<RawFeatures, Failure> {
        self.check_finite()?;
        let sides = &self.shape[1..];
        let shape: Option<Vec<u32>> = sides.iter().map(|&side| u32::try_from(side).ok()).collect();
        let Some(shape) = shape else { return Err(self.place.failure("has an axis that is too long")) };
        let shape = if shape.is_empty() { vec![1] } else { shape };
        Ok(match self.values {
            Values::Bytes(values) if shape.len() > 1 => RawFeatures::Bytes { shape, values },
            values => RawFeatures::Numbers { shape, values: values.into_numbers() },
        })
    }

    fn into_targets(self, wanted: Wanted) -> Result<RawTargets, Failure> {
        self.check_finite()?;
        let width = self.values.len() / self.shape[0];
        let values = if wanted.classes && width == 1 {
            TargetValues::Labels(self.labels()?)
        } else if wanted.classes && !wanted.numbers {
            TargetValues::Labels(self.hot()?)
        } else {
            TargetValues::Numbers { width: width as u32, values: self.values.into_numbers() }
        };
        Ok(RawTargets { file: self.place.to_string(), columns: Vec::new(), values })
    }

    fn labels(&self) -> Result<Vec<i64>, Failure> {
        match &self.values {
            Values::Bytes(values) => Ok(values.iter().map(|&value| value.into()).collect()),
            Values::Whole(values) => Ok(values.clone()),
            Values::Floats(values) => labels::whole(values).map_err(|index| {
                let value = values[index];
                self.place
                    .failure(format_args!("the label at index {index} is {value}: no class {FOR_NUMBERS}"))
            }),
        }
    }

    /// The classes of one-hot rows.
    fn hot(&self) -> Result<Vec<i64>, Failure> {
        let width = self.values.len() / self.shape[0];
        let class = |row: usize| {
            let number = |place: usize| self.values.number(row * width + place);
            let hot: Vec<usize> = (0..width).filter(|&place| number(place) != 0.0).collect();
            match hot[..] {
                [class] if number(class) == 1.0 => Ok(class as i64),
                _ => Err(self
                    .place
                    .failure(format!("row {row} is not one-hot: a single 1 among zeros names its class"))),
            }
        };
        (0..self.shape[0]).map(class).collect()
    }
}
