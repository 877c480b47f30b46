//! The table and the JSON file of a comparison.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::coordinator::Shape;
use crate::measured::{CLUSTERS, Measured, Round};
use crate::products::BASELINE_TARGET;
use crate::statistics::Summary;

const MEGABYTE: f64 = 1e6;
const WORKER_LIMIT_MB: f64 = 100.0;
const COORDINATOR_LIMIT_MB: f64 = 100.0;

/// A cluster compared with the baseline.
#[derive(Clone, Debug, Serialize)]
struct Against {
    shape: Shape,
    fit_seconds: Summary,
    wall_seconds: Summary,
    /// The median fit time divided by the baseline's.
    ratio_of_medians: f64,
    /// Each round's fit time divided by the baseline's of that round.
    ratios: Summary,
    target: f64,
    reached: bool,
}

/// The baseline compared with its products.
#[derive(Clone, Copy, Debug, Serialize)]
struct Baseline {
    products_seconds: Summary,
    /// The median speed of all cores together.
    products_gflops: f64,
    baseline_seconds: Summary,
    ratio_of_medians: f64,
    /// Each round's baseline divided by the products of that round.
    ratios: Summary,
    target: f64,
    reached: bool,
}

/// The JSON file: the measurements and the results derived from them.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    baseline: Baseline,
    clusters: Vec<Against>,
    worker_limit_mb: f64,
    coordinator_limit_mb: f64,
}

/// One line about a round, printed when it ends.
pub(crate) fn line(number: u32, round: &Round) -> String {
    let baseline = round.baseline_seconds;
    let mut text =
        format!("round {number}: products {:.3} s · baseline {baseline:.3} s", round.products_seconds);
    for ((shape, _), taken) in CLUSTERS.iter().zip(&round.clusters) {
        let ratio = taken.fit_seconds / baseline;
        let _ = write!(text, " · {} {:.3} s ({ratio:.2})", name(*shape), taken.fit_seconds);
    }
    let _ = write!(text, " · load {:.1}", round.load);
    text
}

/// The table.
pub(crate) fn table(measured: &Measured) -> String {
    let Measured { machine, rounds, memory, .. } = measured;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nThe article's fit, {} rounds; {} cores of {}",
        rounds.len(),
        machine.cores,
        machine.cpu
    );
    let _ = writeln!(text, "OpenBLAS {} {}; {}\n", machine.blas_version, machine.blas_kernel, machine.rustc);
    let _ = writeln!(
        text,
        "{:22} {:>8} {:>15} {:>7} {:>15} {:>7}  {:9} {:>8}",
        "", "median s", "min–max", "ratio", "by round", "target", "", "command"
    );
    let baseline = baseline(measured);
    let _ = writeln!(text, "{}", products_row(&baseline));
    let _ = writeln!(text, "{}", baseline_row(&baseline));
    for against in against(rounds) {
        let _ = writeln!(text, "{}", row(&against));
    }
    let [worker, coordinator] = [memory.worker_bytes, memory.coordinator_bytes].map(megabytes);
    let _ = writeln!(text, "\nPeak memory, one worker with all shards:");
    let _ = writeln!(text, "  worker      {}", limit(worker, WORKER_LIMIT_MB));
    let _ = writeln!(text, "  coordinator {}", limit(coordinator, COORDINATOR_LIMIT_MB));
    let _ = writeln!(text, "\nWeights of every fit: {}", measured.weights_sha256);
    text
}

/// Writes the JSON file.
pub(crate) fn write(measured: &Measured, path: &Path) -> anyhow::Result<()> {
    let report = Report {
        measured,
        baseline: baseline(measured),
        clusters: against(&measured.rounds),
        worker_limit_mb: WORKER_LIMIT_MB,
        coordinator_limit_mb: COORDINATOR_LIMIT_MB,
    };
    write_json(&report, path)
}

