//! The contenders: how each is started, and how its output is read.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::call::last_line;
use crate::compare;
use crate::coordinator::{self, Shape};
use crate::fit::{EPOCHS, Fit};
use crate::measured::CLUSTERS;
use crate::products::Products;
use crate::report;

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// The article's program, in Keras.
    Keras,
    /// The same program in PyTorch, in one process.
    Torch,
    /// The same program with PyTorch's DistributedDataParallel over Gloo.
    Ddp { processes: u32 },
    /// `coordinator train`, with worker processes of its own.
    Here(Shape),
    /// The single-process baseline.
    Baseline,
    /// The baseline's matrix products alone.
    Products,
}

/// All contenders, in the order of the tables.
pub(super) const ALL: [Contender; 9] = [
    Contender::Keras,
    Contender::Torch,
    Contender::Ddp { processes: 2 },
    Contender::Ddp { processes: 4 },
    Contender::Here(CLUSTERS[0].0),
    Contender::Here(CLUSTERS[1].0),
    Contender::Here(CLUSTERS[2].0),
    Contender::Baseline,
    Contender::Products,
];

impl Contender {
    /// Whether the contender goes from a cold start to a saved model.
    pub(super) fn is_whole_program(self) -> bool {
        !matches!(self, Self::Baseline | Self::Products)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keras => f.write_str("Keras"),
            Self::Torch => f.write_str("PyTorch"),
            Self::Ddp { processes } => write!(f, "DDP, {processes} processes"),
            Self::Here(shape) => f.write_str(&report::name(*shape)),
            Self::Baseline => f.write_str("baseline"),
            Self::Products => f.write_str("products alone"),
        }
    }
}

/// The paths of the programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) coordinator: PathBuf,
    /// The BLAS kernel that its jobs use.
    kernel: String,
    python: PathBuf,
    /// The directory of the Keras and PyTorch programs.
    scripts: PathBuf,
}

impl Programs {
    /// Returns an error if a program is missing.
    pub(super) fn find(python: Option<&Path>) -> anyhow::Result<Self> {
        let python = python.map_or_else(installed_python, |python| Ok(python.to_owned()))?;
        if !python.is_file() {
            bail!("{}: missing (make bench-peers installs Keras and PyTorch there)", python.display());
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let coordinator = coordinator::beside_this_program()?;
        let kernel = coordinator::kernel(&coordinator)?;
        Ok(Self { coordinator, kernel, python, scripts })
    }

    /// The command of a contender. Keras and PyTorch shuffle by `seed`; this project uses its job's seed.
    pub(super) fn command(&self, who: Contender, seed: u32) -> anyhow::Result<Command> {
        Ok(match who {
            Contender::Keras => self.python(&[], "article_keras.py", seed),
            Contender::Torch => self.python(&[], "article_torch.py", seed),
            Contender::Ddp { processes } => {
                let processes = processes.to_string();
                let launcher =
                    ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", &processes];
                self.python(&launcher, "article_torch.py", seed)
            }
            Contender::Here(shape) => self.train(shape),
            Contender::Baseline => compare::alone("baseline", &self.kernel)?,
            Contender::Products => compare::alone("products", &self.kernel)?,
        })
    }

    fn python(&self, launcher: &[&str], script: &str, seed: u32) -> Command {
        let mut command = coordinator::undisturbed(&self.python);
        command.args(launcher).arg(self.scripts.join(script)).arg(seed.to_string());
        // No GPU; no resolution of the host name; only errors are logged; no files are written to the source tree.
        command.env("CUDA_VISIBLE_DEVICES", "-1").env("GLOO_SOCKET_IFNAME", "lo");
        command.env("TF_CPP_MIN_LOG_LEVEL", "3").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn train(&self, Shape { workers, slots }: Shape) -> Command {
        let mut command = coordinator::undisturbed(&self.coordinator);
        command.args(["train", "--epochs", &EPOCHS.to_string(), "--run-dir", "run"]);
        command.args(["--workers", &workers.to_string(), "--slots", &slots.to_string()]);
        command
    }
}

/// The Python that `scripts/bench-peers.sh` installs.
fn installed_python() -> anyhow::Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set; name the Python with --python")?;
    Ok(cache.join("millefeuille/peers/bin/python"))
}

/// The figures that a run reports.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RunReport {
    pub(super) fit_seconds: f64,
    pub(super) test_accuracy: Option<f64>,
    #[serde(default)]
    pub(super) versions: BTreeMap<String, String>,
    /// This project's fit.
    #[serde(skip)]
    pub(super) fit: Option<Fit>,
    /// The number of multiplications and additions in the products.
    #[serde(skip)]
    pub(super) operations: Option<f64>,
}

impl Contender {
    /// Reads the report from the standard output, or from the run in `place`.
    pub(super) fn report(self, stdout: &str, place: &Path) -> anyhow::Result<RunReport> {
        let last = last_line(stdout);
        match self {
            Self::Keras | Self::Torch | Self::Ddp { .. } => {
                serde_json::from_str(last).with_context(|| format!("its last line is {last:?}"))
            }
            Self::Here(_) => Ok(of_fit(coordinator::read(&place.join("run"))?)),
            Self::Baseline => Ok(of_fit(serde_json::from_str(last)?)),
            Self::Products => {
                let Products { seconds, operations } = serde_json::from_str(last)?;
                Ok(RunReport { fit_seconds: seconds, operations: Some(operations), ..RunReport::default() })
            }
        }
    }
}

fn of_fit(fit: Fit) -> RunReport {
    RunReport {
        fit_seconds: fit.seconds,
        test_accuracy: fit.epochs.last().map(|epoch| epoch.test_accuracy),
        fit: Some(fit),
        ..RunReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::alone_with_children;

    #[test]
    fn a_peers_last_line_is_its_result() {
        let line =
            r#"{"fit_seconds": 2.5, "test_loss": 0.3, "test_accuracy": 0.91, "versions": {"Keras": "3"}}"#;
        let report = Contender::Keras.report(&format!("Epoch 1/5\n96/96\n{line}\n"), Path::new("")).unwrap();
        assert_eq!((report.fit_seconds, report.test_accuracy), (2.5, Some(0.91)));
        assert_eq!(report.versions["Keras"], "3");
    }

    #[test]
    fn a_last_line_that_is_no_result_is_shown() {
        let error = Contender::Torch.report("epoch 1\nKilled\n", Path::new("")).unwrap_err();
        assert_eq!(error.to_string(), r#"its last line is "Killed""#);
    }

    #[test]
    fn the_products_say_what_they_took() {
        let report =
            Contender::Products.report(r#"{"seconds": 1.5, "operations": 1e9}"#, Path::new("")).unwrap();
        assert_eq!((report.fit_seconds, report.operations, report.test_accuracy), (1.5, Some(1e9), None));
    }

    /// The only test of these programs on machines where Keras and PyTorch are not installed.
    #[test]
    fn the_peers_programs_are_python() {
        let _alone = alone_with_children();
        if Command::new("python3").arg("--version").output().is_err() {
            return; // Python is not installed.
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        for script in ["mnist.py", "article_keras.py", "article_torch.py"] {
            let compile = "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')";
            let output = Command::new("python3").args(["-c", compile]).arg(scripts.join(script)).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
