//! One fit by a cluster: `coordinator train`, with worker processes of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::fit::{EPOCHS, Figures, Fit};
use crate::memory::{self, Peaks};
use crate::process;

/// The number of workers, and of slots per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shape {
    pub(crate) workers: u32,
    pub(crate) slots: u32,
}

/// The arguments of `coordinator train`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shape: Shape,
    pub(crate) epochs: u32,
    /// Further flags.
    pub(crate) settings: &'a [&'a str],
}

impl Call<'_> {
    /// The article's fit, without further flags.
    pub(crate) fn article(shape: Shape) -> Self {
        Call { shape, epochs: EPOCHS, settings: &[] }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub(crate) struct Trained {
    pub(crate) fit: Fit,
    /// The time from the start of the command to its end.
    pub(crate) wall_seconds: f64,
}

/// A line of `history.jsonl`.
#[derive(Deserialize)]
struct Row {
    seconds: f64,
    #[serde(flatten)]
    figures: Figures,
}

/// The fields of `receipt.json` that are used here.
#[derive(Deserialize)]
struct Receipt {
    weights_sha256: String,
    blas_kernel: String,
    blas_version: String,
}

/// The path of the coordinator in the directory of this program.
pub(crate) fn beside_this_program() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find the path of this program")?;
    let binary = this.with_file_name("coordinator");
    if !binary.is_file() {
        bail!("{}: missing (run make build)", binary.display());
    }
    Ok(binary)
}

/// Prefixes of environment variables that would change the measurement: those of numerical libraries, of Python, and
/// of this project.
const DISTURBING: [&str; 13] = [
    "OPENBLAS_",
    "GOTO_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "TF_",
    "KERAS_",
    "TORCH",
    "RANK",
    "WORLD_SIZE",
    "PYTHON",
    "MILLEFEUILLE_",
];

/// A command without the variables that would change the measurement, which does not outlive this program.
pub(crate) fn undisturbed(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if DISTURBING.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    process::die_with_this_program(&mut command);
    command
}

/// Trains once.
pub(crate) fn train(binary: &Path, call: Call<'_>) -> anyhow::Result<Trained> {
    let place = tempfile::tempdir().context("cannot make a directory for the run")?;
    let started = Instant::now();
    let child = spawn(binary, call, place.path())?;
    finish(child)?;
    let wall_seconds = started.elapsed().as_secs_f64();
    Ok(Trained { fit: read(&place.path().join("run"))?, wall_seconds })
}

/// The kernel that jobs use on this machine. It may differ from the one that OpenBLAS picks by itself.
pub(crate) fn kernel(binary: &Path) -> anyhow::Result<String> {
    let call = Call { epochs: 1, ..Call::article(Shape { workers: 1, slots: 1 }) };
    Ok(train(binary, call)?.fit.blas_kernel)
}

/// Trains once, and measures the peak memory.
pub(crate) fn train_watched(binary: &Path, shape: Shape) -> anyhow::Result<Peaks> {
    let place = tempfile::tempdir().context("cannot make a directory for the run")?;
    let mut child = spawn(binary, Call::article(shape), place.path())?;
    let peaks = memory::watch(&mut child)?;
    finish(child)?;
    Ok(peaks)
}

fn spawn(binary: &Path, call: Call<'_>, place: &Path) -> anyhow::Result<Child> {
    let Call { shape, epochs, settings } = call;
    let mut command = undisturbed(binary);
    command.args(["train", "--epochs", &epochs.to_string(), "--run-dir", "run"]).args(settings);
    command.args(["--workers", &shape.workers.to_string(), "--slots", &shape.slots.to_string()]);
    command.current_dir(place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("{}: cannot be started", binary.display()))
}

fn finish(child: Child) -> anyhow::Result<()> {
    let output = child.wait_with_output().context("waiting for the coordinator")?;
    if !output.status.success() {
        bail!("the coordinator failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Reads the results of a finished run.
pub(crate) fn read(run: &Path) -> anyhow::Result<Fit> {
    let text = |name: &str| {
        let path = run.join(name);
        fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))
    };
    let rows: Vec<Row> =
        text("history.jsonl")?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let receipt: Receipt = serde_json::from_str(&text("receipt.json")?)?;
    Ok(Fit {
        seconds: rows.iter().map(|row| row.seconds).sum(),
        weights_sha256: receipt.weights_sha256,
        epochs: rows.into_iter().map(|row| row.figures).collect(),
        blas_kernel: receipt.blas_kernel,
        blas_version: receipt.blas_version,
    })
}
