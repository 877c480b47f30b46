//! What a model takes and answers, in the words of its data: saved with the model, so that `predict` takes raw files.
//!
//! A table's columns become features in order: a column of numbers one, a column of texts one for each of its categories
//! (1 for the text's own, 0 for the others), sorted. Missing numbers take the column's mean. At last all is normalised.

use serde::{Deserialize, Serialize};

use super::normalize::Normalizer;
use super::part::{Cells, Part, RawFeatures, TableColumn, Texts};
use super::place;
use super::schema::{Element, Features, sides, width};
use crate::failure::{Failure, FailureKind};

/// What a model takes and answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// The shape of a sample, as its file has it.
    pub shape: Vec<u32>,
    /// Whether samples are stored as `float32`; otherwise as bytes.
    #[serde(default)]
    pub are_floats: bool,
    /// A table's columns; empty if the data is no table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// The names of the numbers that the model predicts, as far as the data names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The names of the classes, if they are not just their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// How features are normalised, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalizer>,
}

/// A table's column, as the model takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name in the header, or its number from 0.
    pub name: String,
    /// What becomes of its values.
    #[serde(flatten)]
    pub kind: ColumnKind,
}

/// What becomes of a column's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// One feature.
    Number {
        /// What takes the place of a missing value; `None` if that is an error.
        missing: Option<f32>,
    },
    /// A feature for each category.
    Categories(Vec<String>),
}

/// More categories than this are no categories, but names or free text.
pub const MAX_CATEGORIES: usize = 1000;

impl Column {
    /// How many features it becomes.
    pub fn width(&self) -> usize {
        match &self.kind {
            ColumnKind::Number { .. } => 1,
            ColumnKind::Categories(categories) => categories.len(),
        }
    }
}

impl Inputs {
    /// Checks what a file says of a model: that each part fits the others.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), String> {
        let (inputs, columns) = (width(&self.shape), self.columns.iter().map(Column::width).sum::<usize>());
        if !self.columns.is_empty() && columns != inputs {
            return Err(format!("its columns become {columns} inputs, and it has {inputs}"));
        }
        let Some(Normalizer { offset, divisor }) = &self.normalization else { return Ok(()) };
        if offset.len() != divisor.len() || ![1, inputs].contains(&offset.len()) {
            let (offset, divisor) = (offset.len(), divisor.len());
            return Err(format!("{offset} offsets and {divisor} divisors normalize {inputs} inputs"));
        }
        Ok(())
    }

    /// Whether there is nothing to say beyond the number of inputs: bytes as they are, classes by number.
    pub fn are_plain(&self) -> bool {
        !self.are_floats && self.targets.is_empty() && self.classes.is_empty() && self.normalization.is_none()
    }

    /// The names of the features: a table's columns, and for categories `column=category`. Empty if the data is no table.
    pub fn feature_names(&self) -> Vec<String> {
        let names = |column: &Column| match &column.kind {
            ColumnKind::Number { .. } => vec![column.name.clone()],
            ColumnKind::Categories(all) => all.iter().map(|one| format!("{}={one}", column.name)).collect(),
        };
        self.columns.iter().flat_map(names).collect()
    }

    /// The name of a class.
    pub fn class_name(&self, class: u32) -> String {
        self.classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The type and shape of an encoded sample.
    pub fn features(&self) -> Features {
        let element = if self.are_floats { Element::F32 } else { Element::U8 };
        Features { element, shape: self.shape.clone() }
    }

    /// The stored bytes of a part's features, encoded and normalised.
    ///
    /// # Errors
    /// If the part has other columns, another shape or another type than the model was trained with, or a text that no
    /// training sample has.
    pub fn encode(&self, part: Part) -> Result<Vec<u8>, Failure> {
        let Part { name, len, features, .. } = part;
        if !self.are_floats {
            let RawFeatures::Bytes { shape, values } = features else {
                return Err(self.other_kind(&name, &features));
            };
            self.check_shape(&name, &shape)?;
            return Ok(values);
        }
        let mut values = self.numbers(&name, len, features)?;
        if let Some(normalization) = &self.normalization {
            normalization.apply(&mut values);
        }
        Ok(to_bytes(values))
    }

    /// The features as numbers, before they are normalised, `[len, width]`.
    pub(super) fn numbers(&self, name: &str, len: usize, features: RawFeatures) -> Result<Vec<f32>, Failure> {
        match features {
            RawFeatures::Columns(columns) if !self.columns.is_empty() => {
                self.encode_table(name, len, &columns)
            }
            RawFeatures::Bytes { shape, values } if self.columns.is_empty() => {
                self.check_shape(name, &shape)?;
                Ok(values.into_iter().map(f32::from).collect())
            }
            RawFeatures::Numbers { shape, values } if self.columns.is_empty() => {
                self.check_shape(name, &shape)?;
                Ok(values)
            }
            RawFeatures::Bytes { .. } | RawFeatures::Numbers { .. } | RawFeatures::Columns(_) => {
                Err(self.other_kind(name, &features))
            }
        }
    }

    /// The failure for features of another kind than those of the training data.
    fn other_kind(&self, name: &str, found: &RawFeatures) -> Failure {
        let found = match found {
            RawFeatures::Bytes { .. } => "bytes",
            RawFeatures::Numbers { .. } => "numbers",
            RawFeatures::Columns(_) => "a table",
        };
        let trained = match (self.columns.is_empty(), self.are_floats) {
            (false, _) => "a table",
            (true, true) => "numbers",
            (true, false) => "bytes",
        };
        let what = format!("is {found}, but the training data is {trained} (give data of the same kind)");
        Failure::at(FailureKind::Data, name, what)
    }

    fn check_shape(&self, name: &str, shape: &[u32]) -> Result<(), Failure> {
        if self.shape == shape {
            return Ok(());
        }
        let what = format!(
            "samples of {} values, but those to train on have {} (give data of one shape)",
            sides(shape),
            sides(&self.shape)
        );
        Err(Failure::at(FailureKind::Data, name, what))
    }

    fn encode_table(&self, file: &str, len: usize, columns: &[TableColumn]) -> Result<Vec<f32>, Failure> {
        let width: usize = self.columns.iter().map(Column::width).sum();
        let mut values = vec![0.0; len * width];
        let mut first = 0;
        for column in &self.columns {
            let found = columns.iter().find(|found| found.name == column.name).ok_or_else(|| {
                let what = format!("there is no column {}, which the model was trained with", column.name);
                Failure::at(FailureKind::Data, file, what)
            })?;
            let place = place::Column { file, name: &column.name };
            match &column.kind {
                ColumnKind::Number { missing } => {
                    let Cells::Numbers(numbers) = &found.cells else {
                        return Err(not_numbers(place, &found.cells));
                    };
                    put_numbers(place, numbers, *missing, &mut values[first..], width)?;
                }
                ColumnKind::Categories(categories) => {
                    let out = &mut values[first.min(len * width)..];
                    put_categories(place, &found.cells, categories, out, width)?;
                }
            }
            first += column.width();
        }
        Ok(values)
    }
}

