//! Compares the products alone, the baseline and the clusters, in turn, round after round.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

use crate::coordinator::{self, Call, Trained};
use crate::fit::{EPOCHS, Fit};
use crate::machine::{self, Machine};
use crate::measured::{CLUSTERS, Measured, Round, Taken};
use crate::products::Products;
use crate::report;

/// The settings of the comparison.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of timed rounds, after one warm-up round
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Runs the comparison, prints the table and writes the results to `latest`.
pub(crate) fn run(args: &Args, latest: &Path) -> anyhow::Result<()> {
    let binary = coordinator::beside_this_program()?;
    let date = machine::date();
    let kernel = coordinator::kernel(&binary)?;
    let operations = products(&kernel)?.operations;
    let first = baseline(&kernel)?;
    round(&binary, &first)?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = round(&binary, &first)?;
        eprintln!("{}", report::line(number, &round));
        rounds.push(round);
    }
    let memory = coordinator::train_watched(&binary, CLUSTERS[0].0)?;
    let Fit { weights_sha256, blas_kernel, blas_version, .. } = first;
    let machine = Machine::here(&blas_kernel, &blas_version);
    let measured = Measured { date, machine, weights_sha256, operations, rounds, memory };
    print!("{}", report::table(&measured));
    report::write(&measured, latest)
}

fn round(binary: &Path, first: &Fit) -> anyhow::Result<Round> {
    let load = machine::load();
    let products = products(&first.blas_kernel)?;
    let baseline = baseline(&first.blas_kernel)?;
    same(first, &baseline, "two baselines")?;
    let clusters = CLUSTERS.iter().map(|&(shape, _)| {
        let Trained { fit, wall_seconds } = coordinator::train(binary, Call::article(shape))?;
        same(first, &fit, &format!("the baseline and {} workers", shape.workers))?;
        Ok(Taken { fit_seconds: fit.seconds, wall_seconds })
    });
    Ok(Round {
        load,
        products_seconds: products.seconds,
        baseline_seconds: baseline.seconds,
        clusters: clusters.collect::<anyhow::Result<_>>()?,
    })
}

fn baseline(kernel: &str) -> anyhow::Result<Fit> {
    fresh(alone("baseline", kernel)?)
}

fn products(kernel: &str) -> anyhow::Result<Products> {
    fresh(alone("products", kernel)?)
}

/// A command that runs a subcommand of this program in a new process, with the BLAS kernel that the clusters use.
pub(crate) fn alone(subcommand: &str, kernel: &str) -> anyhow::Result<Command> {
    alone_for(EPOCHS, subcommand, kernel)
}

/// The same, for so many epochs.
pub(crate) fn alone_for(epochs: u32, subcommand: &str, kernel: &str) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = coordinator::undisturbed(&this);
    command.args([subcommand, "--epochs", &epochs.to_string()]).env("OPENBLAS_CORETYPE", kernel);
    Ok(command)
}

/// What a subcommand of this program prints.
pub(crate) fn fresh<T: DeserializeOwned>(mut command: Command) -> anyhow::Result<T> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("{command:?}: cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {command:?} printed"))
}

/// Returns an error if two fits differ in any bit.
fn same(one: &Fit, other: &Fit, who: &str) -> anyhow::Result<()> {
    if one.agrees_with(other) {
        return Ok(());
    }
    bail!(
        "{who} computed different results:\n{} {:?}\n{} {:?}",
        one.weights_sha256,
        one.epochs,
        other.weights_sha256,
        other.epochs
    )
}
