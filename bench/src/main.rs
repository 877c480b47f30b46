//! How fast the cluster is, against the single-process baseline.
//!
//! The *single-process baseline* ([`baseline`]) is the article's fit in one process on all cores: the same shards,
//! calls, kernel, sums and evaluations, with nothing sent and nothing saved. The additional time of a cluster is its
//! overhead. So the result is a ratio, and both sides are measured in turn in the same run: baseline, one worker of
//! two slots, two workers, four workers, and the next round ([`compare`]). Each is a separate process. Before the
//! baseline, its [`products`] are measured alone, which exposes a slow baseline.
//!
//! The baseline's weights and figures must be the cluster's, bit for bit. That proves that both computed the same;
//! where they differ, the program fails. A target that is missed is a line in the table and no failure.
//!
//! The output is a table, and `bench/latest.json` with every number behind it ([`report`]). [`step`] is a separate
//! tool: it shows where the time of one step goes, on one core. Two more benchmarks are separate: [`faults`], the
//! cost of losing workers and of being ready for it; [`peers`], the speed of Keras and PyTorch on the same job.

mod barrier;
mod baseline;
mod compare;
mod coordinator;
mod faults;
mod fit;
mod machine;
mod measured;
mod memory;
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
        /// How often the step is computed
        #[arg(long, default_value_t = 300)]
        repeats: u32,
    },
    /// What losing workers costs, and what being ready for it costs
    Faults(faults::Args),
    /// How fast others are at the same: Keras, PyTorch, DDP
    Peers(peers::Args),
    /// One fit in this process; prints what came of it as JSON
    #[command(hide = true)]
    Baseline {
        #[arg(long)]
        epochs: u32,
    },
    /// The products of one fit, in this process; prints what they took as JSON
    #[command(hide = true)]
    Products {
        #[arg(long)]
        epochs: u32,
    },
}

/// The path for results of this name.
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
        Some(Command::Baseline { epochs }) => print_json(&baseline::run(epochs)?),
        Some(Command::Products { epochs }) => print_json(&products::run(epochs)?),
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
