//! Makes a data set of the parts that were read: splits it, fits what is fitted, encodes the rest alike.
//!
//! 1. `shuffle_split` orders the samples anew, for files that are sorted by class.
//! 2. The last `test_split` of them become the test set, if the data has none of its own; the last `validation_split` of
//!    the others the validation split, unless it has a file of its own.
//! 3. Classes and categories are those of the training file, sorted. A column's mean and the normalisation are fitted to
//!    the training split alone.
//! 4. All splits are encoded by what was fitted. If the training file has weights, so have the samples of the others: 1
//!    where their file has none.

use super::dataset::{DataFile, Dataset, Samples};
use super::formats::Content;
use super::inputs::{Column, ColumnKind, Inputs, MAX_CATEGORIES};
use super::labels::Classes;
use super::normalize::{self, Normalize, Normalizer};
use super::part::{Cells, Part, RawFeatures, RawTargets, TableColumn, TargetValues, Texts};
use super::place;
use super::request::{Missing, Wanted};
use super::schema::{Schema, Target, width};
use super::split::Sizes;
use crate::failure::{Failure, FailureKind};
use crate::random;

/// The parts of a source, in order of use.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The training file.
    pub train: Part,
    /// A validation file of its own.
    pub validation: Option<Part>,
    /// A test set of its own.
    pub test: Option<Part>,
    /// The files that all came from.
    pub files: Vec<DataFile>,
}

impl From<Content> for Parts {
    /// A source with no files beside it.
    fn from(Content { train, test, files }: Content) -> Self {
        Self { train, validation: None, test, files }
    }
}

/// How a data set is made of its parts.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Which targets the loss can learn.
    pub wanted: Wanted,
    /// What is done about missing values.
    pub missing: Missing,
    /// How features are normalised.
    pub normalize: Normalize,
    /// The share of the training file that is the test set, if there is no other.
    pub test_split: f64,
    /// The share of the rest that is the validation split, if there is no other.
    pub validation_split: f64,
    /// The seed of the order before the split; `None` for the order of the file.
    pub shuffle_split: Option<u64>,
}

impl Parts {
    /// Makes the data set.
    ///
    /// # Errors
    /// The first thing that is wrong with the data.
    pub fn prepare(self, recipe: Recipe) -> Result<Dataset, Failure> {
        self.prepare_on(recipe, Basis::Nothing)
    }

    /// The same for a trained model: with its inputs, if they are known, nothing is fitted anew.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), and if the data is not what the model takes.
    pub fn prepare_for(self, recipe: Recipe, inputs: Option<Inputs>) -> Result<Dataset, Failure> {
        self.prepare_on(recipe, Basis::Trained(inputs))
    }

    fn prepare_on(self, recipe: Recipe, trained_on: Basis) -> Result<Dataset, Failure> {
        let Self { mut train, validation, test, files } = self;
        if let Some(seed) = recipe.shuffle_split {
            let order = random::split_order(seed, train.len as u32);
            train = train.at(&order);
        }
        let (train, test) = match test {
            None => train.cut(recipe.test_split),
            test => (train, test),
        };
        let trained = match &validation {
            None => Sizes::new(train.len as u32, 0, recipe.validation_split).train as usize,
            Some(_) => train.len,
        };
        let sizes = Sizes {
            train: trained as u32,
            validation: validation.as_ref().map_or(train.len - trained, |part| part.len) as u32,
            test: test.as_ref().map_or(0, |part| part.len) as u32,
        };
        let (targets, inputs) = match trained_on {
            Basis::Trained(Some(inputs)) => (Targets::known(&train, &inputs, recipe.wanted)?, inputs),
            basis => {
                let targets = Targets::of(&train, recipe.wanted, basis != Basis::Nothing)?;
                let inputs = fitted(&train, trained, &targets, recipe)?;
                (targets, inputs)
            }
        };
        let (features, weighted) = (inputs.features(), train.weights.is_some());
        let encode = |part: Part| {
            Ok::<_, Failure>(Encoded {
                targets: targets.encode(&part)?,
                len: part.len,
                weights: match weighted {
                    true => part.weights.clone().unwrap_or_else(|| vec![1.0; part.len]),
                    false => Vec::new(),
                },
                features: inputs.encode(part)?,
            })
        };
        let mut train = encode(train)?;
        if let Some(validation) = validation {
            train.append(encode(validation)?);
        }
        let test = test.map_or(Ok(Encoded::default()), encode)?;
        let schema = Schema { features, target: targets.target(), weighted };
        Ok(Dataset { schema, train: train.into(), test: test.into(), sizes, inputs, files })
    }
}

