//! Text tables: CSV, TSV, and their gzipped forms, by the crate `csv`.
//!
//! The text is cut at line ends into parts that all cores read at once; a quoted line end is none, so quotes are counted
//! first. What a column is follows from its cells: numbers, if all are; else texts. A text that turns up late in a column of
//! numbers makes the table be read a second time.
//!
//! Refused, by line or row and column: lines with more or fewer fields than the first, a quote that is never closed, text
//! that is not UTF-8, numbers beyond `f32`, `1,5` for a number, and a column that is mostly numbers but for some texts.

use std::ops::Range;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use rayon::prelude::*;

use super::{Content, Files, Format, Request};
use crate::data::dataset::DataFile;
use crate::data::gzip;
use crate::data::part::{Part, TableColumn};
use crate::data::place;
use crate::data::table::{Cell, ColumnCells, Kind, Plan, Use};
use crate::failure::{Failure, FailureKind};

/// A table in a text file.
pub(crate) struct Csv;

/// The most bytes of a table, inflated.
const MAX_BYTES: u64 = 64 << 30;
/// Bytes that are read at once by a core.
const PART: usize = 4 << 20;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn claims(&self, path: &Path) -> bool {
        separator_of(path).is_some()
    }

    fn read(&self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let name = path.display().to_string();
        let bytes = files.read(path, &|_| MAX_BYTES + 1)?;
        let bytes = gzip::inflated(&name, bytes, MAX_BYTES)?;
        let file = DataFile::of(path, &bytes);
        let separator = request.layout.separator.or_else(|| separator_of(path)).unwrap_or(',');
        let train = Text::new(&name, &bytes, separator)?.part(request)?;
        Ok(Content { train, test: None, files: vec![file] })
    }
}

/// The separator of a file with this ending; `None` if it is no text table.
fn separator_of(path: &Path) -> Option<char> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(','),
        "tsv" | "tab" => Some('\t'),
        _ => None,
    }
}

/// The text of a table.
struct Text<'a> {
    file: &'a str,
    bytes: &'a [u8],
    separator: u8,
}

