//! Reading files that others have made: regular ones only, and no more of one than is of use.
//!
//! Whoever opens a pipe or a device waits for somebody at its other end, or reads without an end. So what kind of file
//! it is is asked first, symbolic links followed, and its first bytes decide how much of it is read.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use millefeuille_core::data::formats::idx::file::START;
use millefeuille_core::failure::{Failure, FailureKind};

/// Reads a file as far as `worth` says, from its first [`START`] bytes (or all, if there are fewer).
///
/// # Errors
/// The file and what is wrong with it.
pub fn read(path: &Path, worth: impl FnOnce(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
    let len = check(path)?;
    read_some(path, len, worth).map_err(|error| unreadable(path, &error))
}

/// Checks that a file is a regular one, which reading comes to an end of; gives its length.
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

fn read_some(path: &Path, len: u64, worth: impl FnOnce(&[u8]) -> u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    (&mut file).take(START as u64).read_to_end(&mut bytes)?;
    let rest = worth(&bytes).saturating_sub(bytes.len() as u64);
    // The length is only what the file says now: it saves the buffer from growing, and decides nothing.
    bytes.reserve_exact(usize::try_from(len.min(rest)).unwrap_or(0));
    file.take(rest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks that a directory is here, or can be made: no file stands in its way.
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

/// Whether something is at this place. Where that can't be found out, as in a directory that may not be entered, is an
/// error: nobody should look for what is there.
///
/// # Errors
/// The place.
pub fn exists(path: &Path) -> Result<bool, Failure> {
    match path.try_exists() {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        there => there.map_err(|error| unreadable(path, &error)),
    }
}
