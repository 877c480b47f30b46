//! Reference runs: one worker without faults. Other runs must have the same hash and ledger.
//!
//! Equal hashes show that the weights are the same, equal ledgers that every sample was used exactly once per epoch.
//!
//! Many tests compare with the same few jobs. So a reference run is trained once and kept beside the binaries,
//! under a hash of everything that it depends on: the program, the machine, the arguments, and the files that they
//! name. An outdated reference run would be detected: [`Undisturbed::compare`] requires the same job, which
//! contains the hash of the data.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::home::{Home, binary};
use crate::run::Run;

/// A reference run.
#[derive(Debug)]
pub struct Undisturbed {
    run: Run,
}

impl Home {
    /// The reference run of a job: one worker with one slot. It is trained now, or was by an earlier test.
    ///
    /// # Panics
    /// If it can't be trained or kept.
    pub fn undisturbed(&self, job: &str) -> Undisturbed {
        let directory = directory().expect("runs can be kept beside the programs");
        let place = directory.join(self.digest_of(job));
        // Held until the run is complete: other tests that need it wait.
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

    /// A hash of a job's arguments, of the files that they name, and of the home's data.
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

/// The directory of the runs that this build of the program has trained on this machine. Those of other builds are
/// removed.
fn directory() -> io::Result<PathBuf> {
    let program = binary("coordinator");
    let parent = program.with_file_name("undisturbed");
    let directory = parent.join(&identity(&program)?[..16]);
    if !directory.exists() {
        let others = fs::read_dir(&parent).into_iter().flatten().flatten();
        // Another test may do the same at this moment.
        others
            .filter(|other| other.path() != directory)
            .for_each(|other| _ = fs::remove_dir_all(other.path()));
        fs::create_dir_all(&directory)?;
    }
    Ok(directory)
}

/// A hash that changes with the program, with the installed shared libraries (such as OpenBLAS), and with each
/// boot, since the machine may be another one then.
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
    /// Checks that another run of the same job is done and has the same results, bit for bit.
    ///
    /// # Errors
    /// Names the difference.
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

    /// Asserts that another run of the same job has the same results.
    ///
    /// # Panics
    /// If it has not; names the difference and the run's events.
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

/// The history without times.
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
        // The job does not depend on this file.
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
    fn a_new_build_of_the_program_has_another_identity() {
        let home = Home::new();
        let program = home.write("program", "as it was");
        let before = identity(&program).unwrap();
        assert_eq!(identity(&program).unwrap(), before);

        home.write("program", "as it is now");

        assert_ne!(identity(&program).unwrap(), before);
    }
}
