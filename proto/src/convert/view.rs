//! Conversions of a cluster's visible state to the wire and from it.
//!
//! From the wire, the state comes from a coordinator that its reader trusts: missing fields are taken as empty. Texts are
//! cleaned all the same, because the coordinator may pass on those of others.

use millefeuille_core::view::{
    EpochMetric, EpochRow, JobReport, JobStatus, JobView, Metrics, OutcomeView, Prediction, Progress,
    StepTime, WorkerView,
};

use super::{name, sentence};
use crate::v1;

impl From<JobStatus> for v1::JobState {
    fn from(from: JobStatus) -> Self {
        match from {
            JobStatus::Queued => Self::Queued,
            JobStatus::Waiting => Self::Waiting,
            JobStatus::Running => Self::Running,
            JobStatus::Done => Self::Done,
            JobStatus::Failed => Self::Failed,
            JobStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<v1::JobState> for JobStatus {
    fn from(from: v1::JobState) -> Self {
        match from {
            v1::JobState::Unspecified | v1::JobState::Queued => Self::Queued,
            v1::JobState::Waiting => Self::Waiting,
            v1::JobState::Running => Self::Running,
            v1::JobState::Done => Self::Done,
            v1::JobState::Failed => Self::Failed,
            v1::JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&JobView> for v1::Job {
    fn from(from: &JobView) -> Self {
        let JobView { id, name, state, run_dir, queue_place, detail, waiting_seconds, next, .. } =
            from.clone();
        Self {
            id,
            name,
            state: v1::JobState::from(state).into(),
            run_dir,
            queue_place,
            detail,
            epochs: from.epochs,
            steps_per_epoch: from.steps_per_epoch,
            waiting_seconds,
            next,
            failure: from.failure.as_ref().map(v1::Failure::from),
            epochs_done: from.epochs_done,
            accuracy: from.accuracy,
            started: from.started,
            seconds: from.seconds,
            seconds_left: from.seconds_left,
            constant_loss: from.constant_loss,
        }
    }
}

impl From<v1::Job> for JobView {
    fn from(from: v1::Job) -> Self {
        let state = from.state().into();
        Self {
            id: name(&from.id),
            name: name(&from.name),
            state,
            run_dir: sentence(&from.run_dir),
            queue_place: from.queue_place,
            detail: sentence(&from.detail),
            waiting_seconds: from.waiting_seconds,
            next: sentence(&from.next),
            epochs: from.epochs,
            steps_per_epoch: from.steps_per_epoch,
            failure: from.failure.map(Into::into),
            epochs_done: from.epochs_done,
            accuracy: from.accuracy,
            started: from.started,
            seconds: from.seconds,
            seconds_left: from.seconds_left,
            constant_loss: from.constant_loss,
        }
    }
}

impl From<&EpochRow> for v1::Epoch {
    fn from(from: &EpochRow) -> Self {
        Self {
            epoch: from.epoch as u32,
            loss: from.loss,
            accuracy: from.accuracy,
            val_loss: from.val_loss,
            val_accuracy: from.val_accuracy,
            test_loss: from.test_loss,
            test_accuracy: from.test_accuracy,
            seconds: from.seconds,
            weights_sha256: from.weights_sha256.clone(),
            metrics: from.metrics.iter().map(Into::into).collect(),
        }
    }
}

impl From<&EpochMetric> for v1::EpochMetric {
    fn from(from: &EpochMetric) -> Self {
        let EpochMetric { name, train, validation, test } = from.clone();
        Self { name, train, validation, test }
    }
}

impl From<v1::EpochMetric> for EpochMetric {
    fn from(from: v1::EpochMetric) -> Self {
        let v1::EpochMetric { name: metric, train, validation, test } = from;
        Self { name: name(&metric), train, validation, test }
    }
}

impl From<v1::Epoch> for EpochRow {
    fn from(from: v1::Epoch) -> Self {
        Self {
            epoch: from.epoch.into(),
            loss: from.loss,
            accuracy: from.accuracy,
            val_loss: from.val_loss,
            val_accuracy: from.val_accuracy,
            test_loss: from.test_loss,
            test_accuracy: from.test_accuracy,
            seconds: from.seconds,
            weights_sha256: name(&from.weights_sha256),
            metrics: from.metrics.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Progress> for v1::Progress {
    fn from(from: Progress) -> Self {
        let Progress { epoch, step, loss, accuracy, metrics, step_ms, samples_per_second, epoch_seconds } =
            from;
        let metrics = metrics.into_iter().map(|(name, figure)| v1::Metric { name, figure }).collect();
        Self { epoch, step, loss, accuracy, metrics, step_ms, samples_per_second, epoch_seconds }
    }
}

impl From<v1::Progress> for Progress {
    fn from(from: v1::Progress) -> Self {
        let v1::Progress { epoch, step, loss, accuracy, metrics, step_ms, samples_per_second, epoch_seconds } =
            from;
        let metrics = metrics.into_iter().map(|metric| (name(&metric.name), metric.figure)).collect();
        Self { epoch, step, loss, accuracy, metrics, step_ms, samples_per_second, epoch_seconds }
    }
}

impl From<StepTime> for v1::StepTime {
    fn from(from: StepTime) -> Self {
        let StepTime { compute_ms, wait_ms, wire_ms, reduce_ms } = from;
        Self { compute_ms, wait_ms, wire_ms, reduce_ms }
    }
}

impl From<v1::StepTime> for StepTime {
    fn from(from: v1::StepTime) -> Self {
        let v1::StepTime { compute_ms, wait_ms, wire_ms, reduce_ms } = from;
        Self { compute_ms, wait_ms, wire_ms, reduce_ms }
    }
}

impl From<&WorkerView> for v1::WorkerInfo {
    fn from(from: &WorkerView) -> Self {
        let WorkerView { name, state, shards, kernel, blas_version, fingerprint, build, cpu, detail, .. } =
            from.clone();
        Self {
            id: from.id,
            name,
            state,
            first_shard: shards.start,
            end_shard: shards.end,
            shards_held: from.shards_held,
            slots: from.slots,
            kernel,
            blas_version,
            fingerprint,
            build,
            cpu,
            samples_per_second: from.samples_per_second,
            bytes_sent: from.bytes_sent,
            bytes_received: from.bytes_received,
            last_heard_seconds: from.last_heard_seconds,
            detail,
        }
    }
}

impl From<v1::WorkerInfo> for WorkerView {
    fn from(from: v1::WorkerInfo) -> Self {
        Self {
            id: from.id,
            name: name(&from.name),
            state: name(&from.state),
            shards: from.first_shard..from.end_shard,
            shards_held: from.shards_held,
            slots: from.slots,
            kernel: name(&from.kernel),
            blas_version: name(&from.blas_version),
            fingerprint: name(&from.fingerprint),
            build: name(&from.build),
            cpu: name(&from.cpu),
            samples_per_second: from.samples_per_second,
            bytes_sent: from.bytes_sent,
            bytes_received: from.bytes_received,
            last_heard_seconds: from.last_heard_seconds,
            detail: sentence(&from.detail),
        }
    }
}

impl From<&Prediction> for v1::Prediction {
    fn from(from: &Prediction) -> Self {
        let (rows, columns) = from.image;
        Self {
            rows: rows as u32,
            columns: columns as u32,
            pixels: from.pixels.clone().into(),
            label: from.label,
            class: from.class,
        }
    }
}

impl From<v1::Prediction> for Prediction {
    fn from(from: v1::Prediction) -> Self {
        Self {
            image: (from.rows as usize, from.columns as usize),
            pixels: from.pixels.to_vec(),
            label: from.label,
            class: from.class,
        }
    }
}

impl From<&OutcomeView> for v1::Outcome {
    fn from(from: &OutcomeView) -> Self {
        Self {
            exit_code: from.exit_code.into(),
            message: from.message.clone(),
            weights_sha256: from.weights_sha256.clone(),
            predictions: from.predictions.iter().map(v1::Prediction::from).collect(),
            failure: from.failure.as_ref().map(v1::Failure::from),
        }
    }
}

impl From<v1::Outcome> for OutcomeView {
    /// An invalid exit code becomes that of an unexpected error.
    fn from(from: v1::Outcome) -> Self {
        Self {
            exit_code: u8::try_from(from.exit_code).unwrap_or(1),
            message: sentence(&from.message),
            failure: from.failure.map(Into::into),
            weights_sha256: name(&from.weights_sha256),
            predictions: from.predictions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&JobReport> for v1::WatchJobResponse {
    /// The report has the new epochs only.
    fn from(from: &JobReport) -> Self {
        Self {
            job: Some((&from.job).into()),
            new_epochs: from.history.iter().map(v1::Epoch::from).collect(),
            progress: from.progress.clone().map(Into::into),
            outcome: from.outcome.as_ref().map(v1::Outcome::from),
        }
    }
}

impl From<v1::WatchJobResponse> for JobReport {
    /// The report holds the new epochs only.
    fn from(from: v1::WatchJobResponse) -> Self {
        Self {
            job: from.job.unwrap_or_default().into(),
            history: from.new_epochs.into_iter().map(EpochRow::from).collect::<Vec<_>>().into(),
            progress: from.progress.clone().map(Into::into),
            outcome: from.outcome.map(Into::into),
        }
    }
}

/// Metrics with a page of the history, of a job that has `epochs_ended` in all.
pub fn metrics_page(from: &Metrics, epochs_ended: u64) -> v1::GetMetricsResponse {
    v1::GetMetricsResponse {
        job: from.job.as_ref().map(v1::Job::from),
        history: from.history.iter().map(v1::Epoch::from).collect(),
        progress: from.progress.clone().map(Into::into),
        workers: from.workers.iter().map(v1::WorkerInfo::from).collect(),
        step_time: Some(from.step_time.into()),
        epochs_ended: epochs_ended as u32,
    }
}

impl From<v1::GetMetricsResponse> for Metrics {
    fn from(from: v1::GetMetricsResponse) -> Self {
        Self {
            job: from.job.map(Into::into),
            history: from.history.into_iter().map(EpochRow::from).collect::<Vec<_>>().into(),
            progress: from.progress.clone().map(Into::into),
            step_time: from.step_time.unwrap_or_default().into(),
            workers: from.workers.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use millefeuille_core::failure::{Failure, FailureKind};

    use super::*;

    fn job(state: JobStatus) -> JobView {
        JobView {
            id: "small-1".into(),
            name: "small".into(),
            state,
            run_dir: "runs/small-1".into(),
            queue_place: 2,
            detail: "waiting for workers".into(),
            waiting_seconds: 1.5,
            next: "gives up in 3 s".into(),
            epochs: 5,
            steps_per_epoch: 96,
            failure: Some(Failure::at(FailureKind::NoSpace, "runs/small-1/ledger", "cannot be written")),
            epochs_done: Some(2),
            accuracy: Some(0.5),
            started: Some(1e9),
            seconds: 4.5,
            seconds_left: Some(6.0),
            constant_loss: Some(2.3),
        }
    }

    fn row() -> EpochRow {
        EpochRow {
            epoch: 1,
            loss: 0.5,
            accuracy: Some(0.75),
            val_accuracy: Some(0.5),
            test_loss: Some(0.25),
            test_accuracy: Some(0.125),
            metrics: vec![EpochMetric {
                name: "auc".into(),
                train: None,
                validation: Some(0.75),
                test: Some(0.5),
            }],
            seconds: 2.0,
            weights_sha256: "ab".into(),
            ..EpochRow::default()
        }
    }

    #[test]
    fn a_report_goes_to_the_wire_and_back_in_every_state() {
        for state in JobStatus::ALL {
            let progress = Progress { epoch: 1, step: 2, loss: 0.5, ..Default::default() };
            let prediction = Prediction { image: (1, 2), pixels: vec![3, 4], label: 5, class: 6 };
            let outcome = OutcomeView {
                exit_code: 3,
                message: "broken".into(),
                failure: job(state).failure,
                weights_sha256: "ab".into(),
                predictions: vec![prediction],
            };
            let report = JobReport {
                job: job(state),
                history: vec![row()].into(),
                progress: Some(progress),
                outcome: Some(outcome),
            };
            assert_eq!(JobReport::from(v1::WatchJobResponse::from(&report)), report);
        }
    }

    #[test]
    fn metrics_go_to_the_wire_and_back() {
        let worker = WorkerView { id: 7, shards: 2..4, slots: 1, bytes_sent: 9, ..Default::default() };
        let metrics = Metrics {
            job: Some(job(JobStatus::Running)),
            history: vec![row()].into(),
            progress: None,
            step_time: StepTime { compute_ms: 1.0, wait_ms: 2.0, wire_ms: 3.0, reduce_ms: 4.0 },
            workers: vec![worker],
        };
        assert_eq!(Metrics::from(metrics_page(&metrics, 1)), metrics);
        assert_eq!(Metrics::from(v1::GetMetricsResponse::default()), Metrics::default());
    }
}
