//! `.lock`: the lock with which one process owns a run directory. The file names its holder.
//!
//! If no run began in a directory, no trace is left, not even the lock file. So a process that gets a lock checks
//! that its file is still the one at this path.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use millefeuille_core::failure::{Failure, FailureKind};

use super::{LOCK, files, of_run};

/// Why a directory is not claimed.
pub(super) enum Unclaimed {
    /// It belongs to another process, or is not empty.
    Taken(Failure),
    /// It cannot be used by any process.
    Failed(Failure),
}

impl From<Failure> for Unclaimed {
    fn from(error: Failure) -> Self {
        Self::Failed(error)
    }
}

/// Number of attempts when the lock file is removed between opening and locking. Each time, another process has just
/// left the directory.
const ATTEMPTS: usize = 100;

/// Creates a directory if necessary, and locks it. Returns the lock, and the directories that were created, innermost
/// first.
pub(super) fn own(path: &Path) -> Result<(File, Vec<PathBuf>), Unclaimed> {
    let mut made = Vec::new();
    for _ in 0..ATTEMPTS {
        let absent = absent(path);
        fs::create_dir_all(path)
            .map_err(|error| Failure::of_file(path.display(), "cannot be made", &error))?;
        if made.is_empty() {
            made = absent;
        }
        if let Some(lock) = lock(path)? {
            return Ok((lock, made));
        }
    }
    let what = format!("{LOCK} is replaced again and again by others (try again, or name another directory)");
    Err(Unclaimed::Taken(of_run(path, what)))
}

/// The missing directories of a path, innermost first.
fn absent(path: &Path) -> Vec<PathBuf> {
    let absent = |ancestor: &&Path| !ancestor.as_os_str().is_empty() && !ancestor.exists();
    path.ancestors().take_while(absent).map(Path::to_path_buf).collect()
}

/// Locks a directory. Returns `None` if the lock file, or the directory itself, was removed meanwhile.
fn lock(path: &Path) -> Result<Option<File>, Unclaimed> {
    let file = path.join(LOCK);
    let open = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&file);
    let open = files::if_there(open);
    let open = open.map_err(|error| Failure::of_file(file.display(), "cannot be written", &error))?;
    let Some(lock) = open else { return Ok(None) };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = format!("{} is using this run directory", holder(&lock));
            return Err(Unclaimed::Taken(Failure::at(FailureKind::InUse, path.display(), what)));
        }
        Err(TryLockError::Error(error)) => {
            return Err(Failure::of_file(file.display(), "cannot be locked", &error).into());
        }
    }
    // A process that leaves a directory removes the file while it holds the lock. A lock on a removed file excludes
    // no process.
    let named = is_named(&file, &lock);
    if !named.map_err(|error| Failure::of_file(file.display(), "cannot be read", &error))? {
        return Ok(None);
    }
    sign(&file, lock).map(Some)
}

/// Whether this open file is still the one at this path.
fn is_named(path: &Path, open: &File) -> io::Result<bool> {
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let Some(there) = files::if_there(fs::metadata(path))? else { return Ok(false) };
    Ok(identity(&there) == identity(&open.metadata()?))
}

/// Writes the holder into a lock file.
fn sign(file: &Path, mut lock: File) -> Result<File, Unclaimed> {
    let holder = format!("process {}\n", millefeuille_program::process::name());
    let written = lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes()));
    written.map_err(|error| Failure::of_file(file.display(), "cannot be written", &error))?;
    Ok(lock)
}

/// The holder of a lock, as its file names it.
pub(super) fn holder(mut lock: &File) -> String {
    let mut holder = String::new();
    let _ = lock.read_to_string(&mut holder);
    let holder = holder.trim();
    if holder.is_empty() { "another process".to_string() } else { holder.to_string() }
}
