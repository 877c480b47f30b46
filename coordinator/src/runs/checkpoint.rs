//! `checkpoints/`: the states from which a run can be resumed after a crash.
//!
//! A checkpoint is two files, named after the number of optimizer steps taken: `000000480.safetensors` has the
//! parameters, named as in `model.safetensors`, and the optimizer's state; `000000480.json`, the manifest, has the
//! run's position and everything else, and is [sealed](super::seal). Of files that grow (history, ledger, events) it has
//! the lengths, so its own size does not grow. The manifest is written last. After a crash the newest readable manifest
//! is the only truth: history, ledger and events are cut back to it.
//!
//! ```text
//! data file: temporary name, fsync, rename, fsync of the directory
//! manifest:  the same, and only now the checkpoint is there
//! older ones than the last few: removed, the manifest first
//! ```
//!
//! [`Checkpoints::newest`] goes from the newest manifest to the oldest. If one is torn, or its data file is missing
//! or changed, it is reported and the next older one is tried. A manifest of a newer format is an error, not damage:
//! an older checkpoint would throw away the work of a newer program.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{Phase, Position};
use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::sum::Figures;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::arithmetic::Form;
use super::history::{self, HistoryState};
use super::ledger;
use super::receipt::{Participation, weights_sha256};
use super::seal::{self, Broken};
use super::{CHECKPOINTS, files, model, of_run};
use crate::failpoints;

/// Format 1 had all rows of the history in the manifest; it is still read.
const FORMAT: u32 = 2;

/// Number of checkpoints that a run keeps.
pub const KEPT: usize = 3;

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Hex SHA-256 of the job: configuration, seed, data.
    pub job_sha256: String,
    /// The arithmetic that computed the run so far, and must compute the rest.
    pub arithmetic: Arithmetic,
    /// Hex SHA-256 of that arithmetic's results over the job's own shapes.
    pub shapes_fingerprint: String,
    /// The next step. Step 0 of an epoch: the epochs before are complete, evaluation and history included. Step 0 of
    /// the epoch after the last: training is complete, and the model is not saved yet.
    pub position: Position,
    /// Number of optimizer steps taken.
    pub parameter_tag: u64,
    /// Little-endian f32, in layer order.
    pub parameters: Bytes,
    /// The optimizer and its state.
    pub optimizer: OptimizerState,
    /// The sums of the epoch so far.
    pub partial: Partial,
    /// The history of the epochs before.
    pub history: HistoryState,
    /// The ledger so far.
    pub ledger: ledger::LedgerState,
    /// Which workers contributed to which steps.
    pub participation: Participation,
    /// The same for evicted workers.
    pub suspects: Participation,
}

/// The sums of an epoch so far; zero at its beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The sum of the samples' losses.
    #[serde(with = "bits")]
    pub loss_sum: f64,
    /// Samples classified correctly.
    pub correct: u64,
    /// Samples in total.
    pub samples: u64,
    /// The counts of the other metrics; none in a job without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
    /// Their sums, as bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "all_bits")]
    pub sums: Vec<f64>,
    /// Time taken so far, pauses excluded.
    #[serde(with = "bits")]
    pub seconds: f64,
}

impl Partial {
    /// These figures of an epoch that has taken so many seconds.
    pub fn new(figures: Figures, seconds: f64) -> Self {
        let Figures { loss_sum, correct, samples, counts, sums } = figures;
        Self { loss_sum, correct, samples, counts, sums, seconds }
    }

    /// The figures.
    pub fn figures(&self) -> Figures {
        let Self { loss_sum, correct, samples, counts, sums, seconds: _ } = self.clone();
        Figures { loss_sum, correct, samples, counts, sums }
    }
}

impl Checkpoint {
    /// The run's position in words, in a job with this many epochs.
    pub fn place(&self, epochs: u32) -> String {
        let Position { epoch, step, .. } = self.position;
        if epoch >= epochs {
            return format!("after the last of {epochs} epochs");
        }
        format!("before step {} of epoch {}", step + 1, epoch + 1)
    }

