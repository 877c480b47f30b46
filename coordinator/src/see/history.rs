//! The history of a training: the figures after each epoch, as a line of `history.jsonl` and as a table.
//!
//! The line keeps every bit of a number: it is written in the shortest form that reads back as the same
//! `f64`. JSON has no NaN and no infinity, so these are written as `null`. A training that meets one ends
//! there, and all that such a row must still do is be shown.

use serde::{Deserialize, Deserializer, Serialize};

use super::table::{Column, Table};

/// The figures after one epoch. Field names are the keys of the JSON line.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Row {
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// The mean loss over the epoch's training batches, dropout on.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The share of training samples that were predicted correctly, dropout on.
    #[serde(deserialize_with = "null_is_nan")]
    pub accuracy: f64,
    /// The mean loss over the validation samples; `None` where the job holds none back.
    pub val_loss: Option<f64>,
    /// The share of validation samples predicted correctly; `None` where the job holds none back.
    pub val_accuracy: Option<f64>,
    /// The mean loss over the test samples.
    #[serde(deserialize_with = "null_is_nan")]
    pub test_loss: f64,
    /// The share of test samples predicted correctly.
    #[serde(deserialize_with = "null_is_nan")]
    pub test_accuracy: f64,
    /// How long the epoch took, evaluation included.
    pub seconds: f64,
    /// The SHA-256 of the parameters after the epoch, in hexadecimal.
    pub weights_sha256: String,
}

impl Row {
    /// The row as one line of JSON, without a line feed.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a row of numbers and one string always has a JSON form")
    }

    /// Reads a line that [`Row::to_line`] wrote. Unknown keys are passed over, so that a later version may
    /// add some.
    ///
    /// # Errors
    /// When the line is not JSON or lacks a field. The caller knows which file and line to name.
    pub fn from_line(line: &str) -> Result<Row, serde_json::Error> {
        serde_json::from_str(line)
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The history as a table of four decimals; what was not measured is a `-`.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new(
        ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "seconds"]
            .map(Column::Right),
    );
    for row in rows {
        let measured = [Some(row.loss), Some(row.accuracy), row.val_loss, row.val_accuracy];
        let tested = [Some(row.test_loss), Some(row.test_accuracy), Some(row.seconds)];
        let figures = measured.into_iter().chain(tested).map(four_decimals);
        table.row(std::iter::once(row.epoch.to_string()).chain(figures));
    }
    table.to_string()
}

fn four_decimals(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.4}"))
}
