//! The cluster as readers see it: a [`Snapshot`] of the driver's [`DriverState`], in plain values.
//!
//! What is listed of an ended job is built once and shared by all later snapshots. The rows of a job's history are in its
//! run directory, and nowhere else: here is only how many there are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millefeuille_core::control::{Control, JobId, JobState, Member, Outcome, Phase, WorkerId};
use millefeuille_core::data::split::Split;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::view::{
    EpochRow, JobReport, JobStatus, JobView, Metrics, OutcomeView, Progress, StepTime, WorkerView,
};

use super::records::{JobRecord, Session};
use super::tally::Tally;
use super::training::Training;
use super::waiting::{Wait, Waits};
use crate::runs::history::Pages;
use crate::runs::{Ending, checkpoint};

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Jobs, the newest first.
    pub(crate) jobs: Vec<Arc<Listed>>,
    /// Workers, in the order in which they came.
    pub(crate) workers: Vec<WorkerView>,
    /// Breakdown of a step's time.
    pub(crate) step_time: StepTime,
    /// Counts of events so far.
    pub(crate) tally: Tally,
}

/// A job, as lists show it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(super) number: JobId,
    pub(crate) job: JobView,
    /// The run directory's path, which need not be UTF-8.
    pub(super) run_dir: PathBuf,
    /// Epochs that have ended.
    pub(crate) epochs: u64,
    /// The last of them.
    pub(crate) last: Option<EpochRow>,
    /// Where it is, while it runs.
    pub(crate) progress: Option<Progress>,
    /// How it ended, once it has.
    outcome: Option<OutcomeView>,
}

impl Listed {
    /// The rows of its history after this epoch.
    pub(super) fn pages(&self, after: u64) -> Pages {
        Pages::of(&self.run_dir, after)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether it has ended well.
    pub(super) fn is_done(&self) -> bool {
        self.job.state == JobStatus::Done
    }

    /// An update with these rows. How the job ended comes with the `last` ones.
    pub(super) fn report(&self, rows: Vec<EpochRow>, last: bool) -> JobReport {
        let outcome = self.outcome.clone().filter(|_| last);
        JobReport { job: self.job.clone(), history: rows.into(), progress: self.progress.clone(), outcome }
    }
}

/// Jobs that a page has if the caller names no number, and at most.
const PAGE: (u32, u32) = (100, 500);

impl Snapshot {
    /// A page of jobs, and the token of the next page; empty if there is none.
    ///
    /// # Errors
    /// If the token is not one.
    pub(super) fn page(&self, size: u32, token: &str) -> Result<(&[Arc<Listed>], String), Failure> {
        let before = match token {
            "" => None,
            token => Some(JobId(token.parse().map_err(|_| {
                let what = "not a token of this coordinator (leave it out for the first page)";
                Failure::at(FailureKind::Usage, format_args!("page_token {token:?}"), what)
            })?)),
        };
        // Newest first: a job that came since does not move the pages.
        let start = self.jobs.partition_point(|listed| before.is_some_and(|before| listed.number >= before));
        let (usual, most) = PAGE;
        let size = if size == 0 { usual } else { size.min(most) };
        let end = self.jobs.len().min(start + size as usize);
        let page = &self.jobs[start..end];
        let token = page.last().filter(|_| end < self.jobs.len()).map(|listed| listed.number.0.to_string());
        Ok((page, token.unwrap_or_default()))
    }

    /// The job with this id. If the id is empty, the current one, or the newest if none has had its turn.
    ///
    /// # Errors
    /// If there is no such job.
    pub(super) fn job(&self, id: &str) -> Result<&Arc<Listed>, Failure> {
        let named = || self.jobs.iter().find(|listed| listed.job.id == id);
        let found = if id.is_empty() { self.current().or(self.jobs.first()) } else { named() };
        found.ok_or_else(|| no_job(id, "there is no job yet"))
    }

    /// The job that has its turn, or else the last one that has begun.
    pub(crate) fn current(&self) -> Option<&Arc<Listed>> {
        let find = |is: fn(&Listed) -> bool| self.jobs.iter().find(|listed| is(listed));
        find(|listed| listed.job.state.has_turn())
            .or_else(|| find(|listed| listed.job.started.is_some() || listed.epochs > 0))
    }

