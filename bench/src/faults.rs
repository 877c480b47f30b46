//! What losing workers costs, and what being ready for it costs.
//!
//! [`losses`]: workers of a running cluster are killed, or stopped so that they are silent, one after another;
//! each is replaced before the next is lost. The coordinator's log says to the microsecond when a step closed,
//! when it gave up a worker, and which pieces it asked others for. Log and signal are timed by the same clock.
//!
//! [`cost`]: the article's fit in turn with what the defaults say and with parts of it switched off. A
//! machine's speed changes on the way, so each round gives a ratio, and the ratios' median counts.
//!
//! What comes out is a table, and `bench/faults.json` with every number behind it ([`report`]). A target that is
//! missed is a line in the table. Fits that differ in a bit fail the program, and so does a log that it cannot
//! follow.

mod cluster;
mod cost;
mod log;
mod losses;
mod report;

use std::path::Path;

use serde::Serialize;

use crate::coordinator;
use crate::fit::EPOCHS;
use crate::machine::{self, Machine};
use cost::Round;
use losses::{KILL, Losses, STOP};

/// How much is measured.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Args {
    /// Workers killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Workers stopped [default: as many as are killed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    stops: Option<u32>,
    /// Rounds of fits, with and without what makes the cluster safe
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Epochs of each of these fits
    #[arg(long, default_value_t = EPOCHS, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    date: String,
    machine: Machine,
    /// The machine's load before all of it.
    load: f64,
    asked: Args,
    weights_sha256: String,
    killed: Losses,
    stopped: Losses,
    rounds: Vec<Round>,
}

/// Measures, prints the table and writes `to`.
pub(crate) fn run(args: &Args, to: &Path) -> anyhow::Result<()> {
    let binary = coordinator::beside_this_program()?;
    let (date, load) = (machine::date(), machine::load());
    let killed = losses::measure(&binary, KILL, args.kills)?;
    let stopped = losses::measure(&binary, STOP, args.stops.unwrap_or(args.kills))?;
    let (fit, rounds) = cost::measure(&binary, args.pairs, args.epochs)?;
    let measured = Measured {
        date,
        machine: Machine::here(&fit.blas_kernel, &fit.blas_version),
        load,
        asked: args.clone(),
        weights_sha256: fit.weights_sha256,
        killed,
        stopped,
        rounds,
    };
    print!("{}", report::table(&measured));
    report::write(&measured, to)
}
