//! Data formats, one per file: they read a source and decode it into [`Part`]s.
//!
//! To add a format, add a file with a [`Format`] and a line in the registry below. A path's ending determines its format,
//! unless the job names one. Nothing here opens a file: the caller does, through [`Files`].

mod array;
mod csv;
pub mod idx;
mod numpy;
mod parquet;

use std::path::Path;

use super::dataset::DataFile;
use super::part::Part;
use super::request::{TableLayout, Wanted};
use super::table::Known;
use crate::failure::Failure;
use crate::registry::registry;

registry! {
    /// A data format.
    pub enum DataFormat: dyn Format, "format", "formats" {
        /// A text table.
        Csv = csv::Csv,
        /// A NumPy array: a table of numbers.
        Npy = numpy::Npy,
        /// Several NumPy arrays by name.
        Npz = numpy::Npz,
        /// A table in a Parquet file.
        Parquet = parquet::Parquet,
        /// A directory with four IDX files, named as MNIST's are. Reads whatever no other format claims.
        Idx = idx::IdxDirectory,
    }
}

/// The most bytes that a file of `stored` bytes may become: more is no data, but a bomb. Real data of more than a few megabytes
/// is made a few dozen times smaller at best.
fn most_inflated(stored: u64) -> u64 {
    stored.saturating_mul(200).max(1 << 30)
}

/// The interface of a data format.
pub(crate) trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether this path is of this format, judged by its name.
    fn claims(&self, path: &Path) -> bool;

    /// Whether a source of this format has a test set of its own.
    fn has_test_set(&self) -> bool {
        false
    }

    /// Reads a source.
    ///
    /// # Errors
    /// One line that names the file, the place in it, what is wrong, and what to do.
    fn read(&self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure>;
}

/// What a caller wants of a source.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The keys of a table's layout.
    pub layout: &'a TableLayout,
    /// Which targets the loss can learn.
    pub wanted: Wanted,
    /// What is known of the data before it is read.
    pub known: Known<'a>,
}

/// What a source holds.
#[derive(Clone, Debug)]
pub struct Content {
    /// The samples to train on.
    pub train: Part,
    /// The test set, if the source has one.
    pub test: Option<Part>,
    /// The files that were read, in the order that a job's hash uses.
    pub files: Vec<DataFile>,
}

/// Reads files, for a format.
pub trait Files {
    /// Whether this path exists.
    ///
    /// # Errors
    /// If that can't be determined.
    fn exists(&self, path: &Path) -> Result<bool, Failure>;

    /// Whether the path is a directory.
    fn is_directory(&self, path: &Path) -> bool;

    /// The names of what is in a directory, sorted.
    ///
    /// # Errors
    /// If it can't be listed.
    fn list(&self, directory: &Path) -> Result<Vec<String>, Failure>;

    /// Reads a file: as many bytes as `worth_reading` returns for its first bytes.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    fn read(&self, path: &Path, worth_reading: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure>;
}

impl DataFormat {
    /// The format of a path.
    pub fn of(path: &Path) -> Self {
        Self::ALL.iter().copied().find(|format| format.get().claims(path)).unwrap_or(Self::Idx)
    }

    /// Whether a source of this format has a test set of its own.
    pub fn has_test_set(self) -> bool {
        self.get().has_test_set()
    }

    /// Reads a source.
    ///
    /// # Errors
    /// One line that names the file, the place in it, what is wrong, and what to do.
    pub fn read(self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        self.get().read(path, request, files)
    }
}
