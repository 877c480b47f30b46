//! Where in a table something is wrong: every failure of a column or a cell names its place in the same words.

use std::fmt::Display;

use crate::failure::{Failure, FailureKind};

/// A column of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    /// The file, as failures name it.
    pub(super) file: &'a str,
    /// The column's name, or its number from 0.
    pub(super) name: &'a str,
}

impl Column<'_> {
    /// A failure of the whole column.
    pub(super) fn failure(self, what: impl Display) -> Failure {
        let Self { file, name } = self;
        Failure::at(FailureKind::Data, format_args!("{file}, column {name}"), what)
    }

    /// A failure of its cell in this row, from 0. People count rows from 1.
    pub(super) fn failure_at(self, row: usize, what: impl Display) -> Failure {
        let Self { file, name } = self;
        Failure::at(FailureKind::Data, format_args!("{file}, row {}, column {name}", row + 1), what)
    }
}
