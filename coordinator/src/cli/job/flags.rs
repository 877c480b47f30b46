//! The job of a command: its file, and the flags that override it.

use std::path::Path;

use clap::{ArgAction, Args as ClapArgs};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{
    BlasKernel, Job, MAX_BYTES, Overrides, POSITIVE, ParseNameError, Places, SHARDS, parse_number,
    parse_scale, parse_whole,
};

use crate::cli::given::Given;
use crate::cli::{Failed, Result};

/// What flags say about where a job's data is.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Job")]
pub(in crate::cli) struct SourceFlag {
    /// `mnist`, or a directory with the four IDX files, gzipped or raw
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
}

/// What flags say about a job's data.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Job")]
pub(in crate::cli) struct DataFlags {
    #[command(flatten)]
    source: SourceFlag,
    /// Factor of every input value: a number, or a fraction such as 1/255
    #[arg(long, env = "MILLEFEUILLE_SCALE", value_parser = parse_scale, allow_hyphen_values = true)]
    scale: Option<f32>,
    /// Fraction of the training samples, at their end, that is used for validation
    #[arg(long, value_name = "SHARE", env = "MILLEFEUILLE_VALIDATION_SPLIT", value_parser = parse_number::<f64>, allow_hyphen_values = true)]
    validation_split: Option<f64>,
}

/// What flags say about a job; a flag wins over the job file.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Job")]
pub(in crate::cli) struct JobFlags {
    /// Name of the run directory
    #[arg(long, env = "MILLEFEUILLE_NAME")]
    name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) data: DataFlags,
    /// Number of epochs
    #[arg(long, env = "MILLEFEUILLE_EPOCHS", value_parser = positive, allow_hyphen_values = true)]
    epochs: Option<u32>,
    /// Samples in a step, over the whole cluster
    #[arg(long, env = "MILLEFEUILLE_BATCH_SIZE", value_parser = positive, allow_hyphen_values = true)]
    batch_size: Option<u32>,
    /// Factor of the batch size; has nothing to do with the number of workers
    #[arg(long, env = "MILLEFEUILLE_REPLICAS", value_parser = positive, allow_hyphen_values = true)]
    replicas: Option<u32>,
    /// The optimizer's learning rate
    #[arg(long, value_name = "RATE", env = "MILLEFEUILLE_LEARNING_RATE", value_parser = parse_number::<f32>, allow_hyphen_values = true)]
    learning_rate: Option<f32>,
    /// Number of shards that each split is partitioned into
    #[arg(long, env = "MILLEFEUILLE_SHARDS", value_parser = shards, allow_hyphen_values = true)]
    shards: Option<u32>,
    /// The seed of every random number
    #[arg(long, env = "MILLEFEUILLE_SEED", value_parser = seed, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Whether each epoch shuffles the samples
    #[arg(long, value_name = "true|false", env = "MILLEFEUILLE_SHUFFLE", action = ArgAction::Set)]
    shuffle: Option<bool>,
    /// The BLAS kernel: native, environment, or an OpenBLAS core name
    #[arg(long, value_name = "KERNEL", env = "MILLEFEUILLE_BLAS_KERNEL")]
    blas_kernel: Option<BlasKernel>,
    /// Any key of a job file: compile.optimizer.type=adam, fit.accumulate=4; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn positive(text: &str) -> Result<u32, ParseNameError> {
    parse_whole(text, POSITIVE)
}

fn shards(text: &str) -> Result<u32, ParseNameError> {
    parse_whole(text, SHARDS)
}

fn seed(text: &str) -> Result<u64, ParseNameError> {
    parse_whole(text, 0..=u64::MAX)
}

impl JobFlags {
    fn overrides(&self, given: &Given) -> Overrides {
        let Self { name, data, epochs, batch_size, .. } = self.clone();
        let Self { replicas, learning_rate, shards, seed, shuffle, blas_kernel, set, .. } = self.clone();
        Overrides {
            name,
            epochs,
            batch_size,
            replicas,
            learning_rate,
            shards,
            seed,
            shuffle,
            blas_kernel,
            set,
            ..data.overrides(given)
        }
    }

    /// The checked job from this file and these flags.
    pub(in crate::cli) fn resolve(&self, file: Option<&Path>, given: &Given) -> Result<Job> {
        resolve(file, &self.overrides(given)).map(|(job, _)| job)
    }

    /// As [`resolve`](Self::resolve), for a command that reads the job's data on this machine.
    pub(in crate::cli) fn resolve_here(&self, file: Option<&Path>, given: &Given) -> Result<Job> {
        resolve_here(file, &self.overrides(given))
    }
}

impl DataFlags {
    fn overrides(&self, given: &Given) -> Overrides {
        let Self { source, scale, validation_split } = self.clone();
        Overrides { scale, validation_split, ..source.overrides(given) }
    }

    /// The checked job from this file and these flags.
    pub(in crate::cli) fn resolve(&self, file: Option<&Path>, given: &Given) -> Result<Job> {
        resolve_here(file, &self.overrides(given))
    }
}

impl SourceFlag {
    fn overrides(&self, given: &Given) -> Overrides {
        Overrides { data: self.data.clone(), places: given.places(), ..Overrides::default() }
    }

    /// The checked job from this file and this flag.
    pub(in crate::cli) fn resolve(&self, file: Option<&Path>, given: &Given) -> Result<Job> {
        resolve_here(file, &self.overrides(given))
    }
}

fn resolve(file: Option<&Path>, overrides: &Overrides) -> Result<(Job, Places)> {
    let text = file.map(read_job).transpose()?;
    let name = file.map(|path| path.display().to_string()).unwrap_or_default();
    let file = text.as_deref().map(|text| (name.as_str(), text));
    Ok(Job::resolve_with_places(file, overrides)?)
}

/// The checked job, whose data is read on this machine: a source that is not there is named where the job names it.
fn resolve_here(file: Option<&Path>, overrides: &Overrides) -> Result<Job> {
    let (job, places) = resolve(file, overrides)?;
    crate::data::check(&job.data).map_err(|(key, path, what)| {
        Failure::at(FailureKind::Data, places.place(key, path.display()), what)
    })?;
    Ok(job)
}

/// The text of a job file.
pub(in crate::cli) fn read_job(path: &Path) -> Result<String> {
    // One byte above the limit shows that the file is too long.
    let bytes = crate::input::read(path, |_| MAX_BYTES as u64 + 1);
    let bytes = bytes.map_err(|failure| Failed::from(failure).exits_as(FailureKind::Usage))?;
    String::from_utf8(bytes).map_err(|error| {
        let (path, at) = (path.display(), error.utf8_error().valid_up_to());
        Failed::new(
            FailureKind::Usage,
            format!("{path}: not text in UTF-8, from byte {at} on; is it another file?"),
        )
    })
}
