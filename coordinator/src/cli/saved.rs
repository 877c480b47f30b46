//! A saved run, with everything needed to compute with it again.

use std::path::Path;
use std::sync::Arc;

use millefeuille_core::data::dataset::DataFile;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{BlasKernel, Job, Metric};
use millefeuille_core::learn::work::Workload;
use millefeuille_program::kernel::{self, Unusable};
use millefeuille_program::machine::Cores;
use millefeuille_program::{output, process};

use super::{Failed, Result};
use crate::cluster::load;
use crate::runs::checkpoint::Newest;
use crate::runs::receipt::Receipt;
use crate::runs::{SavedRun, TrainedModel, model, names};

/// A run that is done, with its data. Its workload counts the confusion matrix of classes too, whether the job asks for it
/// or not.
pub(super) struct Trained {
    pub(super) store: Arc<ShardStore>,
    pub(super) workload: Workload,
    pub(super) parameters: Vec<f32>,
}

/// Which parameters of a run to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those of the trained model.
    Model,
    /// Those of the newest checkpoint.
    NewestCheckpoint,
}

/// The model of a run that is done. Parameters that are not finite are an error.
pub(super) fn trained(run: &SavedRun, job: &Job) -> Result<TrainedModel> {
    let trained = run.trained(job)?;
    match model::not_finite(&trained.parameters, &trained.shape) {
        None => Ok(trained),
        Some(what) => {
            let path = run.path().join(names::MODEL);
            Err(Failure::at(FailureKind::Damaged, path.display(), what).into())
        }
    }
}

impl Trained {
    /// Reads a run and its data. `data` names the data's directory, if it has moved.
    pub(super) fn open(path: &Path, data: Option<&str>, which: Which) -> Result<Self> {
        let run = SavedRun::open(path)?;
        let job = with_data(run.job()?, data)?;
        own_kernel(&job)?;
        let (parameters, inputs) = match which {
            Which::Model => {
                let TrainedModel { parameters, described, .. } = trained(&run, &job)?;
                (parameters, described)
            }
            Which::NewestCheckpoint => (of_newest_checkpoint(&run, &job)?, None),
        };
        let dataset = crate::data::read_for(&job, inputs)?;
        let store = ShardStore::new(dataset, job.shards);
        let mut spec = load::spec(&job, &store);
        let confusion = Metric::ConfusionMatrix;
        if confusion.fits(spec.schema.target).is_ok() && !spec.metrics.contains(&confusion) {
            spec.metrics.push(confusion);
        }
        kernel::is_right_for(&spec)?;
        let workload = Workload::new(spec);
        check_data(&job, &workload, parameters.len())?;
        if let Some(receipt) = run.receipt()? {
            say_what_differs(&job, &store, &receipt);
        }
        Ok(Self { store: Arc::new(store), workload, parameters })
    }
}

/// The parameters of a run's newest checkpoint.
fn of_newest_checkpoint(run: &SavedRun, job: &Job) -> Result<Vec<f32>> {
    let Some(Newest { read, damaged }) = run.checkpoints().newest(job)? else {
        let path = run.path().display();
        return Err(Failure::at(FailureKind::Data, path, "there is no checkpoint yet").into());
    };
    damaged.iter().for_each(|damaged| output::warn(&format!("an older checkpoint is used: {damaged}")));
    process::say(&format!("evaluating {}, {}", read.path.display(), read.checkpoint.place(job.fit.epochs)));
    Ok(read.checkpoint.values())
}

/// Checks that the model takes samples of the data's size.
fn check_data(job: &Job, workload: &Workload, parameters: usize) -> Result {
    if workload.model().parameter_count() == parameters {
        return Ok(());
    }
    let what = format!(
        "samples of {} values, which the model was not trained with (name data of its own size)",
        workload.spec().inputs()
    );
    Err(Failure::at(FailureKind::Data, &job.data.source, what).into())
}

/// Warns if the data differs from the run's. Evaluating other data may be intended, but its
/// figures should not be mistaken for the run's own.
fn say_what_differs(job: &Job, store: &ShardStore, receipt: &Receipt) {
    let differs = |file: &&DataFile| receipt.data_sha256.get(&file.name) != Some(&file.sha256);
    let names: Vec<_> = store.files().iter().filter(differs).map(|file| file.name.as_str()).collect();
    if !names.is_empty() {
        let (source, names) = (&job.data.source, names.join(", "));
        output::warn(&format!("{source}: not the data that the model was trained with ({names} differ)"));
    }
}

/// Replaces the job's data directory, if one is given.
pub(super) fn with_data(mut job: Job, data: Option<&str>) -> Result<Job> {
    if let Some(data) = data {
        job.data.source = data
            .parse()
            .map_err(|error| Failed::new(FailureKind::Usage, format!("--data {data}: {error}")))?;
    }
    Ok(job)
}

/// Selects the kernel that computed the run, so that the results match bit for bit.
///
/// If that kernel is not available, as on an older CPU, results are still right to the last digits: the command warns
/// and uses this machine's own kernel.
pub(super) fn own_kernel(job: &Job) -> Result {
    let threads = Cores::of_this_process().usable();
    match kernel::own_kernel(&job.blas_kernel, threads) {
        Err(error @ (Unusable::Missing(_) | Unusable::NoGood { .. })) => {
            // Before any output, because this may restart the process.
            kernel::own_kernel(&BlasKernel::Native, threads)?;
            output::warn(&format!("{error} Computing with this machine's kernel: last digits may differ"));
            Ok(())
        }
        other => Ok(other?),
    }
}
