//! Read-only access to a run.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::EpochRow;
use serde::Deserialize;

use super::checkpoint::{Checkpoints, KEPT};
use super::lock::holder;
use super::receipt::{self, Receipt};
use super::record::{RecordError, RunRecord};
use super::{HISTORY, JOB, LEDGER, LOCK, MODEL, RECEIPT, files, history, model, of_content, of_run};

/// A run in a directory.
#[derive(Clone, Debug)]
pub struct SavedRun {
    path: PathBuf,
}

impl SavedRun {
    /// Opens the run in this directory.
    ///
    /// # Errors
    /// If there is no run, or if a newer version of this program wrote it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Err(of_run(path, "there is no such run directory"));
        }
        if let Err(RecordError::Newer(error)) = RunRecord::read(path) {
            return Err(error);
        }
        if !path.join(JOB).is_file() {
            return Err(without_a_job(path));
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process that currently owns it, if any.
    pub fn owner(&self) -> Option<String> {
        let lock = File::open(self.path.join(LOCK)).ok()?;
        let held = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
        held.then(|| holder(&lock))
    }

    /// The job.
    ///
    /// # Errors
    /// If `job.toml` can't be read.
    pub fn job(&self) -> Result<Job, Failure> {
        let path = self.path.join(JOB);
        let text = files::read_text(&path)?.ok_or_else(|| without_a_job(&self.path))?;
        Job::parse(&path.display().to_string(), &text)
            .map_err(|error| Failure::from(error).of_kind(FailureKind::Data))
    }

    /// The run's record, or `None` if it has no `run.json`.
    ///
    /// # Errors
    /// If `run.json` is damaged.
    pub fn record(&self) -> Result<Option<RunRecord>, Failure> {
        Ok(RunRecord::read(&self.path)?)
    }

    /// The history rows; empty if the run has not finished an epoch.
    ///
    /// # Errors
    /// If `history.jsonl` can't be read.
    pub fn history(&self) -> Result<Vec<EpochRow>, Failure> {
        self.rows(&files::read_text(&self.path.join(HISTORY))?.unwrap_or_default())
    }

    /// The history rows of a run that is not done: without the last one if a crash has torn it.
    ///
    /// # Errors
    /// If `history.jsonl` can't be read.
    pub fn whole_history(&self) -> Result<Vec<EpochRow>, Failure> {
        let path = self.path.join(HISTORY);
        let mut bytes = files::read(&path)?.unwrap_or_default();
        // First cut the torn end: it need not even be valid text.
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        self.rows(&files::text(&path, bytes)?)
    }

    fn rows(&self, text: &str) -> Result<Vec<EpochRow>, Failure> {
        let path = self.path.join(HISTORY);
        let row = |(number, line): (usize, &str)| {
            history::from_line(line)
                .map_err(|error| of_content(&path, format!("line {}: {error}", number + 1)))
        };
        text.lines().enumerate().map(row).collect()
    }

    /// The text of the ledger, or `None` if the run has not begun.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn ledger(&self) -> Result<Option<String>, Failure> {
        files::read_text(&self.path.join(LEDGER))
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.path, KEPT)
    }

    /// The path of its job file.
    pub fn job_file(&self) -> PathBuf {
        self.path.join(JOB)
    }

    /// The trained parameters, checked against the job's model.
    ///
    /// # Errors
    /// If the job is not done, or its model does not fit the job.
    pub fn parameters(&self, model: &Model) -> Result<Vec<f32>, Failure> {
        let (path, bytes) = self.model()?;
        model::decode(&bytes, model).map_err(|what| of_content(&path, what))
    }

    /// The model's file, which is open for reading, and its length. The file is the one that was written: a regular file,
    /// with the parameters whose hash the receipt has.
    ///
    /// # Errors
    /// If the job is not done, or if it is another file.
    pub fn model_as_written(&self) -> Result<(File, u64), Failure> {
        let path = self.path.join(MODEL);
        let receipt = self.receipt()?.ok_or_else(|| of_run(&self.path, "its job is not done"))?;
        let file =
            files::open(&path).map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))?;
        let hash = model::hash_of_file(&file, &self.job()?).map_err(|what| of_content(&path, what))?;
        if hash != receipt.weights_sha256 {
            let theirs = &receipt.weights_sha256;
            let what = format!("not the trained model: weights_sha256 is {hash}, in {RECEIPT} {theirs}");
            return Err(of_content(&path, what));
        }
        let len = file
            .metadata()
            .map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))?
            .len();
        Ok((file, len))
    }

    /// Number of inputs of the trained model; `job` must be the run's job.
    ///
    /// # Errors
    /// If the job is not done, or its model can't be read, or no model of the job can be that large.
    pub fn inputs(&self, job: &Job) -> Result<u32, Failure> {
        let (path, bytes) = self.model()?;
        model::inputs(&bytes, job).map_err(|what| of_content(&path, what))
    }

    fn model(&self) -> Result<(PathBuf, Vec<u8>), Failure> {
        let path = self.path.join(MODEL);
        let bytes = files::read(&path)?.ok_or_else(|| {
            let what = if self.is_done() {
                format!("{MODEL} is missing, though the job is done (restore the file, or train again with --overwrite)")
            } else {
                format!("there is no {MODEL}: the job is not done (coordinator train --resume finishes it)")
            };
            of_run(&self.path, what)
        })?;
        Ok((path, bytes))
    }

    /// Whether its job is done.
    pub fn is_done(&self) -> bool {
        self.path.join(RECEIPT).exists()
    }

    /// The receipt of a job that is done.
    ///
    /// # Errors
    /// If it can't be read, or is of a newer format.
    pub fn receipt(&self) -> Result<Option<Receipt>, Failure> {
        let path = self.path.join(RECEIPT);
        let Some(text) = files::read_text(&path)? else { return Ok(None) };
        let invalid = |error: serde_json::Error| of_content(&path, error);
        let Format { format } = serde_json::from_str(&text).map_err(invalid)?;
        if format > receipt::FORMAT {
            let known = receipt::FORMAT;
            let what = format!(
                "format {format} is newer than this program knows ({known}): use a newer version of Millefeuille"
            );
            return Err(of_run(&path, what));
        }
        serde_json::from_str(&text).map(Some).map_err(invalid)
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The failure for a directory without `job.toml`.
pub(super) fn without_a_job(path: &Path) -> Failure {
    let what = if super::holds_a_run(path) {
        format!(
            "a run directory without a job: {JOB} is missing (put it back, or start over with --overwrite)"
        )
    } else {
        format!("not a run directory: it has no {JOB}")
    };
    of_run(path, what)
}
