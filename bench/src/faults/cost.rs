//! The cost of being ready for faults that do not come.
//!
//! The article's fit by `coordinator train`, in rounds: as the defaults say, without checkpoints, and without
//! checkpoints and heartbeats. Who begins changes from round to round. A fit's seconds of processors are those
//! of the coordinator and its workers, from their start to their end; its seconds go from its first step to its
//! last evaluation.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use crate::coordinator::{self, Call, Shape, Trained};
use crate::fit::Fit;
use crate::process;

/// The cluster: one for each core of a small machine.
pub(super) const SHAPE: Shape = Shape { workers: 2, slots: 1 };

const DEFAULTS: &[&str] = &[];
const NO_CHECKPOINTS: &[&str] = &["--checkpoint-interval", "off"];
/// Heartbeats can't be switched off. Within an hour there is none.
const NOTHING: &[&str] =
    &["--checkpoint-interval", "off", "--heartbeat-interval", "3600", "--heartbeat-deadline", "7200"];

/// What is compared, in the order of [`Round`]'s fields.
const VARIANTS: [&[&str]; 3] = [DEFAULTS, NO_CHECKPOINTS, NOTHING];

/// How long workers may outlive their coordinator.
const LIMIT: Duration = Duration::from_secs(30);

/// The measurement of a fit.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Taken {
    pub(super) fit_seconds: f64,
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
}

/// One fit of each kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    pub(super) defaults: Taken,
    pub(super) no_checkpoints: Taken,
    pub(super) nothing: Taken,
}

/// The fit that all are, and what each round took. One more round before them warms up.
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
        ensure!(fit.agrees_with(first), "{:?} changed the numbers that are computed", VARIANTS[variant]);
        taken[variant] = took;
    }
    let [defaults, no_checkpoints, nothing] = taken;
    Ok(Round { defaults, no_checkpoints, nothing })
}

fn train(binary: &Path, epochs: u32, settings: &[&str]) -> anyhow::Result<(Fit, Taken)> {
    let before = process::children_cpu_seconds();
    let Trained { fit, wall_seconds } = coordinator::train(binary, Call { shape: SHAPE, epochs, settings })?;
    process::bury_orphans(LIMIT)?;
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
