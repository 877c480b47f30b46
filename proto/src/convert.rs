//! Conversions between wire types and core types.
//!
//! Conversions to the wire always succeed. Conversions from the wire return an error that says what is wrong, because
//! a peer may send anything: missing fields, enum values of a later version, inconsistent numbers. All text from the
//! wire is cleaned here too ([`millefeuille_core::text`]), each text as a [`name`] or a [`sentence`]; a token, which is
//! compared and never shown, is the exception.

use std::str::FromStr;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{Hello, JobId, Phase, WorkId};
use millefeuille_core::data::schema::{Element, Features, Schema, Target};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{
    Activation, Dense, Initializer, Layer, Loss, LossOptions, Metric, Normalization, Regularizer,
};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_core::text;
use prost::Message as _;

use crate::v1;

mod failure;
mod session;
mod view;

pub use failure::{failure_of, is_gone, is_refused, reason, refusal};
pub use view::metrics_page;

/// What is wrong with something that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        tonic::Status::invalid_argument(malformed.0)
    }
}

/// An error with this description.
pub fn malformed(what: impl Into<String>) -> Malformed {
    Malformed(sentence(&what.into()))
}

/// Unwraps a field that must be set.
///
/// # Errors
/// If the field is missing.
pub fn required<T>(field: Option<T>, name: &str) -> Result<T, Malformed> {
    field.ok_or_else(|| malformed(format!("`{name}` is missing")))
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::new(FailureKind::Usage, malformed.0)
    }
}

/// A peer's name for something, as it may be shown.
pub fn name(from: &str) -> String {
    text::cleaned(from, text::NAME)
}

/// A peer's sentence for people, as it may be shown.
fn sentence(from: &str) -> String {
    text::cleaned(from, text::SENTENCE)
}

impl From<&Arithmetic> for v1::Arithmetic {
    fn from(from: &Arithmetic) -> Self {
        let Arithmetic { kernel, version, fingerprint } = from.clone();
        Self { kernel, version, fingerprint }
    }
}

impl From<v1::Arithmetic> for Arithmetic {
    fn from(from: v1::Arithmetic) -> Self {
        let v1::Arithmetic { kernel, version, fingerprint } = from;
        Self { kernel: name(&kernel), version: name(&version), fingerprint: name(&fingerprint) }
    }
}

impl TryFrom<&v1::Hello> for Hello {
    type Error = Malformed;

    fn try_from(from: &v1::Hello) -> Result<Self, Malformed> {
        if from.slots == 0 {
            return Err(malformed("`slots` is 0"));
        }
        Ok(Self {
            instance_id: name(&from.instance_id),
            name: name(&from.name),
            slots: from.slots,
            arithmetic: required(from.arithmetic.clone(), "arithmetic")?.into(),
            cache_bytes: from.cache_bytes,
            started_for: name(&from.started_for),
        })
    }
}

impl From<Split> for v1::Split {
    fn from(from: Split) -> Self {
        match from {
            Split::Train => Self::Train,
            Split::Validation => Self::Validation,
            Split::Test => Self::Test,
        }
    }
}

impl From<Shard> for v1::ShardId {
    fn from(from: Shard) -> Self {
        Self { split: v1::Split::from(from.split).into(), index: from.index }
    }
}

impl TryFrom<v1::ShardId> for Shard {
    type Error = Malformed;

    fn try_from(from: v1::ShardId) -> Result<Self, Malformed> {
        let split = match from.split() {
            v1::Split::Train => Split::Train,
            v1::Split::Validation => Split::Validation,
            v1::Split::Test => Split::Test,
            v1::Split::Unspecified => return Err(malformed(format!("unknown split {}", from.split))),
        };
        Ok(Self { split, index: from.index })
    }
}

impl From<Phase> for v1::Phase {
    fn from(from: Phase) -> Self {
        match from {
            Phase::Train => Self::Train,
            Phase::Validate => Self::Validate,
            Phase::Test => Self::Test,
        }
    }
}

