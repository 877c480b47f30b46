//! Shows what preprocessing does to the data: shapes in NumPy's style, and the first labels with their one-hot rows.

use std::fmt::Write as _;

use millefeuille_core::data::schema::{Features, Schema, Target};
use serde::Serialize;

use super::folded;

/// The content of the overview. Counts and rows come from the real arrays; this module only formats text.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// Number of training samples, validation included.
    pub train: usize,
    /// Number of test samples.
    pub test: usize,
    /// The schema of the samples.
    pub schema: Schema,
    /// The smallest and the largest input after preprocessing.
    pub values: (f32, f32),
    /// A table's columns; empty if the data is no table.
    pub columns: Vec<ColumnOverview>,
    /// The classes, with the number of training samples of each; empty if the target is numbers.
    pub classes: Vec<(String, usize)>,
    /// The names of the numbers to learn, as far as they have any.
    pub targets: Vec<String>,
    /// The fraction of training samples, at the end, used for validation.
    pub validation_split: f64,
    /// Number of validation samples.
    pub validation: usize,
    /// The first training labels, each with its one-hot row.
    pub first: Vec<(u32, Vec<f32>)>,
}

/// A table's column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnOverview {
    /// Its name.
    pub name: String,
    /// The smallest and the largest number in the training split, as in the file; `None` of a column of texts.
    pub range: Option<(f32, f32)>,
    /// The same after preprocessing.
    pub seen: (f32, f32),
    /// Its different texts, sorted; each becomes an input of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// The text of `show data` in lines of at most `columns`, with a line feed after each.
pub fn overview(data: &Overview, columns: usize) -> String {
    let mut text = String::new();
    let splits = [("train", data.train), ("test", data.test)];
    for (split, samples) in splits.into_iter().filter(|(_, samples)| *samples > 0) {
        text += &inputs(data, split, samples);
        text += &labels(data, split, samples);
    }
    text += &split(data);
    text += &columns_of(data);
    text += &classes_of(data);
    text += &one_hot_rows(&data.first);
    text.lines().map(|line| folded(line, columns, INDENT) + "\n").collect()
}

/// The column at which the text after a name begins.
const INDENT: usize = 9;

fn inputs(data: &Overview, split: &str, samples: usize) -> String {
    let Features { element, shape } = &data.schema.features;
    let sides: String = shape.iter().map(|side| format!(", {side}")).collect();
    let (low, high) = data.values;
    let (name, width) = (format!("x_{split}:"), data.schema.features.width());
    format!("{name:<8} ({samples}{sides}) {element} → ({samples}, {width}) float32, values {low} … {high}\n")
}

fn labels(data: &Overview, split: &str, samples: usize) -> String {
    let name = format!("y_{split}:");
    match data.schema.target {
        Target::Class { classes } => {
            format!("{name:<8} ({samples},) uint8 → ({samples}, {classes}) float32, one-hot\n")
        }
        Target::Reals { width } => format!("{name:<8} ({samples}, {width}) float32\n"),
    }
}

fn split(data: &Overview) -> String {
    let test = if data.columns.is_empty() { String::new() } else { format!(", {} test", data.test) };
    if data.validation == 0 {
        return format!("split:   {} train, no validation{test}\n", data.train);
    }
    let train = data.train - data.validation;
    // Rounded, so that 0.07 is not printed as 7.000000000000001 %.
    let percent = (data.validation_split * 1e8).round() / 1e6;
    format!("split:   {train} train / {} validation (the last {percent} %){test}\n", data.validation)
}

/// A line for each column of a table: its range in the file, and as the model sees it; or its categories.
fn columns_of(data: &Overview) -> String {
    if data.columns.is_empty() {
        return String::new();
    }
    let mut text = "\nthe columns, and what the model sees of them:\n".to_string();
    for ColumnOverview { name, range, seen: (low, high), categories } in &data.columns {
        let line = match range {
            Some((from, to)) => format!("{from} … {to} → {low} … {high}"),
            None => format!("{} → one input for each of {}", categories.join(", "), categories.len()),
        };
        text += &format!("  {name}: {line}\n");
    }
    if !data.targets.is_empty() {
        text += &format!("to learn: {}\n", data.targets.join(", "));
    }
    text
}

/// The classes by name with their training samples; classes without names are all there in MNIST's way.
fn classes_of(data: &Overview) -> String {
    if data.columns.is_empty() || data.classes.is_empty() {
        return String::new();
    }
    let counts: Vec<_> = data.classes.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("classes to train on: {}\n", counts.join(", "))
}

fn one_hot_rows(first: &[(u32, Vec<f32>)]) -> String {
    if first.is_empty() {
        return String::new();
    }
    let mut text = format!("\nthe first {} training labels and their one-hot rows:\n", first.len());
    for (label, row) in first {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:>3}  [{}]", row.iter().map(numpy).collect::<Vec<_>>().join(" "));
    }
    text
}

/// A number as NumPy prints it in an array: whole numbers end in a point.
fn numpy(value: &f32) -> String {
    if value.fract() == 0.0 { format!("{value:.0}.") } else { value.to_string() }
}