/// Writes a value as indented JSON.
pub(crate) fn write_json(value: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    // Converted to a value first, so that own and flattened fields form one object with each key once.
    let text = serde_json::to_string_pretty(&serde_json::to_value(value)?)?;
    fs::write(path, text + "\n").with_context(|| format!("{}: cannot be written", path.display()))
}

fn baseline(Measured { rounds, operations, .. }: &Measured) -> Baseline {
    let products_seconds = Summary::of(rounds.iter().map(|round| round.products_seconds));
    let baseline_seconds = baseline_seconds(rounds);
    let ratio_of_medians = baseline_seconds.median / products_seconds.median;
    Baseline {
        products_seconds,
        products_gflops: operations / products_seconds.median / 1e9,
        baseline_seconds,
        ratio_of_medians,
        ratios: Summary::of(rounds.iter().map(|round| round.baseline_seconds / round.products_seconds)),
        target: BASELINE_TARGET,
        reached: ratio_of_medians <= BASELINE_TARGET,
    }
}

fn baseline_seconds(rounds: &[Round]) -> Summary {
    Summary::of(rounds.iter().map(|round| round.baseline_seconds))
}

fn against(rounds: &[Round]) -> Vec<Against> {
    let baseline = baseline_seconds(rounds).median;
    let one = |(index, &(shape, target)): (usize, &(Shape, f64))| {
        let taken = || rounds.iter().map(move |round| (round.baseline_seconds, round.clusters[index]));
        let fit_seconds = Summary::of(taken().map(|(_, taken)| taken.fit_seconds));
        let ratio_of_medians = fit_seconds.median / baseline;
        Against {
            shape,
            fit_seconds,
            wall_seconds: Summary::of(taken().map(|(_, taken)| taken.wall_seconds)),
            ratio_of_medians,
            ratios: Summary::of(taken().map(|(baseline, taken)| taken.fit_seconds / baseline)),
            target,
            reached: ratio_of_medians <= target,
        }
    };
    CLUSTERS.iter().enumerate().map(one).collect()
}

fn products_row(Baseline { products_seconds, products_gflops, .. }: &Baseline) -> String {
    let (median, ends) = (products_seconds.median, ends(*products_seconds, 3));
    format!("{:22} {median:8.3} {ends:>15}  {products_gflops:.0} GFLOP/s on all cores", "products alone")
}

/// Its ratio is to the products; those below it are to the baseline.
fn baseline_row(
    Baseline { baseline_seconds, ratio_of_medians, ratios, target, reached, .. }: &Baseline,
) -> String {
    let begin = begin("baseline", *baseline_seconds, *ratio_of_medians, *ratios, (*target, *reached));
    format!("{begin} (to the products)")
}

fn row(against: &Against) -> String {
    let Against { shape, fit_seconds, wall_seconds, ratio_of_medians, ratios, target, reached } = against;
    let begin = begin(&name(*shape), *fit_seconds, *ratio_of_medians, *ratios, (*target, *reached));
    format!("{begin} {:7.2}s", wall_seconds.median)
}

fn begin(
    name: &str,
    seconds: Summary,
    ratio: f64,
    ratios: Summary,
    (target, reached): (f64, bool),
) -> String {
    format!(
        "{name:22} {:8.3} {:>15} {ratio:7.2} {:>15} {target:7.2}  {:9}",
        seconds.median,
        ends(seconds, 3),
        format!("{:.2} {}", ratios.median, ends(ratios, 2)),
        if reached { "reached" } else { "missed" },
    )
}

pub(crate) fn name(Shape { workers, slots }: Shape) -> String {
    let plural = |count: u32, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!("{} × {}", plural(workers, "worker"), plural(slots, "slot"))
}

fn ends(summary: Summary, digits: usize) -> String {
    format!("{:.digits$}–{:.digits$}", summary.min, summary.max)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

fn limit(found: f64, limit: f64) -> String {
    let verdict = if found <= limit { "below" } else { "above" };
    format!("{found:6.1} MB, {verdict} {limit:.0} MB")
}