    /// The same; `None` if the id is empty and there is no job yet.
    ///
    /// # Errors
    /// If there is no job of this id.
    pub(super) fn job_if_any(&self, id: &str) -> Result<Option<&Arc<Listed>>, Failure> {
        if id.is_empty() && self.jobs.is_empty() { Ok(None) } else { self.job(id).map(Some) }
    }

    /// Metrics of the cluster, and of a job with these rows of its history.
    pub(super) fn metrics(&self, listed: Option<&Listed>, rows: Vec<EpochRow>) -> Metrics {
        Metrics {
            job: listed.map(|listed| listed.job.clone()),
            history: rows.into(),
            progress: listed.and_then(|listed| listed.progress.clone()),
            step_time: self.step_time,
            workers: self.workers.clone(),
        }
    }
}

/// The failure for a job id that does not exist; `newest` is the text for an empty id.
pub(super) fn no_job(id: &str, newest: &str) -> Failure {
    let what = if id.is_empty() { newest.to_string() } else { format!("there is no job {id}") };
    Failure::new(FailureKind::NotFound, what)
}

/// The driver's state, of which a snapshot shows a part.
#[derive(Clone, Copy)]
pub(super) struct DriverState<'d> {
    pub(super) now: Duration,
    pub(super) control: &'d Control,
    pub(super) sessions: &'d BTreeMap<WorkerId, Session>,
    pub(super) jobs: &'d BTreeMap<JobId, JobRecord>,
    pub(super) training: Option<&'d Training>,
    pub(super) tally: &'d Tally,
    /// The command by which a worker joins, if others are to start any.
    pub(super) join: Option<&'d str>,
}

/// A snapshot of the current state.
pub(super) fn of(state: &DriverState<'_>) -> Snapshot {
    let waits = Waits::of(state.control, state.now, state.join);
    let places = (1..).zip(state.control.queue()).map(|(place, job)| (job, place)).collect();
    let rates = rates(state);
    let worker = |(&id, member): (&WorkerId, &Member)| {
        let session = state.sessions.get(&id)?;
        let rate = rates.get(&id).copied().unwrap_or(0.0);
        Some(WorkerView { detail: waits.of_worker(id), ..worker(state, id, member, session, rate) })
    };
    Snapshot {
        jobs: state
            .jobs
            .iter()
            .rev()
            .map(|(&number, record)| listed(state, number, record, &waits, &places))
            .collect(),
        workers: state.control.members().iter().filter_map(worker).collect(),
        step_time: step_time(state),
        tally: state.tally.with_sessions(state.sessions.values().map(|session| &*session.traffic)),
    }
}

/// The places of queued jobs, from 1. Searching the queue for each job would take a quadratic time.
type Places = BTreeMap<JobId, u32>;

fn listed(
    state: &DriverState<'_>,
    number: JobId,
    record: &JobRecord,
    waits: &Waits<'_>,
    places: &Places,
) -> Arc<Listed> {
    let build = || {
        Arc::new(Listed {
            number,
            job: view(state, number, record, waits, places.get(&number).copied()),
            run_dir: record.run_dir.clone(),
            epochs: record.epochs_ended,
            last: record.last.clone(),
            progress: progress(state, number, record),
            outcome: outcome(record),
        })
    };
    if record.ended.is_some() { Arc::clone(record.frozen.get_or_init(build)) } else { build() }
}

/// A job as it is now.
pub(super) fn job(state: &DriverState<'_>, number: JobId) -> JobView {
    let waits = Waits::of(state.control, state.now, state.join);
    let record = state.jobs.get(&number);
    let place = state.control.queue_place(number).map(|place| place as u32);
    record.map_or_else(JobView::default, |record| view(state, number, record, &waits, place))
}

