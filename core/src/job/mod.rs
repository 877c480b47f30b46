//! A job: what to train, checked and with all defaults filled in.
//!
//! A job is read from a TOML file, from flags, or from both. Every key may be omitted except those of a layer:
//!
//! ```text
//! Job::default() ── file ──▶ overlaid ── flags ──▶ overlaid ── check ──▶ a valid Job
//! (the article's)  (`read`)           (`overrides`)           (`check`)
//! ```
//!
//! Each value keeps its *place*: the line of the file, or the flag. So an error names both the value and where to
//! change it (`error`), whichever rule is broken. The result of [`Job::resolve`] is valid; [`Job::validate`]
//! checks a job built by hand.
//!
//! `write` turns a job back into text: [`Job::to_toml`] gives the text that is kept in a run directory and sent
//! to a cluster, and that reads back as an equal job. `identity` defines when two jobs are the same job:
//! [`Job::sha256`] covers what determines the trained numbers, [`Job::differences`] names every key that differs.
//!
//! `keys` says which keys there are, for reading, for errors and for the documentation.
//!
//! Not part of this module: reading files, making paths absolute, checking whether OpenBLAS knows a kernel, and
//! everything about the cluster. Workers, slots and intervals are not part of a job, because they do not change
//! the model.

mod check;
mod error;
mod identity;
pub mod keys;
mod names;
mod overrides;
mod read;
mod write;

pub use check::{POSITIVE, SHARDS};
pub use error::{JobError, Places};
pub use names::{ParseNameError, parse_number, parse_scale, parse_whole};
pub use overrides::Overrides;
pub use read::MAX_BYTES;

use std::path::PathBuf;

pub use crate::data::formats::DataFormat;
use crate::data::formats::idx::mnist;
pub use crate::data::normalize::Normalize;
use crate::data::prepare::Recipe;
pub use crate::data::request::{ColumnName, Missing, TableLayout, Wanted};
use crate::data::schema::{Schema, Target};
use crate::data::split::Sizes;
pub use crate::data::weights::ClassWeights;
use crate::learn::accumulation::Accumulation;
pub use crate::learn::activations::Activation;
pub use crate::learn::heads::{Loss, LossOptions};
pub use crate::learn::initializers::Initializer;
pub use crate::learn::layers::{Dense, Layer, Normalization, Regularizer};
use crate::learn::limits;
pub use crate::learn::metrics::Metric;
use crate::learn::model::Model;
pub use crate::learn::monitor::Monitor;
pub use crate::learn::optimizers::{Optimizer, OptimizerKind};
pub use crate::learn::schedules::{Schedule, ScheduleKind};
use crate::learn::spec::Spec;
pub use crate::learn::stopping::{EarlyStopping, StopAt, Stopping};

/// The default seed.
pub const DEFAULT_SEED: u64 = 42;

/// A complete, valid job. Two equal jobs over equal data give equal models, bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// A name, for display and for the run directory.
    pub name: String,
    /// The seed of every random number.
    pub seed: u64,
    /// How many shards each split is partitioned into.
    pub shards: u32,
    /// Multiplies `fit.batch_size`, for batch sizes given per replica. Part of the job, not of the cluster.
    pub replicas: u32,
    /// The BLAS kernel that computes the job.
    pub blas_kernel: BlasKernel,
    /// The data to train on.
    pub data: Data,
    /// The layers, from input to output.
    pub layers: Vec<Layer>,
    /// What the parameters are before the first step; `None` if they are all random.
    pub init: Option<Init>,
    /// Loss, optimizer and metrics.
    pub compile: Compile,
    /// Mini-batches and epochs.
    pub fit: Fit,
}

/// The BLAS kernel that computes a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlasKernel {
    /// The kernel chosen for the CPU where the job first starts.
    Native,
    /// The kernel that the `OPENBLAS_*` environment variables select.
    Environment,
    /// An OpenBLAS core name, such as `Haswell`.
    Named(String),
}

/// The data of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The source of the samples.
    pub source: Source,
    /// Its format; `None` for that of its ending.
    pub format: Option<DataFormat>,
    /// The columns of a table.
    pub table: TableLayout,
    /// A test set of its own; `None` for that of the source, if it has one.
    pub test: Option<PathBuf>,
    /// The share of the samples, at the end of the source, that is the test set, if there is no other. In `[0, 1)`.
    pub test_split: f64,
    /// A validation set of its own.
    pub validation: Option<PathBuf>,
    /// The seed of the order of the samples before they are split; `None` for the order of the source.
    pub shuffle_split: Option<u64>,
    /// How features are normalised.
    pub normalize: Normalize,
    /// The factor that multiplies every input value. 1 keeps 0…255, as the article does; 1/255 maps to 0…1.
    pub scale: f32,
    /// The share of the training samples, at the end of the file, that is used for validation. In `[0, 1)`.
    pub validation_split: f64,
}

/// The source of the samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The MNIST files that are built into the program.
    Mnist,
    /// A file, or a directory.
    Path(PathBuf),
}

/// The parameters that a job begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// A safetensors file, or the directory of a run.
    pub from: PathBuf,
    /// The layers, by name, whose parameters are those of the file; all of them if none is named.
    pub layers: Vec<String>,
}

/// The loss, the optimizer and the metrics; Keras' `compile`.
#[derive(Clone, Debug, PartialEq)]
pub struct Compile {
    /// The loss.
    pub loss: Loss,
    /// The options of the loss.
    pub options: LossOptions,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// The weight of each class in training; the others weigh 1.
    pub class_weight: ClassWeights,
    /// The metrics reported besides the loss.
    pub metrics: Vec<Metric>,
}

