//! One job's progress: where it is, which tree is open, who was asked for what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::members::{Arithmetic, Hello, Member, Members, weights};
use super::open::{Dispatch, Hand, Open, Terms};
use super::place::{Placement, place};
use super::trial::is_audited;
use super::{JobId, Phase, WorkId, WorkerId};
use crate::data::plan::Plan;
use crate::data::shard::{self, Shard};
use crate::data::split::{Sizes, Split};
use crate::learn::tree::Tree;

/// What the control machine must know of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Epochs to train.
    pub epochs: u32,
    /// Shards, steps, and which shard has samples in which step.
    pub plan: Plan,
    /// Shards of each split.
    pub shards: u32,
    /// Samples of each split.
    pub sizes: Sizes,
    /// Bytes of one sample with its label.
    pub sample_bytes: u64,
    /// What a worker starts itself again with if its arithmetic is another: a kernel's name, or `environment`.
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
        match phase {
            Phase::Train => self.plan.piece(step, shard).len() as u32,
            Phase::Validate | Phase::Test => {
                shard::shard_len(self.sizes.of(phase.split()), self.shards, shard)
            }
        }
    }

    /// Shards of the three splits with these indices, leaving out those without samples.
    fn shards_of(&self, indices: impl Iterator<Item = u32> + Clone) -> Vec<Shard> {
        let of = |split| {
            indices
                .clone()
                .filter(move |&i| i < self.sizes.of(split))
                .map(move |index| Shard { split, index })
        };
        Split::ALL.into_iter().flat_map(of).collect()
    }

    fn shard_bytes(&self, shard: Shard) -> u64 {
        u64::from(shard::shard_len(self.sizes.of(shard.split), self.shards, shard.index)) * self.sample_bytes
    }
}

/// Where a job is: the unit of work that is open, or comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 0.
    pub epoch: u32,
    /// What is computed.
    pub phase: Phase,
    /// From 0; 0 in evaluation.
    pub step: u32,
}

impl Position {
    /// The first step of an epoch.
    pub fn start_of(epoch: u32) -> Self {
        Self { epoch, phase: Phase::Train, step: 0 }
    }

    /// What comes next in the same epoch.
    fn next(self, facts: &Facts) -> Option<Self> {
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

/// Where a job begins, or goes on after the coordinator's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The next step. Of an epoch that the job does not have: it is trained, and its result not written.
    pub position: Position,
    /// Optimizer steps taken before it.
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

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its data is read.
    Loading,
    /// It waits for its first workers, and for their samples.
    Gathering {
        /// Since when.
        since: Duration,
    },
    /// It had begun, and has too few workers to go on. A tree may be open.
    Short {
        /// Since when.
        since: Duration,
    },
    /// It waits for the disk, which is epochs behind.
    Writing,
    /// A tree is open.
    Stepping,
    /// A tree is complete; the driver makes the next parameters.
    Closing,
    /// The result is written.
    Saving,
}

/// The job that has its turn.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) job: JobId,
    pub(super) stage: Stage,
    pub(super) facts: Option<Facts>,
    pub(super) position: Position,
    pub(super) parameter_tag: u64,
    /// Who computes what now.
    pub(super) placement: Placement,
    /// Who shall compute what, once everybody holds it.
    pub(super) target: Option<Placement>,
    /// When shards were last placed.
    pub(super) placed: Duration,
    /// When the state was last copied.
    pub(super) checkpointed: Duration,
    /// Whether the next moment between two steps is one for a checkpoint, whatever the interval.
    pub(super) checkpoint_due: bool,
    /// Whether a checkpoint is being written.
    pub(super) checkpointing: bool,
    /// Epochs whose line of history is not yet on disk.
    pub(super) unwritten: u32,
    /// Since when there are too few workers.
    pub(super) short_since: Option<Duration>,
    /// How often a process has broken the protocol.
    pub(super) offences: BTreeMap<String, u32>,
    /// Processes that were put out.
    pub(super) banned: BTreeMap<String, String>,
    pub(super) open: Option<Open>,
    /// Who has answered in the open tree and is gone: the answer may yet turn out to be wrong.
    pub(super) departed: BTreeMap<WorkerId, Hello>,
}

