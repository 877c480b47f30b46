//! The run directory that this process owns. Nothing else writes into a run directory.
//!
//! A [`RunDir`] is claimed, with a [`Lock`], before anything else is written. One process owns the directory
//! for as long as the value lives. Files are renamed into place when complete, or grow by whole lines. The order of
//! writes makes a crash harmless: a checkpoint's data before its manifest, the receipt after everything else.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::EpochRow;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::checkpoint::{Checkpoint, Checkpoints, KEPT};
use super::kept::Kept;
use super::lock::{Lock, Unclaimed};
use super::receipt::{Grown, Receipt, weights_sha256};
use super::record::{Ending, RecordError, RunRecord, RunState, now};
use super::{
    BEST, CHECKPOINTS, EVENTS, HISTORY, INIT, JOB, LEDGER, LOCK, MODEL, PLOTS, RECEIPT, RECORD, SavedRun,
    TRACES, files, history, holds_a_run, ledger, model, of_run, resume_command,
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
    /// The files that are there and belong to the run, as this process left them.
    pub(super) kept: Kept,
    pub(super) record: RunRecord,
    /// Whether `record` is the one in `run.json`: not before a submission, nor while another run is still there.
    recorded: bool,
    /// Whether the receipt is written: then no file changes any more.
    finished: bool,
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
        let run = Self {
            path: path.to_path_buf(),
            lock,
            kept: Kept::new(path),
            record,
            recorded: false,
            finished: false,
        };
        if existing == Existing::Refuse && run.holds_a_run() {
            let what = format!(
                "there is a run already ({} continues it, --overwrite replaces it, another --run-dir leaves it alone)",
                resume_command(path)
            );
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

    /// Whether the run has files of its training: a job that ended in the queue has none.
    pub fn has_begun(&self) -> bool {
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
        self.kept.write(RECORD, self.record.to_text().as_bytes(), "submit")?;
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
        self.clear()
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

    /// Whether the run goes on where it was left, instead of beginning.
    pub fn is_to_resume(&self) -> bool {
        match self.record.state {
            RunState::Queued => false,
            RunState::Ended { .. } => self.has_begun(),
            RunState::Running => true,
        }
    }

    /// The copy of the file that the run's parameters began with, if the run has begun.
    pub fn kept_init(&self) -> Option<PathBuf> {
        self.is_to_resume().then(|| self.file(INIT))
    }

    /// Keeps a copy of the file that the run's parameters begin with, unless it is there already.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn keep_init(&mut self, content: &[u8]) -> Result<(), Failure> {
        if self.file(INIT).is_file() { Ok(()) } else { self.kept.write(INIT, content, "init") }
    }

    /// Writes an empty ledger, and a record that the run has begun.
    pub(super) fn start_over(&mut self) -> Result<(), Failure> {
        self.write(LEDGER, ledger::header().as_bytes())?;
        self.enter(RunState::Running)
    }

    /// Records that the job is done: the last event, then the hashes of all files, then the receipt, which certifies
    /// that the rest is there. Nothing is written into a finished run.
    ///
    /// # Errors
    /// If this process no longer owns the directory, if a file was removed or changed from outside, or if writing
    /// fails. The run is then unfinished.
    pub fn finish(&mut self, receipt: &Receipt) -> Result<(), Failure> {
        let ending = receipt.stopped.as_deref().map_or_else(Ending::done, Ending::stopped);
        let receipt = receipt.to_text();
        self.event("end", &ending.message)?;
        self.sync()?;
        self.lock.check()?;
        self.kept.check_content()?;
        self.record.files_sha256 = self.kept.sha256();
        self.record.files_sha256.remove(RECORD);
        self.record.files_sha256.insert(RECEIPT.to_string(), hex::encode(Sha256::digest(&receipt)));
        self.enter(RunState::Running)?;
        self.kept.write(RECEIPT, receipt.as_bytes(), "receipt")?;
        self.finished = true;
        // The receipt is on disk, so the job is done, even if that cannot be recorded.
        if let Err(error) = self.end(ending) {
            warn!("only the receipt says that the run is done: {error}");
        }
        Ok(())
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
        let record = self.record.entering(state);
        self.kept.write(RECORD, record.to_text().as_bytes(), "record")?;
        self.record = record;
        self.recorded = true;
        Ok(())
    }

    /// Removes a run's files and nothing else. Of a queued run, the submission is kept.
    pub(super) fn clear(&mut self) -> Result<(), Failure> {
        let submission: &[&str] = if self.recorded { &[RECORD, JOB] } else { &[] };
        for name in TRACES.iter().filter(|name| !submission.contains(name)) {
            if *name == CHECKPOINTS { self.kept.remove_directory(name)? } else { self.kept.remove(name)? }
        }
        self.kept.remove_directory(PLOTS)?;
        files::remove_temporary(&self.path)
    }

    /// Removes the result of a run that will be trained further.
    pub(super) fn clear_result(&mut self) -> Result<(), Failure> {
        self.kept.remove(RECEIPT)?;
        self.kept.remove(MODEL)?;
        self.kept.remove_directory(PLOTS)?;
        self.record.files_sha256.clear();
        files::remove_temporary(&self.path)
    }

    /// Continues the run, done or not, with a job that has more epochs: what is there becomes the beginning of it.
    ///
    /// # Errors
    /// If the run's job or its hash can't be read, or something can't be written.
    pub fn grow(&mut self, job: &Job) -> Result<(), Failure> {
        let saved = SavedRun::open(&self.path)?;
        let before = saved.job()?;
        let hash = match saved.receipt()? {
            Some(receipt) => Some(receipt.job_sha256),
            None => self.checkpoints().newest(&before)?.map(|newest| newest.read.checkpoint.job_sha256),
        };
        let grown = hash.map(|job_sha256| Grown { epochs: before.fit.epochs, job_sha256 });
        let known = &mut self.record.grown_from;
        known.extend(grown.filter(|grown| known.iter().all(|other| other.job_sha256 != grown.job_sha256)));
        // The receipt goes first: without it the run is not done, whichever job it has.
        self.clear_result()?;
        self.enter(RunState::Running)?;
        self.write(JOB, job.to_toml().as_bytes())?;
        self.record.note(job);
        self.enter(RunState::Running)
    }

    /// The parameters in `best.safetensors`, which must have this hash.
    ///
    /// # Errors
    /// If they are not there, or have another one.
    pub fn best(&self, model: &Model, wanted: &str) -> Result<Bytes, Failure> {
        let path = self.file(BEST);
        let remedy = "put the file back and continue with --resume, or start over with --overwrite";
        let wrong = |what: &str| of_run(&path, format!("{what} ({remedy})"));
        let bytes =
            files::read(&path)?.ok_or_else(|| wrong("missing, and the job restores the best epoch"))?;
        let parameters = model::decode(&bytes, model).map_err(|what| wrong(&what))?;
        let parameters = Bytes::copy_from_slice(bytemuck::cast_slice(&parameters));
        if weights_sha256(&parameters) == wanted {
            return Ok(parameters);
        }
        Err(wrong("not the parameters after the best epoch of the history"))
    }

    // Writing while the job runs.

    /// Appends a history row.
    ///
    /// # Errors
    /// If the file was changed from outside, or if it can't be written; then the file is as it was.
    pub fn append_history(&mut self, row: &EpochRow) -> Result<(), Failure> {
        self.append(HISTORY, &format!("{}\n", history::to_line(row)))?;
        failpoints::at("history-after-append");
        Ok(())
    }

    /// Appends an epoch's lines to the ledger.
    ///
    /// # Errors
    /// As [`Self::append_history`].
    pub fn append_ledger(&mut self, lines: &str) -> Result<(), Failure> {
        self.append(LEDGER, lines)
    }

    /// Appends a line to the events, with the time.
    ///
    /// # Errors
    /// As [`Self::append_history`].
    pub fn event(&mut self, kind: &str, text: &str) -> Result<(), Failure> {
        self.append_event(&json!({ "time": now(), "event": kind, "text": text }).to_string())
    }

    /// Appends a failure to the events, with the time. The line includes the failure in machine-readable form.
    ///
    /// # Errors
    /// As [`Self::append_history`].
    pub fn event_of_failure(&mut self, kind: &str, failure: &Failure) -> Result<(), Failure> {
        let line = json!({ "time": now(), "event": kind, "text": failure.to_string(), "failure": failure });
        self.append_event(&line.to_string())
    }

    /// Appends a line to the events, unless the run is finished.
    ///
    /// # Errors
    /// As [`Self::append_history`].
    pub fn append_event(&mut self, line: &str) -> Result<(), Failure> {
        if self.finished {
            return Ok(());
        }
        self.append(EVENTS, &format!("{}\n", line.trim_end()))
    }

    fn append(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let appended = self.kept.append(name, text);
        self.explained(appended)
    }

    /// Writes a checkpoint, durably, together with everything appended before; removes the oldest one.
    ///
    /// # Errors
    /// If this process no longer owns the directory, if a file was removed or changed from outside, or if something
    /// can't be written; the existing checkpoints then remain.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint, model: &Model) -> Result<(), Failure> {
        self.check()?;
        self.sync()?;
        let events = fs::metadata(self.file(EVENTS)).map_or(0, |metadata| metadata.len());
        self.explained(self.checkpoints().write(checkpoint, model, events))
    }

    /// Checks that this process still owns the directory, and that the files are as it left them.
    fn check(&self) -> Result<(), Failure> {
        self.lock.check()?;
        self.kept.check()
    }

    /// A write that failed because something was removed from outside fails with that.
    fn explained<T>(&self, written: Result<T, Failure>) -> Result<T, Failure> {
        written.or_else(|error| self.check().and(Err(error)))
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.path, KEPT)
    }

    /// Writes a complete file, durably: under a temporary name, then renamed.
    ///
    /// # Errors
    /// If writing fails; an existing file then remains.
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let written = self.kept.write(name, content, "file");
        self.explained(written)
    }

    /// Writes a picture.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_plot(&mut self, name: &str, svg: &str) -> Result<(), Failure> {
        files::make_directory(&self.file(PLOTS))?;
        self.write(&format!("{PLOTS}/{name}"), svg.as_bytes())
    }

    /// Syncs everything appended to the disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn sync(&self) -> Result<(), Failure> {
        [LEDGER, HISTORY, EVENTS].iter().try_for_each(|name| files::sync(&self.file(name)))?;
        // A file that is new is there after a power failure only if its directory was synced, too.
        files::sync_directory(&self.path)
            .map_err(|error| Failure::of_file(self.path.display(), "cannot be synced", &error))
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