    /// The parameters as numbers, in a new buffer.
    pub fn values(&self) -> Vec<f32> {
        let (values, _) = self.parameters.as_chunks();
        values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

/// A checkpoint that cannot be used, and why, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The file that is damaged or missing.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// A checkpoint read from disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The manifest's path.
    pub path: PathBuf,
    /// What is in it.
    pub checkpoint: Checkpoint,
    /// Length of the part of `events.jsonl` that belongs to it, in bytes.
    pub events_bytes: u64,
}

/// The newest whole checkpoint, and what is wrong with newer ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// The checkpoint.
    pub read: Read,
    /// The damaged newer ones, newest first.
    pub damaged: Vec<Damaged>,
}

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is damaged. An older one may be whole.
    Damaged(Damaged),
    /// It cannot be read, and must not be skipped.
    Refused(Failure),
}

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    directory: PathBuf,
    kept: usize,
}

impl Checkpoints {
    /// The checkpoints of the run in this directory, of which `kept` are kept, at least one.
    pub fn of(run: &Path, kept: usize) -> Self {
        Self { directory: run.join(CHECKPOINTS), kept: kept.max(1) }
    }

    /// Writes a checkpoint, durably, and removes the oldest ones beyond the number kept.
    ///
    /// # Errors
    /// If something can't be written; the existing checkpoints then remain.
    pub fn write(&self, checkpoint: &Checkpoint, model: &Model, events_bytes: u64) -> Result<(), Failure> {
        files::make_directory(&self.directory)?;
        let tag = checkpoint.parameter_tag;
        let data = encode(checkpoint, model);
        let manifest = seal::seal(FORMAT, &Manifest::new(checkpoint, &data, events_bytes));
        files::write_whole(&self.data(tag), &data, "checkpoint")?;
        failpoints::at("checkpoint-before-manifest");
        files::write_whole(&self.manifest(tag), manifest.as_bytes(), "checkpoint")?;
        self.prune()
    }

