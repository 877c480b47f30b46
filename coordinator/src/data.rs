//! Reads the data of a job from where it lies.

use std::path::Path;

use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::formats::Files;
use millefeuille_core::data::formats::idx::mnist;
use millefeuille_core::job::Source;

use crate::{failpoints, input};

/// Reads a job's data.
///
/// # Errors
/// One line that names the file, what is wrong with it, and what to do.
pub fn read(source: &Source) -> Result<Dataset, String> {
    failpoints::at("data-before-read");
    match source {
        Source::Mnist => source.format().decode(mnist::files()).map_err(|error| error.to_string()),
        Source::Directory(path) => source.format().read(path, &Disk),
    }
}

/// The files of this machine.
struct Disk;

impl Files for Disk {
    fn exists(&self, path: &Path) -> Result<bool, String> {
        input::exists(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn read(&self, path: &Path, worth_reading: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, String> {
        input::read(path, worth_reading)
    }
}

/// The same source with an absolute path, so that it is found again from anywhere.
///
/// # Errors
/// If there is no current directory.
pub fn absolute(source: &Source) -> Result<Source, String> {
    let Source::Directory(path) = source else { return Ok(source.clone()) };
    let absolute = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Source::Directory(absolute))
}