/// Columns of a part of the text, and the columns of numbers in which a text has turned up.
struct Cells {
    columns: Vec<Option<ColumnCells>>,
    texts: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(file: &'a str, bytes: &'a [u8], separator: char) -> Result<Self, Failure> {
        let wrong = |what: &str| Err(Failure::at(FailureKind::Data, file, what));
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.is_empty() {
            return wrong("the file is empty");
        }
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return wrong("is UTF-16 (save it as UTF-8)");
        }
        let Ok(separator) = u8::try_from(separator) else {
            return wrong(&format!("the separator {separator:?} is no ASCII character"));
        };
        let text = Self { file, bytes, separator };
        if let Err(error) = std::str::from_utf8(bytes) {
            return Err(text.at_line(error.valid_up_to(), "is not UTF-8 (save the file as UTF-8)"));
        }
        if let Some(open) = text.open_quote() {
            return Err(text.at_line(open, "a quote is opened here and never closed"));
        }
        Ok(text)
    }

    /// The quote that is still open at the end.
    fn open_quote(&self) -> Option<usize> {
        let quotes = || self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'"');
        // Counted first: nearly always the number is even.
        if quotes().count().is_multiple_of(2) {
            return None;
        }
        let mut reader = self.reader(0..self.bytes.len());
        let (mut record, mut last) = (ByteRecord::new(), 0);
        while reader.read_byte_record(&mut record).is_ok_and(|more| more) {
            last = record.position().map_or(last, |position| position.byte() as usize);
        }
        Some(last)
    }

    fn reader(&self, part: Range<usize>) -> csv::Reader<&'a [u8]> {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(self.separator);
        builder.from_reader(&self.bytes[part])
    }

    fn at_line(&self, offset: usize, what: &str) -> Failure {
        let line = 1 + self.bytes[..offset].iter().filter(|byte| **byte == b'\n').count();
        Failure::at(FailureKind::Data, format_args!("{}:{line}", self.file), what)
    }

    fn column<'n>(&'n self, name: &'n str) -> place::Column<'n> {
        place::Column { file: self.file, name }
    }

    /// The names of the columns, and where their cells begin.
    fn header(&self, has_header: bool) -> Result<(Vec<String>, usize), Failure> {
        let mut reader = self.reader(0..self.bytes.len());
        let mut record = ByteRecord::new();
        let read = reader.read_byte_record(&mut record).is_ok_and(|more| more);
        if !read {
            return Err(Failure::at(FailureKind::Data, self.file, "has no lines"));
        }
        let fields = record.iter().map(|field| String::from_utf8_lossy(field).trim().to_string());
        if !has_header {
            return Ok(((0..record.len()).map(|number| number.to_string()).collect(), 0));
        }
        let names: Vec<String> = fields.collect();
        let is_number = |name: &String| matches!(Cell::of(name), Cell::Number(_));
        if names.iter().all(is_number) {
            let what = "the first line has numbers only, and should have the names of the columns (set header = false)";
            return Err(self.at_line(0, what));
        }
        self.check_separator(&names)?;
        Ok((names, reader.position().byte() as usize))
    }

    /// A table of one column is most likely one with another separator.
    fn check_separator(&self, names: &[String]) -> Result<(), Failure> {
        let [name] = names else { return Ok(()) };
        let other = [';', '\t', '|', ','].into_iter().find(|separator| name.contains(*separator));
        let Some(separator) = other else { return Ok(()) };
        let what =
            format!("the first line has one field (set separator = {separator:?} if that separates them)");
        Err(self.at_line(0, &what))
    }

    fn part(&self, request: &Request<'_>) -> Result<Part, Failure> {
        let (names, first) = self.header(request.layout.header)?;
        let plan = Plan::new(self.file, names, request.layout, request.wanted, request.known)?;
        let mut kinds: Vec<Option<Kind>> = plan
            .columns
            .iter()
            .map(|column| (column.is_for != Use::Dropped).then(|| column.kind.unwrap_or(Kind::Numbers)))
            .collect();
        let parts = self.parts(first);
        let columns = loop {
            let cells = self.cells(&parts, &kinds)?;
            if cells.texts.is_empty() {
                break cells.columns;
            }
            for &column in &cells.texts {
                if plan.columns[column].kind == Some(Kind::Numbers) {
                    return Err(self.text_among_numbers(&parts, column, &plan.columns[column].name));
                }
                kinds[column] = Some(Kind::Texts);
            }
        };
        let mut read = Vec::new();
        for (planned, cells) in plan.columns.iter().zip(columns) {
            let Some(cells) = cells else { continue };
            if planned.kind.is_none() {
                self.check_texts(&planned.name, &cells, request.layout.header)?;
            }
            read.push((planned.is_for, TableColumn { name: planned.name.clone(), cells: cells.finish() }));
        }
        plan.part(self.file, read)
    }

    /// Parts of the text after the header that end at line ends.
    fn parts(&self, first: usize) -> Vec<Range<usize>> {
        let (mut parts, mut start, mut counted, mut is_open) = (Vec::new(), first, first, false);
        while start < self.bytes.len() {
            let mut end = (start + PART).min(self.bytes.len());
            loop {
                let quotes = self.bytes[counted..end].iter().filter(|byte| **byte == b'"').count();
                (counted, is_open) = (end, is_open ^ (quotes % 2 == 1));
                if end == self.bytes.len() || (!is_open && self.bytes[end - 1] == b'\n') {
                    break;
                }
                let rest = &self.bytes[end..];
                end += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |place| place + 1);
            }
            parts.push(start..end);
            start = end;
        }
        parts
    }

    /// The cells of all parts, read with these types; `None` for a column that is dropped.
    fn cells(&self, parts: &[Range<usize>], kinds: &[Option<Kind>]) -> Result<Cells, Failure> {
        let read: Vec<Result<Cells, Failure>> =
            parts.par_iter().map(|part| self.cells_of(part.clone(), kinds)).collect();
        let empty = kinds.iter().map(|kind| kind.map(ColumnCells::new)).collect();
        let mut all = Cells { columns: empty, texts: Vec::new() };
        for cells in read {
            let cells = cells?;
            for (column, more) in all.columns.iter_mut().zip(cells.columns) {
                if let (Some(column), Some(more)) = (column, more) {
                    column.append(more);
                }
            }
            all.texts.extend(
                cells.texts.into_iter().filter(|column| !all.texts.contains(column)).collect::<Vec<_>>(),
            );
        }
        Ok(all)
    }

    fn cells_of(&self, part: Range<usize>, kinds: &[Option<Kind>]) -> Result<Cells, Failure> {
        let start = part.start;
        let mut reader = self.reader(part);
        let mut columns: Vec<Option<ColumnCells>> =
            kinds.iter().map(|kind| kind.map(ColumnCells::new)).collect();
        let mut texts = Vec::new();
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record).is_ok_and(|more| more) {
            let offset = || start + record.position().map_or(0, |position| position.byte() as usize);
            if record.len() != kinds.len() {
                return Err(self.ragged(offset(), record.len(), kinds.len()));
            }
            for (place, (column, field)) in columns.iter_mut().zip(&record).enumerate() {
                let Some(column) = column else { continue };
                let text = std::str::from_utf8(field).unwrap_or_default();
                match (column, Cell::of(text)) {
                    (ColumnCells::Numbers(numbers), Cell::Number(number)) => numbers.push(number),
                    (ColumnCells::Numbers(numbers), Cell::Missing) => numbers.push(f32::NAN),
                    (ColumnCells::Numbers(_), Cell::NotFinite) => {
                        let what =
                            format!("`{text}` in field {} is not a finite number of 32 bits", place + 1);
                        return Err(self.at_line(offset(), &what));
                    }
                    (ColumnCells::Numbers(numbers), Cell::Text(_)) => {
                        numbers.push(f32::NAN);
                        if !texts.contains(&place) {
                            texts.push(place);
                        }
                    }
                    (ColumnCells::Texts(cells), cell) => cells.push(cell, text),
                }
            }
        }
        Ok(Cells { columns, texts })
    }

    fn ragged(&self, offset: usize, found: usize, expected: usize) -> Failure {
        let what = format!(
            "{found} fields, but the first line has {expected} (a field with a separator needs quotes, and a table has one \
             separator)"
        );
        self.at_line(offset, &what)
    }

    /// The failure for a text in a column that has numbers in the table to train on.
    fn text_among_numbers(&self, parts: &[Range<usize>], column: usize, name: &str) -> Failure {
        let mut row = 0;
        for part in parts {
            for record in self.reader(part.clone()).into_byte_records().flatten() {
                let text = String::from_utf8_lossy(record.get(column).unwrap_or_default()).into_owned();
                if matches!(Cell::of(&text), Cell::Text(_)) {
                    let what = format!("`{}` is no number{}", text.trim(), comma(&text));
                    return self.column(name).failure_at(row, what);
                }
                row += 1;
            }
        }
        self.column(name).failure_at(0, "is no number")
    }

    /// Checks that a column of texts was meant to be one.
    fn check_texts(&self, name: &str, cells: &ColumnCells, has_header: bool) -> Result<(), Failure> {
        let ColumnCells::Texts(texts) = cells else { return Ok(()) };
        let Some(row) = texts.first_text else { return Ok(()) };
        let (text, advice) = (texts.text(row), comma(texts.text(row)));
        if row == 0 && texts.other() == 1 && texts.numbers > 0 && !has_header {
            let what =
                format!("`{text}`, and numbers below: is the first line a header? (set header = true)");
            return Err(self.column(name).failure_at(row, what));
        }
        if !advice.is_empty() || texts.numbers > texts.other() {
            let what = format!(
                "`{text}` is no number{advice}, but {} of the column's values are (correct it, or drop the column)",
                texts.numbers
            );
            return Err(self.column(name).failure_at(row, what));
        }
        Ok(())
    }
}

/// What to say of a number with a decimal comma.
fn comma(text: &str) -> &'static str {
    let numbers = text.trim().split_once(',').is_some_and(|(whole, fraction)| {
        [whole.trim_start_matches(['-', '+']), fraction]
            .iter()
            .all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if numbers { " (write a point for the comma)" } else { "" }
}
