//! Makes a job ready: reads its data, partitions it into shards, finds out which arithmetic its workers need, and
//! resumes its run if an earlier coordinator process began it.

use std::sync::Arc;

use millefeuille_core::control::{Facts, Start};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::schema::Schema;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::view::EpochRow;
use millefeuille_program::kernel::{JobProbe, Probed, Unusable};

pub use super::loaded::Loaded;
use super::training::Training;
use crate::runs::{Resumed, RunDir, RunState};

/// The outcome of [`make_ready`].
#[derive(Debug)]
pub struct Ready {
    /// The run directory, given back.
    pub run: Option<RunDir>,
    /// The job, ready to be trained, or what is wrong with it.
    pub(super) training: Result<Box<Beginning>, Failure>,
}

/// A job that is about to be trained.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) training: Training,
    pub(super) from: Start,
    /// The history rows of its run so far.
    pub(super) history: Vec<EpochRow>,
    /// Where it resumes, in words; `None` if it starts at the beginning.
    pub(super) resumed: Option<String>,
}

/// Reads everything that a job needs, and begins or resumes its run. Slow: not for the driver's task.
pub fn make_ready(job: Job, mut run: RunDir) -> Ready {
    let training = load(job).and_then(|loaded| {
        let resumed = begin_or_resume(&mut run, &loaded)?;
        Ok(Box::new(Beginning::new(loaded, resumed)))
    });
    Ready { run: Some(run), training }
}

impl Beginning {
    fn new(loaded: Loaded, resumed: Option<Resumed>) -> Self {
        let from = resumed.as_ref().map_or(Start::BEGINNING, Resumed::start);
        let history = resumed.as_ref().map(Resumed::history).unwrap_or_default();
        let text = resumed.as_ref().map(|resumed| resumed.text.clone());
        Self { training: Training::new(loaded, resumed), from, history, resumed: text }
    }
}

fn begin_or_resume(run: &mut RunDir, loaded: &Loaded) -> Result<Option<Resumed>, Failure> {
    match run.record().state {
        RunState::Queued => run.begin(&loaded.job).map(|()| None),
        RunState::Ended { .. } if !run.has_begun() => run.begin(&loaded.job).map(|()| None),
        RunState::Running | RunState::Ended { .. } => {
            let Facts { arithmetic, shapes_fingerprint, .. } = &loaded.facts;
            run.resume(&loaded.job_sha256(), arithmetic, shapes_fingerprint).map(Some)
        }
    }
}

impl Loaded {
    /// Hex SHA-256 of everything that determines the numbers.
    pub fn job_sha256(&self) -> String {
        self.job.sha256(&self.store.file_hashes(), &self.job.blas_kernel.to_string())
    }
}

/// Reads and checks everything that a job needs. Slow: not for the driver's task.
///
/// # Errors
/// What is wrong with the data, or with the kernel.
pub fn load(mut job: Job) -> Result<Loaded, Failure> {
    job.data.source = crate::data::absolute(&job.data.source)?;
    // The kernel is probed while the data is read; errors in the data are reported first.
    let probe = JobProbe::begin(&job.blas_kernel);
    let dataset = crate::data::read(&job.data.source)?;
    job.check_target(dataset.schema.target)?;
    let store = ShardStore::new(dataset, job.data.validation_split, job.shards);
    let spec = spec(&job, &store);
    job.check_size(spec.inputs() as u32).map_err(|what| Failure::new(FailureKind::Usage, what))?;
    if spec.sizes.train == 0 {
        let what = format!("validation_split = {} leaves no sample to train on", job.data.validation_split);
        return Err(Failure::new(FailureKind::NoTrainingSamples, what));
    }
    let probed = probe.and_then(|probe| probe.end(&spec)).map_err(unusable)?;
    let facts = facts(&job, &spec, &probed);
    let Probed { arithmetic, openblas_picks, .. } = probed;
    let job = Job { blas_kernel: BlasKernel::Named(arithmetic.kernel), ..job };
    Ok(Loaded { job, spec, facts, store: Arc::new(store), openblas_picks })
}

/// The failure for a kernel that cannot be used.
pub fn unusable(error: Unusable) -> Failure {
    let kind = match error {
        Unusable::Missing(_) => FailureKind::Usage,
        Unusable::NoGood { .. } | Unusable::None(_) => FailureKind::CannotCompute,
        Unusable::Unexpected(_) => FailureKind::Unexpected,
    };
    Failure::new(kind, error.to_string())
}

/// What workers must know of a job with this data.
pub fn spec(job: &Job, store: &ShardStore) -> Spec {
    job.spec(Schema::clone(store.schema()), store.sizes())
}

fn facts(job: &Job, spec: &Spec, probed: &Probed) -> Facts {
    let Probed { arithmetic, shapes_fingerprint, .. } = probed;
    let kernel_request = match job.blas_kernel {
        BlasKernel::Environment => BlasKernel::Environment.to_string(),
        BlasKernel::Native | BlasKernel::Named(_) => arithmetic.kernel.clone(),
    };
    Facts {
        epochs: job.fit.epochs,
        plan: Plan::new(spec.sizes.train, spec.batch_size, spec.shards),
        shards: spec.shards,
        sizes: spec.sizes,
        sample_bytes: spec.schema.sample_bytes() as u64,
        kernel_request,
        arithmetic: arithmetic.clone(),
        shapes_fingerprint: shapes_fingerprint.clone(),
    }
}
