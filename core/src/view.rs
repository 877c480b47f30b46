//! What can be seen of a cluster: its jobs, its workers and how fast it is, as plain values.
//!
//! The coordinator's driver fills these in; everything that shows a cluster (the command line, JSON, the ops
//! port, gRPC) reads them and nothing else. Serialized, they are the one JSON form that programs read.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Failure;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Another job runs.
    #[default]
    Queued,
    /// Its turn has come; it waits for data or for workers.
    Waiting,
    /// It trains.
    Running,
    /// Its result is on disk.
    Done,
    /// It ended without a result.
    Failed,
    /// It was cancelled or interrupted.
    Cancelled,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the job.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// Whether the job has its turn.
    pub const fn has_turn(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// A job as lists show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The name of its run directory.
    pub id: String,
    /// Its name in the job file.
    pub name: String,
    /// Where it is in its life.
    pub state: JobStatus,
    /// The run directory, on the coordinator.
    pub run_dir: String,
    /// 1 for the job that runs next; 0 for one that is not queued.
    pub queue_place: u32,
    /// What it waits for, or why it failed; for people.
    pub detail: String,
    /// How long it has waited for that, in seconds.
    pub waiting_seconds: f64,
    /// What happens if the wait goes on; for people.
    pub next: String,
    /// Epochs that it has in all.
    pub epochs: u32,
    /// Steps of an epoch; 0 until the data is read.
    pub steps_per_epoch: u32,
    /// Why it failed, for programs; none of a job that has not.
    pub failure: Option<Failure>,
    /// Epochs that have ended; `None` if the coordinator is too old to say.
    pub epochs_done: Option<u32>,
    /// The accuracy on the test set after the last of them; `None` where the job does not ask for it.
    pub accuracy: Option<f64>,
    /// When it began to train, in seconds since 1970; `None` before.
    pub started: Option<f64>,
    /// How long it has trained, in seconds: the time of its epochs, without pauses between two coordinators.
    pub seconds: f64,
    /// How long the rest will take at the present speed, in seconds; `None` while it does not train.
    pub seconds_left: Option<f64>,
    /// The mean loss of a constant prediction; `None` until the data is read.
    pub constant_loss: Option<f64>,
}

/// The figures after one epoch. Field names are the keys of a line of `history.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// The mean loss over the epoch's training batches, dropout on.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The share of training samples that were predicted correctly, dropout on; `None` where the job does not ask
    /// for it.
    pub accuracy: Option<f64>,
    /// The mean loss over the validation samples; `None` where the job holds none back.
    pub val_loss: Option<f64>,
    /// The share of validation samples predicted correctly; `None` where the job holds none back, or does not ask
    /// for it.
    pub val_accuracy: Option<f64>,
    /// The mean loss over the test samples; `None` where the job has none.
    pub test_loss: Option<f64>,
    /// The share of test samples predicted correctly; `None` where the job has none, or does not ask for it.
    pub test_accuracy: Option<f64>,
    /// The job's other metrics, in its order: keys with the same three prefixes.
    #[serde(flatten, with = "metrics_as_keys")]
    pub metrics: Vec<EpochMetric>,
    /// How long the epoch took, evaluation included.
    pub seconds: f64,
    /// The SHA-256 of the parameters after the epoch, in hexadecimal.
    pub weights_sha256: String,
}

/// A metric after one epoch. A figure is `None` where it was not measured, or these samples define none.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochMetric {
    /// Its name in the job.
    pub name: String,
    /// Over the epoch's training batches, dropout on. Metrics that count very much are not measured there.
    pub train: Option<f64>,
    /// Over the validation samples.
    pub validation: Option<f64>,
    /// Over the test samples.
    pub test: Option<f64>,
}

/// Metrics as keys of a row: `f1_score`, `val_f1_score` and `test_f1_score`.
mod metrics_as_keys {
    use std::fmt;

    use serde::Deserialize;
    use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
    use serde::ser::{SerializeMap as _, Serializer};

    use super::EpochMetric;

    const VALIDATION: &str = "val_";
    const TEST: &str = "test_";

