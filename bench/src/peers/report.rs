//! The report: a section of RESULTS.md, whose tables are also readable on a terminal.

use std::fmt::Write as _;

use super::contender::{ALL, Contender};
use super::measured::{ACCURACY, DEVIATIONS, Measured, Round};
use super::verdict::{Figure, Ratio, Standing, Target, Verdict};
use crate::statistics::Summary;

/// Shown in place of a missing value.
const NONE: &str = "–";

/// Target for the peak memory of a coordinator, and of a worker that holds all shards.
const MEMORY_TARGET_MB: f64 = 100.0;

/// One line about a round, printed when it ends.
pub(super) fn line(number: u32, round: &Round) -> String {
    let mut text = format!("round {number} (load {:.1}):", round.load);
    for who in ALL {
        let _ = write!(text, " {who} {:.2} s ·", round.of(who).fit_seconds);
    }
    text.trim_end_matches(" ·").to_owned()
}

/// The section of RESULTS.md.
pub(super) fn markdown(measured: &Measured, verdict: &Verdict) -> String {
    let mut text = heading(measured);
    let rows =
        verdict.standings.iter().zip(&measured.peak_bytes).map(|(standing, peak)| row(standing, *peak));
    text += &table(&HEADER, rows);
    text += &remarks(measured, verdict);
    text += "\n";
    text += &table(&TARGETS_HEADER, verdict.targets.iter().map(target).chain(memory_targets(measured)));
    text
}

fn heading(Measured { date, machine, versions, rounds, .. }: &Measured) -> String {
    let versions: Vec<_> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let mut text = format!("## {} {}, {} cores\n\n", machine.cpu, machine.cpu_model, machine.cores);
    let (day, count) = (date.split('T').next().unwrap_or(date), rounds.len());
    // The load average covers a minute, so it includes the processes of the previous round.
    let Summary { min, max, .. } = Summary::of(rounds.iter().map(|round| round.load));
    let _ =
        writeln!(text, "{day}, medians of {count} rounds, before which the load was {min:.1} to {max:.1}.");
    let _ = writeln!(text, "Peers: {}.", versions.join(", "));
    let _ = writeln!(
        text,
        "Here: OpenBLAS {} with kernel {}, {}, Linux {}.\n",
        machine.blas_version, machine.blas_kernel, machine.rustc, machine.kernel
    );
    text
}

const HEADER: [&str; 10] = [
    "",
    "fit, s",
    "min–max",
    "÷ Keras",
    "by round",
    "command, s",
    "÷ Keras",
    "CPU, s",
    "PSS, MB",
    "test accuracy",
];