    /// The parameter tags of the checkpoints that have a manifest, damaged or not, newest first.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn tags(&self) -> Result<Vec<u64>, Failure> {
        self.tags_of(MANIFEST)
    }

    /// Reads a checkpoint and checks all of it.
    ///
    /// # Errors
    /// If it is damaged, or of a newer format, or if the system cannot read it.
    pub fn read(&self, tag: u64, job: &Job) -> Result<Read, Unreadable> {
        let path = self.manifest(tag);
        let damaged = |what: String| Unreadable::Damaged(Damaged { path: path.clone(), what });
        let text = read_of(&path, MANIFEST_BYTES)?.ok_or_else(|| damaged("missing".to_string()))?;
        let manifest: Manifest = seal::open(&text, FORMAT).map_err(|broken| match broken {
            Broken::Damaged(what) => damaged(what),
            Broken::Newer { .. } => Unreadable::Refused(of_run(&path, broken)),
        })?;
        if manifest.parameter_tag != tag {
            return Err(damaged(format!("it is the manifest of {}", name(manifest.parameter_tag, MANIFEST))));
        }
        let (parameters, optimizer) = self.numbers(&manifest, job)?;
        let events_bytes = manifest.events_bytes;
        Ok(Read { path, checkpoint: manifest.checkpoint(parameters, optimizer), events_bytes })
    }

    /// The newest whole checkpoint, or `None` if there are no checkpoints at all.
    ///
    /// # Errors
    /// If there are checkpoints and none is whole (the error names all of them), or if one is of a newer format, or
    /// the system cannot read it.
    pub fn newest(&self, job: &Job) -> Result<Option<Newest>, Failure> {
        let mut damaged = Vec::new();
        for tag in self.tags()? {
            match self.read(tag, job) {
                Ok(read) => {
                    damaged.extend(self.unfinished(tag)?);
                    return Ok(Some(Newest { read, damaged }));
                }
                Err(Unreadable::Damaged(one)) => damaged.push(one),
                Err(Unreadable::Refused(error)) => return Err(error),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        let damaged: Vec<_> = damaged.iter().map(ToString::to_string).collect();
        let what = format!("no checkpoint is whole: {} (--overwrite starts over)", damaged.join("; "));
        Err(of_run(&self.directory, what))
    }

    /// Removes files newer than this checkpoint: they are damaged, or were never completed.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn remove_newer_than(&self, tag: u64) -> Result<(), Failure> {
        files::remove_temporary(&self.directory)?;
        self.remove(|other| other > tag)
    }

    /// Removes the oldest checkpoints beyond the number kept, and data files without a manifest.
    fn prune(&self) -> Result<(), Failure> {
        let Some(oldest) = self.tags()?.into_iter().take(self.kept).next_back() else { return Ok(()) };
        self.remove(|tag| tag < oldest)
    }

    fn remove(&self, which: impl Fn(u64) -> bool) -> Result<(), Failure> {
        // The manifest first: a manifest without its data file would count as damaged.
        for suffix in [MANIFEST, DATA] {
            for tag in self.tags_of(suffix)?.into_iter().filter(|&tag| which(tag)) {
                files::remove(&self.directory.join(name(tag, suffix)))?;
            }
        }
        Ok(())
    }

    fn numbers(&self, manifest: &Manifest, job: &Job) -> Result<(Vec<f32>, OptimizerState), Unreadable> {
        let path = self.data(manifest.parameter_tag);
        let (name, expected) = (&manifest.data.file, &manifest.data.sha256);
        let damaged = |what: String| Unreadable::Damaged(Damaged { path: self.directory.join(name), what });
        if path != self.directory.join(name) {
            return Err(damaged(format!(
                "not the data file of {}",
                self.manifest(manifest.parameter_tag).display()
            )));
        }
        let missing = || format!("missing, and {} names it", self.manifest(manifest.parameter_tag).display());
        let data = read_of(&path, DATA_BYTES)?.ok_or_else(|| damaged(missing()))?;
        if hex::encode(Sha256::digest(&data)) != *expected {
            let what =
                format!("damaged: its {} bytes are not those whose SHA-256 its manifest has", data.len());
            return Err(damaged(what));
        }
        let (parameters, optimizer) = decode(&data, job).map_err(damaged)?;
        if weights_sha256(bytemuck::cast_slice(&parameters)) != manifest.weights_sha256 {
            return Err(damaged("its parameters are not those whose SHA-256 its manifest has".to_string()));
        }
        if manifest.optimizer.kind != optimizer.kind().name() {
            return Err(damaged(format!("its manifest is of the optimizer {}", manifest.optimizer.kind)));
        }
        Ok((parameters, optimizer))
    }

    /// Data files without a manifest that are newer than this checkpoint: left by a crash, or by a manual deletion.
    fn unfinished(&self, newer_than: u64) -> Result<Vec<Damaged>, Failure> {
        let finished = self.tags()?;
        let alone = |tag: &u64| *tag > newer_than && !finished.contains(tag);
        let damaged = |tag| Damaged {
            path: self.manifest(tag),
            what: format!("missing, though {} is there: the checkpoint was not finished", name(tag, DATA)),
        };
        Ok(self.tags_of(DATA)?.into_iter().filter(alone).map(damaged).collect())
    }

    fn tags_of(&self, suffix: &str) -> Result<Vec<u64>, Failure> {
        let mut tags: Vec<u64> =
            files::names(&self.directory)?.iter().filter_map(|found| tag(found, suffix)).collect();
        tags.sort_unstable_by(|a, b| b.cmp(a));
        Ok(tags)
    }

    fn manifest(&self, tag: u64) -> PathBuf {
        self.directory.join(name(tag, MANIFEST))
    }

    fn data(&self, tag: u64) -> PathBuf {
        self.directory.join(name(tag, DATA))
    }
}

