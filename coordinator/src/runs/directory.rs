//! The run directory that this process owns. Nothing else writes into a run directory.
//!
//! A [`RunDir`] is claimed, with a [`Lock`], before anything else is written. One process owns the directory
//! for as long as the value lives. Files are renamed into place when complete, or grow by whole lines. The order of
//! writes makes a crash harmless: a checkpoint's data before its manifest, the receipt after everything else.

use std::fs;
use std::path::{Path, PathBuf};

use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::EpochRow;
use serde_json::json;

use super::checkpoint::{Checkpoint, Checkpoints, KEPT};
use super::lock::{Lock, Unclaimed};
use super::record::{Ending, RecordError, RunRecord, RunState, now};
use super::{
    CHECKPOINTS, EVENTS, HISTORY, JOB, LEDGER, LOCK, MODEL, PLOTS, RECEIPT, RECORD, TRACES, files, history,
    holds_a_run, ledger, of_run,
};
use crate::failpoints;

/// What to do if the directory already holds a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Resume it.
    Resume,
    /// Replace it.
    Overwrite,
}

/// A run directory that this process owns.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held for as long as this process owns the directory.
    lock: Lock,
    record: RunRecord,
    /// Whether `record` is the one in `run.json`: not before a submission, nor while another run is still there.
    recorded: bool,
}

impl RunDir {
    /// Claims this directory, and creates it if necessary.
    ///
    /// # Errors
    /// If it cannot be written, belongs to another process, holds a run and `existing` refuses that, or holds files
    /// but no run.
    pub fn claim(path: &Path, existing: Existing) -> Result<Self, Failure> {
        Ok(Self::try_claim(path, existing)?)
    }

    fn try_claim(path: &Path, existing: Existing) -> Result<Self, Unclaimed> {
        if let Some(foreign) = foreign(path)? {
            let what =
                format!("holds {foreign} and no run (name a directory that is empty, or not there yet)");
            return Err(Unclaimed::Taken(of_run(path, what)));
        }
        let lock = Lock::of_run(path)?;
        let record = RunRecord::new(id(path), 1, String::new());
        let run = Self { path: path.to_path_buf(), lock, record, recorded: false };
        if existing == Existing::Refuse && run.holds_a_run() {
            let what = "there is a run already (--resume continues it, --overwrite replaces it, --run-dir names another)";
            return Err(Unclaimed::Taken(of_run(path, what)));
        }
        Ok(run.with_record(existing)?)
    }

    /// Takes over the existing record if the run is to be resumed.
    fn with_record(mut self, existing: Existing) -> Result<Self, Failure> {
        match (RunRecord::read(&self.path), existing) {
            (Ok(Some(record)), Existing::Resume) => {
                self.record = record.of_directory(&self.path);
                self.recorded = true;
            }
            // Without its record, a run can still be resumed, and must not be lost silently.
            (Ok(None), Existing::Resume) if self.has_begun() => self.record.state = RunState::Running,
            // The existing run stays until the new one begins, which may never happen.
            (Ok(_), _) | (Err(RecordError::Damaged(_)), Existing::Overwrite) => {}
            (Err(error), _) => return Err(error.into()),
        }
        Ok(self)
    }

    /// Whether a run without a record has more files than a job.
    fn has_begun(&self) -> bool {
        [CHECKPOINTS, HISTORY, LEDGER].iter().any(|name| self.file(name).exists())
    }

