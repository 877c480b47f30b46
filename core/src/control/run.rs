//! The running job, once its data is read: its position, its placement, and its open tree.
//!
//! ```text
//! Gathering ─▶ Stepping ─▶ Closing ─▶ Stepping … ─▶ Saving ─▶ ended
//!                 │  ▲        └─▶ Resting (the disk is behind) ─▶ Stepping
//!                 ▼  │
//!               Short (too few workers; keeps the tree)
//! ```
//!
//! State that is valid in one stage only, such as the open tree, is part of that [`Stage`].

use std::time::Duration;

use super::config::ControlConfig;
use super::facts::{Facts, Position, Start};
use super::ids::{JobId, Phase, WorkId, WorkerId};
use super::members::{JobMembership, Member, Members, weights};
use super::open::{Candidate, Dispatch, DispatchContext, Open};
use super::place::{Placement, place};
use super::queue::JobState;
use super::validation::is_audited;
use super::violations::Violations;
use crate::data::shard::Shard;
use crate::learn::tree::{Node, Tree};

/// The stage of a run.
#[derive(Debug)]
pub(super) enum Stage {
    /// The run waits for its first workers and for their samples.
    Gathering {
        /// When the wait began.
        since: Duration,
    },
    /// The run had begun, and now has too few workers to continue.
    Short {
        /// When the wait began.
        since: Duration,
        /// The tree that was open; pending results may still arrive.
        open: Option<Open>,
    },
    /// The run is between two units of work. It stays there while the disk is epochs behind.
    Resting,
    /// A tree is open.
    Stepping(Open),
    /// The tree is complete, and the driver makes the next parameters.
    Closing(Open),
    /// The driver writes the result.
    Saving,
}

impl Stage {
    /// The tree of the current unit of work.
    pub(super) fn open(&self) -> Option<&Open> {
        match self {
            Stage::Stepping(open) | Stage::Closing(open) => Some(open),
            Stage::Short { open, .. } => open.as_ref(),
            Stage::Gathering { .. } | Stage::Resting | Stage::Saving => None,
        }
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        match self {
            Stage::Stepping(open) | Stage::Closing(open) => Some(open),
            Stage::Short { open, .. } => open.as_mut(),
            Stage::Gathering { .. } | Stage::Resting | Stage::Saving => None,
        }
    }

    /// Leaves this stage and returns its tree. The caller sets another stage at once.
    pub(super) fn leave(&mut self) -> Option<Open> {
        match std::mem::replace(self, Stage::Resting) {
            Stage::Stepping(open) | Stage::Closing(open) => Some(open),
            Stage::Short { open, .. } => open,
            Stage::Gathering { .. } | Stage::Resting | Stage::Saving => None,
        }
    }

    /// Whether the run still waits for its first workers.
    pub(super) fn is_gathering(&self) -> bool {
        matches!(self, Stage::Gathering { .. })
    }
}

/// The running job.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) job: JobId,
    pub(super) stage: Stage,
    pub(super) facts: Facts,
    pub(super) position: Position,
    pub(super) parameter_tag: u64,
    /// Whether the run has trained since the coordinator's last start.
    pub(super) begun: bool,
    /// The placement in use.
    pub(super) placement: Placement,
    /// The next placement, used once every worker holds its samples.
    pub(super) target: Option<Placement>,
    /// When shards were last placed.
    pub(super) placed_at: Duration,
    /// When the last checkpoint was taken.
    pub(super) checkpointed: Duration,
    /// Whether the next pause between two steps takes a checkpoint, whatever the interval.
    pub(super) checkpoint_due: bool,
    /// Whether a checkpoint is being written.
    pub(super) checkpointing: bool,
    /// How many epochs have a line of history that is not yet on disk.
    pub(super) unwritten: u32,
    /// When the current lack of workers began; `None` until the lack was noted. If a tree closes meanwhile, the
    /// wait continues.
    pub(super) short_since: Option<Duration>,
    pub(super) violations: Violations,
}

impl Run {
    /// A run of a job whose data has just been read.
    pub(super) fn new(now: Duration, job: JobId, violations: Violations, facts: Facts, from: Start) -> Self {
        Self {
            job,
            stage: Stage::Gathering { since: now },
            facts,
            position: from.position,
            parameter_tag: from.parameter_tag,
            begun: false,
            placement: Placement::new(),
            target: None,
            placed_at: Duration::ZERO,
            checkpointed: now,
            checkpoint_due: false,
            checkpointing: false,
            unwritten: 0,
            short_since: None,
            violations,
        }
    }

