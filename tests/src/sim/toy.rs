//! Hashes in place of floats: every number is a hash of its inputs.
//!
//! Parameters are one `u64`. A piece is a hash of the parameters, its place and its samples; an addition is a hash
//! of both sums, left before right; the optimizer's step is a hash of parameters and sum. So a piece that is
//! missing, duplicated, of another step or of other parameters changes every later number, and so does another
//! order of additions.

use std::ops::Range;
use std::sync::Arc;

use millefeuille_core::control::{Digest, Facts, Phase, Position, WorkId};
use millefeuille_core::data::shard::shard_len;
use millefeuille_core::learn::stopping::{Stopping, Watch};
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_core::view::EpochRow;

use super::random::mix;

const PIECE: u64 = 1;
const ADD: u64 = 2;
const STEP: u64 = 3;
/// The figures at the start of an epoch.
pub(crate) const ROW: u64 = 4;

/// The samples of a piece, as its worker reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gathered {
    pub(crate) epoch: u32,
    pub(crate) phase: Phase,
    pub(crate) shard: u32,
    /// Their places in the shard's order.
    pub(crate) places: Range<u32>,
}

/// A sum of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) value: u64,
    pub(crate) finite: bool,
    pub(crate) gathered: Vec<Gathered>,
}

impl Sum {
    /// `left += right`.
    pub(crate) fn add(&mut self, right: Self) {
        self.value = mix(mix(ADD, self.value), right.value);
        self.finite &= right.finite;
        self.gathered.extend(right.gathered);
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.value.to_le_bytes());
        digest
    }
}

/// A mini-batch after those of its step that came before.
pub(crate) fn joined(before: Option<Sum>, batch: Sum) -> Sum {
    match before {
        None => batch,
        Some(mut before) => {
            before.add(batch);
            before
        }
    }
}

/// A job: its facts for the control machine, and the inputs of its numbers.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) facts: Facts,
    pub(crate) seed: u64,
    /// The identity of its data: workers keep samples from one job to the next.
    pub(crate) data: u64,
    /// When it stops before its last epoch.
    pub(crate) stopping: Stopping,
    /// The epoch and the step in which training diverges.
    pub(crate) diverges_at: Option<(u32, u32)>,
}

/// The figures of an epoch, from 0, as the control machine sees them: they go up and down with the hash.
pub(crate) fn row_of(epoch: u32, row: u64) -> EpochRow {
    let loss = (row % 1000) as f64 / 1000.0;
    EpochRow { epoch: u64::from(epoch) + 1, loss, test_loss: Some(loss), ..EpochRow::default() }
}

/// The results of the reference run.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The parameters after each number of steps.
    pub(crate) parameters: Vec<u64>,
    /// One for each epoch.
    pub(crate) rows: Vec<u64>,
}

impl Job {
    pub(crate) fn beginning(&self) -> u64 {
        mix(self.seed, 0)
    }

    /// The rules of the job after epochs with these rows.
    pub(crate) fn watch_after(&self, rows: &[u64]) -> Watch {
        let rows: Vec<_> = (0..).zip(rows).map(|(epoch, &row)| row_of(epoch, row)).collect();
        Watch::after(self.stopping, &rows)
    }

    pub(crate) fn piece(&self, parameters: u64, work: WorkId, shard: u32) -> Sum {
        let places = match work.phase {
            Phase::Train => self.facts.plan.piece(work.step, shard),
            Phase::Validate | Phase::Test => {
                0..shard_len(self.facts.sizes.of(work.phase.split()), self.facts.shards, shard)
            }
        };
        let place = u64::from(work.epoch) << 40 | u64::from(work.step) << 8 | work.phase as u64;
        let samples = u64::from(places.start) << 32 | u64::from(places.end);
        let value = [self.data, place, shard.into(), samples].into_iter().fold(mix(PIECE, parameters), mix);
        let finite = work.phase != Phase::Train || self.diverges_at != Some((work.epoch, work.step));
        Sum {
            value,
            finite,
            gathered: vec![Gathered { epoch: work.epoch, phase: work.phase, shard, places }],
        }
    }