fn view(
    state: &DriverState<'_>,
    number: JobId,
    record: &JobRecord,
    waits: &Waits<'_>,
    place: Option<u32>,
) -> JobView {
    let ended = record.ended.as_ref();
    let runs = state.control.running() == Some(number);
    let wait = if runs { waits.of_job() } else { Wait::default() };
    let status = match (ended, place) {
        (Some(ending), _) => ending.status(),
        (None, Some(_)) => JobStatus::Queued,
        (None, None) => status(state, number),
    };
    let failed = ended.filter(|_| status == JobStatus::Failed);
    let progress = progress(state, number, record);
    JobView {
        id: record.id.clone(),
        name: record.name.clone(),
        state: status,
        run_dir: record.run_dir.display().to_string(),
        queue_place: place.unwrap_or(0),
        detail: failed.map_or(wait.what, |ending| ending.message.clone()),
        waiting_seconds: wait.lasts.as_secs_f64(),
        next: wait.next,
        epochs: record.epochs,
        steps_per_epoch: record.steps_per_epoch,
        failure: failed.and_then(|ending| ending.failure.clone()),
        epochs_done: record.knows_its_epochs().then_some(record.epochs_ended as u32),
        accuracy: record.last.as_ref().and_then(|row| row.test_accuracy),
        started: record.started,
        seconds: seconds(record, progress.as_ref()),
        seconds_left: progress.and_then(|progress| seconds_left(record, &progress)),
        constant_loss: record.constant_loss,
    }
}

/// How long a job has trained: its finished epochs, and the one that it is in.
fn seconds(record: &JobRecord, progress: Option<&Progress>) -> f64 {
    let present = progress.filter(|progress| u64::from(progress.epoch) > record.epochs_ended);
    record.seconds + present.map_or(0.0, |progress| progress.epoch_seconds)
}

/// How long the rest of a job will take, if its epochs take as long as the last one, or as the first one so far.
fn seconds_left(record: &JobRecord, progress: &Progress) -> Option<f64> {
    let Progress { epoch, step, epoch_seconds, .. } = *progress;
    let last = record.last.as_ref().map(|row| row.seconds);
    let so_far = || (step > 0).then(|| epoch_seconds / f64::from(step) * f64::from(record.steps_per_epoch));
    let an_epoch = last.or_else(so_far)?;
    let whole = f64::from(record.epochs.saturating_sub(epoch));
    Some(whole * an_epoch + (an_epoch - epoch_seconds).max(0.0))
}

/// The status of a job that is not queued and has not ended.
fn status(state: &DriverState<'_>, number: JobId) -> JobStatus {
    match state.control.job_state(number) {
        Some(JobState::Waiting) => JobStatus::Waiting,
        Some(JobState::Running) => JobStatus::Running,
        _ => JobStatus::Queued,
    }
}

/// How a job ends.
pub(super) fn ending(record: &JobRecord, outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Done => {
            record.stopped.map_or_else(Ending::done, |stopped| Ending::stopped(&stopped.to_string()))
        }
        Outcome::Cancelled => Ending::cancelled(),
        Outcome::Broken(failure) => Ending::of(failure.clone()),
        Outcome::Diverged { work } => {
            let before = record.checkpoint.map(|tag| checkpoint::data_file(&record.run_dir, tag));
            let before = before.map(|path| format!("; the state before is in {}", path.display()));
            let before = before.unwrap_or_default();
            let what = format!("training diverged: the loss is not finite after {work}{before}");
            Ending::of(Failure::new(FailureKind::Diverged, what))
        }
        Outcome::TooFewWorkers { present, needed, waited } => {
            let seconds = waited.as_secs_f64();
            let what = format!("not enough workers: {present} of at least {needed} after {seconds:.0} s");
            Ending::of(Failure::new(FailureKind::TooFewWorkers, what))
        }
    }
}

fn outcome(record: &JobRecord) -> Option<OutcomeView> {
    let Ending { exit_code, message, failure } = record.ended.clone()?;
    let of_last = || record.last.as_ref().map(|row| row.weights_sha256.clone());
    let weights_sha256 = record.trained_sha256.clone().or_else(of_last).unwrap_or_default();
    Some(OutcomeView { exit_code, message, failure, weights_sha256, predictions: record.shown.clone() })
}

fn progress(state: &DriverState<'_>, number: JobId, record: &JobRecord) -> Option<Progress> {
    let training = state.training.filter(|_| state.control.running() == Some(number))?;
    let begun = state.control.job_state(number) == Some(JobState::Running);
    let position = state.control.position().filter(|_| begun)?;
    let (means, clock) = (training.figures(), &training.clock);
    // At an epoch's end the position is ahead, and after the last one it is at an epoch that the job does not have.
    let within = position.phase == Phase::Train && position.epoch == training.epoch();
    let metrics = training.workload.metrics(Split::Train, means);
    let measured = metrics.filter_map(|(name, figure)| Some((name, figure?)));
    Some(Progress {
        epoch: training.epoch() + 1,
        step: if within { position.step } else { record.steps_per_epoch },
        loss: means.loss(),
        accuracy: training.workload.accuracy(means),
        metrics: measured.collect(),
        step_ms: clock.step_ms,
        samples_per_second: clock.samples_per_second,
        epoch_seconds: clock.epoch().as_secs_f64(),
    })
}