fn row(standing: &Standing, peak: Option<u64>) -> [String; 10] {
    let of_medians =
        |ratio: Option<Ratio>| ratio.map_or(NONE.into(), |ratio| format!("{:.2}", ratio.of_medians));
    let seconds = standing.command_seconds.median;
    let command = if standing.name.is_whole_program() { format!("{seconds:.2}") } else { NONE.into() };
    [
        standing.name.to_string(),
        format!("{:.2}", standing.fit_seconds.median),
        ends(standing.fit_seconds),
        of_medians(standing.fit_to_keras),
        standing.fit_to_keras.map_or(NONE.into(), by_round),
        command,
        of_medians(standing.command_to_keras),
        format!("{:.2}", standing.cpu_seconds.median),
        peak.map_or(NONE.into(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
        accuracy(standing),
    ]
}

fn accuracy(standing: &Standing) -> String {
    let Some(Summary { median, min, max }) = standing.test_accuracy else { return NONE.into() };
    if standing.disqualified { format!("disqualified: {min:.4}–{max:.4}") } else { format!("{median:.4}") }
}

/// The remarks below the first table.
fn remarks(measured: &Measured, verdict: &Verdict) -> String {
    let products = verdict.standings.iter().find(|standing| standing.name == Contender::Products);
    let gflops = products.map_or(0.0, |standing| measured.operations / standing.fit_seconds.median / 1e9);
    let (mean, deviation) = ACCURACY;
    let [low, high] = [-DEVIATIONS, DEVIATIONS].map(|times| mean + times * deviation);
    format!(
        "\nThe products alone make {gflops:.0} GFLOP/s on all cores. An accuracy outside of {low:.4} to {high:.4} \
         disqualifies.\nWeights of everybody here: `{}`.\n",
        measured.weights_sha256
    )
}

const TARGETS_HEADER: [&str; 5] = ["target", "at most", "measured", "by round", ""];

fn target(target: &Target) -> [String; 5] {
    let figure = match target.figure {
        Figure::Fit => "fit",
        Figure::Command => "command",
    };
    [
        format!("{figure}: {} ÷ {}", target.what, target.to),
        format!("{:.2}", target.at_most),
        target.ratio.map_or("disqualified".into(), |ratio| format!("{:.2}", ratio.of_medians)),
        target.ratio.map_or(NONE.into(), by_round),
        met(target.met),
    ]
}

fn memory_targets(Measured { memory, .. }: &Measured) -> [[String; 5]; 2] {
    let row = |what: &str, bytes: u64| {
        let megabytes = bytes as f64 / 1e6;
        let at_most = format!("{MEMORY_TARGET_MB:.0} MB");
        let measured = format!("{megabytes:.0} MB");
        [what.into(), at_most, measured, NONE.into(), met(megabytes <= MEMORY_TARGET_MB)]
    };
    [
        row("peak memory of a worker with all shards", memory.worker_bytes),
        row("peak memory of its coordinator", memory.coordinator_bytes),
    ]
}

fn met(met: bool) -> String {
    if met { "met".into() } else { "missed".into() }
}

fn by_round(Ratio { by_round, .. }: Ratio) -> String {
    format!("{:.2} ({})", by_round.median, ends(by_round))
}

fn ends(Summary { min, max, .. }: Summary) -> String {
    format!("{min:.2}–{max:.2}")
}

/// A Markdown table; each column is as wide as its widest cell.
fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3)
    });
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = line(&widths.map(|width| "-".repeat(width)));
    let mut lines = rows.iter().map(line);
    lines.next().into_iter().chain([rule]).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::verdict::tests::round;
    use super::*;
    use crate::machine::Machine;
    use crate::memory::Peaks;

    #[test]
    fn the_section_has_every_contender_and_every_target() {
        let rounds = vec![round(&[(Contender::Keras, 4.0)])];
        let machine = Machine {
            cpu: "AMD EPYC".into(),
            cpu_model: "family 25 model 17".into(),
            cores: 2,
            kernel: "6.1".into(),
            blas_kernel: "Zen".into(),
            blas_version: "0.3.21".into(),
            rustc: "rustc 1.95.0".into(),
        };
        let measured = Measured {
            date: "2026-05-01T12:00:00Z".into(),
            machine,
            versions: BTreeMap::from([("Keras".into(), "3.15.1".into())]),
            weights_sha256: "ab".into(),
            operations: 2e9,
            peak_bytes: vec![Some(5_000_000); ALL.len()],
            memory: Peaks { coordinator_bytes: 90_000_000, worker_bytes: 101_000_000 },
            rounds,
        };
        let text = markdown(&measured, &Verdict::of(&measured));
        let has = |wanted: &str| assert!(text.contains(wanted), "{wanted}\n{text}");
        ALL.iter().for_each(|who| has(&format!("\n| {who} ")));
        has("## AMD EPYC family 25 model 17, 2 cores\n");
        has("2026-05-01, medians of 1 rounds, before which the load was 0.0 to 0.0.\nPeers: Keras 3.15.1.\n");
        has("| 2 workers × 1 slot | 1.00   | 1.00–1.00 | 0.25    | 0.25 (0.25–0.25) |");
        has(
            "| fit: 2 workers × 1 slot ÷ Keras            | 0.60    | 0.25     | 0.25 (0.25–0.25) | met    |",
        );
        has("The products alone make 2 GFLOP/s");
        has(
            "| peak memory of a worker with all shards    | 100 MB  | 101 MB   | –                | missed |",
        );
    }
}