    /// The job's state.
    pub(super) fn state(&self) -> JobState<'static> {
        let waits = self.stage.is_gathering() || self.short_since.is_some() || !self.begun;
        if waits { JobState::Waiting } else { JobState::Running }
    }

    /// Where the job could resume from its present state. `None` before the job has begun, and during an
    /// evaluation: its state is the one after the epoch's last step, but no [`Start`] names it.
    pub(super) fn checkpoint_position(&self) -> Option<Start> {
        let named = self.position.phase == Phase::Train;
        let start = Start { position: self.position, parameter_tag: self.parameter_tag };
        (!self.stage.is_gathering() && named).then_some(start)
    }

    /// Whether every epoch has been trained.
    pub(super) fn is_trained(&self) -> bool {
        self.position.epoch >= self.facts.epochs
    }

    /// Members that can compute this job.
    pub(super) fn candidates<'a>(&self, members: &'a Members) -> Vec<(WorkerId, &'a Member)> {
        let can = |member: &Member| !member.draining && member.part(self.job).is_some();
        members.iter().filter(|(_, member)| can(member)).map(|(&worker, member)| (worker, member)).collect()
    }

    /// Plans a placement on all workers that can compute; it is used once they hold all samples.
    ///
    /// A straggler gets no shards until it has returned a result, unless all workers are stragglers.
    pub(super) fn plan_placement(&mut self, now: Duration, members: &Members) {
        let candidates = self.candidates(members);
        let prompt: Vec<_> = candidates.iter().copied().filter(|(_, member)| !member.straggler).collect();
        let chosen = if prompt.is_empty() { candidates } else { prompt };
        let target = place(self.facts.shards, &weights(now, &chosen));
        self.target = (target != self.placement).then_some(target);
        self.placed_at = now;
    }

    /// The shards that a worker has to hold: those of its next placement, those that it computes now, then others
    /// ahead of need.
    pub(super) fn shards_to_hold(&self, worker: WorkerId, cache_bytes: u64) -> Vec<Shard> {
        let facts = &self.facts;
        let run = |placement: &Placement| placement.get(&worker).cloned().unwrap_or(0..0);
        let target = self.target.as_ref().map_or(0..0, run);
        let mut shards = facts.shards_of(target.clone());
        push_new(&mut shards, facts.shards_of(run(&self.placement)));
        if !self.stage.is_gathering() {
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

    /// Whether every worker holds the samples of the new placement.
    pub(super) fn target_is_held(&self, members: &Members) -> bool {
        let holds = |worker: &WorkerId, indices: std::ops::Range<u32>| {
            let part = members.get(worker).and_then(|member| member.part(self.job));
            part.is_some_and(|part| {
                self.facts.shards_of(indices).iter().all(|shard| part.held.contains(shard))
            })
        };
        self.target
            .as_ref()
            .is_some_and(|target| target.iter().all(|(worker, run)| holds(worker, run.clone())))
    }

    /// The unit of work at the current position.
    pub(super) fn work(&self, incarnation: u64) -> WorkId {
        let Position { epoch, phase, step } = self.position;
        WorkId { job: self.job, incarnation, epoch, phase, step, parameter_tag: self.parameter_tag }
    }

    /// An empty tree for the unit of work at the current position.
    pub(super) fn new_open(&self, work: WorkId) -> Open {
        Open::new(work, Tree::new(self.facts.shards), self.facts.present(work.phase, work.step))
    }

    /// Assigns the nodes of the open tree that are missing and not pending with any worker; `None` if no tree is
    /// being computed.
    pub(super) fn dispatch(
        &mut self,
        now: Duration,
        config: &ControlConfig,
        members: &Members,
    ) -> Option<(WorkId, Dispatch)> {
        let candidates = self.assignees(members);
        let Stage::Stepping(open) = &mut self.stage else { return None };
        let (work, job, facts) = (open.work, self.job, &self.facts);
        let split = work.phase.split();
        let holds = |worker: WorkerId, index: u32| {
            let part = members.get(&worker).and_then(|member| member.part(job));
            part.is_some_and(|part| part.held.contains(&Shard { split, index }))
        };
        let samples = |shard| u64::from(facts.samples(work.phase, work.step, shard));
        let place = u64::from(work.epoch) << 40 | u64::from(work.step) << 2 | work.phase as u64;
        let audited = |node: Node| is_audited(config.audit_rate, work.incarnation, place, node.first);
        let terms = DispatchContext { now, holds: &holds, samples: &samples, audited: &audited };
        Some((work, open.dispatch(&candidates, &terms)))
    }

    /// The unassigned shards of this tree that no able worker holds.
    pub(super) fn unheld(&self, open: &Open, members: &Members) -> Vec<u32> {
        let split = open.work.phase.split();
        let candidates = self.candidates(members);
        let held = |index| {
            let holds = |part: &JobMembership| part.held.contains(&Shard { split, index });
            candidates.iter().any(|(_, member)| member.part(self.job).is_some_and(holds))
        };
        open.unassigned().into_iter().filter(|&index| !held(index)).collect()
    }

    fn assignees(&self, members: &Members) -> Vec<Candidate> {
        let owns = |worker: &WorkerId| self.placement.get(worker).cloned().unwrap_or(0..0);
        let candidate = |(worker, member): (WorkerId, &Member)| Candidate {
            worker,
            owns: owns(&worker),
            weight: f64::from(member.hello.slots.max(1)),
            straggler: member.straggler || self.stage.open().is_some_and(|open| open.is_late(worker)),
        };
        self.candidates(members).into_iter().map(candidate).collect()
    }

    /// Advances to the next unit of work in the epoch. Returns whether there was one.
    pub(super) fn advance(&mut self) -> bool {
        if self.position.phase == Phase::Train {
            self.parameter_tag += 1;
        }
        let next = self.position.next(&self.facts);
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
