//! The measurements of a comparison.

use serde::Serialize;

use crate::coordinator::Shape;
use crate::machine::Machine;
use crate::memory::Peaks;

/// The measured clusters, and the target for each one's fit time as a multiple of the baseline's.
pub(crate) const CLUSTERS: [(Shape, f64); 3] = [
    (Shape { workers: 1, slots: 2 }, 1.25),
    (Shape { workers: 2, slots: 1 }, 1.5),
    (Shape { workers: 4, slots: 1 }, 1.7),
];

/// One round: the products, the baseline, then each cluster, in the order of [`CLUSTERS`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) products_seconds: f64,
    pub(crate) baseline_seconds: f64,
    pub(crate) clusters: Vec<Taken>,
    /// The machine's load before the round.
    pub(crate) load: f64,
}

/// The measurement of a cluster.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Taken {
    pub(crate) fit_seconds: f64,
    pub(crate) wall_seconds: f64,
}

/// All measurements.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) weights_sha256: String,
    /// Number of multiplications and additions in the products.
    pub(crate) operations: f64,
    pub(crate) rounds: Vec<Round>,
    pub(crate) memory: Peaks,
}