impl From<WorkId> for v1::WorkId {
    fn from(from: WorkId) -> Self {
        Self {
            job: from.job.0,
            incarnation: from.incarnation,
            phase: v1::Phase::from(from.phase).into(),
            epoch: from.epoch,
            step: from.step,
            parameter_tag: from.parameter_tag,
        }
    }
}

impl TryFrom<v1::WorkId> for WorkId {
    type Error = Malformed;

    fn try_from(from: v1::WorkId) -> Result<Self, Malformed> {
        let phase = match from.phase() {
            v1::Phase::Train => Phase::Train,
            v1::Phase::Validate => Phase::Validate,
            v1::Phase::Test => Phase::Test,
            v1::Phase::Unspecified => return Err(malformed(format!("unknown phase {}", from.phase))),
        };
        Ok(Self {
            job: JobId(from.job),
            incarnation: from.incarnation,
            epoch: from.epoch,
            phase,
            step: from.step,
            parameter_tag: from.parameter_tag,
        })
    }
}

impl From<Node> for v1::Node {
    fn from(from: Node) -> Self {
        Self { first: from.first, end: from.end }
    }
}

impl From<v1::Node> for Node {
    /// The node may not exist; [`in_tree`] checks that.
    fn from(from: v1::Node) -> Self {
        Self { first: from.first, end: from.end }
    }
}

/// Checks that a peer's node is in this tree.
///
/// # Errors
/// If the tree has no such node.
pub fn in_tree(node: Node, tree: &Tree) -> Result<Node, Malformed> {
    if tree.is_node(node.first, node.end) {
        Ok(node)
    } else {
        Err(malformed(format!("the tree has no node {node}")))
    }
}

impl From<&Layer> for v1::Layer {
    fn from(from: &Layer) -> Self {
        use v1::layer::Layer as Wire;
        let layer = match *from {
            Layer::Dense(dense) => Wire::Dense(v1::Dense {
                units: dense.units,
                activation: dense.activation.to_string(),
                no_bias: !dense.use_bias,
                kernel_initializer: dense.kernel_initializer.to_string(),
                l1: dense.kernel_regularizer.l1,
                l2: dense.kernel_regularizer.l2,
                frozen: !dense.trainable,
            }),
            Layer::LayerNormalization(Normalization { epsilon, trainable }) => {
                Wire::LayerNormalization(v1::LayerNormalization { epsilon, frozen: !trainable })
            }
            Layer::Dropout { rate } => Wire::Dropout(v1::Dropout { rate }),
        };
        Self { layer: Some(layer) }
    }
}

impl TryFrom<v1::Layer> for Layer {
    type Error = Malformed;

    fn try_from(from: v1::Layer) -> Result<Self, Malformed> {
        use v1::layer::Layer as Wire;
        match required(from.layer, "layer")? {
            Wire::Dense(from) => {
                let initializer = Some(&*from.kernel_initializer).filter(|name| !name.is_empty());
                let initializer =
                    initializer.map(|name| named::<Initializer>("initializer", name)).transpose()?;
                Ok(Layer::Dense(Dense {
                    units: from.units,
                    activation: named::<Activation>("activation", &from.activation)?,
                    use_bias: !from.no_bias,
                    kernel_initializer: initializer.unwrap_or(Initializer::GlorotUniform),
                    kernel_regularizer: Regularizer { l1: from.l1, l2: from.l2 },
                    trainable: !from.frozen,
                }))
            }
            Wire::LayerNormalization(v1::LayerNormalization { epsilon, frozen }) => {
                Ok(Layer::LayerNormalization(Normalization { epsilon, trainable: !frozen }))
            }
            Wire::Dropout(v1::Dropout { rate }) => Ok(Layer::Dropout { rate }),
        }
    }
}

fn named<T: FromStr>(kind: &str, wanted: &str) -> Result<T, Malformed> {
    wanted.parse().map_err(|_| malformed(format!("this build does not know the {kind} `{wanted}`")))
}

