//! Read-only access to a run.
//!
//! Every file is checked before it is used: it is a regular file and not too large, and in a run that is done it has
//! the SHA-256 that `run.json` has of it. A file that was changed, or that belongs to another run, is an error of the
//! kind [`FailureKind::Differs`].

use std::fs::File;
use std::path::{Path, PathBuf};

use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::EpochRow;
use sha2::{Digest as _, Sha256};

use super::checkpoint::{Checkpoints, KEPT};
use super::ledger::{self, Entries};
use super::receipt::{self, Receipt, weights_sha256};
use super::record::{self, RunRecord, RunState};
use super::seal::Broken;
use super::{
    BEST, EVENTS, HISTORY, JOB, LEDGER, MODEL, RECEIPT, RECORD, files, history, lock, model, of_content,
    of_run, resume_command,
};

/// The files of a run, and the maximum size of each in bytes.
const FILES: [(&str, u64); 8] = [
    (RECORD, record::MAX_BYTES),
    (JOB, 1 << 20),
    (HISTORY, 1 << 28),
    (RECEIPT, 1 << 28),
    (MODEL, model::MAX_FILE_BYTES),
    (BEST, model::MAX_FILE_BYTES),
    (LEDGER, 1 << 32),
    (EVENTS, 1 << 32),
];

/// The maximum size of any other file in bytes.
const OTHERS: u64 = 1 << 28;

/// A run in a directory.
#[derive(Clone, Debug)]
pub struct SavedRun {
    path: PathBuf,
    record: Option<RunRecord>,
}

/// The model of a run that is done.
#[derive(Clone, Debug)]
pub struct TrainedModel {
    /// Its number of inputs.
    pub inputs: u32,
    /// What it takes and answers; `None` if these are plain numbers.
    pub described: Option<Inputs>,
    /// Its layers.
    pub shape: Model,
    /// `[shape.parameter_count()]`
    pub parameters: Vec<f32>,
}

