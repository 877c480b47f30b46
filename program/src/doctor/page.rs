//! The doctor's output: lines for people or an object in JSON, and the warnings.

use std::fmt::Write as _;

use millefeuille_core::blas::choice::{self, Instructions};
use serde::Serialize;

use super::findings::{Findings, OpenBlas};
use crate::machine::{Cores, Cpu, Limits, address_space};
use crate::variables;

/// A property of the machine that is far from what it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    /// The problem.
    what: String,
    /// What to do about it.
    remedy: String,
}

/// How subnormal numbers are handled.
const SUBNORMALS: &str = "flushed to zero where a model's numbers are computed";

/// Enough memory for a coordinator that trains the default job, and one worker on the same machine.
const LITTLE_MEMORY: u64 = 512 << 20;
/// Each worker takes two connections; the rest is for files.
const FEW_FILES: u64 = 1024;
/// Enough for the threads of a coordinator and some workers.
const FEW_PROCESSES: u64 = 128;
/// Throughput of all cores together, as a share of the sum that each would reach alone.
const CROWDED: f64 = 0.6;

/// The page for people.
pub(super) fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for (name, value) in lines(findings) {
        let _ = writeln!(text, "{name:13} {value}");
    }
    text.push('\n');
    let warnings = warnings(findings);
    for Warning { what, remedy } in &warnings {
        let _ = writeln!(text, "warning: {what}; {remedy}");
    }
    if warnings.is_empty() {
        text.push_str("no warnings\n");
    }
    text
}

/// The page for programs, in JSON.
pub(super) fn json(findings: &Findings) -> String {
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        findings: &'a Findings,
        usable_cores: u32,
        subnormals: &'static str,
        warnings: Vec<Warning>,
    }
    let (usable_cores, warnings) = (findings.cores.usable(), warnings(findings));
    let whole = Whole { findings, usable_cores, subnormals: SUBNORMALS, warnings };
    serde_json::to_string(&whole).unwrap_or_default() + "\n"
}

fn lines(findings: &Findings) -> Vec<(&'static str, String)> {
    let Findings { cpu, cores, limits, openblas } = findings;
    vec![
        ("CPU", of_cpu(cpu)),
        ("instructions", of_instructions(cpu)),
        ("cores", of_cores(cores)),
        ("memory", of_memory(limits)),
        ("limits", of_limits(limits)),
        ("OpenBLAS", openblas.version.clone()),
        ("its pick", format!("{} by itself", openblas.picks)),
        ("native", of_native(openblas, cpu.instructions)),
        ("self-check", of_check(openblas)),
        ("speed", of_speed(openblas)),
        ("ignored", of_ignored(openblas)),
        ("subnormals", SUBNORMALS.to_string()),
    ]
}

fn of_cpu(cpu: &Cpu) -> String {
    let family = cpu.family.map(|family| format!("family {family}"));
    let number = cpu.number.map(|number| format!("model {number}"));
    let known: Vec<_> = [cpu.vendor.clone(), family, number].into_iter().flatten().collect();
    if known.is_empty() { cpu.model.clone() } else { format!("{} ({})", cpu.model, known.join(", ")) }
}

fn of_instructions(cpu: &Cpu) -> String {
    match cpu.features.is_empty() {
        true => cpu.instructions.to_string(),
        false => format!("{} ({})", cpu.instructions, cpu.features.join(" ")),
    }
}

fn of_cores(cores: &Cores) -> String {
    let Cores { online, affinity, quota } = cores;
    let quota = quota.map(|cores| format!(", a quota of {cores} by control groups")).unwrap_or_default();
    format!("{} to compute with: {affinity} of {online} may be used{quota}", cores.usable())
}

