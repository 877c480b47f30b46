//! Reads files that others have made: regular files only, and no more of each than is useful.
//!
//! Opening a pipe or a device can block forever, and so can reading it. So the kind of the file is checked first,
//! symbolic links followed, and the file's first bytes decide how much of it is read.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use millefeuille_core::data::formats::idx::file::START;
use millefeuille_core::failure::{Failure, FailureKind};

/// Reads as many bytes of a file as `worth` returns for its first [`START`] bytes (or all, if there are fewer).
///
/// # Errors
/// The file and what is wrong with it.
pub fn read(path: &Path, worth: impl FnOnce(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
    read_noting(path, worth, || Ok(()))
}

/// The same, and calls `moved` whenever bytes have come. If that fails, so does the read.
///
/// # Errors
/// The file and what is wrong with it.
pub fn read_noting(
    path: &Path,
    worth: impl FnOnce(&[u8]) -> u64,
    moved: impl FnMut() -> io::Result<()>,
) -> Result<Vec<u8>, Failure> {
    let len = check(path)?;
    read_some(path, len, worth, moved).map_err(|error| unreadable(path, &error))
}

/// Checks that a file is a regular file, so that reading it ends; returns its length.
///
/// # Errors
/// The file and what it is.
pub fn check(path: &Path) -> Result<u64, Failure> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return wrong(path, "is a directory, not a file");
    }
    if !metadata.is_file() {
        return wrong(path, "not a regular file (a pipe or a device may never end: copy it into one)");
    }
    Ok(metadata.len())
}

fn wrong<T>(path: &Path, what: impl Display) -> Result<T, Failure> {
    Err(Failure::at(FailureKind::Data, path.display(), what))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::of_file(path.display(), "cannot be read", error)
}

fn read_some(
    path: &Path,
    len: u64,
    worth: impl FnOnce(&[u8]) -> u64,
    moved: impl FnMut() -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut file = Noting { file: File::open(path)?, moved };
    let mut bytes = Vec::new();
    (&mut file).take(START as u64).read_to_end(&mut bytes)?;
    let rest = worth(&bytes).saturating_sub(bytes.len() as u64);
    // The length may change: it only avoids reallocations, and decides nothing.
    bytes.reserve_exact(usize::try_from(len.min(rest)).unwrap_or(0));
    file.take(rest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that says whenever some of it was read.
struct Noting<F> {
    file: File,
    moved: F,
}

impl<F: FnMut() -> io::Result<()>> io::Read for Noting<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        (self.moved)()?;
        Ok(read)
    }
}

/// Checks that a directory exists, or can be created: no file is in its way.
///
/// # Errors
/// The directory and the file.
pub fn check_directory(path: &Path) -> Result<(), Failure> {
    let found = |place: &&Path| !place.as_os_str().is_empty() && place.exists();
    match path.ancestors().find(found) {
        Some(place) if place.is_dir() => Ok(()),
        Some(place) if place == path => wrong(path, "is a file, not a directory"),
        Some(place) => wrong(path, format!("cannot be made: {} is a file, not a directory", place.display())),
        None => Ok(()),
    }
}

/// The names of what is in a directory, sorted; a name that is not UTF-8 is left out.
///
/// # Errors
/// The directory.
pub fn names_in(directory: &Path) -> Result<Vec<String>, Failure> {
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    let names = fs::read_dir(directory).and_then(|entries| entries.map(name).collect::<io::Result<Vec<_>>>());
    let mut names: Vec<String> =
        names.map_err(|error| unreadable(directory, &error))?.into_iter().flatten().collect();
    names.sort();
    Ok(names)
}

/// Whether something exists at this path. If that cannot be determined, as in a directory without search permission,
/// the call fails: callers must not take the path for absent.
///
/// # Errors
/// The path.
pub fn exists(path: &Path) -> Result<bool, Failure> {
    match path.try_exists() {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        there => there.map_err(|error| unreadable(path, &error)),
    }
}