impl Run {
    pub(super) fn new(job: JobId) -> Self {
        Self {
            job,
            stage: Stage::Loading,
            facts: None,
            position: Position::start_of(0),
            parameter_tag: 0,
            placement: Placement::new(),
            target: None,
            placed: Duration::ZERO,
            checkpointed: Duration::ZERO,
            checkpoint_due: false,
            checkpointing: false,
            unwritten: 0,
            short_since: None,
            offences: BTreeMap::new(),
            banned: BTreeMap::new(),
            open: None,
            departed: BTreeMap::new(),
        }
    }

    /// Takes in what was read.
    pub(super) fn load(&mut self, now: Duration, facts: Facts, from: Start) {
        self.facts = Some(facts);
        self.stage = Stage::Gathering { since: now };
        self.position = from.position;
        self.parameter_tag = from.parameter_tag;
        self.checkpointed = now;
    }

    /// Where the job could go on from its present state; none before it has begun, and in the middle of an evaluation,
    /// where the state is the same as at its epoch's last step but can't be named.
    pub(super) fn resting_place(&self) -> Option<Start> {
        let begun = !matches!(self.stage, Stage::Loading | Stage::Gathering { .. });
        let named = self.position.phase == Phase::Train;
        (begun && named).then_some(Start { position: self.position, parameter_tag: self.parameter_tag })
    }

    /// Whether every epoch is trained.
    pub(super) fn is_trained(&self) -> bool {
        self.position.epoch >= self.facts().epochs
    }

    /// The job's facts; the machine asks for them only after `Loaded`.
    pub(super) fn facts(&self) -> &Facts {
        self.facts.as_ref().expect("a run that is past loading has facts")
    }