impl From<&Spec> for v1::Spec {
    fn from(from: &Spec) -> Self {
        Self {
            seed: from.seed,
            shards: from.shards,
            batch_size: from.batch_size,
            shuffle: from.shuffle,
            scale: from.scale,
            schema: Some(v1::Schema::from(&from.schema)),
            layers: from.layers.iter().map(v1::Layer::from).collect(),
            loss: from.loss.to_string(),
            label_smoothing: from.options.label_smoothing,
            delta: from.options.delta,
            metrics: from.metrics.iter().map(ToString::to_string).collect(),
            train_samples: from.sizes.train,
            validation_samples: from.sizes.validation,
            test_samples: from.sizes.test,
        }
    }
}

/// A spec as bytes, for another process of this program.
pub fn spec_to_bytes(spec: &Spec) -> Vec<u8> {
    v1::Spec::from(spec).encode_to_vec()
}

/// A spec from the bytes of [`spec_to_bytes`].
///
/// # Errors
/// If the bytes are not a spec, or the spec is invalid.
pub fn spec_from_bytes(bytes: &[u8]) -> Result<Spec, Malformed> {
    let spec = v1::Spec::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    Spec::try_from(spec)
}

impl TryFrom<v1::Spec> for Spec {
    type Error = Malformed;

    fn try_from(from: v1::Spec) -> Result<Self, Malformed> {
        let layers: Vec<Layer> = from.layers.into_iter().map(Layer::try_from).collect::<Result<_, _>>()?;
        let metrics = from.metrics.iter().map(|name| named::<Metric>("metric", name));
        let schema = required(from.schema, "schema")?;
        let spec = Self {
            seed: from.seed,
            shards: from.shards,
            batch_size: from.batch_size,
            shuffle: from.shuffle,
            scale: from.scale,
            schema: Schema::try_from(schema)?,
            layers,
            loss: named::<Loss>("loss", &from.loss)?,
            options: LossOptions {
                label_smoothing: from.label_smoothing,
                delta: if from.delta == 0.0 { LossOptions::default().delta } else { from.delta },
            },
            metrics: metrics.collect::<Result<_, _>>()?,
            sizes: Sizes {
                train: from.train_samples,
                validation: from.validation_samples,
                test: from.test_samples,
            },
        };
        spec.check().map_err(malformed)?;
        Ok(spec)
    }
}

impl From<&Schema> for v1::Schema {
    fn from(from: &Schema) -> Self {
        use v1::schema::Target as Wire;
        Self {
            element: from.features.element.to_string(),
            shape: from.features.shape.clone(),
            target: Some(match from.target {
                Target::Class { classes } => Wire::Classes(classes),
                Target::Reals { width } => Wire::Reals(width),
            }),
            weighted: from.weighted,
        }
    }
}

impl TryFrom<v1::Schema> for Schema {
    type Error = Malformed;

    fn try_from(from: v1::Schema) -> Result<Self, Malformed> {
        use v1::schema::Target as Wire;
        let element = match from.element.as_str() {
            "uint8" => Element::U8,
            "float32" => Element::F32,
            other => return Err(malformed(format!("this build does not know the element `{other}`"))),
        };
        let target = match from.target {
            Some(Wire::Classes(classes @ 1..)) => Target::Class { classes },
            Some(Wire::Reals(width @ 1..)) => Target::Reals { width },
            _ => return Err(malformed("a schema has no target".to_string())),
        };
        let features = Features { element, shape: from.shape };
        match features.width() {
            1..=MAX_WIDTH => Ok(Self { features, target, weighted: from.weighted }),
            width => Err(malformed(format!("a sample has {width} values"))),
        }
    }
}

