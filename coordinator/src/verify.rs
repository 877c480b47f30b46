//! Verifies a run: compares its files with each other, with the data, with the plan, and with a recomputation of the
//! training.
//!
//! The comparisons of files are cheap and find careless changes. They cannot detect a run whose model, receipt and
//! history were all rewritten to agree with each other; recomputing it from the start does.
//!
//! A file that cannot be read and a file with the wrong content are different findings: see [`Finding`]. Each
//! function stops at the first difference, and otherwise returns one line for each thing that agrees.

use std::path::PathBuf;

use millefeuille_core::arithmetic::{self, Arithmetic};
use millefeuille_core::data::dataset::DataFile;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::stopping::Watch;
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::{EpochMetric, EpochRow};

use crate::replay::{Replay, ReplayState};
use crate::runs::checkpoint::{Checkpoint, Read, Unreadable};
use crate::runs::history::{History, HistoryState};
use crate::runs::ledger::{self, Entries};
use crate::runs::receipt::{Grown, Receipt, weights_sha256};
use crate::runs::{SavedRun, described, described_shapes, names};

/// Why a run is not verified: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The first thing that is wrong.
    #[error("{0}")]
    Differs(String),
    /// This program cannot verify it on this machine.
    #[error("{0}")]
    CannotVerify(String),
    /// Something needed cannot be read.
    #[error(transparent)]
    Unreadable(Failure),
}

type Result<T, E = Finding> = std::result::Result<T, E>;

impl From<Failure> for Finding {
    /// A readable file with the wrong content counts as a difference, not as a file to restore: restoring it would
    /// remove the evidence.
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Damaged | FailureKind::Differs => Self::Differs(failure.problem()),
            _ => Self::Unreadable(failure),
        }
    }
}

/// The files of a run, as far as they are compared.
#[derive(Debug)]
pub struct Evidence {
    run: PathBuf,
    /// The job.
    pub job: Job,
    /// The history rows of the finished epochs.
    pub history: Vec<EpochRow>,
    /// The receipt; `None` if the run is not done.
    pub receipt: Option<Receipt>,
    /// The existing checkpoints, newest first.
    pub checkpoints: Vec<Read>,
    /// The jobs with fewer epochs that the run had before.
    grown_from: Vec<Grown>,
    ledger: Entries,
    model: Option<Vec<f32>>,
    /// Number of files that are those of which `run.json` has the SHA-256.
    recorded: usize,
}

impl Evidence {
    /// Reads the files.
    ///
    /// # Errors
    /// The missing or damaged file.
    pub fn read(run: &SavedRun) -> Result<Self> {
        let job = run.job()?;
        let receipt = run.receipt()?;
        let done = receipt.is_some();
        if !done {
            run.check_job(&job)?;
        }
        let history = if done { run.history()? } else { run.whole_history()? };
        let checkpoints = checkpoints(run, &job)?;
        let ledger = match run.ledger()? {
            Some(ledger) => ledger,
            None if done => return Err(missing(run, names::LEDGER)),
            None => Entries::default(),
        };
        let model = done.then(|| model(run, &job)).transpose()?;
        let recorded = recorded(run)?;
        Ok(Self {
            run: run.path().to_path_buf(),
            job,
            history,
            grown_from: run.record().map(|record| record.grown_from.clone()).unwrap_or_default(),
            receipt,
            checkpoints,
            ledger,
            model,
            recorded,
        })
    }

    /// Number of finished epochs.
    pub fn epochs(&self) -> u32 {
        self.history.len() as u32
    }

    /// Whether the job is done.
    pub fn is_done(&self) -> bool {
        self.receipt.is_some()
    }

    fn differs<T>(&self, name: &str, what: &str) -> Result<T> {
        Err(Finding::Differs(format!("{}: {what}", self.run.join(name).display())))
    }

    /// Compares the run's files with each other.
    ///
    /// # Errors
    /// The first file that does not agree with the others.
    pub fn agrees_with_itself(&self) -> Result<Vec<String>> {
        let mut agreed: Vec<_> = self.files_agree().into_iter().collect();
        agreed.push(self.history_agrees()?);
        if let Some(receipt) = &self.receipt {
            agreed.push(self.model_agrees(receipt)?);
        }
        agreed.extend(self.checkpoints_agree()?);
        Ok(agreed)
    }

    /// What was found when the files were read.
    fn files_agree(&self) -> Option<String> {
        let (done, count) = (self.is_done(), self.recorded);
        match count {
            _ if !done => None,
            0 => Some(format!("{}: of an earlier version, which kept no hashes of files", names::RECORD)),
            _ => Some(format!("{}: {count} files, each with the SHA-256 that it has there", names::RECORD)),
        }
    }

