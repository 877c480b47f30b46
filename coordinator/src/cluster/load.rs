//! Makes a job ready, in two stages: [`read`] reads its data, partitions it into shards and finds out which arithmetic
//! its workers need; [`make_ready`] begins its run, or resumes it if an earlier coordinator process began it.
//!
//! Where data lies, calls may hang for ever. So each read has a thread of its own, which is left to itself when its job
//! is cancelled, or when no byte has come for as long as a worker may wait for samples. At most [`READS`] such threads
//! exist at once. The job's run directory stays with the driver meanwhile, so its end can be written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control::{Facts, JobId, Start};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::schema::Schema;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_program::kernel::{JobProbe, Probed, Unusable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use super::loaded::Loaded;
use super::training::Training;
use crate::data::Reading;
use crate::init::{self, InitFile};
use crate::runs::history::History;
use crate::runs::{Resumed, RunDir};

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
    /// The history of its run so far.
    pub(super) history: History,
    /// Where it resumes, in words; `None` if it starts at the beginning.
    pub(super) resumed: Option<String>,
}

/// Reads of data at once: the current job's, and those that were given up and have not returned.
const READS: usize = 8;
/// Time limit for a run's own files, of which the largest is a checkpoint.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// The threads that read data.
#[derive(Debug)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS)))
    }
}

impl Readers {
    /// Allows one more thread to read this job's data.
    ///
    /// # Errors
    /// If too many hang.
    pub(super) fn one_more(&self, job: &Job) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let what = format!(
                "is not read: {READS} reads of earlier jobs' data still hang (see to the file systems with that data)"
            );
            Failure::at(FailureKind::Data, &job.data.source, what)
        })
    }
}

/// The job whose data is being read. The read is given up when this is dropped.
pub(super) struct Loading {
    pub(super) job: JobId,
    pub(super) reading: Arc<Reading>,
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.reading.give_up();
    }
}

/// Reads everything that a job needs, with the first parameters from what its run has kept, in a thread that is left to itself if it hangs for longer than `limit`.
pub(super) async fn read(
    job: Job,
    kept_init: Option<PathBuf>,
    reading: Arc<Reading>,
    place: OwnedSemaphorePermit,
    limit: Duration,
) -> Result<Loaded, Failure> {
    let source = job.data.source.clone();
    let watched = Arc::clone(&reading);
    let read = move || {
        let _place = place;
        load(job, kept_init.as_deref(), &watched)
    };
    let stalled = || {
        let seconds = limit.as_secs_f64();
        let what = format!("nothing has come from it for {seconds} s (is the file system there?)");
        Failure::at(FailureKind::Data, &source, what)
    };
    unless_it_stalls(read, &reading, limit).await.unwrap_or_else(|| Err(stalled()))
}

/// What `work` comes to in a thread of its own; `None` if its reading stalls.
async fn unless_it_stalls<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    reading: &Reading,
    limit: Duration,
) -> Option<Result<T, Failure>> {
    let stalls = async {
        while reading.silence() < limit {
            tokio::time::sleep(limit.saturating_sub(reading.silence())).await;
        }
    };
    tokio::select! {
        worked = tokio::task::spawn_blocking(work) => Some(worked.unwrap_or_else(|error| {
            Err(Failure::new(FailureKind::Unexpected, format!("the data cannot be loaded: {error}")))
        })),
        () = stalls => None,
    }
}

/// Begins or resumes a run, in a thread of its own.
pub(super) async fn make_ready(mut run: RunDir, mut loaded: Loaded) -> Ready {
    let path = run.path().to_path_buf();
    let ready = move || {
        let training =
            begin_or_resume(&mut run, &mut loaded).map(|resumed| Box::new(Beginning::new(loaded, resumed)));
        Ready { run: Some(run), training }
    };
    let without_run = |failure| Ready { run: None, training: Err(failure) };
    match tokio::time::timeout(RUN_LIMIT, tokio::task::spawn_blocking(ready)).await {
        Ok(Ok(ready)) => ready,
        Ok(Err(error)) => {
            let what = format!("the run cannot be begun: {error}");
            without_run(Failure::new(FailureKind::Unexpected, what))
        }
        Err(_) => {
            let seconds = RUN_LIMIT.as_secs();
            let what = format!("cannot be read and written within {seconds} s (is the file system there?)");
            without_run(Failure::at(FailureKind::Data, path.display(), what))
        }
    }
}

impl Beginning {
    fn new(loaded: Loaded, resumed: Option<Resumed>) -> Self {
        let from = resumed.as_ref().map_or(Start::BEGINNING, Resumed::start);
        let history = resumed.as_ref().map(|resumed| resumed.history.clone()).unwrap_or_default();
        let text = resumed.as_ref().map(|resumed| resumed.text.clone());
        Self { training: Training::new(loaded, resumed), from, history, resumed: text }
    }
}

