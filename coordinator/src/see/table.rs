//! Aligned columns without borders, for histories and for lists of workers, jobs and metrics.
//!
//! Columns are two spaces apart, and as wide as their widest cell; a cell is never cut. Cells may come from other
//! machines (a worker's name, say), so control characters are replaced: no cell can move the reader's cursor.

use std::fmt;

use super::width;

/// A column's header, and the alignment of its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// Left-aligned, for words.
    Left(&'a str),
    /// Right-aligned, for numbers.
    Right(&'a str),
}

impl Column<'_> {
    fn header(&self) -> &str {
        match self {
            Column::Left(header) | Column::Right(header) => header,
        }
    }

    fn align(&self, cell: &str, columns: usize) -> String {
        match self {
            Column::Left(_) => format!("{cell:<columns$}"),
            Column::Right(_) => format!("{cell:>columns$}"),
        }
    }
}

/// A table that is filled row by row and printed with `{}`; each line ends in a line feed.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    columns: Vec<Column<'a>>,
    rows: Vec<Vec<String>>,
}

impl<'a> Table<'a> {
    /// An empty table; it still prints its headers.
    pub fn new(columns: impl IntoIterator<Item = Column<'a>>) -> Self {
        Table { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells at its end stay empty.
    ///
    /// # Panics
    /// If there are more cells than columns.
    pub fn row<T: fmt::Display>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(|cell| printable(&cell.to_string())).collect();
        assert!(
            row.len() <= self.columns.len(),
            "a row of {} cells for {} columns",
            row.len(),
            self.columns.len()
        );
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |(index, column): (usize, &Column)| {
            self.rows.iter().map(|row| width(&row[index])).fold(width(column.header()), usize::max)
        };
        self.columns.iter().enumerate().map(widest).collect()
    }

    fn line<'c>(&self, widths: &[usize], cells: impl Iterator<Item = &'c str>) -> String {
        let aligned: Vec<String> = self
            .columns
            .iter()
            .zip(widths)
            .zip(cells)
            .map(|((column, &wide), cell)| column.align(cell, wide))
            .collect();
        aligned.join("  ").trim_end().to_owned()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        writeln!(f, "{}", self.line(&widths, self.columns.iter().map(Column::header)))?;
        for row in &self.rows {
            writeln!(f, "{}", self.line(&widths, row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// `text` with its control characters, line feeds among them, replaced by `�`.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