    fn history_agrees(&self) -> Result<String> {
        for (row, epoch) in self.history.iter().zip(1..) {
            if row.epoch != epoch {
                return self.differs(names::HISTORY, &format!("line {epoch} is of epoch {}", row.epoch));
            }
        }
        let finished = self.epochs();
        let Some(receipt) = &self.receipt else {
            return Ok(format!("{}: {finished} epochs", names::HISTORY));
        };
        let watch = self.watch();
        let epochs = watch.stopped().map_or(self.job.fit.epochs, |stopped| stopped.epoch as u32);
        if finished != epochs {
            let what = format!("{finished} epochs, the job has {epochs}");
            return self.differs(names::HISTORY, &what);
        }
        let stopped = watch.stopped().map(|stopped| stopped.to_string());
        if (&receipt.stopped, receipt.restored_epoch) != (&stopped, watch.restored()) {
            let what = "it stopped otherwise than its history says, or has the parameters of another epoch";
            return self.differs(names::RECEIPT, what);
        }
        if self.ledger.stop != stopped.map(|stopped| (finished, stopped)) {
            return self.differs(names::LEDGER, "it stopped otherwise than its history says");
        }
        if receipt.epoch_weights_sha256.len() != self.history.len() {
            let what = format!("hashes of {} epochs for {finished}", receipt.epoch_weights_sha256.len());
            return self.differs(names::RECEIPT, &what);
        }
        for (row, hash) in self.history.iter().zip(&receipt.epoch_weights_sha256) {
            if row.weights_sha256 != *hash {
                let what = format!(
                    "epoch {}: weights_sha256 is {}, in receipt.json {hash}",
                    row.epoch, row.weights_sha256
                );
                return self.differs(names::HISTORY, &what);
            }
        }
        Ok(format!("{}: {finished} epochs, with the receipt's hashes", names::HISTORY))
    }

    fn model_agrees(&self, receipt: &Receipt) -> Result<String> {
        let restored = receipt.restored_epoch.and_then(|epoch| usize::try_from(epoch).ok()?.checked_sub(1));
        let row = restored.map_or_else(|| self.history.last(), |index| self.history.get(index));
        let wanted = row.map_or("", |row| &row.weights_sha256);
        if receipt.weights_sha256 != wanted {
            let which = if restored.is_some() { "best" } else { "last" };
            let what = format!(
                "weights_sha256 is {}, after the {which} epoch of history.jsonl {wanted}",
                receipt.weights_sha256
            );
            return self.differs(names::RECEIPT, &what);
        }
        let hash = weights_sha256(bytemuck::cast_slice(self.model.as_deref().unwrap_or_default()));
        if hash != receipt.weights_sha256 {
            let what = format!("weights_sha256 is {hash}, in receipt.json {}", receipt.weights_sha256);
            return self.differs(names::MODEL, &what);
        }
        Ok(format!("{}: weights_sha256 {hash}, as the receipt and the history say", names::MODEL))
    }

    fn checkpoints_agree(&self) -> Result<Option<String>> {
        for Read { path, checkpoint, .. } in &self.checkpoints {
            let differs = |what: String| Err(Finding::Differs(format!("{}: {what}", path.display())));
            if let Some(receipt) = &self.receipt
                && checkpoint.job_sha256 != receipt.job_sha256
                && !self.has_grown_from(&checkpoint.job_sha256)
            {
                return differs(format!(
                    "of job_sha256 {}, the receipt's is {}",
                    checkpoint.job_sha256, receipt.job_sha256
                ));
            }
            let arithmetic = self.receipt.as_ref().map(arithmetic_of);
            if let Some(there) = arithmetic.filter(|there| *there != checkpoint.arithmetic) {
                let (there, here) = (described(&there), described(&checkpoint.arithmetic));
                return self.differs(names::RECEIPT, &format!("{there}, in {} {here}", path.display()));
            }
            let HistoryState { epochs, .. } = checkpoint.history;
            let rows = self.history.iter().take(epochs as usize).cloned();
            if rows.collect::<History>().state() != checkpoint.history {
                let what = format!("its first {epochs} epochs are not those of {}", path.display());
                return self.differs(names::HISTORY, &what);
            }
            if let Some(row) = self.at_an_epochs_end(checkpoint)
                && row.weights_sha256 != weights_sha256(&checkpoint.parameters)
            {
                return differs(format!(
                    "its weights are not those after epoch {} of its history",
                    row.epoch
                ));
            }
        }
        let count = self.checkpoints.len();
        Ok((count > 0).then(|| format!("checkpoints: {count}, all whole")))
    }

    /// The rules that stop the job, after its history.
    fn watch(&self) -> Watch {
        Watch::after(self.job.fit.stopping, &self.history)
    }

    /// Whether the run had the job with this hash before it was continued.
    fn has_grown_from(&self, job_sha256: &str) -> bool {
        self.grown_from.iter().any(|grown| grown.job_sha256 == job_sha256)
    }

