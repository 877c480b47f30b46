//! Data formats, one per source file: they decode files into a [`Dataset`].
//!
//! To add a format, add a file with a [`Format`] and a line in the registry below. A job's path determines its
//! format. Nothing here opens a file: the caller does, through [`Files`].

pub mod idx;

use std::path::Path;

use super::NamedFile;
use super::dataset::{DataError, Dataset};
use super::schema::Target;
use crate::failure::{Failure, FailureKind};
use crate::registry::registry;

registry! {
    /// A data format.
    pub enum DataFormat: dyn Format, "format", "formats" {
        /// A directory with four IDX files, named as MNIST's are. Reads whatever no other format claims.
        Idx = idx::IdxDirectory,
    }
}

/// The interface of a data format.
pub(crate) trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether this path is of this format, judged by its name.
    fn claims(&self, path: &Path) -> bool;

    /// The target, if it is known before anything is read.
    fn target(&self) -> Option<Target>;

    /// Reads the files of a source, in the order that a job's hash uses.
    ///
    /// # Errors
    /// One line that names the file, what is wrong with it, and what to do.
    fn read(&self, path: &Path, files: &dyn Files) -> Result<Vec<NamedFile>, Failure>;

    /// Decodes these files into a data set.
    ///
    /// # Errors
    /// The first problem found.
    fn decode(&self, files: Vec<NamedFile>) -> Result<Dataset, DataError>;
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

    /// The target, if it is known before anything is read.
    pub fn target(self) -> Option<Target> {
        self.get().target()
    }

    /// Reads a source.
    ///
    /// # Errors
    /// One line that names the file, what is wrong with it, and what to do.
    pub fn read(self, path: &Path, files: &dyn Files) -> Result<Dataset, Failure> {
        self.decode(self.get().read(path, files)?)
    }

    /// Decodes files that have been read into a data set.
    ///
    /// # Errors
    /// The first problem found.
    pub fn decode(self, files: Vec<NamedFile>) -> Result<Dataset, Failure> {
        self.get().decode(files).map_err(|error| Failure::new(FailureKind::Data, error.to_string()))
    }
}