/// What data is prepared for.
#[derive(PartialEq)]
enum Basis {
    /// A model that will be trained with it.
    Nothing,
    /// A trained model, with its inputs, if they are known.
    Trained(Option<Inputs>),
}

/// Encoded samples.
#[derive(Default)]
struct Encoded {
    len: usize,
    features: Vec<u8>,
    targets: Vec<u8>,
    weights: Vec<f32>,
}

impl Encoded {
    fn append(&mut self, other: Self) {
        self.len += other.len;
        self.features.extend(other.features);
        self.targets.extend(other.targets);
        self.weights.extend(other.weights);
    }
}

impl From<Encoded> for Samples {
    fn from(Encoded { len, features, targets, weights }: Encoded) -> Self {
        Self { len: len as u32, features, targets, weights }
    }
}

/// What the targets of the training file are.
enum Targets {
    Classes(Classes),
    Numbers {
        width: u32,
        names: Vec<String>,
        /// Whether they are labels of their own, from 0 to 1: what a loss that learns both classes and numbers needs.
        are_shares: bool,
    },
}

impl Targets {
    fn of(train: &Part, wanted: Wanted, is_trained: bool) -> Result<Self, Failure> {
        let Some(targets) = &train.targets else {
            return Err(Failure::at(FailureKind::Data, &train.name, "has no targets to learn"));
        };
        if let TargetValues::Numbers { width, .. } = targets.values {
            let are_shares = wanted.classes && wanted.numbers;
            return Ok(Self::Numbers { width, names: targets.columns.clone(), are_shares });
        }
        Classes::of(targets, wanted.class_count, is_trained).map(Self::Classes)
    }

    /// The targets that a model was trained with.
    fn known(train: &Part, inputs: &Inputs, wanted: Wanted) -> Result<Self, Failure> {
        if inputs.classes.is_empty() {
            return Self::of(train, wanted, true);
        }
        let labels =
            train.targets.as_ref().is_some_and(|targets| matches!(targets.values, TargetValues::Labels(_)));
        Ok(Self::Classes(Classes::known(&inputs.classes, labels)))
    }

    fn target(&self) -> Target {
        match self {
            Self::Classes(classes) => Target::Class { classes: classes.count() },
            Self::Numbers { width, .. } => Target::Reals { width: *width },
        }
    }

    fn encode(&self, part: &Part) -> Result<Vec<u8>, Failure> {
        let none = || Failure::at(FailureKind::Data, &part.name, "has no targets, as the training data has");
        let targets = part.targets.as_ref().ok_or_else(none)?;
        match (self, &targets.values) {
            (Self::Numbers { width, are_shares, .. }, TargetValues::Numbers { width: found, values })
                if width == found =>
            {
                check_numbers(targets, values, *width, *are_shares)?;
                Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            (Self::Classes(classes), TargetValues::Labels(_) | TargetValues::Names(_)) => {
                classes.encode(targets)
            }
            (Self::Numbers { .. } | Self::Classes(_), _) => {
                let what = "its targets are of another kind than those of the training data";
                Err(Failure::at(FailureKind::Data, &targets.file, what))
            }
        }
    }
}

fn check_numbers(targets: &RawTargets, values: &[f32], width: u32, are_shares: bool) -> Result<(), Failure> {
    let is_wrong = |value: &f32| !value.is_finite() || (are_shares && !(0.0..=1.0).contains(value));
    match values.iter().position(is_wrong) {
        None => Ok(()),
        Some(place) => {
            let value = values[place];
            let place = format!("{}, sample {}", targets.file, place / width as usize + 1);
            let needs =
                if are_shares { "a number from 0 to 1, which the loss needs" } else { "a finite number" };
            Err(Failure::at(FailureKind::Data, place, format!("its target {value} is not {needs}")))
        }
    }
}

/// Fits the encoding: categories to the training file, means and the normalisation to its first `trained` samples.
fn fitted(train: &Part, trained: usize, targets: &Targets, recipe: Recipe) -> Result<Inputs, Failure> {
    let are_bytes =
        matches!(train.features, RawFeatures::Bytes { .. }) && recipe.normalize == Normalize::None;
    let mut inputs = Inputs { are_floats: !are_bytes, ..Inputs::default() };
    match targets {
        Targets::Classes(classes) => inputs.classes = classes.names().to_vec(),
        Targets::Numbers { names, .. } => inputs.targets.clone_from(names),
    }
    match &train.features {
        RawFeatures::Bytes { shape, .. } | RawFeatures::Numbers { shape, .. } => {
            inputs.shape.clone_from(shape)
        }
        RawFeatures::Columns(columns) => {
            let column = |column| fitted_column(&train.name, column, trained, recipe.missing);
            inputs.columns = columns.iter().map(column).collect::<Result<_, _>>()?;
            inputs.shape = vec![inputs.columns.iter().map(Column::width).sum::<usize>() as u32];
        }
    }
    if recipe.normalize != Normalize::None {
        // Encoded once more, to be fitted to: a copy, but only of what is trained on.
        let train = train.first(trained);
        let (len, width) = (train.len, width(&inputs.shape));
        let values = inputs.numbers(&train.name, len, train.features)?;
        inputs.normalization = Normalizer::fit(recipe.normalize, &values, width, inputs.shape.len() > 1);
    }
    Ok(inputs)
}

fn fitted_column(
    file: &str,
    column: &TableColumn,
    trained: usize,
    missing: Missing,
) -> Result<Column, Failure> {
    let kind = match &column.cells {
        Cells::Numbers(numbers) => ColumnKind::Number {
            missing: (missing == Missing::Mean)
                .then(|| normalize::mean(&numbers[..trained.min(numbers.len())])),
        },
        Cells::Texts(texts) => {
            check_categories(file, column, texts, missing)?;
            let mut categories = texts.different.clone();
            categories.sort();
            ColumnKind::Categories(categories)
        }
    };
    Ok(Column { name: column.name.clone(), kind })
}

fn check_categories(
    file: &str,
    column: &TableColumn,
    texts: &Texts,
    missing: Missing,
) -> Result<(), Failure> {
    let place = place::Column { file, name: &column.name };
    let (different, rows) = (texts.different.len(), texts.codes.len());
    if different > MAX_CATEGORIES || (different > 20 && different > rows / 2) {
        return Err(place.failure(format_args!(
            "{different} different texts in {rows} rows are names, not categories (drop = [\"{}\"])",
            column.name
        )));
    }
    match texts.codes.iter().position(|&code| code == Texts::MISSING) {
        Some(row) if missing == Missing::Refuse => Err(place.failure_at(row, super::inputs::MISSING)),
        _ => Ok(()),
    }
}

impl Part {
    /// The first `len` samples.
    fn first(&self, len: usize) -> Self {
        let order: Vec<u32> = (0..len as u32).collect();
        self.at(&order)
    }

