//! Loses workers, and measures how long the others take to continue.
//!
//! A worker is lost once every worker computes and holds all samples, so that no samples must be fetched. Three times
//! are measured from the signal:
//!
//! - the *next* unit of work that closes (a step, rarely an evaluation). The lost worker may have sent its result
//!   before the signal; then this is an ordinary step.
//! - the unit of work that was *hit*: the one whose pending nodes of the lost worker were assigned to others. If the
//!   worker had no pending nodes, no work was hit, and the next unit counts.
//! - when the coordinator disconnected the worker.
//!
//! The signals are spread over the time of a few steps; otherwise all would come right after the close of a step.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;

use super::cluster::{Cluster, WORKERS};
use super::log::{Entry, Moment, What};

/// Number of undisturbed steps before a worker is lost.
const STEPS_BEFORE: usize = 20;
/// Signals are spread evenly over this time after the undisturbed steps.
const SPREAD_SECONDS: f64 = 0.1;

/// A way to lose a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    name: &'static str,
    signal: Signal,
    settings: &'static [&'static str],
}

/// The operating system closes its connections.
pub(super) const KILL: Kind = Kind { name: "SIGKILL", signal: Signal::KILL, settings: &[] };

/// Its connections stay open, but it sends nothing.
pub(super) const STOP: Kind = Kind {
    name: "SIGSTOP",
    signal: Signal::STOP,
    settings: &["--heartbeat-interval", "0.2", "--heartbeat-deadline", "1"],
};

/// The heartbeat deadline for [`STOP`], in seconds.
pub(super) const STOP_DEADLINE: f64 = 1.0;

/// The measurement of one loss, in seconds from the signal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Loss {
    /// Until the next unit of work closed.
    pub(super) next: f64,
    /// Until the unit of work that was hit closed.
    pub(super) hit: f64,
    /// Until the coordinator disconnected the worker.
    pub(super) left: f64,
    /// Units of work in which the worker's pending nodes were assigned to others.
    pub(super) repeated: usize,
}

/// All losses by one signal.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Losses {
    pub(super) signal: &'static str,
    settings: &'static [&'static str],
    workers: usize,
    pub(super) losses: Vec<Loss>,
    /// Seconds from the close of one step to the close of the next, while no worker was lost.
    pub(super) steps: Vec<f64>,
    /// Number of backup tasks for stragglers: workers that were neither killed nor stopped.
    pub(super) copies_besides: usize,
}

/// Loses `count` workers, one after another.
pub(super) fn measure(binary: &Path, kind: Kind, count: u32) -> anyhow::Result<Losses> {
    let Kind { name, settings, .. } = kind;
    let mut cluster = Cluster::start(binary, settings)?;
    let (mut losses, mut steps, mut expected) = (Vec::new(), Vec::new(), 0);
    for number in 0..count {
        cluster.ready()?;
        steps.extend(undisturbed(&mut cluster)?);
        thread::sleep(offset(number));
        let (loss, copies) = lose(&mut cluster, kind).with_context(|| format!("{name} {}", number + 1))?;
        eprintln!("{}", line(name, number + 1, &loss));
        expected += copies;
        losses.push(loss);
        cluster.add_worker()?;
    }
    let copies_besides = cluster.stop()? - expected;
    Ok(Losses { signal: name, settings, workers: WORKERS, losses, steps, copies_besides })
}

/// Any number of multiples of the golden ratio fills the interval evenly.
fn offset(number: u32) -> Duration {
    Duration::from_secs_f64((f64::from(number) * 0.618_033_988_749_895).fract() * SPREAD_SECONDS)
}

/// Waits for some steps, and returns the seconds between their ends.
fn undisturbed(cluster: &mut Cluster) -> anyhow::Result<Vec<f64>> {
    let (mut seconds, mut before): (Vec<f64>, Option<Moment>) = (Vec::new(), None);
    while seconds.len() < STEPS_BEFORE {
        let Entry { at, what: What::Closed { work } } = cluster.next()? else { continue };
        if !work.starts_with("step ") {
            before = None;
            continue;
        }
        seconds.extend(before.map(|before| at.since(before)));
        before = Some(at);
    }
    Ok(seconds)
}

