//! A saved run with all that computing with it again needs.

use std::path::Path;
use std::sync::Arc;

use millefeuille_core::data::dataset::DataFile;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::work::Course;
use millefeuille_program::kernel::{self, Unusable};
use millefeuille_program::machine::Cores;
use millefeuille_program::process;

use super::{Failed, Result};
use crate::cluster::load;
use crate::input;
use crate::runs::receipt::Receipt;
use crate::runs::{SavedRun, model, names};

/// A run that is done, its data read again.
pub(super) struct Trained {
    pub(super) store: Arc<ShardStore>,
    pub(super) course: Course,
    pub(super) parameters: Vec<f32>,
}

/// What is read of a run, and how many bytes of it are bearable.
const READ: [(&str, u64); 5] = [
    ("run.json", 1 << 20),
    (names::JOB, 1 << 20),
    (names::HISTORY, 1 << 28),
    (names::RECEIPT, 1 << 28),
    (names::MODEL, model::MAX_FILE_BYTES),
];

/// The run in this directory, once all that is read of it is known to be regular files of bearable size.
pub(super) fn open(path: &Path) -> Result<SavedRun> {
    READ.iter().try_for_each(|(name, limit)| check(&path.join(name), *limit))?;
    Ok(SavedRun::open(path)?)
}

/// Checks a file that may be there.
fn check(path: &Path, limit: u64) -> Result<(), Failure> {
    if !input::exists(path)? {
        return Ok(());
    }
    match input::check(path)? {
        len if len > limit => {
            let what = format!("{len} bytes are too many, {limit} the most (is it another file?)");
            Err(Failure::at(FailureKind::Data, path.display(), what))
        }
        _ => Ok(()),
    }
}

/// The parameters of a run that is done. Ones that nothing can be computed with are refused.
pub(super) fn parameters(run: &SavedRun, shape: &Model) -> Result<Vec<f32>> {
    let parameters = run.parameters(shape)?;
    match model::not_finite(&parameters, shape) {
        None => Ok(parameters),
        Some(what) => {
            let path = run.path().join(names::MODEL);
            Err(Failure::at(FailureKind::Damaged, path.display(), what).into())
        }
    }
}

impl Trained {
    /// Reads a run and its data. `data` names the data's directory where it is not where it was.
    pub(super) fn open(path: &Path, data: Option<&str>) -> Result<Self> {
        let run = open(path)?;
        let job = with_data(run.job()?, data)?;
        own_kernel(&job)?;
        let dataset = crate::data::read(&job.data.source)?;
        let store = ShardStore::new(dataset, job.data.validation_split, job.shards);
        let spec = load::spec(&job, &store);
        kernel::is_right_for(&spec)?;
        let course = Course::new(spec);
        let parameters = parameters(&run, course.model())?;
        if let Some(receipt) = run.receipt()? {
            say_what_differs(&job, &store, &receipt);
        }
        Ok(Self { store: Arc::new(store), course, parameters })
    }
}

/// Figures over other data than the model was trained with may be just what is wanted, but nobody should take them for
/// those of the run.
fn say_what_differs(job: &Job, store: &ShardStore, receipt: &Receipt) {
    let differs = |file: &&DataFile| receipt.data_sha256.get(&file.name) != Some(&file.sha256);
    let names: Vec<_> = store.files().iter().filter(differs).map(|file| file.name.as_str()).collect();
    if !names.is_empty() {
        let (source, names) = (&job.data.source, names.join(", "));
        process::say(&format!(
            "warning: {source}: not the data that the model was trained with ({names} differ)"
        ));
    }
}

/// The job, its data in this directory if one is named.
pub(super) fn with_data(mut job: Job, data: Option<&str>) -> Result<Job> {
    if let Some(data) = data {
        job.data.source = data
            .parse()
            .map_err(|error| Failed::new(FailureKind::Usage, format!("--data {data}: {error}")))?;
    }
    Ok(job)
}

/// Computes with the kernel that the run was computed with, so that the same bits come out.
///
/// Where that kernel can't be had, as on an older CPU, answers are still right to the last digits: that is said, and
/// this machine's own kernel taken.
pub(super) fn own_kernel(job: &Job) -> Result {
    let threads = Cores::of_this_process().usable();
    match kernel::own_kernel(&job.blas_kernel, threads) {
        Err(error @ (Unusable::Missing(_) | Unusable::NoGood { .. })) => {
            // Before anything is said: this may start the process again.
            kernel::own_kernel(&BlasKernel::Native, threads)?;
            process::say(&format!(
                "warning: {error} Computing with this machine's kernel: last digits may differ"
            ));
            Ok(())
        }
        other => Ok(other?),
    }
}
