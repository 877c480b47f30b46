//! The coordinator's `/metrics`: one table, written from the newest snapshot.
//!
//! Names follow Prometheus' conventions: base units, `_total` for counters, the prefix `millefeuille_`. Counters
//! start at zero when the process starts, as Prometheus expects.
//!
//! Labels have few values. Workers are counted by state and never named, since they come and go; `coordinator
//! workers` names them. Only one job is named at a time: the running one, or else the last one that ran.

use std::fmt;

use millefeuille_core::control::MemberState;
use millefeuille_core::view::{JobStatus, StepTime};
use millefeuille_program::ops::{Page, table};
use prometheus_client::registry::Registry;

use crate::admission::Admission;
use crate::cluster::{Listed, Snapshot, Tally, View};

/// A registry with the table in it.
pub fn registry(view: View, admission: Admission) -> Registry {
    table("millefeuille", move |page| {
        page.process(view.ready().is_ok())?;
        let snapshot = view.newest();
        workers(page, &snapshot)?;
        jobs(page, &snapshot)?;
        if let Some(job) = snapshot.current() {
            training(page, job)?;
        }
        speed(page, &snapshot)?;
        counts(page, &snapshot.tally)?;
        admission_counts(page, &admission)
    })
}

const MEMBER_STATES: [MemberState; 5] = [
    MemberState::Idle,
    MemberState::Fetching,
    MemberState::Computing,
    MemberState::Draining,
    MemberState::Standby,
];

fn workers(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let workers = &snapshot.workers;
    let in_state = |state: &str| workers.iter().filter(|worker| worker.state == state).count();
    let roles = MEMBER_STATES.map(|role| role.to_string());
    let by_state = roles.iter().map(|role| (role.as_str(), in_state(role)));
    page.gauges("workers", "Workers in the cluster, by state", "state", by_state)?;
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
    page.gauge("slots", "Pieces that all workers together compute at once", slots)
}

fn jobs(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let in_state = |state| snapshot.jobs.iter().filter(|report| report.job.state == state).count();
    let by_state = JobStatus::ALL.map(|state| (state.name(), in_state(state)));
    page.gauges("jobs", "Jobs by state, including those from before a restart", "state", by_state)?;
    page.gauge("queue_length", "Queued jobs", in_state(JobStatus::Queued))
}

/// The current job's position and figures.
fn training(page: &mut Page<'_>, current: &Listed) -> fmt::Result {
    let Listed { job, last, progress, .. } = current;
    let (last, now) = (last.as_ref(), progress.as_ref().filter(|progress| progress.step > 0));
    let epoch = progress.as_ref().map(|progress| u64::from(progress.epoch));
    let epoch = epoch.or(last.map(|row| row.epoch));
    let step = progress.as_ref().map(|progress| progress.step).or(last.map(|_| job.steps_per_epoch));
    let loss = now.map(|now| now.loss).or(last.map(|row| row.loss));
    let accuracy = now.map_or(last.and_then(|row| row.accuracy), |now| now.accuracy);
    let of_job = |value: Option<f64>| value.map(|value| (job.id.as_str(), value));
    let whole = |value: u32| Some((job.id.as_str(), value));

    page.gauges(
        "epoch",
        "The epoch that the current job is in, from 1",
        "job",
        epoch.map(|epoch| (job.id.as_str(), epoch)),
    )?;
    page.gauges("epochs", "Epochs that the current job has in all", "job", whole(job.epochs))?;
    page.gauges("step", "Steps of the epoch that are done", "job", step.map(|step| (job.id.as_str(), step)))?;
    page.gauges(
        "steps_per_epoch",
        "Steps that an epoch has; 0 until the data is read",
        "job",
        whole(job.steps_per_epoch),
    )?;
    page.gauges("loss", "Mean training loss over the epoch so far", "job", of_job(loss))?;
    page.gauges("accuracy", "Training accuracy over the epoch so far", "job", of_job(accuracy))?;
    let val_loss = last.and_then(|row| row.val_loss);
    page.gauges("val_loss", "Validation loss of the last epoch that has ended", "job", of_job(val_loss))?;
    let val_accuracy = last.and_then(|row| row.val_accuracy);
    page.gauges(
        "val_accuracy",
        "Validation accuracy of the last epoch that has ended",
        "job",
        of_job(val_accuracy),
    )?;
    page.gauges(
        "test_loss",
        "Test loss of the last epoch that has ended",
        "job",
        of_job(last.and_then(|row| row.test_loss)),
    )?;
    page.gauges(
        "test_accuracy",
        "Test accuracy of the last epoch that has ended",
        "job",
        of_job(last.and_then(|row| row.test_accuracy)),
    )?;
    other_metrics(page, current)
}

