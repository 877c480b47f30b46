//! The runs that a cluster finds when it starts.

use std::path::{Path, PathBuf};

use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use millefeuille_core::view::EpochRow;

use super::directory::id;
use super::record::{Ending, RunRecord, RunState};
use super::saved::SavedRun;
use super::{RECORD, files, of_run};

/// A run that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The name of its directory.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    /// The job.
    pub job: Job,
    /// Number, client's key, and how far it came: queued and running ones are to be resumed. One whose receipt is there
    /// has ended, whatever its `run.json` came to say.
    pub record: RunRecord,
    /// The lines of history.
    pub history: Vec<EpochRow>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    /// The runs, in the order of their submission: by number, and those of one number (as `train` alone gives) by time.
    pub runs: Vec<Found>,
    /// Runs that are skipped, and why: damaged ones, those of a newer format, and copies of others.
    pub skipped: Vec<Failure>,
}

/// Finds the runs in a directory. A directory without a `run.json` is not ours.
///
/// # Errors
/// If the directory can't be read; one that is not there has no runs.
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
    let Some(mut record) = RunRecord::read(path)? else { return Ok(None) };
    let run = SavedRun::open(path)?;
    let id = id(path);
    if record.id != id {
        return Err(renamed(path, &id, &record.id));
    }
    // What a crash left of an unfinished run's history is cut back when the run is resumed.
    let done = run.is_done();
    let history = if done { run.history()? } else { run.whole_history().unwrap_or_default() };
    if done {
        record.state = RunState::Ended { outcome: Ending::done() };
    }
    let job = run.job()?;
    if !matches!(record.state, RunState::Ended { .. }) {
        record.check(path, &job)?;
    }
    Ok(Some(Found { id, path: path.to_path_buf(), job, record, history }))
}

/// Two directories with one run would both be trained, for one submission; and which of them is the copy is not written
/// in either.
fn renamed(path: &Path, id: &str, recorded: &str) -> Failure {
    let what = format!(
        "its {RECORD} is that of {recorded}: {id} is a copy, or was renamed (rename it back, or resume it by \
         coordinator train --run-dir {} --resume)",
        path.display()
    );
    of_run(path, what)
}
