//! The runs that a cluster finds when it starts.

use std::path::{Path, PathBuf};

use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use millefeuille_core::view::EpochRow;

use super::record::{Ending, RunRecord, RunState};
use super::saved::SavedRun;
use super::{RECORD, files, of_run, resume_command};

/// A run that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The name of its directory.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    /// The job.
    pub job: Job,
    /// Number, client key and state: queued and running runs are resumed. A run with a receipt has ended, whatever
    /// its `run.json` says.
    pub record: RunRecord,
    /// The number of epochs in its history.
    pub epochs: u64,
    /// The last of them.
    pub last: Option<EpochRow>,
    /// How long all of them took, in seconds.
    pub seconds: f64,
    /// The hash of the trained model, if the run is done.
    pub trained_sha256: Option<String>,
}

/// The outcome of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    /// The runs, in submission order: by number, and runs with the same number (which only `train` creates) by time.
    pub runs: Vec<Found>,
    /// Runs that are skipped, and why: damaged runs, runs of a newer format, and copies of unfinished runs.
    pub skipped: Vec<Failure>,
}

/// Finds the runs in a directory. A subdirectory without a `run.json` is not ours.
///
/// # Errors
/// If the directory can't be read; a directory that does not exist has no runs.
pub fn scan(runs: &Path) -> Result<Scanned, Failure> {
    let mut scanned = Scanned::default();
    for name in files::names(runs)? {
        match look(&runs.join(name)) {
            Ok(found) => scanned.runs.extend(found),
            Err(error) => scanned.skipped.push(error),
        }
    }
    let order = |found: &Found| (found.record.number, found.record.submitted);
    scanned.runs.sort_by(|a, b| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal));
    Ok(scanned)
}

fn look(path: &Path) -> Result<Option<Found>, Failure> {
    if !path.join(RECORD).is_file() {
        return Ok(None);
    }
    let run = SavedRun::open(path)?;
    let Some(written) = run.record().cloned() else { return Ok(None) };
    let mut record = written.clone().of_directory(path);
    // The torn end of an unfinished run's history is cut off when the run is resumed.
    let done = run.is_done();
    let mut history = if done { run.history()? } else { run.whole_history().unwrap_or_default() };
    if done {
        record.state = RunState::Ended { outcome: Ending::done() };
    }
    let job = run.job()?;
    if !matches!(record.state, RunState::Ended { .. }) {
        if written.is_of_a_copy(path) {
            return Err(copied(path, &written.id));
        }
        record.check(path, &job)?;
    }
    // A run with a damaged receipt is found all the same: who opens it is told.
    let trained_sha256 = run.receipt().ok().flatten().map(|receipt| receipt.weights_sha256);
    let seconds = history.iter().map(|row| row.seconds).sum();
    let (epochs, last) = (history.len() as u64, history.pop());
    let (id, path) = (record.id.clone(), path.to_path_buf());
    Ok(Some(Found { id, path, job, record, epochs, last, seconds, trained_sha256 }))
}

/// The failure for a copy of an unfinished run: both would be trained, for one submission.
fn copied(path: &Path, original: &str) -> Failure {
    let what = format!(
        "a copy of {original}, which is not finished and trained there (remove the copy, or train it, too, by {})",
        resume_command(path)
    );
    of_run(path, what)
}
