//! Cells of a column while they are read.

use std::collections::BTreeMap;

use super::Kind;
use crate::data::part::{Cells, Texts};

/// A cell of a text file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::data) enum Cell<'a> {
    /// Nothing, or a word for nothing.
    Missing,
    /// A number.
    Number(f32),
    /// A number beyond `f32`, or an infinity.
    NotFinite,
    /// Anything else.
    Text(&'a str),
}

/// Words for a missing value, as pandas and R write them.
const MISSING: [&str; 10] = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>"];

impl<'a> Cell<'a> {
    /// Reads the text of a cell; spaces around it do not count.
    pub(in crate::data) fn of(text: &'a str) -> Self {
        let text = text.trim_ascii();
        match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Self::Number(number),
            _ if MISSING.contains(&text) => Self::Missing,
            Ok(_) => Self::NotFinite,
            Err(_) => Self::Text(text),
        }
    }
}

/// A column that is being read.
#[derive(Clone, Debug)]
pub(in crate::data) enum ColumnCells {
    /// Of numbers; NaN where one is missing.
    Numbers(Vec<f32>),
    /// Of texts.
    Texts(TextCells),
}

/// A column of texts that is being read.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct TextCells {
    texts: Texts,
    places: BTreeMap<String, u32>,
    /// How many of the cells are numbers.
    pub(in crate::data) numbers: usize,
    /// The first cell that is none, by its row from 0.
    pub(in crate::data) first_text: Option<usize>,
}

impl ColumnCells {
    /// A column without cells.
    pub(in crate::data) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Numbers => Self::Numbers(Vec::new()),
            Kind::Texts => Self::Texts(TextCells::default()),
        }
    }

    /// Appends the cells of another part of the same column.
    pub(in crate::data) fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Numbers(numbers), Self::Numbers(more)) => numbers.extend(more),
            (Self::Texts(texts), Self::Texts(more)) => texts.append(&more),
            (Self::Numbers(_), Self::Texts(_)) | (Self::Texts(_), Self::Numbers(_)) => {
                unreachable!("all parts of a column are read as one type")
            }
        }
    }

    /// The finished column.
    pub(in crate::data) fn finish(self) -> Cells {
        match self {
            Self::Numbers(numbers) => Cells::Numbers(numbers),
            Self::Texts(texts) => Cells::Texts(texts.texts),
        }
    }
}

impl TextCells {
    /// Adds a cell's text.
    pub(in crate::data) fn push(&mut self, cell: Cell<'_>, text: &str) {
        match cell {
            Cell::Missing => return self.texts.codes.push(Texts::MISSING),
            Cell::Number(_) | Cell::NotFinite => self.numbers += 1,
            Cell::Text(_) if self.first_text.is_none() => self.first_text = Some(self.texts.codes.len()),
            Cell::Text(_) => {}
        }
        let code = self.code(text.trim_ascii());
        self.texts.codes.push(code);
    }

    /// The text of a row.
    pub(in crate::data) fn text(&self, row: usize) -> &str {
        self.texts.different.get(self.texts.codes[row] as usize).map_or("", String::as_str)
    }

    /// How many cells have a text that is no number.
    pub(in crate::data) fn other(&self) -> usize {
        let missing = self.texts.codes.iter().filter(|&&code| code == Texts::MISSING).count();
        self.texts.codes.len() - missing - self.numbers
    }

    fn code(&mut self, text: &str) -> u32 {
        if let Some(&code) = self.places.get(text) {
            return code;
        }
        let code = self.texts.different.len() as u32;
        self.texts.different.push(text.to_string());
        self.places.insert(text.to_string(), code);
        code
    }

    fn append(&mut self, other: &Self) {
        if self.first_text.is_none() {
            self.first_text = other.first_text.map(|row| row + self.texts.codes.len());
        }
        self.numbers += other.numbers;
        let codes: Vec<u32> = other.texts.different.iter().map(|text| self.code(text)).collect();
        let code = |&code: &u32| codes.get(code as usize).copied().unwrap_or(Texts::MISSING);
        self.texts.codes.extend(other.texts.codes.iter().map(code));
    }
}
