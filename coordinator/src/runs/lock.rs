//! The lock with which one process owns a directory: a run directory, or the directory of all runs of a cluster.
//!
//! Both the directory and the file `.lock` in it are locked. The lock on the directory holds even if the file is
//! removed. The lock on the file holds where a directory cannot be locked, as on some network file systems. The file
//! names the holder.
//!
//! A process that gives up a lock removes the file and, if they are empty, the directories that were created for it. So a
//! process that gets a lock checks that the directory and the file are still those at their paths.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_program::process;

use super::{LOCK, files, of_run, resume_command};

/// A directory that this process owns, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    directory: File,
    file: File,
    /// The directories that were created, innermost first.
    made: Vec<PathBuf>,
}

/// What a directory is locked for.
struct Purpose {
    /// Who holds the lock, for others to read.
    holder: String,
    /// What the holder does with the directory.
    does: &'static str,
}

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

impl From<Unclaimed> for Failure {
    fn from(unclaimed: Unclaimed) -> Self {
        match unclaimed {
            Unclaimed::Taken(error) | Unclaimed::Failed(error) => error,
        }
    }
}

/// Number of attempts when the lock is removed between opening and locking. Each time, another process has just left the
/// directory.
const ATTEMPTS: usize = 100;

/// How long a lock is shared by who asks for its owner.
const ASKED_FOR: Duration = Duration::from_millis(1);

/// The number of bytes of `.lock` that are read.
const HOLDER_BYTES: u64 = 256;

impl Lock {
    /// Creates a run directory if necessary, and locks it.
    pub(super) fn of_run(path: &Path) -> Result<Self, Unclaimed> {
        let holder = format!("process {}", process::name());
        Self::take(path, &Purpose { holder, does: "is using this run directory" })
    }

    /// Creates the directory of a cluster's runs if necessary, and locks it for the cluster at this address. The run
    /// directories in it keep their own locks.
    ///
    /// # Errors
    /// If it belongs to another cluster, or cannot be written.
    pub(crate) fn of_cluster(path: &Path, address: SocketAddr) -> Result<Self, Failure> {
        let holder = format!("process {}, listening on {address},", process::name());
        Ok(Self::take(path, &Purpose { holder, does: "is using this directory of runs" })?)
    }

    fn take(path: &Path, purpose: &Purpose) -> Result<Self, Unclaimed> {
        let mut made = Vec::new();
        for _ in 0..ATTEMPTS {
            let absent = absent(path);
            fs::create_dir_all(path)
                .map_err(|error| Failure::of_file(path.display(), "cannot be made", &error))?;
            if made.is_empty() {
                made = absent;
            }
            if let Some((directory, file)) = lock(path, purpose)? {
                return Ok(Self { path: path.to_path_buf(), directory, file, made });
            }
        }
        let what =
            format!("{LOCK} is replaced again and again by others (try again, or name another directory)");
        Err(Unclaimed::Taken(of_run(path, what)))
    }

    /// The directories that were created, innermost first.
    pub(super) fn made(&self) -> &[PathBuf] {
        &self.made
    }

    /// Checks that the directory and its lock file are still those that this process has locked: otherwise another
    /// process may use the directory.
    ///
    /// # Errors
    /// The one that was removed or replaced.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let lock = self.path.join(LOCK);
        for (path, open) in [(&self.path, &self.directory), (&lock, &self.file)] {
            let named = is_named(path, open);
            if !named.map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))? {
                let what = format!(
                    "removed or replaced from outside while the job used it: another process may use the directory \
                     ({} continues what is left)",
                    resume_command(&self.path)
                );
                return Err(of_run(path, what));
            }
        }
        Ok(())
    }
}