    /// The samples without the last `share`, and these, if there are any.
    fn cut(self, share: f64) -> (Self, Option<Self>) {
        let first = Sizes::new(self.len as u32, 0, share).train;
        if first as usize == self.len {
            return (self, None);
        }
        let rest: Vec<u32> = (first..self.len as u32).collect();
        (self.first(first as usize), Some(self.at(&rest)))
    }

    /// The samples at these places.
    fn at(&self, places: &[u32]) -> Self {
        let Self { name, len: _, features, targets, weights } = self;
        let targets = targets.as_ref().map(|RawTargets { file, columns, values }| RawTargets {
            file: file.clone(),
            columns: columns.clone(),
            values: values.at(places),
        });
        let weights = weights.as_ref().map(|weights| rows(weights, 1, places));
        Self { name: name.clone(), len: places.len(), features: features.at(places), targets, weights }
    }
}

impl RawFeatures {
    fn at(&self, places: &[u32]) -> Self {
        match self {
            Self::Bytes { shape, values } => {
                Self::Bytes { shape: shape.clone(), values: rows(values, width(shape), places) }
            }
            Self::Numbers { shape, values } => {
                Self::Numbers { shape: shape.clone(), values: rows(values, width(shape), places) }
            }
            Self::Columns(columns) => {
                let column = |column: &TableColumn| TableColumn {
                    name: column.name.clone(),
                    cells: column.cells.at(places),
                };
                Self::Columns(columns.iter().map(column).collect())
            }
        }
    }
}

impl Cells {
    fn at(&self, places: &[u32]) -> Self {
        match self {
            Self::Numbers(numbers) => Self::Numbers(rows(numbers, 1, places)),
            Self::Texts(texts) => Self::Texts(texts.at(places)),
        }
    }
}

impl Texts {
    fn at(&self, places: &[u32]) -> Self {
        Self { codes: rows(&self.codes, 1, places), different: self.different.clone() }
    }
}

impl TargetValues {
    fn at(&self, places: &[u32]) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(rows(labels, 1, places)),
            Self::Names(texts) => Self::Names(texts.at(places)),
            Self::Numbers { width, values } => {
                Self::Numbers { width: *width, values: rows(values, *width as usize, places) }
            }
        }
    }
}

/// The rows of `[rows, width]` values at these places.
fn rows<T: Copy>(values: &[T], width: usize, places: &[u32]) -> Vec<T> {
    let mut ordered = Vec::with_capacity(places.len() * width);
    for &row in places {
        ordered.extend_from_slice(&values[row as usize * width..][..width]);
    }
    ordered
}