fn begin_or_resume(run: &mut RunDir, loaded: &mut Loaded) -> Result<Option<Resumed>, Failure> {
    let resumed = if run.is_to_resume() {
        let Facts { arithmetic, shapes_fingerprint, .. } = &loaded.facts;
        Some(run.resume(&loaded.job_sha256(), arithmetic, shapes_fingerprint)?)
    } else {
        run.begin(&loaded.job)?;
        None
    };
    loaded.init.take().map_or(Ok(()), |init| run.keep_init(&init.bytes))?;
    Ok(resumed)
}

impl Loaded {
    /// Hex SHA-256 of everything that determines the numbers.
    pub fn job_sha256(&self) -> String {
        self.job.sha256(&self.store.file_hashes(), &self.job.blas_kernel.to_string())
    }
}

/// Reads and checks everything that a job needs.
fn load(job: Job, kept_init: Option<&Path>, reading: &Reading) -> Result<Loaded, Failure> {
    let job = crate::data::absolute(&job)?;
    // The kernel is probed while the data is read; errors in the data are reported first.
    let probe = JobProbe::begin(&job.blas_kernel);
    let (store, spec, init) = read_checked(&job, kept_init, reading)?;
    let parameters = init::parameters(&job, &Model::new(spec.inputs(), &job.layers), init.as_ref())?;
    let probed = probe.and_then(|probe| probe.end(&spec)).map_err(unusable)?;
    let facts = facts(&job, &spec, &probed);
    let Probed { arithmetic, openblas_picks, .. } = probed;
    let job = Job { blas_kernel: BlasKernel::Named(arithmetic.kernel), ..job };
    Ok(Loaded { job, spec, facts, store: Arc::new(store), init, parameters, openblas_picks })
}

/// Reads a job's data and the file that its parameters begin with, and checks that the job fits the data. `kept_init` is the
/// run's own copy of that file.
///
/// # Errors
/// If the data or that file can't be read, or the job can't be trained with it.
pub fn read_checked(
    job: &Job,
    kept_init: Option<&Path>,
    reading: &Reading,
) -> Result<(ShardStore, Spec, Option<InitFile>), Failure> {
    let mut dataset = crate::data::read_watched(job, reading)?;
    let init = InitFile::read(job, kept_init, reading)?;
    dataset.files.extend(init.as_ref().map(|init| init.file.clone()));
    job.check_target(dataset.schema.target)?;
    let store = ShardStore::new(dataset, job.shards);
    let spec = spec(job, &store);
    job.check_size(spec.inputs() as u32).map_err(|what| Failure::new(FailureKind::Usage, what))?;
    if spec.sizes.train == 0 {
        let what = format!("validation_split = {} leaves no sample to train on", job.data.validation_split);
        return Err(Failure::new(FailureKind::NoTrainingSamples, what));
    }
    Ok((store, spec, init))
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
    let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
    Facts {
        epochs: job.fit.epochs,
        accumulation: job.accumulation(plan.steps()),
        plan,
        shards: spec.shards,
        sizes: spec.sizes,
        sample_bytes: spec.schema.sample_bytes() as u64,
        kernel_request,
        arithmetic: arithmetic.clone(),
        shapes_fingerprint: shapes_fingerprint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_call_that_brings_nothing_is_left_to_itself() {
        let (over, hangs) = mpsc::channel::<()>();
        let reading = Arc::new(Reading::default());
        let watched = Arc::clone(&reading);
        let work = move || {
            watched.during(|| hangs.recv().expect("the test ends it"));
            Ok(())
        };
        assert_eq!(unless_it_stalls(work, &reading, LIMIT).await, None);
        over.send(()).expect("the thread is still there");
    }

    #[tokio::test]
    async fn computing_is_no_stall() {
        let reading = Arc::new(Reading::default());
        let watched = Arc::clone(&reading);
        let work = move || {
            watched.during(|| ());
            let begun = std::time::Instant::now();
            while begun.elapsed() < 3 * LIMIT {
                std::thread::yield_now();
            }
            Ok(7)
        };
        assert_eq!(unless_it_stalls(work, &reading, LIMIT).await, Some(Ok(7)));
    }

    #[test]
    fn reads_that_hang_are_bounded() {
        let (readers, job) = (Readers::default(), Job::parse("job", "").expect("every key has a default"));
        let hanging: Vec<_> = (0..READS).map(|_| readers.one_more(&job).expect("there is room")).collect();
        let failure = readers.one_more(&job).unwrap_err();
        assert!(failure.to_string().contains("8 reads of earlier jobs' data still hang"), "{failure}");
        drop(hanging);
        assert!(readers.one_more(&job).is_ok());
    }
}
