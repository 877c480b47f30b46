//! A tiny run, for tests of its files.

#![allow(dead_code, unreachable_pub, missing_docs)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use millefeuille_coordinator::runs::checkpoint::{Checkpoint, Partial};
use millefeuille_coordinator::runs::history::History;
use millefeuille_coordinator::runs::ledger::Ledger;
use millefeuille_coordinator::runs::receipt::{FORMAT, Participation, Receipt, weights_sha256};
use millefeuille_coordinator::runs::{Existing, RunDir};
use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{Phase, Position};
use millefeuille_core::job::{Activation, Job, Layer};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::view::EpochRow;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The steps of an epoch.
pub const STEPS: u32 = 4;
/// The job's hash, which is not looked into here.
pub const JOB_SHA256: &str = "a job";

/// The fingerprint of its shapes, likewise.
pub const SHAPES: &str = "shapes";

/// What computes it.
pub fn arithmetic() -> Arithmetic {
    Arithmetic { kernel: "Haswell".into(), version: "0.3.21".into(), fingerprint: "ab".repeat(32) }
}

/// A job whose model has 49 parameters.
pub fn job() -> Job {
    let dense = |units, activation| Layer::dense(units, activation);
    let layers = vec![dense(3, Activation::Sigmoid), dense(10, Activation::Softmax)];
    Job { name: "tiny".into(), layers, ..Job::default() }
}

/// Its model.
pub fn model() -> Model {
    Model::new(2, &job().layers)
}

/// A row of history that keeps no bit by accident.
pub fn row(epoch: u64) -> EpochRow {
    let share = 1.0 / (epoch as f64 + 2.0);
    EpochRow {
        epoch,
        loss: 0.1 + 0.2 * share,
        accuracy: Some(share),
        val_loss: Some(1e-300 * share),
        test_loss: Some(share.sqrt()),
        test_accuracy: Some(0.5),
        seconds: 1.25 + share,
        weights_sha256: format!("{epoch:064}"),
        ..EpochRow::default()
    }
}

/// The receipt of a run with these rows, whose model is `parameters`.
pub fn receipt(history: &[EpochRow], parameters: &[f32]) -> Receipt {
    let arithmetic = arithmetic();
    Receipt {
        format: FORMAT,
        job_sha256: JOB_SHA256.into(),
        data_sha256: BTreeMap::new(),
        blas_kernel: arithmetic.kernel,
        blas_kernel_of_openblas: None,
        blas_version: arithmetic.version,
        fingerprint: arithmetic.fingerprint,
        version: "0".into(),
        epoch_weights_sha256: history.iter().map(|row| row.weights_sha256.clone()).collect(),
        weights_sha256: weights_sha256(bytemuck::cast_slice(parameters)),
        stopped: None,
        restored_epoch: None,
        grown_from: Vec::new(),
        suspects: vec![],
    }
}

/// Makes `run.json` say what the run's files are now, as a forger would.
pub fn reseal(run: &Path) {
    let path = run.join("run.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("sha256");
    let files = record.get_mut("files_sha256").and_then(Value::as_object_mut);
    for (name, recorded) in files.into_iter().flatten() {
        if let Ok(content) = fs::read(run.join(name)) {
            *recorded = hex::encode(Sha256::digest(content)).into();
        }
    }
    let text = serde_json::to_string_pretty(&record).unwrap();
    let body = text.strip_suffix("\n}").unwrap();
    let seal = hex::encode(Sha256::digest(body));
    fs::write(path, format!("{body},\n  \"sha256\": \"{seal}\"\n}}\n")).unwrap();
}

/// A run under way, as its driver would keep it.
pub struct Training {
    pub run: RunDir,
    pub ledger: Ledger,
    pub history: Vec<EpochRow>,
    pub tag: u64,
    pub participation: Participation,
}

impl Training {
    /// Begins one.
    pub fn begin(path: &Path) -> Self {
        let mut run = RunDir::claim(path, Existing::Refuse).unwrap();
        run.submit(&job(), 7, "a key").unwrap();
        run.begin(&job()).unwrap();
        let (ledger, participation) = (Ledger::default(), Participation::default());
        Self { run, ledger, history: Vec::new(), tag: 0, participation }
    }

    /// Takes so many steps; an epoch's end writes its lines.
    pub fn steps(&mut self, count: u32) -> &mut Self {
        for _ in 0..count {
            let (epoch, step) = self.place();
            for shard in 0..2 {
                self.ledger.piece(epoch, Phase::Train, shard, 5, &[self.tag as u8 ^ shard as u8; 32]);
            }
            self.participation.add("an instance", "host:1", self.tag);
            self.tag += 1;
            self.run.event("step", &format!("{}", self.tag)).unwrap();
            if step + 1 == STEPS {
                self.end_epoch(epoch);
            }
        }
        self
    }

    fn end_epoch(&mut self, epoch: u32) {
        self.ledger.piece(epoch, Phase::Test, 0, 3, &[9; 32]);
        let lines = self.ledger.end_epoch(epoch, None);
        self.run.append_ledger(&lines).unwrap();
        self.history.push(row(u64::from(epoch) + 1));
        self.run.append_history(&self.history[epoch as usize]).unwrap();
    }

    fn place(&self) -> (u32, u32) {
        (self.tag as u32 / STEPS, self.tag as u32 % STEPS)
    }

    /// What a checkpoint has to keep now.
    pub fn checkpoint(&self) -> Checkpoint {
        let (epoch, step) = self.place();
        let parameters = model().initial_parameters(self.tag);
        let partial = Partial {
            loss_sum: f64::from(step) * (0.1 + 0.2),
            correct: step.into(),
            samples: u64::from(step) * 10,
            counts: vec![step.into(); 2],
            sums: vec![f64::from(step) / 7.0],
            seconds: f64::from(step) / 3.0,
        };
        Checkpoint {
            job_sha256: JOB_SHA256.into(),
            arithmetic: arithmetic(),
            shapes_fingerprint: SHAPES.into(),
            position: Position { epoch, phase: Phase::Train, step },
            parameter_tag: self.tag,
            parameters: Bytes::copy_from_slice(bytemuck::cast_slice(&parameters)),
            optimizer: OptimizerState::new(&job().compile.optimizer, parameters.len()),
            partial,
            history: self.history.iter().cloned().collect::<History>().state(),
            ledger: self.ledger.state(),
            participation: self.participation.clone(),
            suspects: Participation::default(),
        }
    }

    /// Writes a checkpoint.
    pub fn save(&mut self) -> &mut Self {
        self.run.write_checkpoint(&self.checkpoint(), &model()).unwrap();
        self
    }
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
