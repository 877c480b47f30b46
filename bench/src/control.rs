//! What the control machine alone takes with many workers and many shards: its own time on one core, with nothing sent,
//! computed or written.
//!
//! A cluster may have 1,024 workers and a job 1,024 shards. The machine is one task's, so what it takes for a step is
//! added to the step.

mod crowd;

use std::time::Duration;

use self::crowd::{Cost, Crowd};
use crate::statistics::Ranks;

/// How many workers and shards.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many workers join
    #[arg(long, default_value_t = 1000)]
    workers: u64,
    /// How many shards the job has
    #[arg(long, default_value_t = 1024)]
    shards: u32,
    /// How many steps are measured
    #[arg(long, default_value_t = 200)]
    steps: u32,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let &Args { workers, shards, steps } = args;
    println!("The control machine alone: {workers} workers, {shards} shards\n");
    let mut crowd = Crowd::new(workers, shards);
    show("gather, up to the first step", crowd.gather(workers));
    let costs: Vec<_> = (0..steps.max(1)).map(|_| crowd.step()).collect();
    let ms = Ranks::of(costs.iter().map(|cost| cost.time.as_secs_f64() * 1e3));
    println!("  {:36} {:9.3} ms (p99 {:.3})", "a step, median", ms.p50, ms.p99);
    show("a worker is lost within a step", crowd.lose());
    show("the placement is reconsidered", crowd.pass(Duration::from_secs(3)));
    show("a tenth of the workers joins", crowd.join(workers.div_ceil(10)));
}

fn show(what: &str, cost: Cost) {
    let Cost { time, events, actions, told } = cost;
    let ms = time.as_secs_f64() * 1e3;
    println!("  {what:36} {ms:9.3} ms, {events} events, {actions} actions, {told} shards to hold");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Costs of gathering, and of twenty steps.
    fn costs(workers: u64, shards: u32) -> [Cost; 2] {
        let mut crowd = Crowd::new(workers, shards);
        let gather = crowd.gather(workers);
        let mut steps = Cost::default();
        for _ in 0..20 {
            let Cost { time, events, actions, told } = crowd.step();
            steps.time += time;
            steps.events += events;
            steps.actions += actions;
            steps.told += told;
        }
        [gather, steps]
    }

    #[test]
    fn twice_the_workers_and_shards_are_twice_the_messages() {
        let (few, many) = (costs(128, 256), costs(256, 512));
        for (few, many) in few.into_iter().zip(many) {
            assert!(few.events > 0 && few.actions > 0);
            assert!(many.events <= 2 * few.events + 16, "{few:?}, {many:?}");
            assert!(many.actions <= 2 * few.actions + 16, "{few:?}, {many:?}");
            assert!(many.told <= 2 * few.told + 16, "{few:?}, {many:?}");
        }
    }

    /// Of the time, only how it grows is looked at: what is quadratic in one of the two takes 16 times as long.
    #[test]
    fn four_times_the_workers_and_shards_take_little_more_than_four_times_as_long() {
        let fastest = |workers, shards| {
            let all: Vec<_> = (0..5).map(|_| costs(workers, shards)).collect();
            [0, 1].map(|part| all.iter().map(|costs| costs[part].time).min().unwrap_or_default())
        };
        let (few, many) = (fastest(128, 128), fastest(512, 512));
        for (few, many) in few.into_iter().zip(many) {
            assert!(many < 9 * few, "{few:?}, {many:?}");
        }
    }

    #[test]
    fn workers_that_come_together_are_placed_together() {
        let told = |newcomers| {
            let mut crowd = Crowd::new(64, 512);
            crowd.gather(64);
            crowd.join(newcomers).actions
        };
        // Each gets a welcome, the job and its shards; the others are told once that theirs have changed.
        assert!(told(64) < 64 * 8, "{}", told(64));
    }
}
