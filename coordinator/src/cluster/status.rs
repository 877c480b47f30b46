//! What the driver shows to those who ask: a snapshot of the cluster, in the words of the wire.
//!
//! Readers never ask the driver; they read the newest snapshot, which it renews after every change and, while
//! nothing but steps happens, twenty times a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use millefeuille_core::control::{Arithmetic, JobId, JobState, Member, Outcome, Phase, WorkerId};
use millefeuille_program::process::exit;
use millefeuille_proto::v1;

use super::driver::{Driver, Record, Session};
use super::tally::Tally;
use super::waiting::{self, Wait};
use crate::report::Shown;
use crate::runs::{Ending, checkpoint};
use crate::see::history::Row;

/// A snapshot of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Jobs, the newest first.
    pub(crate) jobs: Vec<JobStatus>,
    pub(crate) workers: Vec<v1::WorkerInfo>,
    pub(crate) step_time: v1::StepTime,
    /// What has happened so far, counted.
    pub(crate) tally: Tally,
}

/// A job in the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct JobStatus {
    pub(crate) job: v1::Job,
    pub(crate) history: Arc<Vec<Row>>,
    pub(crate) progress: Option<v1::Progress>,
    pub(crate) outcome: Option<v1::Outcome>,
}

impl Status {
    /// The job of this id; the newest if it is empty.
    pub(super) fn job(&self, id: &str) -> Option<&JobStatus> {
        if id.is_empty() { self.jobs.first() } else { self.jobs.iter().find(|status| status.job.id == id) }
    }
}

/// The snapshot of this moment.
pub(super) fn of(driver: &Driver) -> Status {
    let jobs = driver.jobs.iter().rev().map(|(&number, record)| JobStatus {
        job: job(driver, number),
        history: Arc::clone(&record.history),
        progress: progress(driver, number),
        outcome: outcome(driver, number, record),
    });
    let rates = rates(driver);
    let worker = |(&id, member): (&WorkerId, &Member)| {
        let session = driver.sessions.get(&id)?;
        Some(worker(driver, id, member, session, rates.get(&id).copied().unwrap_or(0.0)))
    };
    Status {
        jobs: jobs.collect(),
        workers: driver.control.members().iter().filter_map(worker).collect(),
        step_time: step_time(driver),
        tally: driver.tally.with_sessions(driver.sessions.values().map(|session| &*session.traffic)),
    }
}

/// A job as lists show it.
pub(super) fn job(driver: &Driver, number: JobId) -> v1::Job {
    let Some(record) = driver.jobs.get(&number) else { return v1::Job::default() };
    let state = driver.control.job_state(number);
    let runs = driver.control.running() == Some(number);
    let wait = if runs { Wait::of(&driver.control, driver.now()) } else { Wait::default() };
    v1::Job {
        id: record.id.clone(),
        name: record.job.name.clone(),
        state: job_state(state, record).into(),
        run_dir: record.run_dir.clone(),
        queue_place: driver.control.queue_place(number).unwrap_or(0) as u32,
        detail: if runs { wait.what } else { ending(driver, number, state) },
        waiting_seconds: wait.lasts.as_secs_f64(),
        next: wait.next,
        epochs: record.job.fit.epochs,
        steps_per_epoch: record.steps_per_epoch,
    }
}

fn job_state(state: Option<&JobState>, record: &Record) -> v1::JobState {
    if let Some(ending) = &record.ended {
        return match ending.exit_code {
            exit::DONE => v1::JobState::Done,
            exit::INTERRUPTED => v1::JobState::Cancelled,
            _ => v1::JobState::Failed,
        };
    }
    match state {
        None => v1::JobState::Unspecified,
        Some(JobState::Queued) => v1::JobState::Queued,
        Some(JobState::Waiting) => v1::JobState::Waiting,
        Some(JobState::Running) => v1::JobState::Running,
        Some(JobState::Ended(Outcome::Done)) => v1::JobState::Done,
        Some(JobState::Ended(Outcome::Cancelled)) => v1::JobState::Cancelled,
        Some(JobState::Ended(_)) => v1::JobState::Failed,
    }
}

/// Why the job ended.
fn ending(driver: &Driver, number: JobId, state: Option<&JobState>) -> String {
    let ended = driver.jobs.get(&number).and_then(|record| record.ended.as_ref());
    if let Some(ending) = ended.filter(|ending| !matches!(ending.exit_code, exit::DONE | exit::INTERRUPTED)) {
        return ending.message.clone();
    }
    match state {
        Some(JobState::Ended(Outcome::Done | Outcome::Cancelled)) => String::new(),
        Some(JobState::Ended(outcome)) => {
            driver.jobs.get(&number).map_or_else(String::new, |job| describe(job, outcome))
        }
        _ => String::new(),
    }
}

