//! The settings and the results of a measurement.

use serde::Serialize;

use super::cost::Round;
use super::losses::Losses;
use crate::fit::EPOCHS;
use crate::machine::Machine;

/// How much is measured.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Args {
    /// Workers killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) kills: u32,
    /// Workers stopped [default: as many as are killed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stops: Option<u32>,
    /// Rounds of fits, with and without what makes the cluster safe
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pairs: u32,
    /// Epochs of each of these fits
    #[arg(long, default_value_t = EPOCHS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) epochs: u32,
}

/// All measurements.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) date: String,
    pub(super) machine: Machine,
    /// The machine's load before all of it.
    pub(super) load: f64,
    pub(super) asked: Args,
    pub(super) weights_sha256: String,
    pub(super) killed: Losses,
    pub(super) stopped: Losses,
    pub(super) rounds: Vec<Round>,
}
