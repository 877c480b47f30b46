//! The table and the JSON file of the fault benchmark.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::cost::{Round, SHAPE, Taken};
use super::losses::{Losses, STOP_DEADLINE};
use super::measured::Measured;
use crate::report;
use crate::statistics::{Ranks, RatioSummary};

/// Target: the number of steps repeated after a lost worker is at most this.
const REPEATED_STEPS: usize = 1;
/// Target: the step in which a worker became silent closes within this many heartbeat deadlines.
const SILENCE_DEADLINES: f64 = 2.0;
/// Target: the cost of checkpoints, as a share of the fit without them.
const CHECKPOINTS_COST: f64 = 0.01;
/// Target: the cost of checkpoints and heartbeats, as a share of the processor time without them.
const TOTAL_COST: f64 = 0.02;

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

/// Times in seconds, from the signal.
#[derive(Serialize)]
struct LossSummary {
    next: Ranks,
    hit: Ranks,
    left: Ranks,
    /// From the close of one step to the close of the next while no worker is lost.
    undisturbed: Ranks,
    repeated_mean: f64,
    repeated_most: usize,
}

/// Ratios of the default settings to other settings, over all rounds.
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
        ("from a step to the next, no worker lost", &summary.undisturbed),
        ("from the signal to the next close", &summary.next),
        ("from the signal to the close of the step hit", &summary.hit),
        ("from the signal to the disconnection", &summary.left),
    ];
    for (what, Ranks { p50, p99, min, max }) in rows {
        let [p50, p99, min, max] = [p50, p99, min, max].map(|seconds| seconds * 1e3);
        let _ = writeln!(text, "{what:44} {p50:9.1} {p99:9.1} {min:9.1} {max:9.1}");
    }
    let (mean, most) = (summary.repeated_mean, summary.repeated_most);
    let verdict = reached(most <= REPEATED_STEPS);
    let _ = writeln!(
        text,
        "steps repeated: {mean:.2} per loss, at most {most} (target {REPEATED_STEPS}: {verdict})"
    );
    let _ = write!(text, "backup tasks for slow workers: {}", losses.copies_besides);
    text
}

fn silence(summary: &LossSummary) -> String {
    let (limit, most) = (SILENCE_DEADLINES * STOP_DEADLINE, summary.hit.max);
    let verdict = reached(most <= limit);
    format!("the step hit always closed within {most:.2} s of silence (target {limit} s: {verdict})")
}

fn costs(measured: &Measured, summary: &Summary) -> String {
    let (rounds, workers) = (measured.rounds.len(), SHAPE.workers);
    let mut text = format!(
        "\nThe article's fit by {workers} workers without losses, {rounds} rounds: cost of the defaults\n\n"
    );
    let _ = writeln!(text, "{:26} {:>9} {:>19} {:>19}", "percent", "median", "95 % of resamples", "min–max");
    let rows = [
        ("checkpoints: fit", summary.checkpoints.fit, Some(CHECKPOINTS_COST)),
        ("checkpoints: command", summary.checkpoints.wall, None),
        ("checkpoints: processors", summary.checkpoints.cpu, Some(CHECKPOINTS_COST)),
        ("with heartbeats: fit", summary.all.fit, None),
        ("with heartbeats: command", summary.all.wall, None),
        ("with heartbeats: processors", summary.all.cpu, Some(TOTAL_COST)),
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

/// Writes the JSON file.
pub(super) fn write(measured: &Measured, path: &Path) -> anyhow::Result<()> {
    report::write_json(&Report { measured, summary: Summary::of(measured) }, path)
}