/// The failure for a column of texts that was one of numbers.
fn not_numbers(place: place::Column<'_>, cells: &Cells) -> Failure {
    let text = match cells {
        Cells::Texts(Texts { codes, different }) => {
            let is_text =
                |code: &u32| different.get(*code as usize).is_some_and(|text| text.parse::<f32>().is_err());
            codes.iter().position(is_text).map(|row| (row, different[codes[row] as usize].as_str()))
        }
        Cells::Numbers(_) => None,
    };
    let (row, text) = text.unwrap_or_default();
    let what = format!("`{text}` is no number, as all of this column are that the model was trained with");
    place.failure_at(row, what)
}

fn put_numbers(
    place: place::Column<'_>,
    numbers: &[f32],
    missing: Option<f32>,
    out: &mut [f32],
    width: usize,
) -> Result<(), Failure> {
    for (row, &number) in numbers.iter().enumerate() {
        out[row * width] = match (number.is_nan(), missing) {
            (false, _) => number,
            (true, Some(mean)) => mean,
            (true, None) => return Err(place.failure_at(row, MISSING)),
        };
    }
    Ok(())
}

fn put_categories(
    place: place::Column<'_>,
    cells: &Cells,
    known: &[String],
    out: &mut [f32],
    width: usize,
) -> Result<(), Failure> {
    let Cells::Texts(texts) = cells else {
        return Err(place.failure_at(0, "a number, but the model was trained with texts in this column"));
    };
    let categories: Vec<_> = texts.different.iter().map(|text| known.binary_search(text).ok()).collect();
    for (row, &code) in texts.codes.iter().enumerate() {
        match categories.get(code as usize) {
            Some(Some(category)) => out[row * width + category] = 1.0,
            Some(None) => {
                let what = format!(
                    "`{}` is none of the column's {} values that the model was trained with",
                    texts.different[code as usize],
                    known.len()
                );
                return Err(place.failure_at(row, what));
            }
            // A missing text is none of the categories.
            None => {}
        }
    }
    Ok(())
}

/// What to do about a missing value.
pub(super) const MISSING: &str =
    "the value is missing (fill it in, leave the row or the column out, or set missing = \"mean\")";

fn to_bytes(values: Vec<f32>) -> Vec<u8> {
    // The bytes of memory are those of a shard, little-endian.
    const { assert!(cfg!(target_endian = "little")) };
    bytemuck::cast_slice(&values).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_contradicts_itself_is_refused() {
        let normalization = |len| Some(Normalizer { offset: vec![0.0; len], divisor: vec![1.0; len] });
        let inputs = Inputs { shape: vec![2, 3], normalization: normalization(6), ..Inputs::default() };
        assert_eq!(inputs.check(), Ok(()));
        assert_eq!(Inputs { normalization: normalization(1), ..inputs.clone() }.check(), Ok(()));
        for len in [0, 5] {
            let error = Inputs { normalization: normalization(len), ..inputs.clone() }.check().unwrap_err();
            assert_eq!(error, format!("{len} offsets and {len} divisors normalize 6 inputs"));
        }
        let column = Column { name: "a".into(), kind: ColumnKind::Number { missing: None } };
        let table = Inputs { columns: vec![column], shape: vec![2], ..Inputs::default() };
        assert_eq!(table.check().unwrap_err(), "its columns become 1 inputs, and it has 2");
    }

    #[test]
    fn a_description_reads_back_as_it_was() {
        let columns = vec![
            Column { name: "a".into(), kind: ColumnKind::Number { missing: Some(0.1) } },
            Column { name: "b".into(), kind: ColumnKind::Categories(vec!["x".into(), "y".into()]) },
        ];
        let normalization = Some(Normalizer { offset: vec![0.1, 1e-38, 3.0], divisor: vec![0.3, 1.0, 7e8] });
        let classes = vec!["no".into(), "yes".into()];
        let inputs =
            Inputs { shape: vec![3], are_floats: true, columns, targets: Vec::new(), classes, normalization };
        let text = serde_json::to_string(&inputs).unwrap();
        assert_eq!(serde_json::from_str::<Inputs>(&text).unwrap(), inputs);
    }
}
