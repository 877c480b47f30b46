//! Data formats, one a file: from what stands on disk to a [`Dataset`].
//!
//! A new format is a file with a [`Format`], and a line in the registry below. Which one reads a job's source is told by its
//! path. Nothing here opens a file: whoever does is [`Files`].

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

/// What a data format's file says of it.
pub(crate) trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether this path is of this format, by its name.
    fn claims(&self, path: &Path) -> bool;

    /// What samples are to be learnt as, where that is so before anything is read.
    fn target(&self) -> Option<Target>;

    /// Reads the files of a source, in the order in which a job's hash has them.
    ///
    /// # Errors
    /// One line that names the file, what is wrong with it, and what to do.
    fn read(&self, path: &Path, files: &dyn Files) -> Result<Vec<NamedFile>, Failure>;

    /// Makes a data set of these files.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn decode(&self, files: Vec<NamedFile>) -> Result<Dataset, DataError>;
}

/// Reads files, for a format.
pub trait Files {
    /// Whether there is something of this path.
    ///
    /// # Errors
    /// If that can't be found out.
    fn exists(&self, path: &Path) -> Result<bool, Failure>;

    /// Whether it is a directory.
    fn is_directory(&self, path: &Path) -> bool;

    /// A file's bytes: as many as `worth_reading` says to its first ones.
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

    /// What samples are to be learnt as, where that is so before anything is read.
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

    /// Makes a data set of files that were read.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(self, files: Vec<NamedFile>) -> Result<Dataset, Failure> {
        self.get().decode(files).map_err(|error| Failure::new(FailureKind::Data, error.to_string()))
    }
}
