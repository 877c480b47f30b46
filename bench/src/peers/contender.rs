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
    /// The article's program.
    Keras,
    /// PyTorch in one process.
    Torch,
    /// PyTorch's DistributedDataParallel over Gloo.
    Ddp { processes: u32 },
    /// `coordinator train`, with workers of its own.
    Here(Shape),
    /// The single-process baseline.
    Baseline,
    /// The baseline's products, and nothing else.
    Products,
}

/// All, in the order of the tables.
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
    /// Whether it goes from a cold start to a saved model.
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

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) coordinator: PathBuf,
    /// The kernel of its jobs.
    kernel: String,
    python: PathBuf,
    /// The peers' programs.
    scripts: PathBuf,
}

impl Programs {
    /// An error if one is missing.
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

    /// The command line of one; peers shuffle by `seed`, this project by its job's.
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
        // Not looking for GPUs, nor for the name of this host; no log but of errors; no files in the source tree.
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

/// Where `scripts/bench-peers.sh` installs.
fn installed_python() -> anyhow::Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set, so say --python")?;
    Ok(cache.join("millefeuille/peers/bin/python"))
}

/// The figures that a run reports.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Said {
    pub(super) fit_seconds: f64,
    pub(super) test_accuracy: Option<f64>,
    #[serde(default)]
    pub(super) versions: BTreeMap<String, String>,
    /// This project's fit.
    #[serde(skip)]
    pub(super) fit: Option<Fit>,
    /// The products' multiplications and additions.
    #[serde(skip)]
    pub(super) operations: Option<f64>,
}

impl Contender {
    /// What it printed, or left in the directory where it ran.
    pub(super) fn said(self, stdout: &str, place: &Path) -> anyhow::Result<Said> {
        let last = last_line(stdout);
        match self {
            Self::Keras | Self::Torch | Self::Ddp { .. } => {
                serde_json::from_str(last).with_context(|| format!("its last line is {last:?}"))
            }
            Self::Here(_) => Ok(of_fit(coordinator::read(&place.join("run"))?)),
            Self::Baseline => Ok(of_fit(serde_json::from_str(last)?)),
            Self::Products => {
                let Products { seconds, operations } = serde_json::from_str(last)?;
                Ok(Said { fit_seconds: seconds, operations: Some(operations), ..Said::default() })
            }
        }
    }
}

fn of_fit(fit: Fit) -> Said {
    Said {
        fit_seconds: fit.seconds,
        test_accuracy: fit.epochs.last().map(|epoch| epoch.test_accuracy),
        fit: Some(fit),
        ..Said::default()
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
        let said = Contender::Keras.said(&format!("Epoch 1/5\n96/96\n{line}\n"), Path::new("")).unwrap();
        assert_eq!((said.fit_seconds, said.test_accuracy), (2.5, Some(0.91)));
        assert_eq!(said.versions["Keras"], "3");
    }

    #[test]
    fn a_last_line_that_is_no_result_is_shown() {
        let error = Contender::Torch.said("epoch 1\nKilled\n", Path::new("")).unwrap_err();
        assert_eq!(error.to_string(), r#"its last line is "Killed""#);
    }

    #[test]
    fn the_products_say_what_they_took() {
        let said = Contender::Products.said(r#"{"seconds": 1.5, "operations": 1e9}"#, Path::new("")).unwrap();
        assert_eq!((said.fit_seconds, said.operations, said.test_accuracy), (1.5, Some(1e9), None));
    }

    /// Nothing else runs them where the peers are not installed.
    #[test]
    fn the_peers_programs_are_python() {
        let _alone = alone_with_children();
        if Command::new("python3").arg("--version").output().is_err() {
            return; // No Python is here.
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
