//! What a run has to come to, whatever happens to it: the run of one worker whom nobody disturbs.
//!
//! Equal hashes say that the same was learned; equal ledgers that every sample was used exactly once an epoch, in its
//! place.
//!
//! Many tests compare with the same few jobs. So a reference run is trained once and kept, beside the programs that
//! trained it, under the hash of all that it depends on: the program, the machine, the arguments, and the files that
//! they name. A run that were kept too long would not pass unseen: [`Undisturbed::compare`] wants the same job, of
//! which the hash of the data is a part.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::home::{Home, binary};
use crate::run::Run;

/// A run that nothing happened to.
#[derive(Debug)]
pub struct Undisturbed {
    run: Run,
}

impl Home {
    /// A job trained on one worker with one slot: now, or by a test before this one.
    ///
    /// # Panics
    /// If it can't be trained, or not be kept.
    pub fn undisturbed(&self, job: &str) -> Undisturbed {
        let shelf = shelf().expect("runs can be kept beside the programs");
        let place = shelf.join(self.digest_of(job));
        // Held until the run is there: who wants the same one waits for it.
        let lock = File::create(place.with_extension("lock")).expect("files can be made beside the programs");
        lock.lock().expect("files can be locked");
        if !place.exists() {
            let unfinished = place.with_extension("unfinished");
            let train = format!("train {job} --workers 1 --slots 1 --overwrite --run-dir");
            self.coordinator(&train).arg(&unfinished).succeeds();
            fs::rename(unfinished, &place).expect("directories can be renamed");
        }
        Undisturbed { run: Run::new(place) }
    }

    /// A hash of a job's arguments and of the files that they lead to: those that they name, and the home's data.
    fn digest_of(&self, job: &str) -> String {
        let mut hash = Sha256::new_with_prefix(job);
        let named = job.split_whitespace().map(|word| self.path(word)).filter(|path| path.is_file());
        let mut files: Vec<PathBuf> = named.collect();
        let data = fs::read_dir(self.path("data")).into_iter().flatten().flatten();
        files.extend(data.map(|entry| entry.path()));
        files.sort();
        for file in files {
            let content = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            hash.update(Sha256::digest(content));
        }
        hex::encode(hash.finalize())
    }
}

/// The directory of the runs that this very program has trained on this machine. Those of others go.
fn shelf() -> io::Result<PathBuf> {
    let program = binary("coordinator");
    let shelves = program.with_file_name("undisturbed");
    let shelf = shelves.join(&identity(&program)?[..16]);
    if !shelf.exists() {
        let others = fs::read_dir(&shelves).into_iter().flatten().flatten();
        // Another test may do the same at this moment.
        others.filter(|other| other.path() != shelf).for_each(|other| _ = fs::remove_dir_all(other.path()));
        fs::create_dir_all(&shelf)?;
    }
    Ok(shelf)
}

/// A hash that changes with the program, with the shared libraries that are installed (OpenBLAS is one), and from one start
/// of the machine to the next, which may be another machine then.
fn identity(program: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in [program, Path::new("/etc/ld.so.cache")] {
        let there = fs::metadata(file).map(|there| (there.len(), there.mtime(), there.mtime_nsec())).ok();
        hash.update(format!("{there:?}"));
    }
    hash.update(fs::read("/proc/sys/kernel/random/boot_id")?);
    Ok(hex::encode(hash.finalize()))
}

impl Undisturbed {
    /// Whether another run of the same job is done, and has come to the same, bit for bit.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, other: &Run) -> Result<(), String> {
        if !other.has("receipt.json") {
            return Err(format!("{} is not done", other.path().display()));
        }
        let same = |what: &str, equal: bool| {
            equal.then_some(()).ok_or_else(|| format!("{}: another {what}", other.path().display()))
        };
        same("job", other.receipt_text("job_sha256") == self.run.receipt_text("job_sha256"))?;
        same("hash of the weights", other.hash() == self.run.hash())?;
        same("ledger", other.text("ledger") == self.run.text("ledger"))?;
        same("history", rows(other) == rows(&self.run))?;
        let hashes = |run: &Run| run.receipt()["epoch_weights_sha256"].clone();
        same("hash of an epoch", hashes(other) == hashes(&self.run))
    }

    /// Asserts that another run of the same job has come to the same.
    ///
    /// # Panics
    /// If it has not; says what differs, and what happened to it.
    pub fn is_equalled_by(&self, other: &Run) {
        if let Err(difference) = self.compare(other) {
            let events: Vec<_> = other.events().iter().map(ToString::to_string).collect();
            panic!("{difference}; its events:\n{}", events.join("\n"));
        }
    }

    /// The hash of the trained weights.
    pub fn hash(&self) -> String {
        self.run.hash()
    }
}

/// The history without the time that it took.
fn rows(run: &Run) -> Vec<Value> {
    let mut rows = run.history();
    rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| _ = row.remove("seconds"));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_share_a_run_whose_job_and_files_are_the_same() {
        const JOB: &str = "small.toml --epochs 4";
        let [home, other] = [(); 2].map(|()| Home::new());
        home.small_job();
        other.small_job();
        // What the job does not lead to is another's.
        other.write("runs/small-1/receipt.json", "{}");
        assert_eq!(home.digest_of(JOB), other.digest_of(JOB));
        assert_ne!(home.digest_of(JOB), home.digest_of("small.toml --epochs 5"));

        for file in ["small.toml", "data/t10k-labels-idx1-ubyte"] {
            let before = other.digest_of(JOB);
            let content = fs::read(other.path(file)).unwrap();
            other.write(file, [&content[..], b" "].concat());
            assert_ne!(other.digest_of(JOB), before, "{file}");
        }
    }

    #[test]
    fn a_program_that_was_built_again_is_another() {
        let home = Home::new();
        let program = home.write("program", "as it was");
        let before = identity(&program).unwrap();
        assert_eq!(identity(&program).unwrap(), before);

        home.write("program", "as it is now");

        assert_ne!(identity(&program).unwrap(), before);
    }
}