/// Loses the first worker. Also returns how often its pending nodes were reassigned.
fn lose(cluster: &mut Cluster, kind: Kind) -> anyhow::Result<(Loss, usize)> {
    let (process, name) = cluster.first()?;
    let name = name.to_owned();
    let at = Moment::now();
    process.signal(kind.signal)?;
    let mut after = Vec::new();
    while !is_over(&after, &name) {
        let entry = cluster.next()?;
        after.extend((entry.at.since(at) >= 0.0).then_some(entry));
    }
    cluster.remove_first();
    let copies = after.iter().filter(|entry| pending(entry, &name).is_some()).count();
    Ok((Loss::from(at, &name, &after).context("the log of a loss is incomplete")?, copies))
}

/// Whether the worker was disconnected and the cluster has continued.
fn is_over(after: &[Entry], name: &str) -> bool {
    let gone = after.iter().position(|entry| has_left(entry, name));
    gone.is_some_and(|gone| after[gone..].iter().any(|entry| matches!(entry.what, What::Closed { .. })))
}

fn has_left(entry: &Entry, name: &str) -> bool {
    matches!(&entry.what, What::Left { worker } if worker == name)
}

/// The unit of work whose nodes were reassigned because of this worker.
fn pending<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    match &entry.what {
        What::Reassigned { work, pending_with } if pending_with == name => Some(work),
        _ => None,
    }
}

impl Loss {
    /// `None` if the log lines since the signal lack an event.
    fn from(at: Moment, name: &str, after: &[Entry]) -> Option<Self> {
        let when = |entry: &Entry| entry.at.since(at);
        let closed = |wanted: Option<&str>| {
            let is_it = |entry: &&Entry| matches!(&entry.what, What::Closed { work } if wanted.is_none_or(|wanted| work == wanted));
            after.iter().find(is_it).map(when)
        };
        let pending: Vec<_> = after.iter().filter_map(|entry| pending(entry, name)).collect();
        Some(Self {
            next: closed(None)?,
            hit: closed(pending.first().copied())?,
            left: after.iter().find(|entry| has_left(entry, name)).map(when)?,
            repeated: pending.iter().collect::<BTreeSet<_>>().len(),
        })
    }
}

fn line(name: &str, number: u32, loss: &Loss) -> String {
    let [next, hit, left] = [loss.next, loss.hit, loss.left].map(|seconds| seconds * 1e3);
    let repeated = loss.repeated;
    format!("{name} {number}: next {next:.1} ms · hit {hit:.1} ms · left {left:.1} ms · repeated {repeated}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 2] = ["step 5 of epoch 2", "step 6 of epoch 2"];

    fn entries(what: Vec<What>) -> (Moment, Vec<Entry>) {
        let start = Moment::now();
        (start, what.into_iter().map(|what| Entry { at: start, what }).collect())
    }

    fn closed(step: usize) -> What {
        What::Closed { work: STEPS[step].into() }
    }

    fn reassigned(step: usize, pending_with: &str) -> What {
        What::Reassigned { work: STEPS[step].into(), pending_with: pending_with.into() }
    }

    #[test]
    fn a_step_counts_once_and_others_slowness_does_not() {
        let left = What::Left { worker: "worker 4".into() };
        let (start, after) = entries(vec![
            reassigned(0, "worker 4"),
            reassigned(1, "worker 1"),
            left,
            reassigned(0, "worker 4"),
            closed(0),
        ]);
        assert!(is_over(&after, "worker 4") && !is_over(&after[..4], "worker 4"));
        let loss = Loss::from(start, "worker 4", &after).unwrap();
        assert_eq!(loss, Loss { next: 0.0, hit: 0.0, left: 0.0, repeated: 1 });
    }

    #[test]
    fn a_worker_that_owed_nothing_costs_nothing() {
        let (start, after) = entries(vec![closed(0), What::Left { worker: "worker 4".into() }, closed(1)]);
        assert_eq!(Loss::from(start, "worker 4", &after).unwrap().repeated, 0);
    }
}