    /// A node's sum by the definition of the tree, independent of
    /// [`Reduction`](millefeuille_core::learn::tree::Reduction).
    pub(crate) fn node(&self, parameters: u64, work: WorkId, node: Node) -> Option<Sum> {
        let Some((left, right)) = Tree::new(self.facts.shards).children(node) else {
            let samples = self.facts.samples(work.phase, work.step, node.first);
            return (samples > 0).then(|| self.piece(parameters, work, node.first));
        };
        match (self.node(parameters, work, left), self.node(parameters, work, right)) {
            (Some(mut left), Some(right)) => {
                left.add(right);
                Some(left)
            }
            (one, other) => one.or(other),
        }
    }

    /// The optimizer's step.
    pub(crate) fn step(&self, parameters: u64, sum: &Sum) -> u64 {
        mix(mix(STEP, parameters), sum.value)
    }

    /// The units of work of an epoch, in order.
    pub(crate) fn units(&self) -> Vec<(Phase, u32)> {
        let steps = (0..self.facts.plan.steps()).map(|step| (Phase::Train, step));
        let validation = (self.facts.sizes.validation > 0).then_some((Phase::Validate, 0));
        steps.chain(validation).chain([(Phase::Test, 0)]).collect()
    }

    /// The unit of work after this one.
    pub(crate) fn after(&self, at: Position) -> Position {
        let units = self.units();
        let index = units.iter().position(|&unit| unit == (at.phase, at.step)).unwrap_or_default();
        match units.get(index + 1) {
            Some(&(phase, step)) => Position { epoch: at.epoch, phase, step },
            None => Position::start_of(at.epoch + 1),
        }
    }

    pub(crate) fn expected(self: &Arc<Self>) -> Expected {
        let mut expected = Expected { parameters: vec![self.beginning()], rows: Vec::new() };
        let (mut parameters, mut accumulated) = (self.beginning(), None);
        for epoch in 0..self.facts.epochs {
            let mut row = ROW;
            for (phase, step) in self.units() {
                let work = WorkId {
                    job: millefeuille_core::control::JobId(0),
                    incarnation: 0,
                    epoch,
                    phase,
                    step,
                    parameter_tag: 0,
                };
                let root = Tree::new(self.facts.shards).root();
                let sum = self.node(parameters, work, root).expect("a unit of work has samples");
                row = mix(row, sum.value);
                if phase == Phase::Train {
                    let sum = joined(accumulated.take(), sum);
                    if self.facts.accumulation.completes(step) {
                        parameters = self.step(parameters, &sum);
                        expected.parameters.push(parameters);
                    } else {
                        accumulated = Some(sum);
                    }
                }
            }
            expected.rows.push(mix(row, parameters));
            if self.watch_after(&expected.rows).stopped().is_some() {
                break;
            }
        }
        expected
    }
}

/// The ledger of a run: each sample must be used exactly once per epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    epoch: u32,
    pieces: Vec<Gathered>,
}

impl Ledger {
    pub(crate) fn enter(&mut self, gathered: &[Gathered]) {
        self.pieces.extend_from_slice(gathered);
    }

    /// Ends an epoch.
    ///
    /// # Errors
    /// Names samples that were not used exactly once.
    pub(crate) fn end_epoch(&mut self, epoch: u32, facts: &Facts) -> Result<(), String> {
        let pieces = std::mem::take(&mut self.pieces);
        for phase in [Phase::Train, Phase::Validate, Phase::Test] {
            for shard in 0..facts.shards {
                let len = shard_len(facts.sizes.of(phase.split()), facts.shards, shard);
                let mut used = vec![0u32; len as usize];
                let of = pieces.iter().filter(|piece| (piece.phase, piece.shard) == (phase, shard));
                for piece in of {
                    if piece.epoch != epoch {
                        return Err(format!("epoch {epoch} has a piece of epoch {}: {piece:?}", piece.epoch));
                    }
                    piece.places.clone().for_each(|place| used[place as usize] += 1);
                }
                if let Some(place) = used.iter().position(|&times| times != 1) {
                    let times = used[place];
                    return Err(format!(
                        "{phase:?}: sample {place} of shard {shard} was used {times} times in epoch {epoch}"
                    ));
                }
            }
        }
        if self.epoch != epoch {
            return Err(format!("the ledger is in epoch {}, the job ends epoch {epoch}", self.epoch));
        }
        self.epoch += 1;
        Ok(())
    }
}
