//! `run.json`: what a cluster must remember of a run beside its job: its place in the order, and how far it came.
//!
//! It is written whole each time the state changes, and sealed, so that a damaged one is not believed.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use millefeuille_worker::process::exit;
use serde::{Deserialize, Serialize};

use super::seal::{self, Broken};
use super::{RECORD, RunError, files};

const FORMAT: u32 = 1;

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its directory's name when it was submitted.
    pub id: String,
    /// Its place in the order of submissions, from 1.
    pub number: u64,
    /// What the client called its submission, so that submitting it again finds this run; empty for none.
    pub client_key: String,
    /// When it was submitted, in seconds since 1970.
    pub submitted: f64,
    /// How far it came.
    #[serde(flatten)]
    pub state: State,
}

/// How far a run came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// It has begun, and not ended.
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
    /// As the commands exit; 0 for a job that is done.
    pub exit_code: u8,
    /// One line for people.
    pub message: String,
}

impl Ending {
    /// That of a job that is done.
    pub(super) fn done() -> Self {
        Self { exit_code: exit::DONE, message: "done".to_string() }
    }
}

impl Record {
    /// A run that was submitted now.
    pub(super) fn new(id: String, number: u64, client_key: String) -> Self {
        Self { id, number, client_key, submitted: now(), state: State::Queued }
    }

    /// The one in a run directory; none where there is no `run.json`.
    ///
    /// # Errors
    /// If it is damaged, or of a newer version.
    pub(super) fn read(run: &Path) -> Result<Option<Self>, RecordError> {
        let path = run.join(RECORD);
        let Some(text) = files::read(&path).map_err(RecordError::Damaged)? else { return Ok(None) };
        seal::open(&text, FORMAT).map(Some).map_err(|broken| match broken {
            Broken::Damaged(what) => RecordError::Damaged(RunError::content(&path, what)),
            Broken::Newer { .. } => RecordError::Newer(RunError::of(&path, broken)),
        })
    }

    pub(super) fn write(&self, run: &Path, kind: &str) -> Result<(), RunError> {
        files::write_whole(&run.join(RECORD), seal::seal(FORMAT, self).as_bytes(), kind)
    }
}

/// Why a `run.json` is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// It is not as it was written.
    Damaged(RunError),
    /// It is from a newer version of this program, whose run is not to be touched.
    Newer(RunError),
}

impl From<RecordError> for RunError {
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
