//! The measurements of all contenders.

use std::collections::BTreeMap;

use serde::Serialize;

use super::call::Called;
use super::contender::Said;
use crate::machine::Machine;
use crate::memory::Peaks;

/// Accuracy on the test set of Keras 3.15 over twenty seeds: mean and standard deviation, as in the README.
pub(super) const ACCURACY: (f64, f64) = (0.9129, 0.0016);

/// How many of Keras' standard deviations an accuracy may be away from its mean.
pub(super) const DEVIATIONS: f64 = 5.0;

/// The measurement of one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Taken {
    pub(super) fit_seconds: f64,
    pub(super) command_seconds: f64,
    /// Of processors, user's and system's, over all processes from start to end.
    pub(super) cpu_seconds: f64,
    /// Of those that compute a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_accuracy: Option<f64>,
}

/// One run of each, in the order of [`ALL`](super::contender::ALL).
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    /// The contender that ran first; the others followed in the order of the table, wrapping around.
    pub(super) first: String,
    /// The machine's load before the round.
    pub(super) load: f64,
    pub(super) taken: Vec<Taken>,
}

/// All measurements.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) date: String,
    pub(super) machine: Machine,
    /// Versions of the peers' software.
    pub(super) versions: BTreeMap<String, String>,
    pub(super) weights_sha256: String,
    /// In the products.
    pub(super) operations: f64,
    /// Peaks of the proportional set size over all processes, in the order of [`ALL`](super::contender::ALL); of a run of its own.
    pub(super) peak_bytes: Vec<Option<u64>>,
    /// Peaks of a coordinator and of a worker that holds all shards; of a run of their own.
    pub(super) memory: Peaks,
    pub(super) rounds: Vec<Round>,
}

impl Taken {
    pub(super) fn of(said: &Said, called: &Called) -> Self {
        Self {
            fit_seconds: said.fit_seconds,
            command_seconds: called.seconds,
            cpu_seconds: called.cpu_seconds,
            test_accuracy: said.test_accuracy,
        }
    }
}
