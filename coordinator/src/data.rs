//! Reads the files of a data set from a directory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use millefeuille_core::data::NamedFile;
use millefeuille_core::data::builtin;
use millefeuille_core::data::dataset::{Dataset, FILES};
use millefeuille_core::data::idx::{self, Kind};
use millefeuille_core::job::Source;

use crate::{failpoints, input};

/// What is in each of [`FILES`].
const KINDS: [Kind; 4] = [Kind::Images, Kind::Labels, Kind::Images, Kind::Labels];

/// Reads a job's data.
///
/// # Errors
/// One line that names the file, what is wrong with it, and what to do.
pub fn read(source: &Source) -> Result<Dataset, String> {
    failpoints::at("data-before-read");
    let files = match source {
        Source::Mnist => builtin::mnist(),
        Source::Directory(directory) => from_directory(directory)?,
    };
    Dataset::decode(files).map_err(|error| error.to_string())
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

fn from_directory(directory: &Path) -> Result<[NamedFile; 4], String> {
    let name = directory.display();
    if !input::exists(directory)? {
        return Err(format!("{name}: there is no such directory (--data names one with the four IDX files)"));
    }
    if !directory.is_dir() {
        return Err(format!("{name}: is a file, not a directory (--data names one with the four IDX files)"));
    }
    let file = |index: usize| named(&find(directory, FILES[index])?, KINDS[index]);
    let [a, b, c, d] = std::array::from_fn(file);
    Ok([a?, b?, c?, d?])
}

/// The file of this name, raw or gzipped.
fn find(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let raw = directory.join(name);
    if input::exists(&raw)? {
        return Ok(raw);
    }
    let gzipped = directory.join(format!("{name}.gz"));
    let missing = || format!("{}: missing (neither it nor {name}.gz is there)", raw.display());
    input::exists(&gzipped)?.then_some(gzipped).ok_or_else(missing)
}

fn named(path: &Path, kind: Kind) -> Result<NamedFile, String> {
    let bytes = input::read(path, |start| idx::worth_reading(start, kind))?;
    Ok(NamedFile { name: path.display().to_string(), bytes: Cow::Owned(bytes) })
}
