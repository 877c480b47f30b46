//! Measures the cost of fault tolerance when no fault occurs.
//!
//! The article's fit by `coordinator train`, in rounds: with the default settings, without checkpoints, and without
//! checkpoints and heartbeats. Each round starts with a different variant. Processor time is that of the coordinator
//! and its workers, from start to end. Fit time is from the first step to the last evaluation.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use crate::coordinator::{self, Call, Shape, Trained};
use crate::fit::Fit;
use crate::process;

/// The cluster: one worker per core of a small machine.
pub(super) const SHAPE: Shape = Shape { workers: 2, slots: 1 };

const DEFAULTS: &[&str] = &[];
const NO_CHECKPOINTS: &[&str] = &["--checkpoint-interval", "off"];
/// Heartbeats cannot be switched off; with this interval none is sent during a fit.
const NOTHING: &[&str] =
    &["--checkpoint-interval", "off", "--heartbeat-interval", "3600", "--heartbeat-deadline", "7200"];

/// The compared settings, in the order of [`Round`]'s fields.
const VARIANTS: [&[&str]; 3] = [DEFAULTS, NO_CHECKPOINTS, NOTHING];

/// Time limit for workers that outlive their coordinator.
const LIMIT: Duration = Duration::from_secs(30);

/// The measurement of a fit.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Taken {
    pub(super) fit_seconds: f64,
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
}

/// One fit of each variant.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    pub(super) defaults: Taken,
    pub(super) no_checkpoints: Taken,
    pub(super) nothing: Taken,
}

/// Runs the rounds, after one warm-up round. Returns the common fit, and the measurements of each round.
pub(super) fn measure(binary: &Path, rounds: u32, epochs: u32) -> anyhow::Result<(Fit, Vec<Round>)> {
    process::adopt_orphans()?;
    let (first, _) = train(binary, epochs, DEFAULTS)?;
    round(binary, epochs, 0, &first)?;
    let mut measured = Vec::new();
    for number in 1..=rounds {
        let round = round(binary, epochs, number as usize, &first)?;
        eprintln!("{}", line(number, &round));
        measured.push(round);
    }
    Ok((first, measured))
}

fn round(binary: &Path, epochs: u32, number: usize, first: &Fit) -> anyhow::Result<Round> {
    let mut taken = [Taken::default(); VARIANTS.len()];
    for turn in 0..VARIANTS.len() {
        let variant = (number + turn) % VARIANTS.len();
        let (fit, took) = train(binary, epochs, VARIANTS[variant])?;
        ensure!(fit.agrees_with(first), "{:?} changed the computed weights", VARIANTS[variant]);
        taken[variant] = took;
    }
    let [defaults, no_checkpoints, nothing] = taken;
    Ok(Round { defaults, no_checkpoints, nothing })
}

fn train(binary: &Path, epochs: u32, settings: &[&str]) -> anyhow::Result<(Fit, Taken)> {
    let before = process::children_cpu_seconds();
    let Trained { fit, wall_seconds } = coordinator::train(binary, Call { shape: SHAPE, epochs, settings })?;
    process::reap_orphans(LIMIT)?;
    let cpu_seconds = process::children_cpu_seconds() - before;
    let fit_seconds = fit.seconds;
    Ok((fit, Taken { fit_seconds, wall_seconds, cpu_seconds }))
}

fn line(number: u32, round: &Round) -> String {
    let of = |what: &str, taken: Taken| {
        let Taken { fit_seconds, cpu_seconds, .. } = taken;
        format!("{what} {fit_seconds:.3} s, {cpu_seconds:.3} s of processors")
    };
    format!(
        "round {number}: {} · {} · {}",
        of("defaults", round.defaults),
        of("no checkpoints", round.no_checkpoints),
        of("nor heartbeats", round.nothing)
    )
}