impl Drop for Lock {
    /// Removes the file while it is locked, if it is still this process'. A created directory stays unless it is empty.
    fn drop(&mut self) {
        let lock = self.path.join(LOCK);
        if is_named(&lock, &self.file).unwrap_or(false) {
            let _ = fs::remove_file(lock);
        }
        for directory in &self.made {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The process that owns a directory, if any.
pub(super) fn owner(path: &Path) -> Option<String> {
    let held = |path: &Path| {
        let file = File::open(path).ok();
        file.is_some_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    (held(path) || held(&path.join(LOCK))).then(|| holder(path))
}

/// The missing directories of a path, innermost first.
fn absent(path: &Path) -> Vec<PathBuf> {
    let absent = |ancestor: &&Path| !ancestor.as_os_str().is_empty() && !ancestor.exists();
    path.ancestors().take_while(absent).map(Path::to_path_buf).collect()
}

/// Locks a directory and its lock file. Returns `None` if one of them was removed meanwhile.
fn lock(path: &Path, purpose: &Purpose) -> Result<Option<(File, File)>, Unclaimed> {
    let name = path.join(LOCK);
    let unreadable = |error: io::Error| Failure::of_file(path.display(), "cannot be read", &error);
    let Some(directory) = files::if_there(File::open(path)).map_err(unreadable)? else { return Ok(None) };
    match try_own(&directory) {
        Err(TryLockError::WouldBlock) => return Err(taken(path, purpose)),
        // Not every file system can lock a directory.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let open = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&name);
    let open = files::if_there(open);
    let open = open.map_err(|error| Failure::of_file(name.display(), "cannot be written", &error))?;
    let Some(file) = open else { return Ok(None) };
    match try_own(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(taken(path, purpose)),
        Err(TryLockError::Error(error)) => {
            return Err(Failure::of_file(name.display(), "cannot be locked", &error).into());
        }
    }
    // A lock on what was removed excludes no process.
    if !(is_named(path, &directory).map_err(unreadable)? && is_named(&name, &file).map_err(unreadable)?) {
        return Ok(None);
    }
    sign(&name, &file, &purpose.holder)?;
    Ok(Some((directory, file)))
}

/// Locks a file for this process alone. Who asks for its [`owner`] shares its lock for a moment, and owns nothing.
fn try_own(file: &File) -> Result<(), TryLockError> {
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                let _ = file.unlock();
                std::thread::sleep(ASKED_FOR);
            }
            locked => return locked,
        }
    }
    file.try_lock()
}

fn taken(path: &Path, purpose: &Purpose) -> Unclaimed {
    let what = format!("{} {}", holder(path), purpose.does);
    Unclaimed::Taken(Failure::at(FailureKind::InUse, path.display(), what))
}

/// Whether this open file is still the one at this path.
fn is_named(path: &Path, open: &File) -> io::Result<bool> {
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let Some(there) = files::if_there(fs::metadata(path))? else { return Ok(false) };
    Ok(identity(&there) == identity(&open.metadata()?))
}

/// Writes the holder into a lock file.
fn sign(path: &Path, mut file: &File, holder: &str) -> Result<(), Failure> {
    let written = file.set_len(0).and_then(|()| writeln!(file, "{holder}"));
    written.map_err(|error| Failure::of_file(path.display(), "cannot be written", &error))
}

/// The holder of a directory's lock, as its file says.
fn holder(path: &Path) -> String {
    let mut holder = Vec::new();
    let read = File::open(path.join(LOCK)).and_then(|file| file.take(HOLDER_BYTES).read_to_end(&mut holder));
    let holder = String::from_utf8_lossy(&holder);
    match holder.lines().next().map(str::trim) {
        Some(holder) if read.is_ok() && !holder.is_empty() => holder.to_string(),
        _ => "another process".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_the_owner_refuses_no_claim() {
        let home = tempfile::tempdir().expect("there is room");
        let asked = File::open(home.path()).expect("a directory can be opened");
        asked.try_lock_shared().expect("nobody owns it");
        // It is asked for until the claim has found that.
        let claim = std::thread::spawn({
            let path = home.path().to_path_buf();
            move || Lock::of_run(&path).is_ok()
        });
        std::thread::sleep(ASKED_FOR);
        drop(asked);
        assert!(claim.join().expect("it does not panic"));
    }

    #[test]
    fn an_owner_refuses_a_claim_and_is_named() {
        let home = tempfile::tempdir().expect("there is room");
        let lock = Lock::of_run(home.path()).map_err(Failure::from).expect("nobody owns it");
        let refused = Lock::of_run(home.path()).map_err(Failure::from).unwrap_err();
        assert!(refused.to_string().contains(&owner(home.path()).expect("it is owned")), "{refused}");
        drop(lock);
        assert_eq!(owner(home.path()), None);
    }
}