    pub(super) fn serialize<S: Serializer>(
        metrics: &[EpochMetric],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut keys = serializer.serialize_map(Some(3 * metrics.len()))?;
        for EpochMetric { name, train, validation, test } in metrics {
            keys.serialize_entry(name, train)?;
            keys.serialize_entry(&format!("{VALIDATION}{name}"), validation)?;
            keys.serialize_entry(&format!("{TEST}{name}"), test)?;
        }
        keys.end()
    }

    /// A later version may add keys with other values.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Figure(Option<f64>),
        Other(IgnoredAny),
    }

    struct Keys;

    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<EpochMetric>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the keys of a row")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut metrics: Vec<EpochMetric> = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Value>()? {
                let Value::Figure(figure) = value else { continue };
                let (validation, test) = (key.strip_prefix(VALIDATION), key.strip_prefix(TEST));
                let name = validation.or(test).unwrap_or(&key);
                let place = metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
                    metrics.push(EpochMetric {
                        name: name.into(),
                        train: None,
                        validation: None,
                        test: None,
                    });
                    metrics.len() - 1
                });
                let metric = &mut metrics[place];
                let figure_of_split = match (validation, test) {
                    (Some(_), _) => &mut metric.validation,
                    (_, Some(_)) => &mut metric.test,
                    _ => &mut metric.train,
                };
                *figure_of_split = figure;
            }
            Ok(metrics)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<EpochMetric>, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

impl EpochRow {
    /// Every metric of the row, the accuracy first if it was measured.
    pub fn all_metrics(&self) -> impl Iterator<Item = EpochMetric> {
        let accuracy = self.accuracy.map(|train| EpochMetric {
            name: "accuracy".into(),
            train: Some(train),
            validation: self.val_accuracy,
            test: self.test_accuracy,
        });
        accuracy.into_iter().chain(self.metrics.iter().cloned())
    }

    /// The metric of this name; `None` if the row has none.
    pub fn metric(&self, name: &str) -> Option<EpochMetric> {
        self.all_metrics().find(|metric| metric.name == name)
    }

    /// A warning for people if every loss of the epoch is far above that of a constant prediction, so that the model has
    /// learned nothing.
    pub fn warning(&self, constant_loss: Option<f64>) -> Option<String> {
        let constant = constant_loss?;
        let lowest = self.val_loss.into_iter().chain(self.test_loss).fold(self.loss, f64::min);
        (lowest > FAR_ABOVE * constant).then(|| {
            format!(
                "epoch {}: the loss is {lowest:.4}, and a constant prediction has {constant:.4}: the model learns nothing \
                 (lower the learning rate, or scale the inputs)",
                self.epoch
            )
        })
    }
}

/// A loss that is this many times that of a constant prediction is far above it. An epoch in which training begins badly
/// and ends well is not: its loss on the test set is low.
const FAR_ABOVE: f64 = 2.0;

/// JSON has no NaN and no infinity, and writes `null` for both.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Where a running job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// From 1.
    pub epoch: u32,
    /// Steps of this epoch that are done.
    pub step: u32,
    /// The mean loss over the epoch so far.
    pub loss: f64,
    /// The training accuracy over the epoch so far; `None` where the job does not ask for it.
    pub accuracy: Option<f64>,
    /// The job's other metrics over the epoch so far, by name, in its order; those that are measured in training.
    #[serde(serialize_with = "by_name", skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<(String, f64)>,
    /// Milliseconds that a step takes, a mean over the last steps.
    pub step_ms: f64,
    /// Training samples a second, over the last steps.
    pub samples_per_second: f64,
    /// Seconds since this epoch began.
    pub epoch_seconds: f64,
}

impl Progress {
    /// Every metric, the accuracy first.
    pub fn all_metrics(&self) -> impl Iterator<Item = (&str, f64)> {
        let accuracy = self.accuracy.map(|accuracy| ("accuracy", accuracy));
        accuracy.into_iter().chain(self.metrics.iter().map(|(name, figure)| (name.as_str(), *figure)))
    }
}

fn by_name<S: Serializer>(metrics: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|(name, figure)| (name, figure)))
}

