//! Looks at data: what is to be learned, from what, and what cannot be learned from.

use std::collections::BTreeMap;

use millefeuille_core::data::inputs::MAX_CATEGORIES;
use millefeuille_core::data::part::{Cells, RawFeatures, TableColumn, TargetValues, Texts};
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::schema::width;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::{ColumnName, Data, DataFormat, Missing, Wanted};

/// What a look at data finds.
pub(super) struct Found {
    /// The data, with the keys that it needs.
    pub(super) data: Data,
    pub(super) samples: usize,
    /// Whether the source has a test set, or there is one of its own.
    pub(super) has_test_set: bool,
    pub(super) task: Task,
    pub(super) inputs: FoundInputs,
    /// Columns that are left out, with the reason.
    pub(super) left_out: Vec<(ColumnName, &'static str)>,
    /// Columns with missing values.
    pub(super) with_missing: Vec<String>,
}

/// What is to be learned.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// Classes.
    Classes {
        count: u32,
        /// The samples of the smallest and of the largest class.
        smallest: usize,
        largest: usize,
    },
    /// Numbers, of which these are the smallest and the largest.
    Numbers { width: u32, low: f32, high: f32 },
}

/// What it is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundInputs {
    /// Columns of a table, that become so many inputs.
    Columns(usize),
    /// So many numbers.
    Numbers(usize),
    /// So many bytes: the pixels of an image.
    Bytes(usize),
}

impl FoundInputs {
    /// How many inputs the model has.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Columns(width) | Self::Numbers(width) | Self::Bytes(width) => width,
        }
    }
}

/// More different whole numbers than this are taken for numbers to learn.
const MOST_CLASSES_OF_NUMBERS: usize = 20;
/// A class, or a category, has so many samples on average at least.
const LEAST_SAMPLES: usize = 5;

/// Looks at the data of a source.
///
/// # Errors
/// If it can't be read.
pub(super) fn at(data: Data) -> Result<Found, Failure> {
    let (mut data, parts, task) = read(data)?;
    let RawFeatures::Columns(columns) = &parts.train.features else {
        let inputs = match &parts.train.features {
            RawFeatures::Bytes { shape, .. } => FoundInputs::Bytes(width(shape)),
            RawFeatures::Numbers { shape, .. } => FoundInputs::Numbers(width(shape)),
            RawFeatures::Columns(_) => unreachable!("a table has columns"),
        };
        let has_test_set = parts.test.is_some();
        let (left_out, with_missing) = (Vec::new(), Vec::new());
        return Ok(Found {
            data,
            samples: parts.train.len,
            has_test_set,
            task,
            inputs,
            left_out,
            with_missing,
        });
    };
    let by_number = !data.table.header;
    let named = |column: &TableColumn| match column.name.parse() {
        Ok(number) if by_number => ColumnName::Number(number),
        _ => ColumnName::Name(column.name.clone()),
    };
    let (useless, useful): (Vec<_>, Vec<_>) =
        columns.iter().map(|column| (column, useless(column))).partition(|(_, reason)| reason.is_some());
    let left_out: Vec<_> =
        useless.into_iter().filter_map(|(column, reason)| Some((named(column), reason?))).collect();
    let useful: Vec<&TableColumn> = useful.into_iter().map(|(column, _)| column).collect();
    let with_missing: Vec<_> =
        useful.iter().filter(|column| has_missing(&column.cells)).map(|column| column.name.clone()).collect();
    data.table.drop = left_out.iter().map(|(column, _)| column.clone()).collect();
    if !with_missing.is_empty() {
        data.table.missing = Missing::Mean;
    }
    let inputs = FoundInputs::Columns(useful.iter().map(|column| inputs_of(&column.cells)).sum());
    let has_test_set = parts.test.is_some();
    Ok(Found { data, samples: parts.train.len, has_test_set, task, inputs, left_out, with_missing })
}

/// Reads the data, as it says itself how it is laid out: with the usual keys, or else others.
fn read(data: Data) -> Result<(Data, Parts, Task), Failure> {
    let first = match read_as(&data) {
        Ok((parts, task)) => return Ok((data, parts, task)),
        Err(failure) => failure,
    };
    if data.format_of_source() != Some(DataFormat::Csv) {
        return Err(first);
    }
    for (separator, header) in
        [(None, false), (Some(';'), true), (Some('\t'), true), (Some('|'), true), (Some(';'), false)]
    {
        let mut other = data.clone();
        (other.table.separator, other.table.header) = (separator, header);
        if let Ok((parts, task)) = read_as(&other) {
            return Ok((other, parts, task));
        }
    }
    Err(first)
}

