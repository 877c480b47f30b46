//! A run directory: the files of a run, from which it can be resumed after a crash.
//!
//! | file | what |
//! | --- | --- |
//! | `run.json` | its place in the order of submissions, and how far it came ([`record`]) |
//! | `job.toml` | the job, fully resolved |
//! | `checkpoints/` | where it can be resumed ([`checkpoint`]) |
//! | `history.jsonl` | a line an epoch ([`history`]) |
//! | `ledger` | which samples were used ([`ledger`]) |
//! | `events.jsonl` | what happened in the cluster meanwhile |
//! | `model.safetensors` | the trained parameters ([`model`]) |
//! | `receipt.json` | what makes the result checkable ([`receipt`]); appears whole, when the job is done |
//! | `plots/` | pictures: history, digits, predictions |
//!
//! A run is submitted (`job.toml` and `run.json` are on disk), begun, perhaps resumed several times, and ended;
//! [`RunDir`] is the only writer. [`SavedRun`] reads, and [`scan()`] finds the runs of a cluster that starts again.
//!
//! The newest checkpoint that is whole is the only truth after a crash. History, ledger and events are projections of
//! it: they are appended to without waiting for the disk, and cut back when the run is resumed. Everything else is
//! written whole, by a rename.
//!
//! One process owns a run directory while it writes: it holds a lock on `.lock`, which says who it is.

mod arithmetic;
pub mod checkpoint;
mod directory;
pub(crate) mod files;
pub mod history;
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
pub use record::{Ending, RunRecord, RunState};
pub use resume::Resumed;
pub use saved::SavedRun;
pub use scan::{Found, Scanned, scan};

const JOB: &str = "job.toml";
const RECORD: &str = "run.json";
const HISTORY: &str = "history.jsonl";
const LEDGER: &str = "ledger";
const EVENTS: &str = "events.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = ".lock";
const RECEIPT: &str = "receipt.json";
const MODEL: &str = "model.safetensors";
const PLOTS: &str = "plots";

/// Whatever of these is there, a run is there.
///
/// In the order in which they are removed: what says that the rest is there goes first, what the rest is of last.
const TRACES: [&str; 8] = [RECORD, RECEIPT, MODEL, CHECKPOINTS, HISTORY, LEDGER, EVENTS, JOB];

/// Whether there is anything of a run in this directory.
pub fn holds_a_run(path: &Path) -> bool {
    TRACES.iter().any(|name| path.join(name).exists())
}

/// What is wrong with a run directory, or something in it.
fn of_run(path: &Path, what: impl Display) -> Failure {
    Failure::at(FailureKind::Data, path.display(), what)
}

/// A file could be read, and is not what it must be.
fn of_content(path: &Path, what: impl Display) -> Failure {
    Failure::at(FailureKind::Damaged, path.display(), what)
}

/// The names of files.
pub mod names {
    /// The job, fully resolved.
    pub const JOB: &str = super::JOB;
    /// A line an epoch.
    pub const HISTORY: &str = super::HISTORY;
    /// Which samples were used.
    pub const LEDGER: &str = super::LEDGER;
    /// The trained parameters.
    pub const MODEL: &str = super::MODEL;
    /// What makes the result checkable.
    pub const RECEIPT: &str = super::RECEIPT;
}