/// What a step's time is made of, in milliseconds, means over the last steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepTime {
    /// The longest that a worker's slots were busy.
    pub compute_ms: f64,
    /// From the first result to the last.
    pub wait_ms: f64,
    /// What neither computing nor reducing explains: sending and receiving.
    pub wire_ms: f64,
    /// The coordinator's additions and the optimizer.
    pub reduce_ms: f64,
}

/// A worker of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerView {
    /// Its number in this life of the coordinator.
    pub id: u64,
    /// For people, such as `host:1234`.
    pub name: String,
    /// `computing`, `fetching`, `draining`, `standby` or `idle`.
    pub state: String,
    /// The shards that it computes.
    #[serde(serialize_with = "every_one")]
    pub shards: Range<u32>,
    /// Shards of all splits that it holds.
    pub shards_held: u32,
    /// Pieces that it computes at once.
    pub slots: u32,
    /// The OpenBLAS kernel that it has loaded.
    pub kernel: String,
    /// The version of its OpenBLAS.
    pub blas_version: String,
    /// Hex SHA-256 of its arithmetic's results.
    pub fingerprint: String,
    /// The version of its program.
    pub build: String,
    /// Its processor's model name.
    pub cpu: String,
    /// Training samples a second, over the last steps.
    pub samples_per_second: f64,
    /// Payload bytes to the worker, since it joined.
    pub bytes_sent: u64,
    /// Payload bytes from the worker, since it joined.
    pub bytes_received: u64,
    /// Seconds since anything came from it.
    pub last_heard_seconds: f64,
    /// What it is waited for, and since when; for people.
    pub detail: String,
}

/// JSON lists the shards one by one.
fn every_one<S: Serializer>(shards: &Range<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(shards.clone())
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OutcomeView {
    /// As the commands exit: 0 for a job that is done.
    pub exit_code: u8,
    /// One line for people.
    pub message: String,
    /// Why it failed; none of a job that is done or cancelled.
    pub failure: Option<Failure>,
    /// Hex SHA-256 of the parameters after the last epoch; empty if there was none.
    pub weights_sha256: String,
    /// The first test images with the model's answers.
    pub predictions: Vec<Prediction>,
}

/// A test image, what it is, and what the model says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// Rows and columns.
    pub image: (usize, usize),
    /// Grey values, row by row.
    pub pixels: Vec<u8>,
    /// What it is.
    pub label: u32,
    /// What the model says.
    pub class: u32,
}

/// All that is known of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JobReport {
    /// The job.
    pub job: JobView,
    /// A row for each epoch that has ended.
    pub history: Arc<Vec<EpochRow>>,
    /// Where it is, while it runs.
    pub progress: Option<Progress>,
    /// How it ended, once it has.
    pub outcome: Option<OutcomeView>,
}

/// A job and the cluster that trains it, as `metrics --json` prints them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// None while there is no job.
    pub job: Option<JobView>,
    /// A row for each of its epochs that has ended.
    pub history: Arc<Vec<EpochRow>>,
    /// Where it is, while it runs.
    pub progress: Option<Progress>,
    /// What a step's time is made of.
    pub step_time: StepTime,
    /// Every worker.
    pub workers: Vec<WorkerView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(loss: f64, val_loss: Option<f64>, test_loss: f64) -> EpochRow {
        EpochRow { epoch: 3, loss, val_loss, test_loss: Some(test_loss), seconds: 1.0, ..EpochRow::default() }
    }

    #[test]
    fn a_loss_far_above_that_of_a_constant_is_a_warning() {
        let warning = |row: EpochRow| row.warning(Some(10_f64.ln()));
        let told = warning(row(15_000.0, Some(14_000.0), 14_500.0)).expect("it is far above");
        assert!(
            told.starts_with("epoch 3: the loss is 14000.0000, and a constant prediction has 2.3026"),
            "{told}"
        );
        assert_eq!(warning(row(2.5, Some(2.4), 2.4)), None, "it is not far above");
        assert_eq!(warning(row(9.0, Some(9.0), 0.5)), None, "the epoch has ended well");
        assert_eq!(row(9.0, None, 9.0).warning(None), None, "the yardstick is not known");
        assert!(warning(row(9.0, None, 9.0)).is_some(), "there is no validation");
    }
}