    /// Claims the first free directory `<name>-<number>` in `runs` whose name is not `taken`.
    ///
    /// # Errors
    /// If no directory can be created.
    pub fn claim_next(runs: &Path, name: &str, taken: impl Fn(&str) -> bool) -> Result<Self, Failure> {
        for number in 1..u32::MAX {
            let id = format!("{name}-{number}");
            let path = runs.join(&id);
            if !path.exists() && !taken(&id) {
                match Self::try_claim(&path, Existing::Refuse) {
                    Ok(run) => return Ok(run),
                    // Another process has just claimed this number.
                    Err(Unclaimed::Taken(_)) => {}
                    Err(Unclaimed::Failed(error)) => return Err(error),
                }
            }
        }
        Err(of_run(runs, "no number is free"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path's last component: the run's id.
    pub fn id(&self) -> String {
        id(&self.path)
    }

    /// The run's record, `run.json`.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    fn holds_a_run(&self) -> bool {
        holds_a_run(&self.path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    // From submission to end.

    /// Queues a job, durably. If the directory holds another run, that run stays until this one begins.
    ///
    /// # Errors
    /// If something can't be written; nothing of the submission then remains.
    pub fn submit(&mut self, job: &Job, number: u64, client_key: &str) -> Result<(), Failure> {
        self.record.number = number;
        self.record.client_key = client_key.to_string();
        self.record.note(job);
        if self.holds_a_run() {
            return Ok(());
        }
        let submitted = self.write(JOB, job.to_toml().as_bytes()).and_then(|()| self.announce());
        if submitted.is_err() {
            let _ = self.forget();
        }
        submitted
    }

    fn announce(&mut self) -> Result<(), Failure> {
        self.record.write(&self.path, "submit")?;
        for made in self.lock.made() {
            files::sync_directory(files::parent(made))
                .map_err(|error| Failure::of_file(made.display(), "cannot be written", &error))?;
        }
        self.recorded = true;
        Ok(())
    }

    /// Withdraws a submission that has not begun, and leaves its directory as it was before.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn withdraw(mut self) -> Result<(), Failure> {
        let waits = self.recorded && self.record.state == RunState::Queued;
        if waits { self.forget() } else { Ok(()) }
    }

    fn forget(&mut self) -> Result<(), Failure> {
        self.recorded = false;
        [RECORD, JOB].iter().try_for_each(|name| files::remove(&self.file(name)))
    }

    /// Begins the run at its first step, and removes the files of any earlier run.
    ///
    /// # Errors
    /// If something can't be written.
    pub fn begin(&mut self, job: &Job) -> Result<(), Failure> {
        self.clear()?;
        self.record.note(job);
        self.write(JOB, job.to_toml().as_bytes())?;
        self.start_over()
    }

    /// Writes an empty ledger, and a record that the run has begun.
    pub(super) fn start_over(&mut self) -> Result<(), Failure> {
        self.write(LEDGER, ledger::header().as_bytes())?;
        self.enter(RunState::Running)
    }

    /// Records that the run has ended. For a job that is done, this comes after the receipt: if the receipt exists,
    /// the job is done, whatever happened later. A run that never began, in a directory that holds another run,
    /// leaves that run's record unchanged.
    ///
    /// # Errors
    /// If writing fails.
    pub fn end(&mut self, ending: Ending) -> Result<(), Failure> {
        if !self.recorded {
            return Ok(());
        }
        let done = self.file(RECEIPT).exists();
        self.enter(RunState::Ended { outcome: if done { Ending::done() } else { ending } })
    }

    pub(super) fn enter(&mut self, state: RunState) -> Result<(), Failure> {
        let record = RunRecord { state, ..self.record.clone() };
        record.write(&self.path, "record")?;
        self.record = record;
        self.recorded = true;
        Ok(())
    }

    /// Removes a run's files and nothing else. Of a queued run, the submission is kept.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        let submission: &[&str] = if self.recorded { &[RECORD, JOB] } else { &[] };
        for name in TRACES.iter().filter(|name| !submission.contains(name)) {
            let path = self.file(name);
            if *name == CHECKPOINTS { files::remove_directory(&path)? } else { files::remove(&path)? }
        }
        files::remove_directory(&self.file(PLOTS))?;
        files::remove_temporary(&self.path)
    }

    /// Removes the result of a run that will be trained further.
    pub(super) fn clear_result(&self) -> Result<(), Failure> {
        files::remove(&self.file(RECEIPT))?;
        files::remove(&self.file(MODEL))?;
        files::remove_directory(&self.file(PLOTS))?;
        files::remove_temporary(&self.path)
    }

    // Writing while the job runs.

    /// Appends a history row.
    ///
    /// # Errors
    /// If it can't be written; then the file is as it was.
    pub fn append_history(&self, row: &EpochRow) -> Result<(), Failure> {
        files::append(&self.file(HISTORY), &format!("{}\n", history::to_line(row)))?;
        failpoints::at("history-after-append");
        Ok(())
    }

    /// Appends an epoch's lines to the ledger.
    ///
    /// # Errors
    /// If they can't be written; then the file is as it was.
    pub fn append_ledger(&self, lines: &str) -> Result<(), Failure> {
        files::append(&self.file(LEDGER), lines)
    }

    /// Appends a line to the events, with the time.
    ///
    /// # Errors
    /// If it can't be written; then the file is as it was.
    pub fn event(&self, kind: &str, text: &str) -> Result<(), Failure> {
        self.append_event(&json!({ "time": now(), "event": kind, "text": text }).to_string())
    }

    /// Appends a failure to the events, with the time. The line includes the failure in machine-readable form.
    ///
    /// # Errors
    /// If it can't be written; then the file is as it was.
    pub fn event_of_failure(&self, kind: &str, failure: &Failure) -> Result<(), Failure> {
        let line = json!({ "time": now(), "event": kind, "text": failure.to_string(), "failure": failure });
        self.append_event(&line.to_string())
    }

    /// Appends a line to the events.
    ///
    /// # Errors
    /// If it can't be written; then the file is as it was.
    pub fn append_event(&self, line: &str) -> Result<(), Failure> {
        files::append(&self.file(EVENTS), &format!("{}\n", line.trim_end()))
    }

    /// Writes a checkpoint, durably, together with everything appended before; removes the oldest one.
    ///
    /// # Errors
    /// If this process no longer owns the directory, or something can't be written; the existing checkpoints then
    /// remain.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint, model: &Model) -> Result<(), Failure> {
        self.lock.check()?;
        self.sync()?;
        let events = fs::metadata(self.file(EVENTS)).map_or(0, |metadata| metadata.len());
        self.checkpoints().write(checkpoint, model, events)
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.path, KEPT)
    }