fn step_time(state: &DriverState<'_>) -> StepTime {
    let clock = state.training.map(|training| &training.clock);
    clock.map_or_else(StepTime::default, |clock| StepTime {
        compute_ms: clock.compute_ms,
        wait_ms: clock.wait_ms,
        wire_ms: clock.wire_ms,
        reduce_ms: clock.reduce_ms,
    })
}

/// Each worker's share of the cluster's samples a second, by the shards it computes.
fn rates(state: &DriverState<'_>) -> BTreeMap<WorkerId, f64> {
    let (Some(placement), Some(training)) = (state.control.placement(), state.training) else {
        return BTreeMap::new();
    };
    let total: u32 = placement.values().map(|run| run.end - run.start).sum();
    let share = |run: &std::ops::Range<u32>| f64::from(run.end - run.start) / f64::from(total.max(1));
    placement.iter().map(|(&worker, run)| (worker, share(run) * training.clock.samples_per_second)).collect()
}

fn worker(
    state: &DriverState<'_>,
    id: WorkerId,
    member: &Member,
    session: &Session,
    rate: f64,
) -> WorkerView {
    let arithmetic = member.hello.arithmetic.clone();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    WorkerView {
        id: id.0,
        name: member.hello.name.clone(),
        state: state.control.member_state(id).to_string(),
        shards: state.control.placement().and_then(|placement| placement.get(&id)).cloned().unwrap_or(0..0),
        shards_held: member.job.as_ref().map_or(0, |part| part.held.len() as u32),
        slots: member.hello.slots,
        kernel: arithmetic.kernel,
        blas_version: arithmetic.version,
        fingerprint: arithmetic.fingerprint,
        build: session.build.clone(),
        cpu: session.cpu.clone(),
        samples_per_second: rate,
        bytes_sent: load(&session.traffic.sent),
        bytes_received: load(&session.traffic.received),
        last_heard_seconds: session.traffic.silence().as_secs_f64(),
        detail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(numbers: impl Iterator<Item = u64>) -> Snapshot {
        let listed = |number| Listed {
            number: JobId(number),
            job: JobView { id: format!("job-{number}"), ..JobView::default() },
            run_dir: PathBuf::new(),
            epochs: 0,
            last: None,
            progress: None,
            outcome: None,
        };
        Snapshot { jobs: numbers.map(|number| Arc::new(listed(number))).collect(), ..Snapshot::default() }
    }

    fn numbers(snapshot: &Snapshot, size: u32) -> Vec<Vec<u64>> {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = snapshot.page(size, &token).unwrap();
            pages.push(page.iter().map(|listed| listed.number.0).collect());
            token = next;
            if token.is_empty() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_have_every_job_once() {
        let jobs = snapshot((1..=5).rev());
        assert_eq!(numbers(&jobs, 2), [vec![5, 4], vec![3, 2], vec![1]]);
        assert_eq!(numbers(&jobs, 5), [[5, 4, 3, 2, 1]]);
        assert_eq!(numbers(&snapshot((1..=1_200).rev()), 9_999).iter().map(Vec::len).max(), Some(500));
        assert_eq!(numbers(&snapshot((1..=250).rev()), 0)[0].len(), 100);
        assert_eq!(numbers(&snapshot(0..0), 2), [[0_u64; 0]]);
    }

    #[test]
    fn a_page_stays_what_it_is_when_jobs_come_and_go() {
        let (_, token) = snapshot((1..=5).rev()).page(2, "").map(|(_, token)| ((), token)).unwrap();
        // Meanwhile another job comes, and the last one that was listed is forgotten.
        let later = snapshot([7, 6, 5, 3, 2, 1].into_iter());
        assert_eq!(later.page(2, &token).unwrap().0[0].number, JobId(3));
        let failure = later.page(2, "soon").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
        assert!(failure.to_string().contains("page_token \"soon\""), "{failure}");
    }
}