impl SavedRun {
    /// Opens the run in this directory.
    ///
    /// # Errors
    /// If there is no run, if a file is not a regular file or too large, if `run.json` is damaged, or if a newer version
    /// of this program wrote it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Err(of_run(path, "there is no such run directory"));
        }
        FILES.iter().try_for_each(|(name, limit)| files::check(&path.join(name), *limit))?;
        let record = RunRecord::read(path)?;
        if !path.join(JOB).is_file() {
            return Err(without_a_job(path));
        }
        Ok(Self { path: path.to_path_buf(), record })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process that currently owns it, if any.
    pub fn owner(&self) -> Option<String> {
        lock::owner(&self.path)
    }

    /// The run's record, or `None` if it has no `run.json`.
    pub fn record(&self) -> Option<&RunRecord> {
        self.record.as_ref()
    }

    /// The job.
    ///
    /// # Errors
    /// If `job.toml` can't be read, or was changed.
    pub fn job(&self) -> Result<Job, Failure> {
        let path = self.job_file();
        let text = self.read_text(JOB)?.ok_or_else(|| without_a_job(&self.path))?;
        Job::parse(&path.display().to_string(), &text)
            .map_err(|error| Failure::from(error).of_kind(FailureKind::Data))
    }

    /// The path of its job file.
    pub fn job_file(&self) -> PathBuf {
        self.path.join(JOB)
    }

    /// Checks that `job`, which is the one in the directory, is the one that was submitted.
    ///
    /// # Errors
    /// If it is a different one.
    pub fn check_job(&self, job: &Job) -> Result<(), Failure> {
        self.record.as_ref().map_or(Ok(()), |record| record.check(&self.path, job))
    }

    /// The history rows; empty if the run has not finished an epoch.
    ///
    /// # Errors
    /// If `history.jsonl` can't be read, or was changed.
    pub fn history(&self) -> Result<Vec<EpochRow>, Failure> {
        self.rows(&self.read_text(HISTORY)?.unwrap_or_default())
    }

    /// The history rows of a run that is not done: without the last one if a crash has torn it.
    ///
    /// # Errors
    /// If `history.jsonl` can't be read.
    pub fn whole_history(&self) -> Result<Vec<EpochRow>, Failure> {
        let mut bytes = self.read(HISTORY)?.unwrap_or_default();
        // First cut the torn end: it need not even be valid text.
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        self.rows(&files::text(&self.path.join(HISTORY), bytes)?)
    }

    fn rows(&self, text: &str) -> Result<Vec<EpochRow>, Failure> {
        let path = self.path.join(HISTORY);
        let row = |(number, line): (usize, &str)| {
            history::from_line(line)
                .map_err(|error| of_content(&path, format!("line {}: {error}", number + 1)))
        };
        text.lines().enumerate().map(row).collect()
    }

    /// The ledger, or `None` if the run has not begun. Of a run that is not done, a torn last line is left out.
    ///
    /// # Errors
    /// If it can't be read, was changed, or is of a newer format.
    pub fn ledger(&self) -> Result<Option<Entries>, Failure> {
        let path = self.path.join(LEDGER);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let mut text = files::text(&path, bytes)?;
        let broken = |broken: Broken| match broken {
            Broken::Newer { .. } => of_run(&path, broken),
            Broken::Damaged(_) => of_content(&path, broken),
        };
        // A newer version may have written the whole run.
        ledger::check_format(&text).map_err(broken)?;
        self.check(LEDGER, text.as_bytes())?;
        if !self.is_done() {
            text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        }
        ledger::read(&text).map(Some).map_err(broken)
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.path, KEPT)
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
        check_weights(&path, &hash, &receipt)?;
        let len = file
            .metadata()
            .map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))?
            .len();
        Ok((file, len))
    }

    /// Whether its job is done.
    pub fn is_done(&self) -> bool {
        self.path.join(RECEIPT).exists()
    }

    /// The receipt of a job that is done.
    ///
    /// # Errors
    /// If it can't be read, was changed, or is of a newer format.
    pub fn receipt(&self) -> Result<Option<Receipt>, Failure> {
        let path = self.path.join(RECEIPT);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let receipt = receipt::read(&text);
        if let Err(newer @ Broken::Newer { .. }) = receipt {
            return Err(of_run(&path, newer));
        }
        self.check(RECEIPT, &text)?;
        receipt.map(Some).map_err(|broken| of_content(&path, broken))
    }

    /// The trained model, checked against the job and the receipt; `job` must be the run's job.
    ///
    /// # Errors
    /// If the job is not done (the failure says why, and what to do), or if its model can't be read, does not fit the
    /// job, or was changed.
    pub fn trained(&self, job: &Job) -> Result<TrainedModel, Failure> {
        let Some(receipt) = self.receipt()? else { return Err(self.not_done()) };
        let path = self.path.join(MODEL);
        let bytes = self.read(MODEL)?.ok_or_else(|| self.lost(MODEL))?;
        let damaged = |what| of_content(&path, what);
        let inputs = model::inputs(&bytes, job).map_err(damaged)?;
        let shape = Model::new(inputs as usize, &job.layers);
        let parameters = model::decode(&bytes, &shape).map_err(damaged)?;
        check_weights(&path, &weights_sha256(bytemuck::cast_slice(&parameters)), &receipt)?;
        let described = model::described_inputs(&bytes).map_err(damaged)?;
        if let Some(described) =
            described.as_ref().filter(|described| described.features().width() != inputs as usize)
        {
            let width = described.features().width();
            return Err(damaged(format!("it takes {inputs} inputs, and describes {width}")));
        }
        Ok(TrainedModel { inputs, described, shape, parameters })
    }

    /// The files whose SHA-256 `run.json` has, if the run is done.
    pub fn recorded(&self) -> impl Iterator<Item = &str> {
        let record = self.record.as_ref().filter(|_| self.is_done());
        record.into_iter().flat_map(|record| record.files_sha256.keys().map(String::as_str))
    }

    /// The content of a file, or `None` if it is missing.
    ///
    /// # Errors
    /// If it can't be read, or was changed.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join(name);
        files::check(&path, limit(name))?;
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        self.check(name, &bytes)?;
        Ok(Some(bytes))
    }

    fn read_text(&self, name: &str) -> Result<Option<String>, Failure> {
        self.read(name)?.map(|bytes| files::text(&self.path.join(name), bytes)).transpose()
    }

    /// Checks that a file of a run that is done has the SHA-256 that `run.json` has of it.
    fn check(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let record = self.record.as_ref().filter(|_| self.is_done());
        let Some(recorded) = record.and_then(|record| record.files_sha256.get(name)) else { return Ok(()) };
        let found = hex::encode(Sha256::digest(content));
        if found == *recorded {
            return Ok(());
        }
        let what = format!(
            "not the file that the run wrote: its SHA-256 is {found}, in {RECORD} {recorded} (restore the file, or \
             train again)"
        );
        Err(Failure::at(FailureKind::Differs, self.path.join(name).display(), what))
    }

    /// Why the run has no result, and what to do about it.
    fn not_done(&self) -> Failure {
        if let Some(owner) = self.owner() {
            let what =
                format!("the job is not done: {owner} is using this run directory (wait until it has ended)");
            return of_run(&self.path, what);
        }
        let run = self.path.display();
        match self.record.as_ref().map(|record| &record.state) {
            Some(RunState::Ended { outcome }) if outcome.is_done() => self.lost(RECEIPT),
            Some(RunState::Ended { outcome }) if outcome.has_diverged() => {
                let diverged = outcome.failure.clone();
                let diverged =
                    diverged.unwrap_or_else(|| Failure::new(FailureKind::Diverged, "training diverged"));
                Failure { place: Some(run.to_string()), ..diverged }
            }
            _ => {
                let what = format!(
                    "the job is not done ({} finishes it; coordinator evaluate {run} --checkpoint evaluates what there \
                     is)",
                    resume_command(&self.path)
                );
                of_run(&self.path, what)
            }
        }
    }

    /// The failure for a missing file of a run that is done.
    fn lost(&self, name: &str) -> Failure {
        let what = format!(
            "{name} is missing, though the job is done (restore the file, or train again with --overwrite)"
        );
        of_run(&self.path, what)
    }
}

/// Checks the hash of a model's parameters.
fn check_weights(path: &Path, found: &str, receipt: &Receipt) -> Result<(), Failure> {
    let known = &receipt.weights_sha256;
    if found == known {
        return Ok(());
    }
    let what = format!("weights_sha256 is {found}, in {RECEIPT} {known} (restore the file, or train again)");
    Err(Failure::at(FailureKind::Differs, path.display(), what))
}

fn limit(name: &str) -> u64 {
    FILES.iter().find(|(known, _)| *known == name).map_or(OTHERS, |(_, limit)| *limit)
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
