//! Tables: columns of numbers and texts, whichever format they come from.
//!
//! A format finds the names of the columns, asks [`Plan`] what each is for, and reads the cells accordingly. The columns
//! that the job names as `target` are what the model learns, those of `drop` are left out, one may have the
//! weights of the samples, all others are features.

mod cells;

use super::labels::{self, FOR_NUMBERS};
use super::part::{Cells, Part, RawFeatures, RawTargets, TableColumn, TargetValues, Texts};
use super::place;
use super::request::{ColumnName, TableLayout, Wanted};
use super::weights;
use crate::failure::{Failure, FailureKind};
use crate::registry::suggestion;

pub(super) use cells::{Cell, ColumnCells};

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is left out.
    Dropped,
    /// It has features.
    Feature,
    /// It has targets.
    Target,
    /// It has weights.
    Weight,
}

/// The type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Numbers.
    Numbers,
    /// Texts.
    Texts,
}

/// What each column of a table is for, and its type as far as that is known before the cells are read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) columns: Vec<PlannedColumn>,
    wanted: Wanted,
}

/// A column before its cells are read.
#[derive(Clone, Debug)]
pub(super) struct PlannedColumn {
    pub(super) name: String,
    pub(super) is_for: Use,
    /// `None` if the cells decide.
    pub(super) kind: Option<Kind>,
}

/// What is known of a table's columns before it is read.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// Nothing: it is the table to train on.
    Nothing,
    /// The features of the table to train on, by name.
    Columns(&'a [TableColumn]),
    /// The features of a trained model; the table has no targets, or they are not asked for.
    Model(&'a super::inputs::Inputs),
}

impl Plan {
    /// The plan for columns of these names.
    ///
    /// # Errors
    /// If two columns have one name, or the job names a column that is not there.
    pub(super) fn new(
        file: &str,
        names: Vec<String>,
        layout: &TableLayout,
        wanted: Wanted,
        known: Known<'_>,
    ) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::at(FailureKind::Data, file, what);
        if let Some((_, name)) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name))
        {
            return Err(wrong(format!("two columns have the name {name} (rename one)")));
        }
        let mut uses = vec![Use::Feature; names.len()];
        let TableLayout { drop, target: targets, sample_weight, .. } = layout;
        let named = [
            ("drop", &drop[..], Use::Dropped),
            ("target", targets, Use::Target),
            ("sample_weight", sample_weight.as_slice(), Use::Weight),
        ];
        for (key, columns, is_for) in named {
            for column in columns {
                match (find(column, &names), known, is_for) {
                    // Nothing is learned, so nothing is weighed.
                    (Ok(place), Known::Model(_), Use::Weight) => uses[place] = Use::Dropped,
                    (Ok(place), ..) => uses[place] = is_for,
                    // A file to predict for needs no more columns than the model takes; a split may have no weights.
                    (Err(_), Known::Model(_), _) | (Err(_), Known::Columns(_), Use::Weight) => {}
                    (Err(what), Known::Nothing | Known::Columns(_), _) => {
                        return Err(wrong(format!("{key}: {what}")));
                    }
                }
            }
        }
        if targets.is_empty() && !matches!(known, Known::Model(_)) {
            return Err(wrong(format!(
                "which column is to be learned? (set target to one of {})",
                listed(names.iter())
            )));
        }
        let of_target = if targets.len() == 1 && wanted.classes { Kind::Texts } else { Kind::Numbers };
        let kind = |name: &str, is_for| match is_for {
            Use::Target => Some(of_target),
            Use::Feature => known.kind(name),
            Use::Weight => Some(Kind::Numbers),
            Use::Dropped => None,
        };
        let columns = names.into_iter().zip(uses).map(|(name, is_for)| {
            let kind = kind(&name, is_for);
            PlannedColumn { name, is_for, kind }
        });
        Ok(Self { columns: columns.collect(), wanted })
    }

    /// Makes samples of the cells that were read: a column for each that is not dropped, in order.
    ///
    /// # Errors
    /// If the table has no rows or no features, or a target is missing.
    pub(super) fn part(&self, file: &str, columns: Vec<(Use, TableColumn)>) -> Result<Part, Failure> {
        let wrong = |what: &str| Failure::at(FailureKind::Data, file, what);
        let len = columns.first().map_or(0, |(_, column)| column.cells.len());
        if len == 0 {
            return Err(wrong("has no rows (is it empty, or has it a header only?)"));
        }
        if u32::try_from(len).is_err() {
            return Err(wrong("has more than 4,294,967,295 rows"));
        }
        let [mut features, mut targets, mut weights] = [const { Vec::new() }; 3];
        for (is_for, column) in columns {
            match is_for {
                Use::Dropped => {}
                Use::Feature => features.push(column),
                Use::Target => targets.push(column),
                Use::Weight => weights.push(column),
            }
        }
        if features.is_empty() {
            return Err(wrong("has no column to learn from beside the target"));
        }
        let targets = self.targets(file, targets)?;
        let weights = weights.pop().map(|column| weights_of(file, column)).transpose()?;
        Ok(Part { name: file.to_string(), len, features: RawFeatures::Columns(features), targets, weights })
    }

    fn targets(&self, file: &str, columns: Vec<TableColumn>) -> Result<Option<RawTargets>, Failure> {
        let names = columns.iter().map(|column| column.name.clone()).collect();
        let values = match <[TableColumn; 1]>::try_from(columns) {
            Ok([column]) => self.target(file, column)?,
            Err(columns) if columns.is_empty() => return Ok(None),
            Err(columns) => numbers(file, columns)?,
        };
        Ok(Some(RawTargets { file: file.to_string(), columns: names, values }))
    }

    /// The values of the only target.
    fn target(&self, file: &str, column: TableColumn) -> Result<TargetValues, Failure> {
        let place = place::Column { file, name: &column.name };
        match column.cells {
            Cells::Texts(texts) => {
                check_present(place, texts.codes.iter().map(|&code| code == Texts::MISSING))?;
                Ok(TargetValues::Names(texts))
            }
            Cells::Numbers(values) => {
                check_present(place, values.iter().map(|value| value.is_nan()))?;
                if !self.wanted.classes {
                    return Ok(TargetValues::Numbers { width: 1, values });
                }
                let no_class = |row: usize| {
                    place.failure_at(row, format_args!("{} is no class {FOR_NUMBERS}", values[row]))
                };
                labels::whole(&values).map(TargetValues::Labels).map_err(no_class)
            }
        }
    }
}

