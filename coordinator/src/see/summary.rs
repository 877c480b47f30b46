//! Prints the layers of a model like `model.summary()` of Keras 3 at a width of 80 columns.
//!
//! Names longer than Keras' columns widen the table, where Keras would break them. With fewer columns available,
//! columns with spare room shrink, and nothing is cut.

use serde::Serialize;

use super::{thousands, width};

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its name in the model: `dense_1`.
    pub name: String,
    /// Its type: `Dense`.
    pub kind: String,
    /// The shape of its output: `(None, 128)`.
    pub output: String,
    /// Number of trainable parameters.
    pub params: u64,
}

/// Every parameter of this project is an `f32`.
const BYTES_A_PARAM: u64 = 4;

const HEADERS: [&str; 3] = ["Layer (type)", "Output Shape", "Param #"];

/// The widths of Keras' columns at 80, without the spaces at their sides.
const KERAS_WIDTHS: [usize; 3] = [31, 22, 13];

/// The width around the columns' text: four strokes, and a space at either side of each text.
const FRAME: usize = 10;

/// The summary in at most `columns`, unless a word is too long, with a line feed after each line.
pub fn summary(model: &str, layers: &[Layer], columns: usize) -> String {
    let rows: Vec<[String; 3]> = layers.iter().map(cells).collect();
    let widths = widths(&rows, columns);
    let mut lines = vec![
        format!("Model: \"{model}\""),
        rule(&widths, '━', ['┏', '┳', '┓']),
        line(&widths, '┃', &HEADERS.map(str::to_owned)),
        rule(&widths, '━', ['┡', '╇', '┩']),
    ];
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            lines.push(rule(&widths, '─', ['├', '┼', '┤']));
        }
        lines.push(line(&widths, '│', row));
    }
    lines.push(rule(&widths, '─', ['└', '┴', '┘']));
    lines.extend(totals(layers.iter().map(|layer| layer.params).sum()));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn cells(layer: &Layer) -> [String; 3] {
    [format!("{} ({})", layer.name, layer.kind), layer.output.clone(), thousands(layer.params)]
}

fn widths(rows: &[[String; 3]], columns: usize) -> [usize; 3] {
    let needed: [usize; 3] = std::array::from_fn(|column| {
        rows.iter().map(|row| width(&row[column])).fold(width(HEADERS[column]), usize::max)
    });
    let mut widths: [usize; 3] = std::array::from_fn(|column| needed[column].max(KERAS_WIDTHS[column]));
    let room = columns.saturating_sub(FRAME);
    for column in 0..widths.len() {
        let too_many = widths.iter().sum::<usize>().saturating_sub(room);
        widths[column] -= too_many.min(widths[column] - needed[column]);
    }
    widths
}

fn line(widths: &[usize; 3], side: char, [name, output, params]: &[String; 3]) -> String {
    let [wide_name, wide_output, wide_params] = *widths;
    format!("{side} {name:<wide_name$} {side} {output:<wide_output$} {side} {params:>wide_params$} {side}")
}

fn rule(widths: &[usize; 3], stroke: char, [left, middle, right]: [char; 3]) -> String {
    let strokes = widths.map(|wide| stroke.to_string().repeat(wide + 2));
    format!("{left}{}{right}", strokes.join(&middle.to_string()))
}

fn totals(params: u64) -> [String; 3] {
    let total = format!("{} ({})", thousands(params), memory_size(params * BYTES_A_PARAM));
    [
        format!(" Total params: {total}"),
        format!(" Trainable params: {total}"),
        format!(" Non-trainable params: 0 ({})", memory_size(0)),
    ]
}

/// A number of bytes as formatted by Keras' `readable_memory_size`.
fn memory_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KB", "MB", "GB", "TB", "PB"].into_iter().peekable();
    let mut unit = "B";
    while let Some(next) = units.next() {
        unit = next;
        if size < 1024.0 || units.peek().is_none() {
            break;
        }
        size /= 1024.0;
    }
    format!("{size:.2} {unit}")
}
