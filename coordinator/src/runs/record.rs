//! `run.json`: what a cluster must remember of a run in addition to its job: its place in the order of submissions,
//! and its state.
//!
//! It is rewritten completely each time the state changes, and sealed, so that a damaged file is recognized.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use millefeuille_core::failure::Failure;
use millefeuille_core::job::{BlasKernel, Data, Job};
use millefeuille_core::view::JobStatus;
use millefeuille_program::process::exit;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::directory::id;
use super::receipt::Grown;
use super::seal::{self, Broken};
use super::{JOB, RECORD, files, of_content, of_run};

const FORMAT: u32 = 1;

/// Upper bound on the file's size.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its directory's name when the record was written.
    pub id: String,
    /// Its place in the order of submissions, from 1.
    pub number: u64,
    /// The key that the client chose for its submission, so that submitting again finds this run; empty if there is
    /// none.
    pub client_key: String,
    /// When it was submitted, in seconds since 1970.
    pub submitted: f64,
    /// When it began to train, in seconds since 1970; `None` before, and if an earlier version wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<f64>,
    /// Hex SHA-256 of the job as submitted, before its kernel and the place of its data were resolved; empty before
    /// submission.
    #[serde(default)]
    pub job: String,
    /// The jobs with fewer epochs that the run had before it was continued, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown_from: Vec<Grown>,
    /// Hex SHA-256 of every file of a run that is done, by its path in the directory, checkpoints and this record
    /// excluded: what is read of the run later must be what was written. Empty for a run that is not done, and in
    /// records of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files_sha256: BTreeMap<String, String>,
    /// Its state.
    #[serde(flatten)]
    pub state: RunState,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RunState {
    /// It waits for its turn.
    Queued,
    /// It has begun and not ended.
    Running,
    /// It has ended.
    Ended {
        /// How.
        outcome: Ending,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The exit code of commands; 0 for a job that is done.
    pub exit_code: u8,
    /// One line for people.
    pub message: String,
    /// Why it failed; `None` for a job that is done or cancelled, or if an earlier version wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The beginning of the message of a job that a rule has stopped.
pub const DONE_BECAUSE: &str = "done: ";

impl Ending {
    /// The ending of a job that is done.
    pub fn done() -> Self {
        Self { exit_code: exit::DONE, message: "done".to_string(), failure: None }
    }

    /// The ending of a job that is done because a rule stopped it, in these words.
    pub fn stopped(why: &str) -> Self {
        Self { message: format!("{DONE_BECAUSE}{why}"), ..Self::done() }
    }

    /// The ending of a cancelled job.
    pub fn cancelled() -> Self {
        Self { exit_code: exit::INTERRUPTED, message: "cancelled".to_string(), failure: None }
    }

    /// The ending of a failed job.
    pub fn of(failure: Failure) -> Self {
        Self { exit_code: failure.exit_code(), message: failure.to_string(), failure: Some(failure) }
    }

    /// Whether the job is done.
    pub fn is_done(&self) -> bool {
        self.exit_code == exit::DONE
    }

    /// Whether training diverged: trained further, it would again.
    pub fn has_diverged(&self) -> bool {
        self.exit_code == exit::DIVERGED
    }

    /// The status of a job with this ending.
    pub fn status(&self) -> JobStatus {
        match self.exit_code {
            exit::DONE => JobStatus::Done,
            exit::INTERRUPTED => JobStatus::Cancelled,
            _ => JobStatus::Failed,
        }
    }
}

impl RunRecord {
    /// A record of a run submitted now.
    pub(super) fn new(id: String, number: u64, client_key: String) -> Self {
        Self {
            id,
            number,
            client_key,
            submitted: now(),
            started: None,
            job: String::new(),
            grown_from: Vec::new(),
            files_sha256: BTreeMap::new(),
            state: RunState::Queued,
        }
    }

    /// The record in another state from now on.
    pub(super) fn entering(&self, state: RunState) -> Self {
        let started = self.started.or_else(|| (state == RunState::Running).then(now));
        Self { state, started, ..self.clone() }
    }

    /// The record as that of the run in this directory, which may have another name by now: a run is named after its
    /// directory. A copy is a run of its own, which was not submitted.
    pub(super) fn of_directory(self, run: &Path) -> Self {
        let client_key = if self.is_of_a_copy(run) { String::new() } else { self.client_key };
        Self { id: id(run), client_key, ..self }
    }

    /// Whether this is the record of a copy: the directory that it was written in is still there, beside this one.
    pub(super) fn is_of_a_copy(&self, run: &Path) -> bool {
        let submission =
            |record: &Self| (record.number, record.client_key.clone(), record.submitted.to_bits());
        let original = || Self::read(&files::parent(run).join(&self.id)).ok().flatten();
        self.id != id(run) && original().is_some_and(|original| submission(&original) == submission(self))
    }

    /// Records the job's hash.
    pub(super) fn note(&mut self, job: &Job) {
        self.job = identity(job);
    }

    /// Checks that the job in the directory is the submitted one: before the first checkpoint nothing else would
    /// notice a change.
    ///
    /// # Errors
    /// If the job is a different one.
    pub(super) fn check(&self, run: &Path, job: &Job) -> Result<(), Failure> {
        if self.job.is_empty() || self.job == identity(job) {
            return Ok(());
        }
        let what = format!(
            "not the job that was submitted (restore the file, or remove {} and submit again)",
            run.display()
        );
        Err(of_run(&run.join(JOB), what))
    }

    /// Reads the record in a run directory; `None` if there is no `run.json`.
    ///
    /// # Errors
    /// If it is damaged, or of a newer version.
    pub(super) fn read(run: &Path) -> Result<Option<Self>, RecordError> {
        let path = run.join(RECORD);
        let text = files::check(&path, MAX_BYTES).and_then(|()| files::read(&path));
        let Some(text) = text.map_err(RecordError::Damaged)? else { return Ok(None) };
        seal::open(&text, FORMAT).map(Some).map_err(|broken| match broken {
            Broken::Damaged(what) => RecordError::Damaged(of_content(&path, what)),
            Broken::Newer { .. } => RecordError::Newer(of_run(&path, broken)),
        })
    }

    /// The content of `run.json`.
    pub(super) fn to_text(&self) -> String {
        seal::seal(FORMAT, self)
    }
}

fn identity(job: &Job) -> String {
    let source = Job::default().data.source;
    let data = Data { source, ..job.data.clone() };
    let job = Job { blas_kernel: BlasKernel::Native, data, ..job.clone() };
    hex::encode(Sha256::digest(job.to_toml()))
}

/// Why a `run.json` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// Its content is not what was written.
    Damaged(Failure),
    /// A newer version of this program wrote it; the run must not be changed.
    Newer(Failure),
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Damaged(error) | RecordError::Newer(error) => error,
        }
    }
}

/// Seconds since 1970, to the millisecond.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}
