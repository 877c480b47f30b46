//! Measures the cost of lost workers, and of fault tolerance without faults.
//!
//! [`losses`]: workers of a running cluster are killed, or stopped so that they are silent, one after another; each
//! is replaced before the next is lost. The coordinator's log says, to the microsecond, when a step closed, when the
//! coordinator disconnected a worker, and which nodes it assigned to other workers. The log and the signals are timed
//! by the same clock.
//!
//! [`cost`]: the article's fit with the default settings, and with parts of the fault tolerance switched off. The
//! speed of a machine changes over time, so each round gives a ratio, and the result is the median of the ratios.
//!
//! The output is a table, and `bench/faults.json` with all numbers ([`report`]). A missed target is reported in the
//! table. The benchmark fails if two fits differ in a bit, or if the coordinator's log is inconsistent.

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

/// Runs the benchmark, prints the table and writes the results to `to`.
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
