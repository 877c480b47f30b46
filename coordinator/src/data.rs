//! Reads the files of a data set from a directory.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use millefeuille_core::data::NamedFile;
use millefeuille_core::data::builtin;
use millefeuille_core::data::dataset::{Dataset, FILES};
use millefeuille_core::job::Source;

/// Reads a job's data.
///
/// # Errors
/// One line that names the file, what is wrong with it, and what to do.
pub fn read(source: &Source) -> Result<Dataset, String> {
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
    if !directory.is_dir() {
        return Err(format!(
            "{}: there is no such directory (--data names one with the four IDX files)",
            directory.display()
        ));
    }
    let [a, b, c, d] = FILES.map(|name| find(directory, name).and_then(|path| named(&path)));
    Ok([a?, b?, c?, d?])
}

/// The file of this name, raw or gzipped.
fn find(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let raw = directory.join(name);
    let gzipped = directory.join(format!("{name}.gz"));
    let found = [&raw, &gzipped].into_iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| format!("{}: missing (neither it nor {name}.gz is there)", raw.display()))
}

fn named(path: &Path) -> Result<NamedFile, String> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    Ok(NamedFile { name, bytes: Cow::Owned(bytes) })
}
