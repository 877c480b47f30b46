//! A file that a command writes where its user says: never over another, unless told to, and never into a run.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use millefeuille_core::failure::{Failure, FailureKind};

use crate::input;
use crate::runs::{self, files};

/// A file that may be written.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    overwrite: bool,
}

impl OutputFile {
    /// Checks before anything is computed that the file may be written.
    ///
    /// # Errors
    /// If it is in a run directory, or something is there already that may not be replaced.
    pub(super) fn new(path: PathBuf, overwrite: bool) -> Result<Self, Failure> {
        let absolute = std::path::absolute(&path)
            .map_err(|error| Failure::of_file(path.display(), "cannot be written", &error))?;
        // Pictures and checkpoints are a level below.
        if absolute.ancestors().skip(1).take(2).any(runs::holds_a_run) {
            let what = "is in a run directory, where only the run writes (name another --output)";
            return Err(Failure::at(FailureKind::Data, path.display(), what));
        }
        let file = Self { path, overwrite };
        if !input::exists(&file.path)? {
            return Ok(file);
        }
        if !fs::metadata(&file.path).is_ok_and(|there| there.is_file()) {
            let what = "is no file to write to (name another --output)";
            return Err(Failure::at(FailureKind::Data, &file, what));
        }
        if overwrite { Ok(file) } else { Err(file.there_already()) }
    }

    /// Writes the file, whole.
    ///
    /// # Errors
    /// If it can't be written, or has come into being meanwhile.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        match files::write_output(&self.path, bytes, self.overwrite) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.there_already()),
            Err(error) => Err(Failure::of_file(self, "cannot be written", &error)),
        }
    }

    fn there_already(&self) -> Failure {
        let what = "there is a file already (--overwrite replaces it, another --output leaves it alone)";
        Failure::at(FailureKind::Data, self, what)
    }
}

impl fmt::Display for OutputFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
