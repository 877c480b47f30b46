//! The settings and the results of a measurement.

use serde::Serialize;

use super::cost::Round;
use super::losses::Losses;
use crate::fit::EPOCHS;
use crate::machine::Machine;

/// The settings of the fault benchmark.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Args {
    /// Number of workers to kill
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) kills: u32,
    /// Number of workers to stop [default: as many as are killed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stops: Option<u32>,
    /// Number of rounds of fits with and without fault tolerance
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pairs: u32,
    /// Number of epochs of each of these fits
    #[arg(long, default_value_t = EPOCHS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) epochs: u32,
}

/// All measurements.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) date: String,
    pub(super) machine: Machine,
    /// The machine's load before the benchmark.
    pub(super) load: f64,
    pub(super) asked: Args,
    pub(super) weights_sha256: String,
    pub(super) killed: Losses,
    pub(super) stopped: Losses,
    pub(super) rounds: Vec<Round>,
}