/// Mini-batches and epochs; Keras' `fit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The number of samples in a step, over the whole cluster, before `replicas` multiplies it.
    pub batch_size: u32,
    /// The number of epochs.
    pub epochs: u32,
    /// Whether each epoch has its own random order; otherwise samples are in file order.
    pub shuffle: bool,
    /// How many mini-batches make a step of the optimizer.
    pub accumulate: u32,
    /// When training stops before its last epoch.
    pub stopping: Stopping,
}

/// The article's data: MNIST as it is, its last fifth for validation.
impl Default for Data {
    fn default() -> Self {
        Self {
            source: Source::Mnist,
            format: None,
            table: TableLayout::default(),
            test: None,
            test_split: 0.0,
            validation: None,
            shuffle_split: None,
            normalize: Normalize::None,
            scale: 1.0,
            validation_split: 0.2,
        }
    }
}

/// The job of the article: two hidden layers of sigmoids on MNIST, five epochs of plain SGD.
impl Default for Job {
    fn default() -> Self {
        use Activation::{Sigmoid, Softmax};
        Self {
            name: "article".to_owned(),
            seed: DEFAULT_SEED,
            shards: 8,
            replicas: 1,
            blas_kernel: BlasKernel::Native,
            data: Data::default(),
            layers: vec![
                Layer::dense(256, Sigmoid),
                Layer::dense(128, Sigmoid),
                Layer::Dropout { rate: 0.5 },
                Layer::dense(10, Softmax),
            ],
            init: None,
            compile: Compile {
                loss: Loss::CategoricalCrossentropy,
                options: LossOptions::default(),
                optimizer: Optimizer::sgd(0.1),
                schedule: Schedule::default(),
                class_weight: ClassWeights::new(),
                metrics: vec![Metric::Accuracy],
            },
            fit: Fit {
                batch_size: 500,
                epochs: 5,
                shuffle: true,
                accumulate: 1,
                stopping: Stopping::default(),
            },
        }
    }
}

impl Job {
    /// The number of samples in a step, over the whole cluster: `batch_size × replicas`. Fits in 32 bits for a
    /// valid job.
    pub fn batch(&self) -> u64 {
        u64::from(self.fit.batch_size) * u64::from(self.replicas)
    }

    /// The number of parameters of the model over `inputs` input values.
    pub fn parameters(&self, inputs: u32) -> u64 {
        limits::parameters(inputs.into(), &self.layers)
    }

    /// Which targets its loss can learn with its output layer.
    pub fn wanted(&self) -> Wanted {
        let loss = self.compile.loss;
        let units = self.outputs();
        let outputs = |classes| loss.outputs(Target::Class { classes }).ok();
        Wanted {
            classes: outputs(2).is_some(),
            numbers: loss.outputs(Target::Reals { width: 2 }).is_ok(),
            class_count: [units, 2]
                .into_iter()
                .find(|&classes| classes > 1 && outputs(classes) == Some(units)),
        }
    }

    /// The target that its loss learns with its output layer.
    pub fn target(&self) -> Target {
        match self.wanted().class_count {
            Some(classes) => Target::Class { classes },
            None => Target::Reals { width: self.outputs() },
        }
    }

    fn outputs(&self) -> u32 {
        match self.layers.last() {
            Some(Layer::Dense(dense)) => dense.units,
            Some(Layer::LayerNormalization(_) | Layer::Dropout { .. }) | None => 0,
        }
    }

    /// The names of the layers that have parameters, as Keras and `show model` name them.
    pub fn layer_names(&self) -> Vec<String> {
        let rows = Model::new(1, &self.layers).summary().into_iter();
        rows.filter(|row| row.parameters > 0).map(|row| row.name).collect()
    }

    /// The paths of the data and of the first parameters, as far as there are any.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.data.paths_mut().chain(self.init.as_mut().map(|init| &mut init.from))
    }

    /// Which mini-batches make a step of the optimizer, in epochs of so many.
    pub fn accumulation(&self, batches: u32) -> Accumulation {
        Accumulation { batches: self.fit.accumulate, of_epoch: batches }
    }

    /// What a worker must know of the job, for samples of this schema.
    pub fn spec(&self, schema: Schema, sizes: Sizes) -> Spec {
        Spec {
            seed: self.seed,
            shards: self.shards,
            batch_size: self.batch() as u32,
            shuffle: self.fit.shuffle,
            scale: self.data.scale,
            schema,
            layers: self.layers.clone(),
            loss: self.compile.loss,
            options: self.compile.options,
            metrics: self.compile.metrics.clone(),
            sizes,
        }
    }
}

impl Data {
    /// The format of the source; `None` of the data that is built in.
    pub fn format_of_source(&self) -> Option<DataFormat> {
        match &self.source {
            Source::Mnist => None,
            Source::Path(path) => Some(self.format.unwrap_or_else(|| DataFormat::of(path))),
        }
    }

    /// How samples become a data set, for a model with this loss and these layers.
    pub fn recipe(&self, wanted: Wanted) -> Recipe {
        Recipe {
            wanted,
            missing: self.table.missing,
            normalize: self.normalize,
            test_split: self.test_split,
            validation_split: self.validation_split,
            shuffle_split: self.shuffle_split,
        }
    }

    /// The paths of the source, the validation and the test set, as far as there are any.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let source = match &mut self.source {
            Source::Mnist => None,
            Source::Path(path) => Some(path),
        };
        source.into_iter().chain(&mut self.validation).chain(&mut self.test)
    }
}

impl Source {
    /// The minimum number of inputs of a sample, as far as it is known before the data is read.
    pub fn least_inputs(&self) -> u32 {
        match self {
            Self::Mnist => mnist::INPUTS,
            Self::Path(_) => 1,
        }
    }

    /// The target, if it is known before the data is read.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Mnist => Some(Target::Class { classes: 10 }),
            Self::Path(_) => None,
        }
    }
}