    /// Members that can compute this job.
    pub(super) fn candidates<'a>(&self, members: &'a Members) -> Vec<(WorkerId, &'a Member)> {
        let can = |member: &Member| !member.draining && member.part(self.job).is_some();
        members.iter().filter(|(_, member)| can(member)).map(|(&worker, member)| (worker, member)).collect()
    }

    /// Places the shards anew on everybody who can compute; the placement is used once all samples are there.
    ///
    /// Who is behind has shown that it can't keep up: it gets shards again once it has answered.
    pub(super) fn replace(&mut self, now: Duration, members: &Members) {
        let candidates = self.candidates(members);
        let prompt: Vec<_> = candidates.iter().copied().filter(|(_, member)| !member.behind).collect();
        let chosen = if prompt.is_empty() { candidates } else { prompt };
        let target = place(self.facts().shards, &weights(now, &chosen));
        self.target = (target != self.placement).then_some(target);
        self.placed = now;
    }

    /// The shards a worker shall hold: what it is to compute, what it computes now, then others ahead of need.
    pub(super) fn shards_to_hold(&self, worker: WorkerId, cache_bytes: u64) -> Vec<Shard> {
        let facts = self.facts();
        let run = |placement: &Placement| placement.get(&worker).cloned().unwrap_or(0..0);
        let target = self.target.as_ref().map_or(0..0, run);
        let mut shards = facts.shards_of(target.clone());
        push_new(&mut shards, facts.shards_of(run(&self.placement)));
        if !matches!(self.stage, Stage::Gathering { .. }) {
            let first = self.placement.get(&worker).map_or(0, |run| run.end);
            let ahead =
                (0..facts.shards).flat_map(|k| facts.shards_of(std::iter::once((first + k) % facts.shards)));
            let needed: u64 = shards.iter().map(|&shard| facts.shard_bytes(shard)).sum();
            push_within(&mut shards, ahead, cache_bytes.saturating_sub(needed), |shard| {
                facts.shard_bytes(shard)
            });
        }
        shards
    }

    /// Whether everybody holds what the new placement says.
    pub(super) fn target_is_held(&self, members: &Members) -> bool {
        let holds = |worker: &WorkerId, indices: std::ops::Range<u32>| {
            let part = members.get(worker).and_then(|member| member.part(self.job));
            part.is_some_and(|part| {
                self.facts().shards_of(indices).iter().all(|shard| part.held.contains(shard))
            })
        };
        self.target
            .as_ref()
            .is_some_and(|target| target.iter().all(|(worker, run)| holds(worker, run.clone())))
    }

    /// The unit of work at the present position.
    pub(super) fn work(&self, incarnation: u64) -> WorkId {
        let Position { epoch, phase, step } = self.position;
        WorkId { job: self.job, incarnation, epoch, phase, step, parameter_tag: self.parameter_tag }
    }

    /// Opens the tree at the present position.
    pub(super) fn open(&mut self, work: WorkId) {
        let present = self.facts().present(work.phase, work.step);
        self.open = Some(Open::new(work, Tree::new(self.facts().shards), present));
        self.stage = Stage::Stepping;
    }

    /// Gives out what nobody owes of the open tree.
    pub(super) fn dispatch(&mut self, now: Duration, members: &Members, audit_rate: f64) -> Dispatch {
        let hands = self.hands(members);
        let (Some(open), Some(facts)) = (&mut self.open, &self.facts) else { return Dispatch::default() };
        let work = open.work;
        let split = work.phase.split();
        let job = self.job;
        let holds = |worker: WorkerId, index: u32| {
            let part = members.get(&worker).and_then(|member| member.part(job));
            part.is_some_and(|part| part.held.contains(&Shard { split, index }))
        };
        let samples = |shard| u64::from(facts.samples(work.phase, work.step, shard));
        let place = u64::from(work.epoch) << 40 | u64::from(work.step) << 2 | work.phase as u64;
        let audited =
            |node: crate::learn::tree::Node| is_audited(audit_rate, work.incarnation, place, node.first);
        open.dispatch(&hands, &Terms { now, holds: &holds, samples: &samples, audited: &audited })
    }

    /// Shards that the open tree misses and that nobody holds who could compute them.
    pub(super) fn unheld(&self, members: &Members) -> Vec<u32> {
        let Some(open) = &self.open else { return Vec::new() };
        let split = open.work.phase.split();
        let candidates = self.candidates(members);
        let held = |index| {
            let holds = |part: &super::members::Part| part.held.contains(&Shard { split, index });
            candidates.iter().any(|(_, member)| member.part(self.job).is_some_and(holds))
        };
        open.unassigned().into_iter().filter(|&index| !held(index)).collect()
    }

    fn hands(&self, members: &Members) -> Vec<Hand> {
        let owns = |worker: &WorkerId| self.placement.get(worker).cloned().unwrap_or(0..0);
        let hand = |(worker, member): (WorkerId, &Member)| Hand {
            worker,
            owns: owns(&worker),
            weight: f64::from(member.hello.slots.max(1)),
            behind: member.behind || self.open.as_ref().is_some_and(|open| open.is_late(worker)),
        };
        self.candidates(members).into_iter().map(hand).collect()
    }

    /// The work whose tree is open or was closed last.
    pub(super) fn current(&self) -> Option<WorkId> {
        self.open.as_ref().map(|open| open.work)
    }

    /// Moves on within the epoch; whether there was something left in it.
    pub(super) fn advance(&mut self) -> bool {
        if self.position.phase == Phase::Train {
            self.parameter_tag += 1;
        }
        let next = self.position.next(self.facts());
        if let Some(position) = next {
            self.position = position;
        }
        next.is_some()
    }
}

fn push_new(shards: &mut Vec<Shard>, more: impl IntoIterator<Item = Shard>) {
    for shard in more {
        if !shards.contains(&shard) {
            shards.push(shard);
        }
    }
}

fn push_within(
    shards: &mut Vec<Shard>,
    more: impl Iterator<Item = Shard>,
    mut room: u64,
    bytes: impl Fn(Shard) -> u64,
) {
    for shard in more {
        if bytes(shard) > room {
            return;
        }
        if !shards.contains(&shard) {
            room -= bytes(shard);
            shards.push(shard);
        }
    }
}
