//! What the control machine must know of a job, and positions in a job.

use std::collections::BTreeSet;

use super::ids::Phase;
use super::members::Arithmetic;
use crate::data::plan::Plan;
use crate::data::shard::{self, Shard};
use crate::data::split::{Sizes, Split};
use crate::learn::accumulation::Accumulation;

/// What the control machine must know of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Epochs to train.
    pub epochs: u32,
    /// The number of shards and steps, and the samples of each shard in each step.
    pub plan: Plan,
    /// Which mini-batches make a step of the optimizer.
    pub accumulation: Accumulation,
    /// How many shards each split has.
    pub shards: u32,
    /// How many samples each split has.
    pub sizes: Sizes,
    /// The bytes of one sample with its label.
    pub sample_bytes: u64,
    /// What a worker with another arithmetic restarts with: a kernel's name, or `environment`.
    pub kernel_request: String,
    /// The arithmetic that every worker must have.
    pub arithmetic: Arithmetic,
    /// Hex SHA-256 of the results on the job's own shapes.
    pub shapes_fingerprint: String,
}

impl Facts {
    /// The shards that have samples in a unit of work.
    pub fn present(&self, phase: Phase, step: u32) -> BTreeSet<u32> {
        match phase {
            Phase::Train => self.plan.present(step),
            Phase::Validate | Phase::Test => (0..self.shards.min(self.sizes.of(phase.split()))).collect(),
        }
    }

    /// How many samples a shard has in a unit of work.
    pub fn samples(&self, phase: Phase, step: u32, shard: u32) -> u32 {
        self.plan.share(phase.split(), self.sizes, step, shard)
    }

    /// Whether an epoch ends with this unit of work.
    pub fn ends_epoch(&self, phase: Phase, step: u32) -> bool {
        Position { epoch: 0, phase, step }.next(self).is_none()
    }

    /// The shards of the three splits with these indices, without the empty ones.
    pub(super) fn shards_of(&self, indices: impl Iterator<Item = u32> + Clone) -> Vec<Shard> {
        let of = |split| {
            indices
                .clone()
                .filter(move |&i| i < self.sizes.of(split))
                .map(move |index| Shard { split, index })
        };
        Split::ALL.into_iter().flat_map(of).collect()
    }

    pub(super) fn shard_bytes(&self, shard: Shard) -> u64 {
        u64::from(shard::shard_len(self.sizes.of(shard.split), self.shards, shard.index)) * self.sample_bytes
    }
}

/// A job's position: the unit of work that is open, or the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u32,
    /// What is computed.
    pub phase: Phase,
    /// The step, from 0; 0 in evaluation.
    pub step: u32,
}

impl Position {
    /// The first step of an epoch.
    pub fn start_of(epoch: u32) -> Self {
        Self { epoch, phase: Phase::Train, step: 0 }
    }

    /// The next position in the same epoch; `None` at its end.
    pub(super) fn next(self, facts: &Facts) -> Option<Self> {
        match self.phase {
            Phase::Train if self.step + 1 < facts.plan.steps() => Some(Self { step: self.step + 1, ..self }),
            Phase::Train if facts.sizes.validation > 0 => {
                Some(Self { phase: Phase::Validate, step: 0, ..self })
            }
            Phase::Train | Phase::Validate if facts.sizes.test > 0 => {
                Some(Self { phase: Phase::Test, step: 0, ..self })
            }
            Phase::Train | Phase::Validate | Phase::Test => None,
        }
    }
}

/// Where a job begins, or resumes after a restart of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The next step. If the job does not have its epoch, the job is trained, and its result is not yet written.
    pub position: Position,
    /// How many optimizer steps were taken before it.
    pub parameter_tag: u64,
}

impl Start {
    /// The beginning of a job.
    pub const BEGINNING: Self =
        Self { position: Position { epoch: 0, phase: Phase::Train, step: 0 }, parameter_tag: 0 };

    /// The first step of an epoch.
    pub fn of_epoch(epoch: u32, parameter_tag: u64) -> Self {
        Self { position: Position::start_of(epoch), parameter_tag }
    }
}