    /// The last history row of a checkpoint, if the checkpoint follows it directly.
    fn at_an_epochs_end(&self, checkpoint: &Checkpoint) -> Option<&EpochRow> {
        let last = (checkpoint.history.epochs as usize).checked_sub(1)?;
        self.history.get(last).filter(|_| checkpoint.position.step == 0)
    }

    /// Compares the run with the data.
    ///
    /// # Errors
    /// The first file, or the job, that differs from the run's.
    pub fn agrees_with_data(&self, store: &ShardStore) -> Result<String> {
        let job_sha256 = self.job.sha256(&store.file_hashes(), &self.kernel());
        if let Some(receipt) = &self.receipt {
            for DataFile { name, sha256: hash } in store.files() {
                let theirs = receipt.data_sha256.get(name).map_or("", |hash| hash);
                if theirs != hash {
                    let what = format!("data file {name}: SHA-256 is {hash}, in receipt.json {theirs}");
                    return Err(Finding::Differs(format!("{}: {what}", self.run.display())));
                }
            }
            if receipt.blas_kernel != self.kernel() {
                let what =
                    format!("blas_kernel is {}, in receipt.json {}", self.kernel(), receipt.blas_kernel);
                return self.differs(names::JOB, &what);
            }
        }
        let of_receipt = self.receipt.as_ref().map(|receipt| (names::RECEIPT, &receipt.job_sha256));
        let of_checkpoint =
            self.checkpoints.first().map(|read| ("the newest checkpoint", &read.checkpoint.job_sha256));
        let Some((whose, theirs)) = of_receipt.or(of_checkpoint) else {
            return Ok("data: can be read".to_string());
        };
        if *theirs != job_sha256 && !(self.receipt.is_none() && self.has_grown_from(theirs)) {
            let what = format!("with the data, job_sha256 is {job_sha256}, in {whose} {theirs}");
            return self.differs(names::JOB, &what);
        }
        Ok(format!("{} and data: job_sha256 {job_sha256}, as in {whose}", names::JOB))
    }

    fn kernel(&self) -> String {
        match &self.job.blas_kernel {
            BlasKernel::Named(name) => name.clone(),
            other => other.to_string(),
        }
    }

    /// Compares the ledger with the plan.
    ///
    /// # Errors
    /// The first epoch, phase and shard at which they differ.
    pub fn ledger_agrees(&self, spec: &Spec) -> Result<String> {
        let found = &self.ledger.chains;
        // A crash may have happened after an epoch's lines here and before its history row. The epochs of the newest
        // checkpoint must be complete, and so must all epochs of a run that is done.
        let certain = self.checkpoints.first().map_or(0, |read| read.checkpoint.history.epochs as u32);
        let whole = (found.len() / ledger::expected(spec, 1).len()) as u32;
        let epochs = if self.is_done() { self.epochs() } else { self.epochs().min(whole).max(certain) };
        let of_epochs = found.iter().take_while(|(place, _)| self.is_done() || place.epoch < epochs);
        let expected = ledger::expected(spec, epochs);
        match ledger::first_difference(&of_epochs.copied().collect::<Vec<_>>(), &expected) {
            Some(what) => self.differs(names::LEDGER, &what),
            None => Ok(format!(
                "{}: in {epochs} epochs each sample was used exactly once, as planned",
                names::LEDGER
            )),
        }
    }

    /// Compares the arithmetic that computed the run with that of this process.
    ///
    /// # Errors
    /// Both, if they differ.
    pub fn can_be_computed_here(&self, spec: &Spec) -> Result<String> {
        let here = Arithmetic::of_this_process();
        if let Some(there) = self.arithmetic().filter(|there| *there != here) {
            return self.cannot_verify(&described(&there), &described(&here));
        }
        // The receipt does not contain it, so it is compared only if there is a checkpoint.
        if let Some(read) = self.checkpoints.first() {
            let (there, here) = (&read.checkpoint.shapes_fingerprint, arithmetic::model_fingerprint(spec));
            if *there != here {
                return self.cannot_verify(&described_shapes(there), &described_shapes(&here));
            }
        }
        Ok(described(&here))
    }

    /// The arithmetic that computed the run: from the receipt, or from the newest checkpoint if the run is not done,
    /// or `None` if it has neither.
    fn arithmetic(&self) -> Option<Arithmetic> {
        let of_receipt = self.receipt.as_ref().map(arithmetic_of);
        of_receipt.or_else(|| self.checkpoints.first().map(|read| read.checkpoint.arithmetic.clone()))
    }

    fn cannot_verify<T>(&self, there: &str, here: &str) -> Result<T> {
        Err(Finding::CannotVerify(format!(
            "{}: cannot be verified here: it was computed with {there}, and this process computes with {here}",
            self.run.display()
        )))
    }

