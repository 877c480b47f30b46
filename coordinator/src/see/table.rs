//! Aligned columns without borders, for histories and for lists of workers, jobs and metrics.
//!
//! Columns are two spaces apart, and as wide as their widest cell; a cell is never cut, and a number never broken. A table
//! that is wider than the terminal leaves out empty columns and brings the others closer together. If that is not enough,
//! it is printed in several blocks, one below the other, each with the first column; and words of a cell that is wider than
//! the terminal are wrapped.
//!
//! Cells may come from other machines (a worker's name, say), so control characters are replaced: no cell can move the
//! reader's cursor.

use std::fmt;

use super::{folded, width};

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
        let space = " ".repeat(columns.saturating_sub(width(cell)));
        match self {
            Column::Left(_) => format!("{cell}{space}"),
            Column::Right(_) => format!("{space}{cell}"),
        }
    }
}

/// Spaces between columns.
const GAP: usize = 2;
/// Spaces between columns where room is short.
const NARROW_GAP: usize = 1;

/// A table that is filled row by row. Printed with `{}` it is as wide as it is; [`Table::fitting`] fits it into a terminal.
/// Each line ends in a line feed.
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

    /// The table in at most `columns`, unless a word is wider.
    pub fn fitting(&self, columns: usize) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        if self.width(&all, GAP) <= columns {
            return self.block(&all, GAP, columns);
        }
        let filled: Vec<usize> = all.into_iter().filter(|&index| self.is_filled(index)).collect();
        if let Some(gap) = [GAP, NARROW_GAP].into_iter().find(|&gap| self.width(&filled, gap) <= columns) {
            return self.block(&filled, gap, columns);
        }
        let blocks = self.blocks(&filled, columns).into_iter();
        let blocks: Vec<String> = blocks.map(|block| self.block(&block, GAP, columns)).collect();
        blocks.join("\n")
    }

    /// Distributes these columns over blocks that fit. Each begins with the first of them.
    fn blocks(&self, shown: &[usize], columns: usize) -> Vec<Vec<usize>> {
        let Some((&first, rest)) = shown.split_first() else { return Vec::new() };
        let mut blocks = vec![vec![first]];
        for &index in rest {
            let block = blocks.last_mut().expect("there is one from the beginning");
            block.push(index);
            if block.len() > 2 && self.width(block, GAP) > columns {
                block.pop();
                blocks.push(vec![first, index]);
            }
        }
        blocks
    }

    /// Whether a column has any content.
    fn is_filled(&self, index: usize) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| !row[index].is_empty())
    }

    fn width_of(&self, index: usize) -> usize {
        let header = width(self.columns[index].header());
        self.rows.iter().map(|row| width(&row[index])).fold(header, usize::max)
    }

    /// The width of these columns side by side.
    fn width(&self, shown: &[usize], gap: usize) -> usize {
        shown.iter().map(|&index| self.width_of(index)).sum::<usize>() + gap * shown.len().saturating_sub(1)
    }

    /// Header and rows of these columns.
    fn block(&self, shown: &[usize], gap: usize, columns: usize) -> String {
        let widths: Vec<usize> = shown.iter().map(|&index| self.width_of(index)).collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells = shown.iter().zip(&widths);
            let cells = cells.map(|(&index, &width)| self.columns[index].align(&cell(index), width));
            let line = cells.collect::<Vec<_>>().join(&" ".repeat(gap));
            folded(line.trim_end(), columns, GAP) + "\n"
        };
        let header = line(&|index| self.columns[index].header().to_string());
        let rows = self.rows.iter().map(|row| line(&|index| row[index].clone()));
        std::iter::once(header).chain(rows).collect()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fitting(usize::MAX))
    }
}

/// `text` with its control characters, line feeds among them, replaced by `�`.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
