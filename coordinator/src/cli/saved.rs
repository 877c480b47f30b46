//! A saved run with all that computing with it again needs.

use std::path::Path;
use std::sync::Arc;

use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_worker::process::{self, exit};

use super::{Failed, Result};
use crate::cluster::load;
use crate::runs::SavedRun;

/// A run that is done, its data read again.
pub(super) struct Trained {
    pub(super) store: Arc<ShardStore>,
    pub(super) spec: Spec,
    pub(super) model: Model,
    pub(super) parameters: Vec<f32>,
}

impl Trained {
    /// Reads a run and its data. `data` names the data's directory where it is not where it was.
    pub(super) fn open(path: &Path, data: Option<&str>) -> Result<Self> {
        let run = SavedRun::open(path)?;
        let job = with_data(run.job()?, data)?;
        own_kernel(&job)?;
        let dataset =
            crate::data::read(&job.data.source).map_err(|message| Failed::new(exit::DATA, message))?;
        let store = ShardStore::new(dataset, job.data.validation_split, job.shards);
        let spec = load::spec(&job, &store);
        let model = Model::new(spec.inputs as usize, &spec.layers);
        let parameters = run.parameters(&model)?;
        Ok(Self { store: Arc::new(store), spec, model, parameters })
    }
}

/// The job, its data in this directory if one is named.
pub(super) fn with_data(mut job: Job, data: Option<&str>) -> Result<Job> {
    if let Some(data) = data {
        job.data.source =
            data.parse().map_err(|error| Failed::new(exit::USAGE, format!("--data {data}: {error}")))?;
    }
    Ok(job)
}

/// Computes with the kernel that the run was computed with, so that the same bits come out.
///
/// Where that kernel can't be had, as on an older CPU, answers are still right to the last digits: that is said, and
/// this machine's own kernel taken.
pub(super) fn own_kernel(job: &Job) -> Result {
    if let Err(message) = process::decide(&job.blas_kernel) {
        eprintln!("warning: {message} Computing with this machine's kernel: last digits may differ");
        return Ok(());
    }
    process::own_kernel(&job.blas_kernel).map_err(|message| Failed::new(exit::USAGE, message))
}
