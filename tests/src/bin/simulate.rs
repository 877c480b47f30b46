//! Simulates the control machine with one seed, perhaps with a trace, or with many. `make soak` runs a million.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use millefeuille_tests::sim::{Mutation, simulate, simulate_all};

/// Simulate the control machine with random faults
///
/// Example: simulate --seed 1234 --trace
#[derive(Parser)]
struct Arguments {
    /// Simulate this seed only
    #[arg(long)]
    seed: Option<u64>,

    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// The number of seeds
    #[arg(long, default_value_t = 2000)]
    seeds: u64,

    /// Print a trace: time, event, actions
    #[arg(long, requires = "seed")]
    trace: bool,

    /// A deliberate mistake, such as StaleResultAccepted
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

/// The number of seeds between two lines of progress.
const AT_ONCE: u64 = 20_000;

fn main() -> ExitCode {
    let Arguments { seed, first, seeds, trace, mutation } = Arguments::parse();
    match seed {
        Some(seed) => match simulate(seed, mutation, trace) {
            Ok(stats) => println!("seed {seed}: {stats:?}"),
            Err(failure) => return report(&[failure]),
        },
        None => {
            let started = Instant::now();
            let end = first + seeds;
            for first in (first..end).step_by(AT_ONCE as usize) {
                let last = end.min(first + AT_ONCE);
                let (stats, failures) = simulate_all(first..last, mutation);
                if !failures.is_empty() {
                    return report(&failures);
                }
                println!(
                    "seeds {first} to {}: {:.0} s so far; {stats:?}",
                    last - 1,
                    started.elapsed().as_secs_f64()
                );
            }
        }
    }
    ExitCode::SUCCESS
}

fn report(failures: &[millefeuille_tests::sim::Failure]) -> ExitCode {
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    ExitCode::FAILURE
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let known = Mutation::ALL.map(|mutation| format!("{mutation:?}"));
    let found = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
    found.ok_or_else(|| format!("the mistakes are {}", known.join(", ")))
}
