//! Benchmarks of the cluster against the single-process baseline.
//!
//! The *single-process baseline* ([`baseline`]) computes the article's fit in one process on all cores. It uses the
//! same shards, kernel, matrix products, sums and evaluations as a cluster, but it sends and saves nothing. The
//! result is a ratio: the cluster's time divided by the baseline's. Both are measured in the same run, in rounds: the
//! baseline, one worker with two slots, two workers, four workers ([`compare`]). Each measurement is a process of its
//! own. Before the baseline, its [`products`] are measured alone, which exposes a slow baseline.
//!
//! The baseline and the clusters must compute the same weights and figures, bit for bit; otherwise the benchmark
//! fails. A missed target is not a failure: it is reported in the table.
//!
//! The output is a table, and `bench/latest.json` with all numbers ([`report`]). Six more benchmarks are
//! subcommands: [`step`] shows where the time of one step goes on one core, [`faults`] measures the cost of lost
//! workers and of fault tolerance, [`peers`] measures Keras and PyTorch on the same job, [`control`] measures the
//! control machine alone with many workers and shards, [`models`] a wide model and Adam, and [`mod@area`] the metric `auc`.

mod area;
mod barrier;
mod baseline;
mod compare;
mod control;
mod coordinator;
mod faults;
mod fit;
mod machine;
mod measured;
mod memory;
mod models;
mod peers;
mod process;
mod products;
mod report;
mod statistics;
mod step;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures a cluster's fit against the single-process baseline: the same computation in one process
#[derive(Debug, Parser)]
#[group(skip)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: compare::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Where the time of one step goes, on one core
    Step {
        /// Number of times that the step is computed
        #[arg(long, default_value_t = 300)]
        repeats: u32,
    },
    /// The cost of lost workers, and of fault tolerance without faults
    Faults(faults::Args),
    /// Keras, PyTorch and DDP on the same job
    Peers(peers::Args),
    /// Measures the control machine alone, with many workers and shards
    Control(control::Args),
    /// A wide model against its products, and Adam against plain SGD
    Models {
        /// Number of timed rounds, after one warm-up round
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// The area under a ROC curve, of many scores
    Area {
        /// Number of scores
        #[arg(long, default_value_t = 10_000_000)]
        scores: u32,
    },
    /// Computes one fit in this process; prints the result as JSON
    #[command(hide = true)]
    Baseline {
        #[arg(long)]
        epochs: u32,
    },
    /// Computes the products of one fit in this process; prints their time as JSON
    #[command(hide = true)]
    Products {
        #[arg(long)]
        epochs: u32,
        /// Keys of the job: KEY=VALUE
        #[arg(long)]
        set: Vec<String>,
    },
}

/// The path of the result file with this name.
fn results(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.command {
        None => compare::run(&args.compare, &results("latest.json")),
        Some(Command::Step { repeats }) => step::run(repeats),
        Some(Command::Faults(args)) => faults::run(&args, &results("faults.json")),
        Some(Command::Peers(args)) => peers::run(&args, &results("peers.json")),
        Some(Command::Control(args)) => {
            control::run(&args);
            Ok(())
        }
        Some(Command::Models { rounds }) => models::run(rounds),
        Some(Command::Area { scores }) => area::run(scores),
        Some(Command::Baseline { epochs }) => print_json(&baseline::run(epochs)?),
        Some(Command::Products { epochs, set }) => {
            let set: Vec<_> = set.iter().map(String::as_str).collect();
            print_json(&products::run(epochs, &set)?)
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