/// How a job ended, for people.
pub(super) fn describe(record: &Record, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_string(),
        Outcome::Cancelled => "cancelled".to_string(),
        Outcome::Diverged { work } => {
            let before = record.checkpoint.map(|tag| checkpoint::data_file(record.run_dir.as_ref(), tag));
            let before = before.map(|path| format!("; the state before is in {}", path.display()));
            format!(
                "training diverged: the loss is not finite after {work}{} (try a smaller --learning-rate, or scaled \
                 input)",
                before.unwrap_or_default()
            )
        }
        Outcome::TooFewWorkers { present, needed, waited } => format!(
            "not enough workers: {present} of at least {needed} after {:.0} s (start workers, or lower --min-workers)",
            waited.as_secs_f64()
        ),
        Outcome::Broken(failure) => failure.message.clone(),
    }
}

/// How the commands exit after it.
pub(super) fn exit_code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Done => exit::DONE,
        Outcome::Cancelled => exit::INTERRUPTED,
        Outcome::Diverged { .. } => exit::DIVERGED,
        Outcome::TooFewWorkers { .. } => exit::TOO_FEW_WORKERS,
        Outcome::Broken(failure) => failure.exit_code,
    }
}

fn outcome(driver: &Driver, number: JobId, record: &Record) -> Option<v1::Outcome> {
    let weights_sha256 = record.history.last().map(|row| row.weights_sha256.clone()).unwrap_or_default();
    if let Some(Ending { exit_code, message }) = record.ended.clone() {
        let exit_code = exit_code.into();
        return Some(v1::Outcome { exit_code, message, weights_sha256, predictions: Vec::new() });
    }
    let Some(JobState::Ended(outcome)) = driver.control.job_state(number) else { return None };
    Some(v1::Outcome {
        exit_code: exit_code(outcome).into(),
        message: describe(record, outcome),
        weights_sha256,
        predictions: record.shown.iter().map(prediction).collect(),
    })
}

fn prediction(shown: &Shown) -> v1::Prediction {
    let (rows, columns) = shown.image;
    v1::Prediction {
        rows: rows as u32,
        columns: columns as u32,
        pixels: shown.pixels.clone().into(),
        label: shown.label.into(),
        class: shown.class.into(),
    }
}

/// A line of history as it travels.
pub(super) fn epoch(row: &Row) -> v1::Epoch {
    v1::Epoch {
        epoch: row.epoch as u32,
        loss: row.loss,
        accuracy: row.accuracy,
        val_loss: row.val_loss,
        val_accuracy: row.val_accuracy,
        test_loss: row.test_loss,
        test_accuracy: row.test_accuracy,
        seconds: row.seconds,
        weights_sha256: row.weights_sha256.clone(),
    }
}

fn progress(driver: &Driver, number: JobId) -> Option<v1::Progress> {
    let training = driver.training.as_ref().filter(|_| driver.control.running() == Some(number))?;
    let begun = driver.control.job_state(number) == Some(&JobState::Running);
    let position = driver.control.position().filter(|_| begun)?;
    let (means, clock) = (training.figures(), &training.clock);
    let steps = driver.jobs.get(&number)?.steps_per_epoch;
    Some(v1::Progress {
        epoch: position.epoch + 1,
        step: if position.phase == Phase::Train { position.step } else { steps },
        loss: means.loss(),
        accuracy: means.accuracy(),
        step_ms: clock.step_ms,
        samples_per_second: clock.samples_per_second,
        epoch_seconds: clock.epoch().as_secs_f64(),
    })
}

fn step_time(driver: &Driver) -> v1::StepTime {
    let Some(clock) = driver.training.as_ref().map(|training| &training.clock) else {
        return v1::StepTime::default();
    };
    v1::StepTime {
        compute_ms: clock.compute_ms,
        wait_ms: clock.wait_ms,
        wire_ms: clock.wire_ms,
        reduce_ms: clock.reduce_ms,
    }
}

/// Each worker's share of the cluster's samples a second, by the shards it computes.
fn rates(driver: &Driver) -> BTreeMap<WorkerId, f64> {
    let (Some(placement), Some(training)) = (driver.control.placement(), &driver.training) else {
        return BTreeMap::new();
    };
    let total: u32 = placement.values().map(|run| run.end - run.start).sum();
    let share = |run: &std::ops::Range<u32>| f64::from(run.end - run.start) / f64::from(total.max(1));
    placement.iter().map(|(&worker, run)| (worker, share(run) * training.clock.samples_per_second)).collect()
}

fn worker(driver: &Driver, id: WorkerId, member: &Member, session: &Session, rate: f64) -> v1::WorkerInfo {
    let run = driver.control.placement().and_then(|placement| placement.get(&id)).cloned().unwrap_or(0..0);
    let Arithmetic { kernel, version, fingerprint } = member.hello.arithmetic.clone();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    v1::WorkerInfo {
        id: id.0,
        name: member.hello.name.clone(),
        state: driver.control.role(id).to_string(),
        first_shard: run.start,
        end_shard: run.end,
        shards_held: member.job.as_ref().map_or(0, |part| part.held.len() as u32),
        slots: member.hello.slots,
        kernel,
        blas_version: version,
        fingerprint,
        build: session.build.clone(),
        cpu: session.cpu.clone(),
        samples_per_second: rate,
        bytes_sent: load(&session.traffic.sent),
        bytes_received: load(&session.traffic.received),
        last_heard_seconds: session.traffic.silence().as_secs_f64(),
        detail: waiting::of_worker(&driver.control, driver.now(), id),
    }
}
