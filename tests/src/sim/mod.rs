//! The simulation: the product's control machine in a hostile world that a seed describes.
//!
//! A world has a virtual clock, so an hour takes milliseconds, and one random stream, so a seed tells the same story each
//! time. In it run one coordinator and up to thirteen workers; messages are late, lost, doubled and out of order, networks
//! are cut in one direction or both, processes stop, die, drain and come back, disks lose what was not synced, and
//! workers compute wrong bits. What decides is the very [`Control`](millefeuille_core::control::Control) of the
//! product; what it is connected to is simulated:
//!
//! - [`scenario`]: what a seed says. [`world`]: the clock, the network, and what goes wrong.
//! - [`coordinator`]: the driver's part. [`worker`]: the worker's. [`disk`]: files that survive a crash, or not.
//! - [`toy`]: arithmetic by hashes, in which any mistake changes everything after it.
//! - [`oracle`]: what must hold. [`mutation`]: mistakes made on purpose, to see that it notices.
//!
//! After a while everything heals, and the job has to end with the bits of an undisturbed run. Left out: bulk data,
//! kernels that differ, real time.

mod coordinator;
mod disk;
mod mutation;
mod oracle;
mod random;
mod scenario;
mod toy;
mod worker;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use mutation::Mutation;
pub use oracle::Stats;
use world::World;

/// A seed whose world something is wrong with.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// The mistake that was made on purpose, if any.
    pub mutation: Option<Mutation>,
    /// What.
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

/// Lives through one world.
///
/// # Errors
/// What was wrong with it.
pub fn simulate(seed: u64, mutation: Option<Mutation>, trace: bool) -> Result<Stats, Failure> {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, mutation, trace);
        world.run();
        (world.violation, world.oracle.stats)
    }));
    let failure = |what| Failure { seed, mutation, what };
    match lived {
        Ok((None, stats)) => Ok(stats),
        Ok((Some(what), _)) => Err(failure(what)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            Err(failure(format!("it panicked: {text}")))
        }
    }
}

/// Lives through many, on every core; stops after the first few failures.
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
