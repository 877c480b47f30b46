//! The measurements of all contenders.

use std::collections::BTreeMap;

use serde::Serialize;

use super::call::Called;
use super::contender::RunReport;
use crate::machine::Machine;
use crate::memory::Peaks;

/// Keras 3.15's accuracy on the test set over twenty seeds: mean and standard deviation, as in the README.
pub(super) const ACCURACY: (f64, f64) = (0.9129, 0.0016);

/// Largest allowed distance of an accuracy from Keras' mean, in standard deviations.
pub(super) const DEVIATIONS: f64 = 5.0;

/// The measurement of one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Taken {
    pub(super) fit_seconds: f64,
    pub(super) command_seconds: f64,
    /// Processor time of all processes, user and system.
    pub(super) cpu_seconds: f64,
    /// `None` for the products, which compute no model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_accuracy: Option<f64>,
}

/// One run of each contender, in the order of [`ALL`](super::contender::ALL).
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
    /// Number of multiplications and additions in the products.
    pub(super) operations: f64,
    /// The peak of the proportional set size over all processes of each contender, in the order of
    /// [`ALL`](super::contender::ALL); measured in separate runs.
    pub(super) peak_bytes: Vec<Option<u64>>,
    /// Peak memory of a coordinator and of a worker that holds all shards; measured in a separate run.
    pub(super) memory: Peaks,
    pub(super) rounds: Vec<Round>,
}

impl Taken {
    pub(super) fn of(report: &RunReport, called: &Called) -> Self {
        Self {
            fit_seconds: report.fit_seconds,
            command_seconds: called.seconds,
            cpu_seconds: called.cpu_seconds,
            test_accuracy: report.test_accuracy,
        }
    }
}
