//! How fast others are at the same: the article's program in Keras and in PyTorch, beside this project.
//!
//! All [contenders](contender) run in turn, round after round; who begins changes from round to round. Each run is a
//! fresh process in an empty directory, from whose start to whose end the *command* is timed ([`mod@call`]). What a program
//! says of itself is its *fit*, and the accuracy that it reached. The round that warms up is not timed: there memory is
//! watched, which costs time.
//!
//! A program that computes something else is no peer: whose accuracy on the test set lies outside of what Keras reached
//! over twenty seeds ([`ACCURACY`](measured::ACCURACY)) is disqualified and compared with nobody. Runs of this project must even agree with its
//! baseline, bit for bit, or the benchmark fails.
//!
//! What comes out is two tables ([`report`]), of what was measured and of the targets, and `bench/peers.json` with every
//! number behind them. A target that is missed is a line in the table.

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
use contender::{ALL, Contender, Programs, Said};
use measured::{Measured, Round, Taken};
use verdict::Verdict;

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds that count; one more before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The Python that has the peers [default: the one that `make bench-peers` installs]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Writes the tables, as a section of RESULTS.md, to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Measures, prints the tables and writes `to`.
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

/// The measurements, and what they say.
#[derive(Serialize)]
struct Written {
    #[serde(flatten)]
    measured: Measured,
    #[serde(flatten)]
    verdict: Verdict,
}

fn measure(programs: &Programs, rounds: u32) -> anyhow::Result<Measured> {
    let date = machine::date();
    let mut said = Vec::new();
    let mut peak_bytes = Vec::new();
    for contender in ALL {
        eprintln!("warming up: {contender}");
        let (words, called) = call(programs, contender, 0, Watch::Memory)?;
        said.push(words);
        peak_bytes.push(called.peak_bytes);
    }
    let known = Known::of(&said)?;
    let rounds = (1..=rounds).map(|number| round(programs, number, &known)).collect::<anyhow::Result<_>>()?;
    let memory = coordinator::train_watched(&programs.coordinator, CLUSTERS[0].0)?;
    Ok(Measured {
        date,
        machine: Machine::here(&known.fit.blas_kernel, &known.fit.blas_version),
        versions: said.into_iter().flat_map(|said| said.versions).collect(),
        weights_sha256: known.fit.weights_sha256,
        operations: known.operations,
        peak_bytes,
        memory,
        rounds,
    })
}

/// What every round must repeat.
struct Known {
    fit: Fit,
    operations: f64,
}

impl Known {
    fn of(said: &[Said]) -> anyhow::Result<Self> {
        let fit = said.iter().find_map(|said| said.fit.clone()).context("somebody computes our fit")?;
        let operations =
            said.iter().find_map(|said| said.operations).context("somebody computes products")?;
        let known = Self { fit, operations };
        ALL.iter().zip(said).try_for_each(|(contender, said)| known.agrees(*contender, said))?;
        Ok(known)
    }

    /// An error if a run of this project came to another fit.
    fn agrees(&self, contender: Contender, said: &Said) -> anyhow::Result<()> {
        let Some(fit) = &said.fit else { return Ok(()) };
        let (weights, known) = (&fit.weights_sha256, &self.fit.weights_sha256);
        ensure!(
            fit.agrees_with(&self.fit),
            "{contender} computed something else than the others: weights {weights}, not {known}"
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
        let (said, called) = call(programs, ALL[place], number, Watch::Nothing)?;
        known.agrees(ALL[place], &said)?;
        taken[place] = Some(Taken::of(&said, &called));
    }
    let round = Round { first: ALL[first].to_string(), load, taken: taken.into_iter().flatten().collect() };
    eprintln!("{}", report::line(number, &round));
    Ok(round)
}

/// Runs one; the round's number is the peers' seed.
fn call(programs: &Programs, who: Contender, seed: u32, watch: Watch) -> anyhow::Result<(Said, Called)> {
    let place = tempfile::tempdir().context("a place for a run")?;
    let called = call::run(&who.to_string(), programs.command(who, seed)?, place.path(), watch)?;
    let said = who.said(&called.stdout, place.path()).with_context(|| format!("the result of {who}"))?;
    Ok((said, called))
}
