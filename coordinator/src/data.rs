//! Reads the data of a job from where it lies.

use std::path::Path;

use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::formats::Files;
use millefeuille_core::data::formats::idx::mnist;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::Source;

use crate::{failpoints, input};

/// Reads a job's data.
///
/// # Errors
/// The file, what is wrong with it, and what to do.
pub fn read(source: &Source) -> Result<Dataset, Failure> {
    failpoints::at("data-before-read");
    match source {
        Source::Mnist => source.format().decode(mnist::files()),
        Source::Directory(path) => source.format().read(path, &Disk),
    }
}

/// Checks that a job's data may be where its source says, before anything else is done.
///
/// # Errors
/// What is wrong with the source, and what to do.
pub fn check(source: &Source) -> Result<(), &'static str> {
    match source {
        Source::Mnist => Ok(()),
        Source::Directory(path) if path.is_dir() => Ok(()),
        Source::Directory(path) => match path.try_exists() {
            Ok(false) => Err("there is no such directory (give one with the four IDX files, or mnist)"),
            Ok(true) => Err("is a file, not a directory (give one with the four IDX files, or mnist)"),
            // Whoever reads it says why it can't be found.
            Err(_) => Ok(()),
        },
    }
}

/// The files of this machine.
struct Disk;

impl Files for Disk {
    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        input::exists(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn read(&self, path: &Path, worth_reading: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        input::read(path, worth_reading)
    }
}

/// The same source with an absolute path, so that it is found again from anywhere.
///
/// # Errors
/// If there is no current directory.
pub fn absolute(source: &Source) -> Result<Source, Failure> {
    let Source::Directory(path) = source else { return Ok(source.clone()) };
    let absolute = std::path::absolute(path);
    let absolute = absolute.map_err(|error| Failure::of_file(path.display(), "cannot be found", &error))?;
    Ok(Source::Directory(absolute))
}