/// The metrics of the current job beside the accuracy, a gauge for each.
fn other_metrics(page: &mut Page<'_>, Listed { job, last, progress, .. }: &Listed) -> fmt::Result {
    let now = progress.as_ref().filter(|progress| progress.step > 0);
    let so_far = |name: &str| {
        let figure = now?.metrics.iter().find(|(other, _)| other == name);
        figure.map(|(_, figure)| *figure)
    };
    let of_job = |value: Option<f64>| value.map(|value| (job.id.as_str(), value));
    let before_the_first = now.filter(|_| last.is_none()).map_or(&[][..], |now| &now.metrics[..]);
    for (name, figure) in before_the_first {
        page.gauges(name, "A metric of the job over the epoch so far", "job", of_job(Some(*figure)))?;
    }
    for metric in last.iter().flat_map(|row| &row.metrics) {
        let name = &metric.name;
        let training = so_far(name).or(metric.train);
        page.gauges(name, "A metric of the job over the epoch so far", "job", of_job(training))?;
        let help = "A metric of the job on the validation split, after the last epoch that has ended";
        page.gauges(&format!("val_{name}"), help, "job", of_job(metric.validation))?;
        let help = "A metric of the job on the test set, after the last epoch that has ended";
        page.gauges(&format!("test_{name}"), help, "job", of_job(metric.test))?;
    }
    Ok(())
}

/// Speed: means over the last steps, zero while nothing runs.
fn speed(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let progress = snapshot.jobs.iter().find_map(|report| report.progress.clone()).unwrap_or_default();
    page.gauge("samples_per_second", "Training samples a second", progress.samples_per_second)?;
    page.gauge("step_seconds", "Seconds that a step takes", progress.step_ms / 1e3)?;
    let StepTime { compute_ms, wait_ms, wire_ms, reduce_ms } = snapshot.step_time;
    let parts = [("compute", compute_ms), ("wait", wait_ms), ("wire", wire_ms), ("reduce", reduce_ms)];
    page.gauges(
        "step_part_seconds",
        "Seconds of a step: computing, waiting from the first result to the last, network, reduction",
        "part",
        parts.map(|(part, ms)| (part, ms / 1e3)),
    )
}

/// Counts of events since the process started.
fn counts(page: &mut Page<'_>, tally: &Tally) -> fmt::Result {
    page.counter("steps", "Optimizer steps taken", tally.steps)?;
    page.counter("samples", "Training samples in these steps", tally.samples)?;
    page.counter("sent_bytes", "Payload bytes sent to workers", tally.sent)?;
    page.counter("received_bytes", "Payload bytes received from workers", tally.received)?;
    page.counter("workers_joined", "Workers that were admitted", tally.joined)?;
    page.counter("workers_left", "Workers that left after draining or a shutdown", tally.left)?;
    page.counter("workers_lost", "Workers that died, became silent, hung or broke the protocol", tally.lost)?;
    page.counter(
        "workers_evicted",
        "Workers that were evicted because their results were wrong",
        tally.evicted,
    )?;
    page.counter("reassignments", "Reassignments of a lost worker's pending nodes", tally.reassigned)?;
    page.counter("copies", "Backup tasks for a straggler's pending nodes", tally.backup_tasks)?;
    page.counter("checkpoints", "Checkpoints written", tally.checkpoints)?;
    page.counter(
        "checkpoint_seconds",
        "Seconds that writing checkpoints took",
        tally.checkpoint_time.as_secs_f64(),
    )?;
    page.counter("resumes", "Jobs that were resumed", tally.resumes)?;
    let ended = [("done", tally.done), ("failed", tally.failed), ("cancelled", tally.cancelled)];
    page.counters("jobs_ended", "Ended jobs, by outcome", "state", ended)
}

/// Counts of rejections, and the expiry of the coordinator's certificate.
fn admission_counts(page: &mut Page<'_>, admission: &Admission) -> fmt::Result {
    let rejections = admission.rejections.totals();
    let by_reason = rejections.iter().map(|&(reason, total)| (reason.name(), total));
    page.counters("refused", "Rejected connections and calls, by reason", "reason", by_reason)?;
    let Some(certificate) = &admission.certificate else { return Ok(()) };
    page.gauge(
        "certificate_expiry_timestamp_seconds",
        "When the coordinator's certificate expires, in seconds since 1970",
        certificate.not_after(),
    )
}
