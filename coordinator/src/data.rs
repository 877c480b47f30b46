//! Reads the data of a job from where it lies: files of this machine, and [addresses](remote).
//!
//! A disk or a network file system may hang, and then no call to it returns. So the waiting side watches
//! the [`Reading`]: it says for how long the current call has returned no bytes, and ends an abandoned read at its next
//! bytes.

pub(crate) mod remote;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millefeuille_core::data::address::is_address;
use millefeuille_core::data::dataset::{DataFile, Dataset};
use millefeuille_core::data::formats::{Content, DataFormat, Files, Request, idx};
use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::data::part::{Part, RawFeatures};
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::split::Split;
use millefeuille_core::data::table::Known;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::{Data, Job, Source, Wanted};

use crate::{failpoints, input};

/// Reads a job's data.
///
/// # Errors
/// The file, what is wrong with it, and what to do.
pub fn read(job: &Job) -> Result<Dataset, Failure> {
    read_watched(job, &Reading::default())
}

/// The same, watched by another thread.
///
/// # Errors
/// As [`read`], and if the read was given up.
pub fn read_watched(job: &Job, reading: &Reading) -> Result<Dataset, Failure> {
    reading.during(|| failpoints::at("data-before-read"));
    let wanted = job.wanted();
    weighed(job, read_parts(&job.data, wanted, &Disk(reading))?.prepare(job.data.recipe(wanted))?)
}

/// Reads a job's data for a trained model. With the inputs of that model, if they are known, nothing is fitted anew.
///
/// # Errors
/// As [`read`], and if the data is not what the model takes.
pub fn read_for(job: &Job, trained_on: Option<Inputs>) -> Result<Dataset, Failure> {
    let wanted = job.wanted();
    weighed(job, parts(&job.data, wanted)?.prepare_for(job.data.recipe(wanted), trained_on)?)
}

fn weighed(job: &Job, mut data: Dataset) -> Result<Dataset, Failure> {
    data.weigh_classes(&job.compile.class_weight)?;
    Ok(data)
}

/// Reads samples to predict for: a file of a format, laid out as the job's.
///
/// # Errors
/// The file, what is wrong with it, and what to do.
pub fn read_to_predict(path: &Path, format: DataFormat, job: &Job, inputs: &Inputs) -> Result<Part, Failure> {
    let known = Known::Model(inputs);
    let request = Request { layout: &job.data.table, wanted: job.wanted(), known };
    format.read(path, &request, &Disk(&Reading::default())).map(|content| content.train)
}

/// Reads the parts of a job's data, to look at: nothing is fitted.
///
/// # Errors
/// As [`read`].
pub fn parts(data: &Data, wanted: Wanted) -> Result<Parts, Failure> {
    read_parts(data, wanted, &Disk(&Reading::default()))
}

/// The source, and the validation and test sets of their own.
fn read_parts(data: &Data, wanted: Wanted, disk: &Disk<'_>) -> Result<Parts, Failure> {
    let (Source::Path(path), Some(format)) = (&data.source, data.format_of_source()) else {
        return idx::mnist().map(Parts::from);
    };
    let request = Request { layout: &data.table, wanted, known: Known::Nothing };
    let Content { train, test, mut files } = format.read(path, &request, disk)?;
    let known = match &train.features {
        RawFeatures::Columns(columns) => Known::Columns(columns),
        RawFeatures::Bytes { .. } | RawFeatures::Numbers { .. } => Known::Nothing,
    };
    let mut own = |split: Split, path: &Option<PathBuf>| -> Result<Option<Part>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let format = data.format.unwrap_or_else(|| DataFormat::of(path));
        let content = format.read(path, &Request { known, ..request }, disk)?;
        // In a receipt, names of files differ.
        let renamed = |file: DataFile| DataFile { name: format!("{split}/{}", file.name), ..file };
        files.extend(content.files.into_iter().map(renamed));
        Ok(Some(content.train))
    };
    let (validation, own_test) = (own(Split::Validation, &data.validation)?, own(Split::Test, &data.test)?);
    Ok(Parts { train, validation, test: own_test.or(test), files })
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

    /// Reads a file, or what is at an address: as many bytes as `worth` returns for its first bytes.
    ///
    /// # Errors
    /// The file and what is wrong with it, and if the read was given up.
    pub fn read(&self, path: &Path, worth: impl FnOnce(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        let moved = || self.moved();
        self.during(|| match is_address(path) {
            true => remote::read(path, worth, moved),
            false => input::read_noting(path, worth, moved),
        })
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
/// The key of the path that is wrong, what is wrong with it, and what to do.
pub fn check(data: &Data) -> Result<(), (&'static str, &Path, &'static str)> {
    if let (Source::Path(path), Some(DataFormat::Idx)) = (&data.source, data.format_of_source())
        && path.is_file()
    {
        return Err(("data.source", path, NO_DIRECTORY));
    }
    let source = match &data.source {
        Source::Mnist => None,
        Source::Path(path) => Some(path),
    };
    for (key, path) in [
        ("data.source", source),
        ("data.test", data.test.as_ref()),
        ("data.validation", data.validation.as_ref()),
    ] {
        // If it is not known whether it is there, whoever reads it says why.
        if let Some(path) = path.filter(|path| !is_address(path) && matches!(path.try_exists(), Ok(false))) {
            return Err((key, path, NOTHING));
        }
    }
    Ok(())
}

const NO_DIRECTORY: &str = "is a file, not a directory, and its ending is no format's (give a table such as data.csv, a \
                            directory with the four IDX files, or mnist)";
const NOTHING: &str = "there is no such file or directory (give a table such as data.csv, a directory with the four IDX \
                       files, or mnist)";

/// The files of this machine, and those at addresses.
struct Disk<'r>(&'r Reading);

impl Files for Disk<'_> {
    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        self.0.during(|| if is_address(path) { remote::exists(path) } else { input::exists(path) })
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.during(|| if is_address(path) { remote::is_directory(path) } else { path.is_dir() })
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, Failure> {
        self.0.during(|| {
            if is_address(directory) { remote::list(directory) } else { input::names_in(directory) }
        })
    }

    fn read(&self, path: &Path, worth_reading: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        self.0.read(path, worth_reading)
    }
}

/// The same job with absolute paths, so that they are found again from anywhere.
///
/// # Errors
/// If there is no current directory.
pub fn absolute(job: &Job) -> Result<Job, Failure> {
    let mut job = job.clone();
    for path in job.paths_mut().filter(|path| !is_address(path)) {
        let absolute = std::path::absolute(&*path);
        *path = absolute.map_err(|error| Failure::of_file(path.display(), "cannot be found", &error))?;
    }
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_was_given_up_ends_at_its_next_bytes() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("train-images-idx3-ubyte"), [0; 64]).unwrap();
        let (mut job, reading) = (Job::default(), Reading::default());
        job.data.source = Source::Path(directory.path().to_path_buf());
        reading.give_up();
        let failure = read_watched(&job, &reading).unwrap_err();
        assert!(failure.to_string().contains("nobody waits for it any more"), "{failure}");
        assert_eq!(reading.silence(), Duration::ZERO, "no file is called any more");
    }
}
