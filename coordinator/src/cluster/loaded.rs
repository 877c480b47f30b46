//! A job with all its data.

use std::sync::Arc;

use millefeuille_core::control::Facts;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::job::Job;
use millefeuille_core::learn::spec::Spec;

use crate::init::InitFile;

/// A job that is ready to be trained.
#[derive(Debug)]
pub struct Loaded {
    /// The job, its kernel resolved to a name.
    pub job: Job,
    /// What workers must know of the job.
    pub spec: Spec,
    /// What the control machine must know of the job.
    pub facts: Facts,
    /// The file that the parameters begin with, until the run has a copy.
    pub init: Option<InitFile>,
    /// The parameters before the first step.
    pub parameters: Vec<f32>,
    /// Its samples.
    pub store: Arc<ShardStore>,
    /// The kernel that OpenBLAS picks on this machine by itself.
    pub openblas_picks: String,
}
