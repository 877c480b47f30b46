//! Resolves a job: flags override the file, which overrides the article's job.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::error::{Places, shown};
use super::{BlasKernel, Job, JobError, read};

/// The values that flags give for a job. `None` keeps the value of the file or the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--name`
    pub name: Option<String>,
    /// `--seed`
    pub seed: Option<u64>,
    /// `--shards`
    pub shards: Option<u32>,
    /// `--replicas`
    pub replicas: Option<u32>,
    /// `--blas-kernel`
    pub blas_kernel: Option<BlasKernel>,
    /// `--data`: `mnist` or the path of a directory.
    pub data: Option<String>,
    /// `--scale`; [`super::parse_scale`] reads it.
    pub scale: Option<f32>,
    /// `--validation-split`
    pub validation_split: Option<f64>,
    /// `--learning-rate`
    pub learning_rate: Option<f32>,
    /// `--batch-size`
    pub batch_size: Option<u32>,
    /// `--epochs`
    pub epochs: Option<u32>,
    /// `--shuffle`
    pub shuffle: Option<bool>,
    /// `--set`: values of any keys, each as `KEY=VALUE`, in order. They count more than the file, and less than the flags
    /// that have a key of their own.
    pub set: Vec<String>,
    /// For each flag, where its value was given and how it was written there, for errors. Without an entry,
    /// errors show the flag and its value.
    pub places: BTreeMap<String, String>,
}

impl Job {
    /// Resolves a job: the article's job, overlaid with a file (the name to show for it, and its text), then with
    /// flags.
    ///
    /// # Errors
    ///
    /// The first problem found: invalid TOML, an unknown key, a wrong type, or a value that breaks a rule.
    pub fn resolve(file: Option<(&str, &str)>, overrides: &Overrides) -> Result<Self, JobError> {
        Self::resolve_with_places(file, overrides).map(|(job, _)| job)
    }

    /// As [`resolve`](Self::resolve), with the place of each value: for what can be checked by the caller alone.
    ///
    /// # Errors
    ///
    /// See [`Job::resolve`].
    pub fn resolve_with_places(
        file: Option<(&str, &str)>,
        overrides: &Overrides,
    ) -> Result<(Self, Places), JobError> {
        let mut job = Self::default();
        let mut places = Places::default();
        if let Some((name, text)) = file {
            read::read(name, text, &mut job, &mut places)?;
        }
        overrides.apply(&mut job, &mut places)?;
        job.validate_at(&places)?;
        Ok((job, places))
    }

    /// Reads a job file; `name` is shown in errors. Same as [`Job::resolve`] without flags.
    ///
    /// # Errors
    ///
    /// See [`Job::resolve`].
    pub fn parse(name: &str, text: &str) -> Result<Self, JobError> {
        Self::resolve(Some((name, text)), &Overrides::default())
    }
}

impl Overrides {
    fn apply(&self, job: &mut Job, places: &mut Places) -> Result<(), JobError> {
        for given in &self.set {
            read::set(&format!("--set {}", shown(given)), given, job, places)?;
        }
        let Self { name, seed, shards, replicas, blas_kernel, data, .. } = self;
        let Self { scale, validation_split, learning_rate, batch_size, epochs, shuffle, .. } = self;
        let source =
            data.as_deref().map(str::parse).transpose().map_err(|error: super::ParseNameError| {
                JobError::new(self.place("--data", data.as_deref().unwrap_or_default()), error.to_string())
            })?;

        let mut overlay = Overlay { flags: self, places };
        overlay.set(&mut job.name, name, "name", "--name");
        overlay.set(&mut job.seed, seed, "seed", "--seed");
        overlay.set(&mut job.shards, shards, "shards", "--shards");
        overlay.set(&mut job.replicas, replicas, "replicas", "--replicas");
        overlay.set(&mut job.blas_kernel, blas_kernel, "blas_kernel", "--blas-kernel");
        overlay.set(&mut job.data.source, &source, "data.source", "--data");
        overlay.set(&mut job.data.scale, scale, "data.scale", "--scale");
        let split = &mut job.data.validation_split;
        overlay.set(split, validation_split, "data.validation_split", "--validation-split");
        if let Some(mut rate) = job.compile.optimizer.get("learning_rate") {
            overlay.set(&mut rate, learning_rate, "compile.optimizer.learning_rate", "--learning-rate");
            job.compile.optimizer.set("learning_rate", rate);
        }
        overlay.set(&mut job.fit.batch_size, batch_size, "fit.batch_size", "--batch-size");
        overlay.set(&mut job.fit.epochs, epochs, "fit.epochs", "--epochs");
        overlay.set(&mut job.fit.shuffle, shuffle, "fit.shuffle", "--shuffle");
        Ok(())
    }

    /// The place of a flag's value.
    fn place(&self, flag: &str, value: impl Display) -> String {
        self.places.get(flag).cloned().unwrap_or_else(|| format!("{flag} {}", shown(value)))
    }
}

/// Applies flags to a job.
struct Overlay<'a> {
    flags: &'a Overrides,
    places: &'a mut Places,
}

impl Overlay<'_> {
    /// Replaces `value` with the flag's value, if it was given, and records the flag as its place.
    fn set<T: Clone + Display>(&mut self, value: &mut T, given: &Option<T>, key: &str, flag: &str) {
        if let Some(given) = given {
            value.clone_from(given);
            self.places.insert(key, self.flags.place(flag, given));
        }
    }
}