/// The content of a checkpoint's file, if it exists. An I/O error (too many open files, a failing disk) says nothing
/// about the content: the file may be whole, and must not be skipped.
fn read_of(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Unreadable> {
    let refused = |error| {
        let remedy =
            "it may be whole, so no older one is taken: make it readable and try again, or remove it";
        Unreadable::Refused(of_run(path, format!("cannot be read: {error} ({remedy})")))
    };
    files::if_there(files::read_at_most(path, limit)).map_err(refused)
}

const MANIFEST: &str = ".json";
const DATA: &str = ".safetensors";

/// Upper bounds on the sizes of the two files. An optimizer remembers three numbers for each parameter at most.
const MANIFEST_BYTES: u64 = 1 << 28;
const DATA_BYTES: u64 = 4 * model::MAX_FILE_BYTES;

/// The data file of the checkpoint after `tag` optimizer steps, in this run.
pub fn data_file(run: &Path, tag: u64) -> PathBuf {
    Checkpoints::of(run, KEPT).data(tag)
}

fn name(tag: u64, suffix: &str) -> String {
    format!("{tag:09}{suffix}")
}

/// The tag in a file's name, if this program could have given that name.
fn tag(found: &str, suffix: &str) -> Option<u64> {
    let tag = found.strip_suffix(suffix)?.parse().ok()?;
    (name(tag, suffix) == found).then_some(tag)
}

/// The manifest: everything except the bulk data.
#[derive(Serialize, Deserialize)]
struct Manifest {
    job_sha256: String,
    #[serde(with = "Form")]
    arithmetic: Arithmetic,
    shapes_fingerprint: String,
    epoch: u32,
    step: u32,
    parameter_tag: u64,
    partial: Partial,
    optimizer: Optimizer,
    #[serde(deserialize_with = "history::state_or_rows")]
    history: HistoryState,
    ledger: ledger::LedgerState,
    events_bytes: u64,
    participation: Participation,
    suspects: Participation,
    data: Data,
    weights_sha256: String,
}

/// The data file.
#[derive(Serialize, Deserialize)]
struct Data {
    file: String,
    sha256: String,
}

/// The optimizer. Its state is in the data file.
#[derive(Serialize, Deserialize)]
struct Optimizer {
    kind: String,
}

impl Manifest {
    fn new(checkpoint: &Checkpoint, data: &[u8], events_bytes: u64) -> Self {
        let checkpoint = checkpoint.clone();
        Self {
            job_sha256: checkpoint.job_sha256,
            arithmetic: checkpoint.arithmetic,
            shapes_fingerprint: checkpoint.shapes_fingerprint,
            epoch: checkpoint.position.epoch,
            step: checkpoint.position.step,
            parameter_tag: checkpoint.parameter_tag,
            partial: checkpoint.partial,
            optimizer: Optimizer { kind: checkpoint.optimizer.kind().to_string() },
            history: checkpoint.history,
            ledger: checkpoint.ledger,
            events_bytes,
            participation: checkpoint.participation,
            suspects: checkpoint.suspects,
            data: Data {
                file: name(checkpoint.parameter_tag, DATA),
                sha256: hex::encode(Sha256::digest(data)),
            },
            weights_sha256: weights_sha256(&checkpoint.parameters),
        }
    }

    fn checkpoint(self, parameters: Vec<f32>, optimizer: OptimizerState) -> Checkpoint {
        Checkpoint {
            job_sha256: self.job_sha256,
            arithmetic: self.arithmetic,
            shapes_fingerprint: self.shapes_fingerprint,
            position: Position { epoch: self.epoch, phase: Phase::Train, step: self.step },
            parameter_tag: self.parameter_tag,
            parameters: Bytes::copy_from_slice(bytemuck::cast_slice(&parameters)),
            optimizer,
            partial: self.partial,
            history: self.history,
            ledger: self.ledger,
            participation: self.participation,
            suspects: self.suspects,
        }
    }
}

/// The data file's content: the parameters and the optimizer's state.
fn encode(checkpoint: &Checkpoint, shape: &Model) -> Vec<u8> {
    let memory = checkpoint.optimizer.state().map(|(name, values)| (tensor_name(name), values));
    let encoded = model::encode_with(&checkpoint.values(), shape, memory);
    encoded.unwrap_or_else(|error| unreachable!("parameters of their own model: {error}"))
}

fn decode(data: &[u8], job: &Job) -> Result<(Vec<f32>, OptimizerState), String> {
    let model = Model::new(model::inputs(data, job)? as usize, &job.layers);
    let mut optimizer = OptimizerState::of_model(&job.compile.optimizer, &job.compile.schedule, &model);
    let memory = optimizer.state_mut().map(|(name, values)| (tensor_name(name), values));
    let parameters = model::decode_with(data, &model, memory)?;
    Ok((parameters, optimizer))
}

/// The name of a part of the optimizer's state in the data file.
fn tensor_name(memory: &str) -> String {
    format!("optimizer/{memory}")
}

/// Serializes a float as its bits, in hex: values used in later computation must be exact.
mod bits {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:016x}", value.to_bits()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(f64::from_bits).map_err(D::Error::custom)
    }
}

/// Many numbers as the bits of each.
mod all_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Bits(#[serde(with = "super::bits")] f64);

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|&value| Bits(value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Bits>::deserialize(deserializer)?.into_iter().map(|Bits(value)| value).collect())
    }
}
