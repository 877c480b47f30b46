//! Reads the data of a job from where it lies.
//!
//! A disk or a network file system may hang, and then no call to it returns. So the waiting side watches
//! the [`Reading`]: it says for how long the current call has returned no bytes, and ends an abandoned read at its next
//! bytes.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    read_watched(source, &Reading::default())
}

/// The same, watched by another thread.
///
/// # Errors
/// As [`read`], and if the read was given up.
pub fn read_watched(source: &Source, reading: &Reading) -> Result<Dataset, Failure> {
    reading.during(|| failpoints::at("data-before-read"));
    match source {
        Source::Mnist => source.format().decode(mnist::files()),
        Source::Directory(path) => source.format().read(path, &Disk(reading)),
    }
}

/// A read, as other threads see it.
#[derive(Debug)]
pub struct Reading {
    begun: Instant,
    /// When a file was called or brought bytes last, in milliseconds since `begun`; [`IDLE`] while none is called.
    moved_ms: AtomicU64,
    given_up: AtomicBool,
}

/// What [`Reading::moved_ms`] is while no file is called, as during decoding.
const IDLE: u64 = u64::MAX;

impl Default for Reading {
    fn default() -> Self {
        Self { begun: Instant::now(), moved_ms: AtomicU64::new(IDLE), given_up: AtomicBool::new(false) }
    }
}

impl Reading {
    /// How long the current call has returned no bytes; zero if no call is in progress.
    pub fn silence(&self) -> Duration {
        match self.moved_ms.load(Ordering::Acquire) {
            IDLE => Duration::ZERO,
            moved => self.begun.elapsed().saturating_sub(Duration::from_millis(moved)),
        }
    }

    /// Ends the read at its next bytes: nobody waits for it.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Calls something that may hang.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.note();
        let result = call();
        self.moved_ms.store(IDLE, Ordering::Release);
        result
    }

    fn moved(&self) -> io::Result<()> {
        self.note();
        if self.given_up.load(Ordering::Acquire) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        Ok(())
    }

    fn note(&self) {
        self.moved_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Release);
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
struct Disk<'r>(&'r Reading);

impl Files for Disk<'_> {
    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        self.0.during(|| input::exists(path))
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.during(|| path.is_dir())
    }

    fn read(&self, path: &Path, worth_reading: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        self.0.during(|| input::read_noting(path, worth_reading, || self.0.moved()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_was_given_up_ends_at_its_next_bytes() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("train-images-idx3-ubyte"), [0; 64]).unwrap();
        let (source, reading) = (Source::Directory(directory.path().to_path_buf()), Reading::default());
        reading.give_up();
        let failure = read_watched(&source, &reading).unwrap_err();
        assert!(failure.to_string().contains("nobody waits for it any more"), "{failure}");
        assert_eq!(reading.silence(), Duration::ZERO, "no file is called any more");
    }
}