/// The weights of the samples.
fn weights_of(file: &str, column: TableColumn) -> Result<Vec<f32>, Failure> {
    let place = place::Column { file, name: &column.name };
    let Cells::Numbers(weights) = column.cells else {
        return Err(place.failure("has texts, and weights are numbers"));
    };
    match weights::first_invalid(&weights) {
        None => Ok(weights),
        Some((row, weight)) if weight.is_nan() => {
            Err(place.failure_at(row, "the weight is missing (fill it in, or leave the row out)"))
        }
        Some((row, weight)) => Err(place.failure_at(
            row,
            format_args!("{weight} is {}", weights::problem_of(weight).unwrap_or_default()),
        )),
    }
}

/// The values of several targets.
fn numbers(file: &str, columns: Vec<TableColumn>) -> Result<TargetValues, Failure> {
    let (width, mut numbers) = (columns.len() as u32, Vec::new());
    for column in columns {
        let place = place::Column { file, name: &column.name };
        let Cells::Numbers(values) = column.cells else {
            return Err(place.failure("has texts, and several targets must be numbers"));
        };
        check_present(place, values.iter().map(|value| value.is_nan()))?;
        numbers.push(values);
    }
    let len = numbers.first().map_or(0, Vec::len);
    let values = (0..len).flat_map(|row| numbers.iter().map(move |column| column[row])).collect();
    Ok(TargetValues::Numbers { width, values })
}

impl Known<'_> {
    fn kind(self, name: &str) -> Option<Kind> {
        match self {
            Self::Nothing => None,
            Self::Columns(columns) => {
                let found = columns.iter().find(|column| column.name == name)?;
                Some(match found.cells {
                    Cells::Numbers(_) => Kind::Numbers,
                    Cells::Texts(_) => Kind::Texts,
                })
            }
            Self::Model(inputs) => {
                let found = inputs.columns.iter().find(|column| column.name == name)?;
                Some(match found.kind {
                    super::inputs::ColumnKind::Number { .. } => Kind::Numbers,
                    super::inputs::ColumnKind::Categories(_) => Kind::Texts,
                })
            }
        }
    }
}

/// The place of a column that a job names.
fn find(column: &ColumnName, names: &[String]) -> Result<usize, String> {
    match column {
        ColumnName::Name(name) => names.iter().position(|other| other == name).ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("there is no column {name}; {}", suggestion(name, "columns", &known))
        }),
        ColumnName::Number(number) => match *number as usize {
            place if place < names.len() => Ok(place),
            place => Err(format!("there is no column {place}; the table has {}, from 0", names.len())),
        },
    }
}

/// Names for an error: at most ten.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(10);
    let text = names.take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} others") } else { text }
}

fn check_present(column: place::Column<'_>, mut missing: impl Iterator<Item = bool>) -> Result<(), Failure> {
    match missing.position(|missing| missing) {
        None => Ok(()),
        Some(row) => {
            Err(column.failure_at(row, "the value to learn is missing (fill it in, or leave the row out)"))
        }
    }
}
