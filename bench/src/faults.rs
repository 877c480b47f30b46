//! The cost of losing workers, and of being ready for it.
//!
//! [`losses`]: workers of a running cluster are killed, or stopped so that they are silent, one after another; each
//! is replaced before the next is lost. The coordinator's log says to the microsecond when a step closed, when the
//! coordinator disconnected a worker, and which nodes it assigned to others. Log and signal are timed by the same
//! clock.
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
mod measured;
mod report;

use std::path::Path;

use crate::coordinator;
use crate::machine::{self, Machine};
use losses::{KILL, STOP};
pub(crate) use measured::Args;
use measured::Measured;

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