fn of_memory(limits: &Limits) -> String {
    let part = |bytes: Option<u64>, what: &str| bytes.map(|bytes| format!("{}{what}", megabytes(bytes)));
    let parts = [
        part(limits.memory, ""),
        part(limits.memory_available, " of it available"),
        part(limits.memory_of_group, " allowed by control groups"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_limits(limits: &Limits) -> String {
    let number =
        |limit: Option<u64>| limit.map_or_else(|| "any number of".to_string(), |limit| limit.to_string());
    let (files, most) = (number(limits.files), number(limits.most_files));
    let space = limits.address_space.map_or_else(|| "without limit".to_string(), megabytes);
    format!(
        "{files} open files, {most} at most; {} processes; address space {space}",
        number(limits.processes)
    )
}

fn of_native(openblas: &OpenBlas, cpu: Instructions) -> String {
    let Some(native) = &openblas.native else { return "no kernel can be used".to_string() };
    let not_taken = match &*openblas.not_taken {
        [] => String::new(),
        reasons => format!("; {}", reasons.join("; ")),
    };
    let needs = |kernel| choice::needs(kernel).unwrap_or(cpu);
    let why = if *native == openblas.picks {
        match needs(native) < cpu {
            true => format!("OpenBLAS' own, though the CPU has {cpu}"),
            false => "OpenBLAS' own, which uses all that the CPU has".to_string(),
        }
    } else {
        format!("{} needs no more than {}, and the CPU has {cpu}", openblas.picks, needs(&openblas.picks))
    };
    format!("{native}: {why}{not_taken}")
}

fn of_check(openblas: &OpenBlas) -> String {
    match &openblas.native {
        Some(native) => format!("{native} computed correct products for {} shapes", openblas.checked),
        None => "failed".to_string(),
    }
}

fn of_speed(openblas: &OpenBlas) -> String {
    match openblas.gflops {
        Some(speed) if speed.threads == 1 => format!("{:.1} GFLOP/s", speed.one),
        Some(speed) => {
            format!("{:.1} GFLOP/s a core, {:.1} with {} slots", speed.one, speed.all, speed.threads)
        }
        None => "not measured".to_string(),
    }
}

/// A variable's value as it is shown; it may not be text.
fn shown(value: &str) -> String {
    let bytes = variables::bytes(value);
    bytes.to_str().map_or_else(|| format!("{bytes:?}"), str::to_string)
}

fn of_ignored(openblas: &OpenBlas) -> String {
    let variables: Vec<_> =
        openblas.ignored.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    if variables.is_empty() { "no variable".to_string() } else { variables.join(", ") }
}

/// The warnings for these findings.
fn warnings(findings: &Findings) -> Vec<Warning> {
    let Findings { cpu, cores, limits, openblas } = findings;
    let all = [
        warn_about_old_cpu(cpu),
        warn_about_slow_kernel(openblas, cpu),
        warn_about_unused_kernel_name(openblas),
        warn_about_part_of_a_core(cores),
        warn_about_crowded_cores(openblas),
        warn_about_little_memory(limits),
        warn_about_few_files(limits),
        warn_about_few_processes(limits),
        warn_about_little_address_space(cores),
    ];
    all.into_iter().flatten().map(|(what, remedy)| Warning { what, remedy: remedy.to_string() }).collect()
}

type OptionalWarning = Option<(String, &'static str)>;

fn warn_about_old_cpu(cpu: &Cpu) -> OptionalWarning {
    let x86 = cfg!(target_arch = "x86_64");
    (x86 && cpu.instructions < Instructions::Avx2).then(|| {
        let lacks = if cpu.instructions < Instructions::Avx { "AVX" } else { "AVX2" };
        let what = format!(
            "this CPU has no {lacks}, so that products take several times as long as on one of today"
        );
        (what, "train where the CPU has AVX2 or AVX-512; a virtual machine must be shown the host's CPU")
    })
}

fn warn_about_slow_kernel(openblas: &OpenBlas, cpu: &Cpu) -> OptionalWarning {
    let native = openblas.native.as_ref()?;
    let needs = choice::needs(native)?;
    (needs < cpu.instructions).then(|| {
        let what = format!("native is {native}, which leaves {} of this CPU unused", cpu.instructions);
        (what, "install a newer OpenBLAS")
    })
}

fn warn_about_unused_kernel_name(openblas: &OpenBlas) -> OptionalWarning {
    let (asked, loaded) = openblas.unused_kernel_name.as_ref()?;
    let what = format!("OPENBLAS_CORETYPE={asked}: OpenBLAS has no such kernel here, and loads {loaded}");
    Some((what, "unset it; blas_kernel says which kernel a job is computed with"))
}

fn warn_about_part_of_a_core(cores: &Cores) -> OptionalWarning {
    let quota = cores.quota.filter(|&quota| quota < 1.0)?;
    let what = format!(
        "control groups give this process {quota} of a core, so that it computes in bursts with pauses"
    );
    Some((what, "give it at least one (docker run --cpus, resources.limits.cpu)"))
}

fn warn_about_crowded_cores(openblas: &OpenBlas) -> OptionalWarning {
    let speed = openblas.gflops?;
    let share = speed.all / (speed.one * f64::from(speed.threads));
    (share < CROWDED).then(|| {
        let what = format!(
            "{} slots together compute only {:.1} times as fast as one",
            speed.threads,
            speed.all / speed.one
        );
        (what, "end what else runs on this machine, or use fewer slots")
    })
}

fn warn_about_little_memory(limits: &Limits) -> OptionalWarning {
    let memory = limits.usable_memory().filter(|&bytes| bytes < LITTLE_MEMORY)?;
    Some((
        format!("{} of memory can be used", megabytes(memory)),
        "free some, or allow more: 512 MB train the default job",
    ))
}

fn warn_about_few_files(limits: &Limits) -> OptionalWarning {
    let files = limits.most_files.filter(|&files| files < FEW_FILES)?;
    let what = format!("{files} files can be open at most, and each worker has two connections");
    Some((what, "raise the limit (ulimit -n, LimitNOFILE=)"))
}

fn warn_about_few_processes(limits: &Limits) -> OptionalWarning {
    let processes = limits.processes.filter(|&processes| processes < FEW_PROCESSES)?;
    let what = format!("{processes} processes and threads can be there at most");
    Some((what, "raise the limit (ulimit -u, docker run --pids-limit)"))
}

fn warn_about_little_address_space(cores: &Cores) -> OptionalWarning {
    let what = address_space::shortage(cores.usable())?;
    Some((what, "raise or remove it (ulimit -v unlimited); until then a worker has as many slots as fit"))
}

/// Formats a number of bytes for people.
fn megabytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernel::Speed;

    /// A machine that gets no warning.
    fn good() -> Findings {
        let gigabytes = |count: u64| Some(count << 30);
        Findings {
            cpu: Cpu {
                model: "Some Xeon".into(),
                vendor: Some("GenuineIntel".into()),
                family: Some(6),
                number: Some(207),
                instructions: Instructions::Avx512,
                features: vec!["avx2".into(), "avx512f".into()],
            },
            cores: Cores { online: 8, affinity: 4, quota: None },
            limits: Limits {
                memory: gigabytes(16),
                memory_available: gigabytes(8),
                files: Some(1024),
                most_files: Some(1 << 20),
                processes: Some(30_000),
                ..Limits::default()
            },
            openblas: OpenBlas {
                version: "0.3.21".into(),
                picks: "Prescott".into(),
                native: Some("SkylakeX".into()),
                not_taken: vec![],
                checked: 30,
                gflops: Some(Speed { one: 147.0, all: 560.0, threads: 4 }),
                ignored: BTreeMap::new(),
                unused_kernel_name: None,
            },
        }
    }

    /// Asserts that a good machine with this change gets exactly one warning, with these words.
    fn warns(change: impl FnOnce(&mut Findings), what: &str, remedy: &str) {
        let mut findings = good();
        change(&mut findings);
        let [warning] = &warnings(&findings)[..] else { panic!("one warning: {:?}", warnings(&findings)) };
        assert!(warning.what.contains(what) && warning.remedy.contains(remedy), "{warning:?}");
        let line = format!("warning: {}; {}", warning.what, warning.remedy);
        assert!(text(&findings).lines().any(|found| found == line), "{}", text(&findings));
    }

    #[test]
    fn a_good_machine_has_a_line_for_each_finding() {
        let text = text(&good());
        for line in [
            "CPU           Some Xeon (GenuineIntel, family 6, model 207)",
            "instructions  AVX-512 (avx2 avx512f)",
            "cores         4 to compute with: 4 of 8 may be used",
            "memory        17 GB, 8589 MB of it available",
            "limits        1024 open files, 1048576 at most; 30000 processes; address space without limit",
            "OpenBLAS      0.3.21",
            "its pick      Prescott by itself",
            "native        SkylakeX: Prescott needs no more than SSE3, and the CPU has AVX-512",
            "self-check    SkylakeX computed correct products for 30 shapes",
            "speed         147.0 GFLOP/s a core, 560.0 with 4 slots",
            "ignored       no variable",
            "subnormals    flushed to zero where a model's numbers are computed",
            "no warnings",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn each_warning_has_a_remedy() {
        let no_avx = |findings: &mut Findings| {
            findings.cpu.instructions = Instructions::Baseline;
            findings.openblas.native = Some("Prescott".into());
        };
        warns(no_avx, "no AVX, so", "train where the CPU has AVX2");
        let no_avx2 = |findings: &mut Findings| {
            findings.cpu.instructions = Instructions::Avx;
            findings.openblas.native = Some("Sandybridge".into());
        };
        warns(no_avx2, "no AVX2, so", "virtual machine");
        let no_kernel_for_it = |findings: &mut Findings| findings.openblas.native = Some("Haswell".into());
        warns(no_kernel_for_it, "native is Haswell, which leaves AVX-512", "newer OpenBLAS");
        let half_a_core = |findings: &mut Findings| findings.cores.quota = Some(0.5);
        warns(half_a_core, "0.5 of a core", "--cpus");
        let little_memory = |findings: &mut Findings| findings.limits.memory_of_group = Some(256 << 20);
        warns(little_memory, "268 MB of memory", "allow more");
        warns(|findings| findings.limits.most_files = Some(256), "256 files", "ulimit -n");
        warns(|findings| findings.limits.processes = Some(40), "40 processes", "--pids-limit");
        let crowded = |findings: &mut Findings| {
            findings.openblas.gflops = Some(Speed { one: 100.0, all: 120.0, threads: 4 });
        };
        warns(crowded, "4 slots together compute only 1.2 times as fast as one", "fewer slots");
        let unused_name = |findings: &mut Findings| {
            findings.openblas.unused_kernel_name = Some(("Skylake".into(), "Haswell".into()));
        };
        warns(
            unused_name,
            "OPENBLAS_CORETYPE=Skylake: OpenBLAS has no such kernel here, and loads Haswell",
            "unset it",
        );
    }

    #[test]
    fn half_a_core_is_one_slot() {
        let mut findings = good();
        findings.cores.quota = Some(0.5);
        let text = text(&findings);
        assert!(
            text.contains("1 to compute with: 4 of 8 may be used, a quota of 0.5 by control groups"),
            "{text}"
        );
    }

    #[test]
    fn rejected_kernels_are_named() {
        let mut findings = good();
        findings.openblas.native = Some("Haswell".into());
        findings.openblas.not_taken = vec!["SkylakeX is missing".into()];
        assert!(
            text(&findings).contains("and the CPU has AVX-512; SkylakeX is missing"),
            "{}",
            text(&findings)
        );

        findings.openblas.native = None;
        findings.openblas.gflops = None;
        let text = text(&findings);
        assert!(
            text.contains("native        no kernel can be used") && text.contains("self-check    failed"),
            "{text}"
        );
    }

    #[test]
    fn ignored_variables_are_listed() {
        let mut findings = good();
        findings.openblas.ignored = BTreeMap::from([("OMP_NUM_THREADS".into(), "4".into())]);
        assert!(text(&findings).contains("ignored       OMP_NUM_THREADS=4\n"), "{}", text(&findings));
    }

    #[test]
    fn the_json_has_the_same_findings() {
        let value: serde_json::Value = serde_json::from_str(&json(&good())).unwrap();
        assert_eq!(value["cpu"]["instructions"], "AVX-512");
        assert_eq!(value["openblas"]["native"], "SkylakeX");
        assert_eq!(value["openblas"]["gflops"]["one"], 147.0);
        assert_eq!(value["usable_cores"], 4);
        assert_eq!(value["warnings"], serde_json::json!([]));
        assert_eq!(json(&good()).lines().count(), 1);
    }
}