    /// The newest checkpoint at or before the start of `epoch` (from 0); `None` if the training must start from the
    /// beginning.
    pub fn before(&self, epoch: u32) -> Option<&Read> {
        let place = |read: &Read| (read.checkpoint.position.epoch, read.checkpoint.position.step);
        self.checkpoints.iter().find(|read| place(read) <= (epoch, 0))
    }

    /// The state of the training in a checkpoint.
    pub fn state_at(&self, read: &Read, workload: &Workload) -> ReplayState {
        let epochs = (read.checkpoint.history.epochs as usize).min(self.history.len());
        ReplayState::of(&read.checkpoint, &self.job, workload, &self.history[..epochs])
    }

    /// Recomputes the next epoch of `state` and compares it with the history; returns the epoch's row.
    ///
    /// # Errors
    /// The first figure that differs.
    pub fn epoch_agrees(&self, replay: &mut Replay<'_>, state: &mut ReplayState) -> Result<EpochRow> {
        let again = replay.finish_epoch(state);
        let Some(told) = self.history.get(again.epoch as usize - 1) else {
            return self.differs(names::HISTORY, &format!("epoch {} is missing", again.epoch));
        };
        match difference(told, &again) {
            None => Ok(again),
            Some(what) => self.differs(names::HISTORY, &format!("epoch {}: {what}", again.epoch)),
        }
    }
}

/// The differences between two history rows, times excluded.
fn difference(told: &EpochRow, again: &EpochRow) -> Option<String> {
    let figures = |row: &EpochRow| {
        let own = [
            ("loss", Some(row.loss)),
            ("accuracy", row.accuracy),
            ("val_loss", row.val_loss),
            ("val_accuracy", row.val_accuracy),
            ("test_loss", row.test_loss),
            ("test_accuracy", row.test_accuracy),
        ];
        own.map(|(name, figure)| (name.to_owned(), figure)).into_iter().collect::<Vec<_>>()
    };
    if told.weights_sha256 != again.weights_sha256 {
        let (told, again) = (&told.weights_sha256, &again.weights_sha256);
        return Some(format!("weights_sha256 is {told}, computed again {again}"));
    }
    let bits = |figure: Option<f64>| figure.map(f64::to_bits);
    // The computed row has the metrics of the job; another of the history's is a key of a later version.
    let metrics = again.metrics.iter().flat_map(|again| {
        let told = told.metric(&again.name);
        let of = |figure: fn(&EpochMetric) -> Option<f64>| (told.as_ref().and_then(figure), figure(again));
        [
            (again.name.clone(), of(|metric| metric.train)),
            (format!("val_{}", again.name), of(|metric| metric.validation)),
            (format!("test_{}", again.name), of(|metric| metric.test)),
        ]
    });
    let metrics = metrics.map(|(name, (told, again))| ((name.clone(), told), (name, again)));
    let pairs = figures(told).into_iter().zip(figures(again)).chain(metrics);
    let mut differing = pairs.filter(|((_, told), (_, again))| bits(*told) != bits(*again));
    differing.next().map(|((name, told), (_, again))| {
        format!("{name} is {}, computed again {}", shown(told), shown(again))
    })
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "not there".to_string(), |figure| figure.to_string())
}

fn arithmetic_of(receipt: &Receipt) -> Arithmetic {
    Arithmetic {
        kernel: receipt.blas_kernel.clone(),
        version: receipt.blas_version.clone(),
        fingerprint: receipt.fingerprint.clone(),
    }
}

/// Reads every file of which `run.json` has the SHA-256; returns their number.
fn recorded(run: &SavedRun) -> Result<usize> {
    if run.is_done() && run.record().is_none() {
        return Err(missing(run, names::RECORD));
    }
    let names: Vec<_> = run.recorded().collect();
    for name in &names {
        run.read(name)?.ok_or_else(|| missing(run, name))?;
    }
    Ok(names.len())
}

fn checkpoints(run: &SavedRun, job: &Job) -> Result<Vec<Read>> {
    let checkpoints = run.checkpoints();
    let read = |tag| {
        checkpoints.read(tag, job).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(damaged) => Finding::Differs(damaged.to_string()),
            Unreadable::Refused(error) => Finding::Unreadable(error),
        })
    };
    checkpoints.tags()?.into_iter().map(read).collect()
}

fn model(run: &SavedRun, job: &Job) -> Result<Vec<f32>> {
    if !run.path().join(names::MODEL).exists() {
        return Err(missing(run, names::MODEL));
    }
    Ok(run.trained(job)?.parameters)
}

fn missing(run: &SavedRun, name: &str) -> Finding {
    let path = run.path().join(name);
    Finding::Unreadable(Failure::at(FailureKind::Data, path.display(), "missing"))
}