/// Reads the data for what its target looks like: classes, or else numbers.
fn read_as(data: &Data) -> Result<(Parts, Task), Failure> {
    let classes = Wanted { classes: true, ..Wanted::default() };
    if let Ok(parts) = crate::data::parts(data, classes)
        && let Some(task) = parts.train.targets.as_ref().and_then(|targets| Task::of_classes(&targets.values))
    {
        return Ok((parts, task));
    }
    let parts = crate::data::parts(data, Wanted { numbers: true, ..Wanted::default() })?;
    let values = parts.train.targets.as_ref().map(|targets| &targets.values);
    let task = match values {
        Some(TargetValues::Numbers { width, values }) => Task::of_numbers(*width, values),
        Some(TargetValues::Labels(_) | TargetValues::Names(_)) | None => Task::of_numbers(1, &[]),
    };
    Ok((parts, task))
}

impl Task {
    /// The classes that targets name; `None` if they look like numbers to learn.
    fn of_classes(values: &TargetValues) -> Option<Self> {
        match values {
            TargetValues::Names(Texts { codes, different }) => {
                let mut counts = BTreeMap::new();
                codes.iter().for_each(|code| *counts.entry(*code).or_insert(0) += 1);
                let number = |text: &String| text.trim().parse::<f64>().ok();
                let is_whole = |text: &String| number(text).is_some_and(|number| number.fract() == 0.0);
                let are_names = different.iter().any(|text| number(text).is_none());
                let are_few = different.len() <= MOST_CLASSES_OF_NUMBERS && different.iter().all(is_whole);
                let are_repeated = codes.len() >= LEAST_SAMPLES * different.len();
                (are_names || are_few && are_repeated).then(|| Self::classes(different.len(), counts))
            }
            TargetValues::Labels(labels) => {
                let mut counts = BTreeMap::new();
                labels.iter().for_each(|label| *counts.entry(*label).or_insert(0) += 1);
                let (low, high) = (*counts.keys().next()?, *counts.keys().next_back()?);
                let are_consecutive = high - low + 1 == counts.len() as i64;
                let are_repeated = labels.len() >= LEAST_SAMPLES * counts.len();
                let are_few = counts.len() <= MOST_CLASSES_OF_NUMBERS || are_consecutive;
                let count = if low == 0 { high as usize + 1 } else { counts.len() };
                (are_few && are_repeated).then(|| Self::classes(count, counts))
            }
            TargetValues::Numbers { .. } => None,
        }
    }

    fn classes<K>(count: usize, counts: BTreeMap<K, usize>) -> Self {
        let smallest = counts.values().copied().min().unwrap_or(0);
        Self::Classes { count: count as u32, smallest, largest: counts.into_values().max().unwrap_or(0) }
    }

    fn of_numbers(width: u32, values: &[f32]) -> Self {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        Self::Numbers { width, low, high: values.iter().copied().fold(f32::NEG_INFINITY, f32::max) }
    }
}

/// Why nothing can be learned from a column, if nothing can.
fn useless(TableColumn { name, cells }: &TableColumn) -> Option<&'static str> {
    match cells {
        Cells::Numbers(numbers) => {
            let known = || numbers.iter().copied().filter(|number| !number.is_nan());
            let (low, high) = known().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), number| {
                (low.min(number), high.max(number))
            });
            if low >= high {
                return Some("has the same value in each row");
            }
            is_id(name, numbers).then_some("numbers the rows")
        }
        Cells::Texts(Texts { codes, different }) => {
            let are_names = different.len() > MOST_CLASSES_OF_NUMBERS
                && (different.len() > codes.len() / LEAST_SAMPLES || different.len() > MAX_CATEGORIES);
            if different.len() < 2 && !codes.contains(&Texts::MISSING) {
                return Some("has the same value in each row");
            }
            are_names.then_some("has nearly as many values as rows")
        }
    }
}

/// Whether a column numbers its rows: whole numbers, each once, that are consecutive; or nearly each once, and called so.
/// (Large ones become equal as numbers of 32 bits.)
fn is_id(name: &str, numbers: &[f32]) -> bool {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f32::total_cmp);
    let is_whole = sorted.iter().all(|number| number.fract() == 0.0);
    let span = sorted.last().zip(sorted.first()).map_or(0.0, |(high, low)| high - low);
    sorted.dedup();
    let is_consecutive = sorted.len() == numbers.len() && span as usize + 1 == numbers.len();
    let is_called_so = is_name_of_ids(&name.to_lowercase()) && sorted.len() > numbers.len() / 2;
    is_whole && numbers.len() > 2 && (is_consecutive || is_called_so)
}

fn is_name_of_ids(name: &str) -> bool {
    let names = ["id", "index", "key", "no", "nr", "number", "row"];
    names.contains(&name) || name.ends_with("_id") || name.ends_with(" id")
}

fn has_missing(cells: &Cells) -> bool {
    match cells {
        Cells::Numbers(numbers) => numbers.iter().any(|number| number.is_nan()),
        Cells::Texts(texts) => texts.codes.contains(&Texts::MISSING),
    }
}

fn inputs_of(cells: &Cells) -> usize {
    match cells {
        Cells::Numbers(_) => 1,
        Cells::Texts(texts) => texts.different.len(),
    }
}