    /// Writes a complete file, durably: under a temporary name, then renamed.
    ///
    /// # Errors
    /// If writing fails; an existing file then remains.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let kind = if name == RECEIPT { "receipt" } else { "file" };
        files::write_whole(&self.file(name), content, kind)
    }

    /// Writes a picture.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_plot(&self, name: &str, svg: &str) -> Result<(), Failure> {
        files::make_directory(&self.file(PLOTS))?;
        self.write(&format!("{PLOTS}/{name}"), svg.as_bytes())
    }

    /// Syncs everything appended to the disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn sync(&self) -> Result<(), Failure> {
        [LEDGER, HISTORY, EVENTS].iter().try_for_each(|name| files::sync(&self.file(name)))
    }
}

/// A file in the directory that belongs neither to a run nor to a claim, if the directory holds no run. Extra files
/// beside a run are its owner's business.
fn foreign(path: &Path) -> Result<Option<String>, Failure> {
    // A file in place of the directory is reported when the directory is created. A new file system has `lost+found`.
    if !path.is_dir() || holds_a_run(path) {
        return Ok(None);
    }
    let known = |name: &str| [LOCK, PLOTS, "lost+found"].contains(&name) || files::is_temporary(name);
    Ok(files::names(path)?.into_iter().find(|name| !known(name)))
}

/// The last component of a path.
pub(super) fn id(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends in `..` does not contain the directory's name.
    let elsewhere = || fs::canonicalize(path).ok().as_deref().and_then(name);
    name(path).or_else(elsewhere).unwrap_or_else(|| "run".to_string())
}
