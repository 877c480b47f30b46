//! The table and the JSON file about faults and being ready for them.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::cost::{Round, SHAPE, Taken};
use super::losses::{Losses, STOP_DEADLINE};
use super::measured::Measured;
use crate::report;
use crate::statistics::{Ranks, RatioSummary};

/// At most so many steps are repeated for a worker that is lost.
const REPEATED: usize = 1;
/// A worker's silence may cost so many deadlines.
const DEADLINES: f64 = 2.0;
/// Checkpoints, as a share of training.
const CHECKPOINTS: f64 = 0.01;
/// All of it, as a share of the processors' time.
const ALL: f64 = 0.02;

/// The JSON file: the measurements and the results derived from them.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    killed: LossSummary,
    stopped: LossSummary,
    checkpoints: Cost,
    all: Cost,
}

/// Seconds from the signal.
#[derive(Serialize)]
struct LossSummary {
    next: Ranks,
    hit: Ranks,
    left: Ranks,
    /// Between the closes of two steps when nobody is lost.
    undisturbed: Ranks,
    repeated_mean: f64,
    repeated_most: usize,
}

/// Ratios of the default settings to others, round by round.
#[derive(Serialize)]
struct Cost {
    fit: RatioSummary,
    wall: RatioSummary,
    cpu: RatioSummary,
}

impl Summary {
    fn of(measured: &Measured) -> Self {
        Self {
            killed: LossSummary::of(&measured.killed),
            stopped: LossSummary::of(&measured.stopped),
            checkpoints: Cost::of(&measured.rounds, |round| round.no_checkpoints),
            all: Cost::of(&measured.rounds, |round| round.nothing),
        }
    }
}

impl LossSummary {
    fn of(Losses { losses, steps, .. }: &Losses) -> Self {
        let repeated = || losses.iter().map(|loss| loss.repeated);
        Self {
            next: Ranks::of(losses.iter().map(|loss| loss.next)),
            hit: Ranks::of(losses.iter().map(|loss| loss.hit)),
            left: Ranks::of(losses.iter().map(|loss| loss.left)),
            undisturbed: Ranks::of(steps.iter().copied()),
            repeated_mean: repeated().sum::<usize>() as f64 / losses.len() as f64,
            repeated_most: repeated().max().unwrap_or(0),
        }
    }
}

impl Cost {
    fn of(rounds: &[Round], without: impl Fn(&Round) -> Taken) -> Self {
        let ratios = |of: fn(Taken) -> f64| {
            RatioSummary::of(rounds.iter().map(|round| of(round.defaults) / of(without(round))))
        };
        Self {
            fit: ratios(|taken| taken.fit_seconds),
            wall: ratios(|taken| taken.wall_seconds),
            cpu: ratios(|taken| taken.cpu_seconds),
        }
    }
}

/// The table.
pub(super) fn table(measured: &Measured) -> String {
    let machine = &measured.machine;
    let summary = Summary::of(measured);
    let mut text = format!("\nFaults; {} cores of {}\n", machine.cores, machine.cpu);
    let _ = writeln!(text, "OpenBLAS {} {}; {}", machine.blas_version, machine.blas_kernel, machine.rustc);
    let _ = writeln!(text, "{}", losses(&measured.killed, &summary.killed));
    let _ = writeln!(text, "{}", losses(&measured.stopped, &summary.stopped));
    let _ = writeln!(text, "{}", silence(&summary.stopped));
    let _ = writeln!(text, "{}", costs(measured, &summary));
    let _ = writeln!(text, "Weights of every fit: {}", measured.weights_sha256);
    text
}

fn losses(losses: &Losses, summary: &LossSummary) -> String {
    let mut text =
        format!("\nA worker of three is lost, {} times, by {}\n\n", losses.losses.len(), losses.signal);
    let _ = writeln!(text, "{:44} {:>9} {:>9} {:>9} {:>9}", "milliseconds", "p50", "p99", "least", "most");
    let rows = [
        ("from a step to the next, nobody lost", &summary.undisturbed),
        ("from the signal to the next close", &summary.next),
        ("from the signal to the close of the step hit", &summary.hit),
        ("from the signal until it is given up", &summary.left),
    ];
    for (what, Ranks { p50, p99, min, max }) in rows {
        let [p50, p99, min, max] = [p50, p99, min, max].map(|seconds| seconds * 1e3);
        let _ = writeln!(text, "{what:44} {p50:9.1} {p99:9.1} {min:9.1} {max:9.1}");
    }
    let (mean, most) = (summary.repeated_mean, summary.repeated_most);
    let verdict = reached(most <= REPEATED);
    let _ = writeln!(text, "steps repeated: {mean:.2} a loss, at most {most} (target {REPEATED}: {verdict})");
    let _ = write!(text, "besides, others were asked for a slow worker's pieces: {}", losses.copies_besides);
    text
}

fn silence(summary: &LossSummary) -> String {
    let (limit, most) = (DEADLINES * STOP_DEADLINE, summary.hit.max);
    let verdict = reached(most <= limit);
    format!("the step hit closed within {most:.2} s of silence, always (target {limit} s: {verdict})")
}

fn costs(measured: &Measured, summary: &Summary) -> String {
    let (rounds, workers) = (measured.rounds.len(), SHAPE.workers);
    let mut text = format!(
        "\nThe article's fit by {workers} workers, nothing lost, {rounds} rounds: the defaults cost\n\n"
    );
    let _ = writeln!(text, "{:26} {:>9} {:>19} {:>19}", "percent", "median", "95 % of resamples", "min–max");
    let rows = [
        ("checkpoints: fit", summary.checkpoints.fit, Some(CHECKPOINTS)),
        ("checkpoints: command", summary.checkpoints.wall, None),
        ("checkpoints: processors", summary.checkpoints.cpu, Some(CHECKPOINTS)),
        ("with heartbeats: fit", summary.all.fit, None),
        ("with heartbeats: command", summary.all.wall, None),
        ("with heartbeats: processors", summary.all.cpu, Some(ALL)),
    ];
    for (what, ratios, target) in rows {
        let _ = writeln!(text, "{}", cost(what, ratios, target));
    }
    text
}

fn cost(what: &str, ratios: RatioSummary, target: Option<f64>) -> String {
    let RatioSummary { median, low, high, min, max } = ratios;
    let [middle, low, high, min, max] = [median, low, high, min, max].map(|ratio| (ratio - 1.0) * 100.0);
    let verdict =
        target.map(|target| format!("  (target {:.0}: {})", target * 100.0, reached(median - 1.0 < target)));
    format!(
        "{what:27} {middle:8.2} {:>19} {:>19}{}",
        format!("{low:.2} to {high:.2}"),
        format!("{min:.2} to {max:.2}"),
        verdict.unwrap_or_default()
    )
}

fn reached(is: bool) -> &'static str {
    if is { "reached" } else { "missed" }
}

/// Writes everything down.
pub(super) fn write(measured: &Measured, path: &Path) -> anyhow::Result<()> {
    report::write_json(&Report { measured, summary: Summary::of(measured) }, path)
}