/// Maximum number of values in a sample: the largest image that a format can hold.
const MAX_WIDTH: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use millefeuille_core::view::{EpochRow, JobView, OutcomeView, WorkerView};
    use tonic::Status;

    use super::*;
    use crate::session::{FromWorker, ToWorker};
    use crate::v1::session_request::Message as Up;
    use crate::v1::session_response::Message as Down;

    /// Begins a line, clears the screen, turns the direction of writing, and does not end.
    fn hostile() -> String {
        "\nerror: no\u{1b}[2J\u{202e}ä".to_string() + &"X".repeat(150_000)
    }

    #[track_caller]
    fn is_clean(converted: impl Debug) {
        let shown = format!("{converted:?}");
        assert!(shown.contains("error: no [2J äXXX"), "the text is there: {shown}");
        assert!(!["\\n", "\\u{1b}", "\\u{202e}"].iter().any(|escaped| shown.contains(escaped)), "{shown}");
        assert!(!shown.contains(&"X".repeat(text::SENTENCE)), "it is short");
    }

    /// A message names all of its fields here, so that a new text can't be forgotten.
    #[test]
    fn texts_of_workers_are_clean() {
        let up = |message| FromWorker::try_from(v1::SessionRequest { message: Some(message) }).unwrap();
        let arithmetic = v1::Arithmetic { kernel: hostile(), version: hostile(), fingerprint: hostile() };
        is_clean(up(Up::Hello(v1::Hello {
            protocol_version: 1,
            build: hostile(),
            instance_id: hostile(),
            name: hostile(),
            slots: 1,
            arithmetic: Some(arithmetic),
            cpu: hostile(),
            token: "compared and never shown".into(),
            cache_bytes: 0,
            started_for: hostile(),
            shared_memory: 0,
        })));
        is_clean(up(Up::JobAccepted(v1::JobAccepted {
            job: 1,
            fingerprint: hostile(),
            shares_memory: false,
        })));
        is_clean(up(Up::Goodbye(v1::Goodbye { reason: hostile() })));
        is_clean(up(Up::Drain(v1::Drain { reason: hostile() })));
    }

    #[test]
    fn texts_of_coordinators_are_clean() {
        let down = |message| ToWorker::try_from(v1::SessionResponse { message: Some(message) }).unwrap();
        is_clean(down(Down::Goodbye(v1::Goodbye { reason: hostile() })));
        is_clean(down(Down::Evicted(v1::Evicted { reason: hostile() })));
        let id = Some(v1::ShardId { split: v1::Split::Train.into(), index: 0 });
        let shard = v1::Shard { id, samples: 1, bytes: 1, sha256: hostile() };
        is_clean(down(Down::Hold(v1::Hold { job: 1, shards: vec![shard], spare: false, generation: 1 })));
        let spec = Some(v1::Spec::from(&spec()));
        is_clean(down(Down::JobStart(v1::JobStart { job: 1, run_id: hostile(), spec })));
        is_clean(reason(&Status::aborted(hostile())));
        is_clean(failure_of(&Status::not_found(hostile())));
        is_clean(name(&hostile()));
    }

    fn spec() -> Spec {
        let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
        millefeuille_core::job::Job::default().spec(schema, Sizes { train: 1, validation: 1, test: 1 })
    }

    #[test]
    fn what_can_be_seen_of_a_cluster_is_clean() {
        let failure = v1::Failure {
            kind: 1,
            place: hostile(),
            what: hostile(),
            source: hostile(),
            remedy: "the kind's own".into(),
        };
        is_clean(Failure::from(failure.clone()));
        is_clean(JobView::from(v1::Job {
            id: hostile(),
            name: hostile(),
            run_dir: hostile(),
            detail: hostile(),
            next: hostile(),
            failure: Some(failure.clone()),
            ..Default::default()
        }));
        is_clean(EpochRow::from(v1::Epoch { weights_sha256: hostile(), ..Default::default() }));
        is_clean(WorkerView::from(v1::WorkerInfo {
            name: hostile(),
            state: hostile(),
            kernel: hostile(),
            blas_version: hostile(),
            fingerprint: hostile(),
            build: hostile(),
            cpu: hostile(),
            detail: hostile(),
            ..Default::default()
        }));
        is_clean(OutcomeView::from(v1::Outcome {
            exit_code: 1,
            message: hostile(),
            weights_sha256: hostile(),
            predictions: Vec::new(),
            failure: Some(failure),
        }));
    }
}
