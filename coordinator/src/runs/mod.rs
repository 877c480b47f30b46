//! A run directory: the files of a run, from which it can be resumed after a crash.
//!
//! | file | what |
//! | --- | --- |
//! | `run.json` | its place in the order of submissions, its state, and the hashes of its files when it is done ([`record`]) |
//! | `job.toml` | the job, fully resolved |
//! | `init.safetensors` | the file that the parameters began with, if the job names one |
//! | `checkpoints/` | states from which it can be resumed ([`checkpoint`]) |
//! | `history.jsonl` | one line per epoch ([`history`]) |
//! | `ledger` | which samples were used ([`ledger`]) |
//! | `events.jsonl` | events in the cluster during the run |
//! | `model.safetensors` | the trained parameters ([`model`]) |
//! | `best.safetensors` | the parameters after the best epoch so far, if early stopping looks for it |
//! | `receipt.json` | inputs, arithmetic and hashes, for verification ([`receipt`]); written when the job is done |
//! | `plots/` | pictures: history, digits, predictions |
//!
//! A run is submitted (`job.toml` and `run.json` are on disk), begun, perhaps resumed several times, and ended;
//! [`RunDir`] is the only writer. [`SavedRun`] reads, and [`scan()`] finds the runs when a cluster restarts.
//!
//! After a crash, the newest whole checkpoint is the only truth. History, ledger and events are derived from it: they
//! are appended without waiting for the disk, and cut back when the run is resumed. Every other file is written
//! completely, then renamed into place.
//!
//! One process owns a run directory while it writes: it holds a [`lock`], and `.lock` names the process.

mod arithmetic;
pub mod checkpoint;
mod directory;
pub(crate) mod files;
pub mod history;
mod json;
mod kept;
pub mod ledger;
mod lock;
pub mod model;
pub mod receipt;
pub mod record;
mod resume;
mod saved;
mod scan;
mod seal;

use std::fmt::Display;
use std::path::Path;

use millefeuille_core::failure::{Failure, FailureKind};

pub use arithmetic::{described, described_shapes};
pub use checkpoint::{Checkpoint, Checkpoints};
pub use directory::{Existing, RunDir};
pub(crate) use lock::Lock;
pub use record::{Ending, RunRecord, RunState};
pub use resume::Resumed;
pub use saved::{SavedRun, TrainedModel};
pub use scan::{Found, Scanned, scan};
pub use seal::Broken;

const JOB: &str = "job.toml";
const RECORD: &str = "run.json";
const HISTORY: &str = "history.jsonl";
const LEDGER: &str = "ledger";
const EVENTS: &str = "events.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = ".lock";
const RECEIPT: &str = "receipt.json";
const MODEL: &str = "model.safetensors";
const BEST: &str = "best.safetensors";
const INIT: &str = "init.safetensors";
const PLOTS: &str = "plots";

/// The files of a run: if any of them exists, the directory holds a run.
///
/// They are removed in this order: first the files that certify others, last the job, to which all others belong.
const TRACES: [&str; 10] = [RECORD, RECEIPT, MODEL, BEST, CHECKPOINTS, HISTORY, LEDGER, EVENTS, INIT, JOB];

/// Whether any file of a run is in this directory.
pub fn holds_a_run(path: &Path) -> bool {
    TRACES.iter().any(|name| path.join(name).exists())
}

/// The command that continues a run, from anywhere in the directory that it was named from.
fn resume_command(run: &Path) -> String {
    format!("coordinator train --run-dir {} --resume", run.display())
}

/// A failure of a run directory, or of something in it.
fn of_run(path: &Path, what: impl Display) -> Failure {
    Failure::at(FailureKind::Data, path.display(), what)
}

/// A failure of a file that is readable but has the wrong content.
fn of_content(path: &Path, what: impl Display) -> Failure {
    Failure::at(FailureKind::Damaged, path.display(), what)
}

/// File names.
pub mod names {
    /// The job, fully resolved.
    pub const JOB: &str = super::JOB;
    /// The run's state, and the hashes of its files.
    pub const RECORD: &str = super::RECORD;
    /// One line per epoch.
    pub const HISTORY: &str = super::HISTORY;
    /// Which samples were used.
    pub const LEDGER: &str = super::LEDGER;
    /// The trained parameters.
    pub const MODEL: &str = super::MODEL;
    /// The parameters after the best epoch.
    pub const BEST: &str = super::BEST;
    /// The file that the parameters began with.
    pub const INIT: &str = super::INIT;
    /// Inputs, arithmetic and hashes, for verification.
    pub const RECEIPT: &str = super::RECEIPT;
}
