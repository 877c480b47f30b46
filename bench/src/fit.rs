//! The article's fit and its outcome.

use anyhow::Context as _;
use millefeuille_core::data::formats::idx;
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::schema::Schema;
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::data::split::Split;
use millefeuille_core::job::{Job, Optimizer, Overrides};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::ShardView;
use millefeuille_core::learn::spec::Spec;
use serde::{Deserialize, Serialize};

/// Epochs of the article's fit.
pub(crate) const EPOCHS: u32 = 5;

/// The outcome of one fit, of a cluster or of the baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fit {
    /// From the first step to the last evaluation, reading data excluded.
    pub(crate) seconds: f64,
    /// SHA-256 of the final parameters.
    pub(crate) weights_sha256: String,
    /// The figures of every epoch.
    pub(crate) epochs: Vec<Figures>,
    pub(crate) blas_kernel: String,
    pub(crate) blas_version: String,
}

/// An epoch's figures, named as in a run's `history.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
    pub(crate) val_loss: f64,
    pub(crate) val_accuracy: f64,
    pub(crate) test_loss: f64,
    pub(crate) test_accuracy: f64,
}

impl Fit {
    /// Whether both fits are the same, bit for bit.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        self.weights_sha256 == other.weights_sha256 && self.epochs == other.epochs
    }
}

/// The article's job, ready to be computed.
#[derive(Debug)]
pub(crate) struct Article {
    pub(crate) spec: Spec,
    pub(crate) model: Model,
    pub(crate) optimizer: Optimizer,
    store: ShardStore,
}

impl Article {
    /// Reads the data that is built into the program.
    pub(crate) fn load() -> anyhow::Result<Self> {
        Self::with(&[])
    }

    /// The same, with keys of the job set.
    pub(crate) fn with(set: &[&str]) -> anyhow::Result<Self> {
        let set = set.iter().map(ToString::to_string).collect();
        let job = Job::resolve(None, &Overrides { set, ..Overrides::default() })?;
        let parts = Parts::from(idx::mnist().context("cannot read the built-in data")?);
        let store = ShardStore::new(parts.prepare(job.data.recipe(job.wanted()))?, job.shards);
        let spec = job.spec(Schema::clone(store.schema()), store.sizes());
        let model = Model::new(spec.inputs(), &job.layers);
        Ok(Self { spec, model, optimizer: job.compile.optimizer, store })
    }

    /// The samples of a shard. Every shard of the article's job has some.
    pub(crate) fn samples(&self, split: Split, index: u32) -> ShardView<'_> {
        let stored = self.store.get(Shard { split, index }).expect("each split has all shards");
        ShardView { shard: index, shards: self.spec.shards, samples: &stored.samples }
    }
}
