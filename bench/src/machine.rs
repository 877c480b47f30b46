//! What the measurements were taken on.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// A machine, as far as its numbers depend on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) blas_kernel: String,
    pub(crate) blas_version: String,
    /// Empty where there is none.
    pub(crate) rustc: String,
}

impl Machine {
    /// This machine; BLAS is what the measured processes said of theirs.
    pub(crate) fn here(blas_kernel: &str, blas_version: &str) -> Self {
        Self {
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            kernel: line("/proc/sys/kernel/osrelease"),
            blas_kernel: blas_kernel.to_owned(),
            blas_version: blas_version.to_owned(),
            rustc: output(Command::new("rustc").arg("--version")),
        }
    }
}

/// Processes that ran or wanted to, on average over the last minute.
pub(crate) fn load() -> f64 {
    let averages = line("/proc/loadavg");
    averages.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Now, in UTC: `2026-05-01T12:00:00Z`; empty where nothing can say it.
pub(crate) fn date() -> String {
    output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
