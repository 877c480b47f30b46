//! Reads the files of a data set from a directory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use millefeuille_core::data::NamedFile;
use millefeuille_core::data::builtin;
use millefeuille_core::data::dataset::{Dataset, FILES};
use millefeuille_core::data::idx::{self, Kind};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Source;

use crate::{failpoints, input};

/// What is in each of [`FILES`].
const KINDS: [Kind; 4] = [Kind::Images, Kind::Labels, Kind::Images, Kind::Labels];

/// Reads a job's data.
///
/// # Errors
/// The file, what is wrong with it, and what to do.
pub fn read(source: &Source) -> Result<Dataset, Failure> {
    failpoints::at("data-before-read");
    let files = match source {
        Source::Mnist => builtin::mnist(),
        Source::Directory(directory) => from_directory(directory)?,
    };
    Dataset::decode(files).map_err(|error| Failure::new(FailureKind::Data, error.to_string()))
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

fn from_directory(directory: &Path) -> Result<[NamedFile; 4], Failure> {
    let wrong = |what| Err(Failure::at(FailureKind::Data, directory.display(), what));
    if !input::exists(directory)? {
        return wrong("there is no such directory (--data names one with the four IDX files)");
    }
    if !directory.is_dir() {
        return wrong("is a file, not a directory (--data names one with the four IDX files)");
    }
    let file = |index: usize| named(&find(directory, FILES[index])?, KINDS[index]);
    let [a, b, c, d] = std::array::from_fn(file);
    Ok([a?, b?, c?, d?])
}

/// The file of this name, raw or gzipped.
fn find(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let raw = directory.join(name);
    if input::exists(&raw)? {
        return Ok(raw);
    }
    let gzipped = directory.join(format!("{name}.gz"));
    let what = format!("missing (neither it nor {name}.gz is there)");
    let missing = || Failure::at(FailureKind::Data, raw.display(), what);
    input::exists(&gzipped)?.then_some(gzipped).ok_or_else(missing)
}

fn named(path: &Path, kind: Kind) -> Result<NamedFile, Failure> {
    let bytes = input::read(path, |start| idx::worth_reading(start, kind))?;
    Ok(NamedFile { name: path.display().to_string(), bytes: Cow::Owned(bytes) })
}
