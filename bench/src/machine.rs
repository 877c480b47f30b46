//! The machine that the measurements were taken on.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The properties of a machine that affect the measurements.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Distinguishes CPUs with the same name: `family 25 model 17`. Empty if the kernel does not report it.
    pub(crate) cpu_model: String,
    /// The number of cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) blas_kernel: String,
    pub(crate) blas_version: String,
    /// Empty if `rustc` is not installed.
    pub(crate) rustc: String,
}

impl Machine {
    /// Describes this machine. The BLAS kernel and version are those of the measured processes.
    pub(crate) fn here(blas_kernel: &str, blas_version: &str) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu(&info),
            cpu_model: cpu_model(&info),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            kernel: line("/proc/sys/kernel/osrelease"),
            blas_kernel: blas_kernel.to_owned(),
            blas_version: blas_version.to_owned(),
            rustc: output(Command::new("rustc").arg("--version")),
        }
    }
}

/// The load average over the last minute.
pub(crate) fn load() -> f64 {
    let averages = line("/proc/loadavg");
    averages.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// The current time in UTC: `2026-05-01T12:00:00Z`; empty if `date` fails.
pub(crate) fn date() -> String {
    output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))
}

fn cpu(info: &str) -> String {
    field(info, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

fn cpu_model(info: &str) -> String {
    match (field(info, "cpu family"), field(info, "model")) {
        (Some(family), Some(model)) => format!("family {family} model {model}"),
        _ => String::new(),
    }
}

/// A field of the first CPU in `/proc/cpuinfo`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_told_by_name_family_and_model() {
        let info = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel\t: 18\n";
        assert_eq!((cpu(info).as_str(), cpu_model(info).as_str()), ("AMD EPYC", "family 25 model 17"));
        assert_eq!((cpu("").as_str(), cpu_model("").as_str()), (std::env::consts::ARCH, ""));
    }
}
