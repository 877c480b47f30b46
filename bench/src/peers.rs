//! Compares this project with the article's program in Keras and in PyTorch.
//!
//! All [contenders](contender) run in turn, round after round; each round starts with a different contender. Each run
//! is a new process in an empty directory. The *command* time is the time from the start of the process to its end
//! ([`mod@call`]). The *fit* time and the test accuracy are the ones that the program reports. The warm-up round is
//! not timed; it measures memory, which would slow down a timed run.
//!
//! A run whose test accuracy is outside Keras' range over twenty seeds ([`ACCURACY`](measured::ACCURACY)) is
//! disqualified. Runs of this project must compute the same weights as the baseline, bit for bit; otherwise the
//! benchmark fails.
//!
//! The output is two tables, of the measurements and of the targets ([`report`]), and `bench/peers.json` with all
//! numbers. A missed target is reported in the table.

mod call;
mod contender;
mod measured;
mod report;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::coordinator;
use crate::fit::Fit;
use crate::machine::{self, Machine};
use crate::measured::CLUSTERS;
use crate::process;
use crate::report::write_json;
use call::{Called, Watch};
use contender::{ALL, Contender, Programs, RunReport};
use measured::{Measured, Round, Taken};
use verdict::Verdict;

/// The settings of the benchmark.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of timed rounds, after one warm-up round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The Python interpreter with Keras and PyTorch [default: the one that `make bench-peers` installs]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Also writes the tables to this file, as a section of RESULTS.md
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Runs the benchmark, prints the tables and writes the results to `to`.
pub(crate) fn run(args: &Args, to: &Path) -> anyhow::Result<()> {
    let programs = Programs::find(args.python.as_deref())?;
    process::adopt_orphans()?;
    let measured = measure(&programs, args.rounds)?;
    let verdict = Verdict::of(&measured);
    let text = report::markdown(&measured, &verdict);
    print!("\n{text}");
    if let Some(file) = &args.markdown {
        fs::write(file, &text).with_context(|| format!("{}: cannot be written", file.display()))?;
    }
    write_json(&Written { measured, verdict }, to)
}

/// The content of `peers.json`: the measurements, and the results derived from them.
#[derive(Serialize)]
struct Written {
    #[serde(flatten)]
    measured: Measured,
    #[serde(flatten)]
    verdict: Verdict,
}

fn measure(programs: &Programs, rounds: u32) -> anyhow::Result<Measured> {
    let date = machine::date();
    let mut reports = Vec::new();
    let mut peak_bytes = Vec::new();
    for contender in ALL {
        eprintln!("warming up: {contender}");
        let (report, called) = call(programs, contender, 0, Watch::Memory)?;
        reports.push(report);
        peak_bytes.push(called.peak_bytes);
    }
    let known = Known::of(&reports)?;
    let rounds = (1..=rounds).map(|number| round(programs, number, &known)).collect::<anyhow::Result<_>>()?;
    let memory = coordinator::train_watched(&programs.coordinator, CLUSTERS[0].0)?;
    Ok(Measured {
        date,
        machine: Machine::here(&known.fit.blas_kernel, &known.fit.blas_version),
        versions: reports.into_iter().flat_map(|report| report.versions).collect(),
        weights_sha256: known.fit.weights_sha256,
        operations: known.operations,
        peak_bytes,
        memory,
        rounds,
    })
}

/// The results that every round must reproduce.
struct Known {
    fit: Fit,
    operations: f64,
}

impl Known {
    fn of(reports: &[RunReport]) -> anyhow::Result<Self> {
        let fit = reports
            .iter()
            .find_map(|report| report.fit.clone())
            .context("no contender computes this project's fit")?;
        let operations = reports
            .iter()
            .find_map(|report| report.operations)
            .context("no contender computes the products")?;
        let known = Self { fit, operations };
        ALL.iter().zip(reports).try_for_each(|(contender, report)| known.agrees(*contender, report))?;
        Ok(known)
    }

    /// Returns an error if a run of this project computed a different fit.
    fn agrees(&self, contender: Contender, report: &RunReport) -> anyhow::Result<()> {
        let Some(fit) = &report.fit else { return Ok(()) };
        let (weights, known) = (&fit.weights_sha256, &self.fit.weights_sha256);
        ensure!(
            fit.agrees_with(&self.fit),
            "{contender} computed different weights: {weights}, expected {known}"
        );
        Ok(())
    }
}

fn round(programs: &Programs, number: u32, known: &Known) -> anyhow::Result<Round> {
    let load = machine::load();
    let first = number as usize % ALL.len();
    let mut taken = vec![None; ALL.len()];
    for turn in 0..ALL.len() {
        let place = (first + turn) % ALL.len();
        let (report, called) = call(programs, ALL[place], number, Watch::Nothing)?;
        known.agrees(ALL[place], &report)?;
        taken[place] = Some(Taken::of(&report, &called));
    }
    let round = Round { first: ALL[first].to_string(), load, taken: taken.into_iter().flatten().collect() };
    eprintln!("{}", report::line(number, &round));
    Ok(round)
}

/// Runs a contender once. Keras and PyTorch get the round's number as their seed.
fn call(programs: &Programs, who: Contender, seed: u32, watch: Watch) -> anyhow::Result<(RunReport, Called)> {
    let place = tempfile::tempdir().context("cannot make a directory for the run")?;
    let called = call::run(&who.to_string(), programs.command(who, seed)?, place.path(), watch)?;
    let report = who
        .report(&called.stdout, place.path())
        .with_context(|| format!("cannot read the result of {who}"))?;
    Ok((report, called))
}
