//! Simulates the control machine with faults chosen by a seed. A seed always gives the same run.
//!
//! A simulated cluster has a virtual clock (an hour takes milliseconds) and one stream of random numbers. It has
//! one coordinator and up to thirteen workers. Messages are delayed, lost, duplicated and reordered; networks are
//! partitioned in one direction or both; processes stop, crash, drain and rejoin; disks lose what was not synced;
//! workers compute wrong bits. The control machine is the real [`Control`](millefeuille_core::control::Control);
//! its surroundings are models:
//!
//! - [`scenario`]: the cluster, its jobs and its faults. [`simulation`]: the clock, the network and the injection of faults.
//! - [`coordinator`]: the driver. [`worker`]: the workers. [`disk`]: files that may not survive a crash.
//! - [`toy`]: hashes in place of floats, so that any mistake changes every later number.
//! - [`oracle`]: the invariants. [`mutation`]: deliberate mistakes, which the oracle must detect.
//!
//! After some time all faults stop, and every job must end with the same bits as the reference run. Not simulated:
//! bulk data, different kernels, real time.

mod coordinator;
mod disk;
mod mutation;
mod oracle;
mod random;
mod scenario;
mod simulation;
mod toy;
mod worker;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use mutation::Mutation;
pub use oracle::Stats;
use simulation::Simulation;

/// A seed whose run violates an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The deliberate mistake, if any.
    pub mutation: Option<Mutation>,
    /// The violated invariant.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, mutation, what } = self;
        let mutation = mutation.map_or(String::new(), |mutation| format!(" --mutation {mutation:?}"));
        write!(
            f,
            "seed {seed}: {what}\n  replay it: cargo run -p millefeuille-tests --bin simulate -- --seed {seed}{mutation} --trace"
        )
    }
}

/// Runs the simulation of one seed.
///
/// # Errors
/// If it violates an invariant.
pub fn simulate(seed: u64, mutation: Option<Mutation>, trace: bool) -> Result<Stats, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::new(seed, mutation, trace);
        simulation.run();
        (simulation.violation, simulation.oracle.stats)
    }));
    let failure = |what| Failure { seed, mutation, what };
    match result {
        Ok((None, stats)) => Ok(stats),
        Ok((Some(what), _)) => Err(failure(what)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            Err(failure(format!("it panicked: {text}")))
        }
    }
}

/// Runs many seeds, on every core; stops after a few failures.
pub fn simulate_all(seeds: Range<u64>, mutation: Option<Mutation>) -> (Stats, Vec<Failure>) {
    const ENOUGH: usize = 5;
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new((Stats::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = simulate(seed, mutation, false);
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match result {
                Ok(stats) => results.0.add(stats),
                Err(failure) => results.1.push(failure),
            }
            if results.1.len() >= ENOUGH {
                return;
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let (stats, mut failures) = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    (stats, failures)
}
