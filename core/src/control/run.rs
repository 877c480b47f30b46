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

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::config::ControlConfig;
use super::facts::{Facts, Position, Start};
use super::holders::Holders;
use super::ids::{JobId, Phase, WorkId, WorkerId};
use super::members::{Member, Members, weights};
use super::open::{Candidate, Dispatch, DispatchContext, Open};
use super::place::{Placement, place};
use super::queue::JobState;
use super::validation::is_audited;
use super::violations::Violations;
use crate::data::shard::Shard;
use crate::learn::stopping::Watch;
use crate::learn::tree::{Node, Tree};

/// A worker prefetches as many shards as so many other workers compute, so that each shard has a few holders.
const RUNS_AHEAD: u32 = 3;
/// A worker prefetches at least so many shards.
const LEAST_AHEAD: u32 = 16;

/// The stage of a run.
#[derive(Debug)]
pub(super) enum Stage {
    /// The run waits for its first workers and for their samples.
    Gathering {
        /// When the wait for `expected_workers` began.
        since: Duration,
    },
    /// The run had begun, and now has too few workers to continue.
    Short {
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

/// A lack of workers: fewer than `min_workers` can compute the job, which waits for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shortage {
    /// When it began.
    pub(super) since: Duration,
    /// Whether it was noted.
    pub(super) noted: bool,
}

/// The next placement.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) placement: Placement,
    /// What its workers do not hold yet. It is used once they hold everything.
    pub(super) awaited: BTreeSet<(WorkerId, Shard)>,
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
    pub(super) target: Option<Target>,
    /// When shards were last placed.
    pub(super) placed_at: Duration,
    /// Whether workers have come since that no placement considers yet.
    pub(super) newcomers: bool,
    /// Which workers hold which shards.
    pub(super) holders: Holders,
    /// The members that drain.
    pub(super) draining: BTreeSet<WorkerId>,
    /// When the last checkpoint was taken.
    pub(super) checkpointed: Duration,
    /// Whether the next pause between two steps takes a checkpoint, whatever the interval.
    pub(super) checkpoint_due: bool,
    /// Whether a checkpoint is being written.
    pub(super) checkpointing: bool,
    /// How many epochs have a line of history that is not yet on disk.
    pub(super) unwritten: u32,
    /// The current lack of workers. If a tree closes meanwhile, the wait continues.
    pub(super) shortage: Option<Shortage>,
    pub(super) violations: Violations,
    /// The rules by which the job stops, after the epochs that have ended.
    pub(super) watch: Watch,
}

impl Run {
    /// A run of a job whose data has just been read.
    pub(super) fn new(
        now: Duration,
        job: JobId,
        violations: Violations,
        facts: Facts,
        (from, watch): (Start, Watch),
    ) -> Self {
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
            newcomers: false,
            holders: Holders::default(),
            draining: BTreeSet::new(),
            checkpointed: now,
            checkpoint_due: false,
            checkpointing: false,
            unwritten: 0,
            shortage: Some(Shortage { since: now, noted: false }),
            violations,
            watch,
        }
    }

    /// The job's state.
    pub(super) fn state(&self) -> JobState<'static> {
        let waits = self.stage.is_gathering() || self.shortage.is_some() || !self.begun;
        if waits { JobState::Waiting } else { JobState::Running }
    }

    /// Where the job could resume from its present state. `None` before the job has begun, during an
    /// evaluation, whose state is the one after the epoch's last step, but no [`Start`] names it, and between mini-batches
    /// that make one step, of which a checkpoint has no gradients.
    pub(super) fn checkpoint_position(&self) -> Option<Start> {
        let named = self.position.phase == Phase::Train
            && self.facts.accumulation.is_empty_before(self.position.step);
        let start = Start { position: self.position, parameter_tag: self.parameter_tag };
        (!self.stage.is_gathering() && named).then_some(start)
    }

    /// Whether every epoch has been trained, or a rule has stopped the job.
    pub(super) fn is_trained(&self) -> bool {
        self.position.epoch >= self.facts.epochs || self.watch.stopped().is_some()
    }

    /// Members that can compute this job.
    pub(super) fn candidates<'a>(
        &self,
        members: &'a Members,
    ) -> impl Iterator<Item = (WorkerId, &'a Member)> {
        let job = self.job;
        let can = move |member: &Member| member.is_able(job);
        members.iter().filter(move |(_, member)| can(member)).map(|(&worker, member)| (worker, member))
    }

    /// How many members can compute this job.
    pub(super) fn present(&self, members: &Members) -> usize {
        self.candidates(members).count()
    }

    /// Plans a placement on all workers that can compute; it is used once they hold all samples.
    ///
    /// A straggler gets no shards until it has returned a result, unless all workers are stragglers.
    pub(super) fn plan_placement(&mut self, now: Duration, members: &Members) {
        let candidates: Vec<_> = self.candidates(members).collect();
        let prompt: Vec<_> = candidates.iter().copied().filter(|(_, member)| !member.straggler).collect();
        let chosen = if prompt.is_empty() { candidates } else { prompt };
        let target = place(self.facts.shards, &weights(now, &chosen));
        self.target = (target != self.placement).then(|| self.awaiting(target));
        self.placed_at = now;
        self.newcomers = false;
    }

    /// A placement, with the samples that its workers do not hold yet.
    fn awaiting(&self, placement: Placement) -> Target {
        let shards = |(&worker, run): (&WorkerId, &Range<u32>)| {
            self.facts.shards_of(run.clone()).into_iter().map(move |shard| (worker, shard))
        };
        let held = |&(worker, shard): &(WorkerId, Shard)| self.holders.holds(worker, shard);
        let awaited = placement.iter().flat_map(shards).filter(|needed| !held(needed)).collect();
        Target { placement, awaited }
    }

    /// The shards that a worker has to hold: those of its next placement, those that it computes now, then others
    /// ahead of need: those of the workers after it, which it may have to take over.
    pub(super) fn shards_to_hold(&self, worker: WorkerId, cache_bytes: u64) -> Vec<Shard> {
        let facts = &self.facts;
        let run = |placement: &Placement| placement.get(&worker).cloned();
        let target = self.target.as_ref().and_then(|target| run(&target.placement)).unwrap_or_default();
        let current = run(&self.placement).unwrap_or_default();
        let mut shards = facts.shards_of(target.clone());
        shards.extend(facts.shards_of(current.clone().filter(|index| !target.contains(index))));
        if !self.stage.is_gathering() {
            let needed: u64 = shards.iter().map(|&shard| facts.shard_bytes(shard)).sum();
            let mut room = cache_bytes.saturating_sub(needed);
            let ahead = self.indices_ahead(worker).filter(|i| !target.contains(i) && !current.contains(i));
            let fits = |&shard: &Shard| {
                let left = room.checked_sub(facts.shard_bytes(shard));
                room = left.unwrap_or(room);
                left.is_some()
            };
            shards.extend(ahead.flat_map(|index| facts.shards_of(std::iter::once(index))).take_while(fits));
        }
        shards
    }

    /// The shards after a worker's own, as many as it prefetches if it has the room. One on standby begins anywhere,
    /// so that not all of them hold the same.
    fn indices_ahead(&self, worker: WorkerId) -> impl Iterator<Item = u32> + use<> {
        let shards = self.facts.shards;
        let run = shards.div_ceil(self.placement.len().max(1) as u32);
        let count = (RUNS_AHEAD * run).max(LEAST_AHEAD).min(shards);
        let anywhere = || (worker.0 % u64::from(shards)) as u32 * count % shards;
        let target = self.target.as_ref().and_then(|target| target.placement.get(&worker));
        let first = self.placement.get(&worker).or(target).map_or_else(anywhere, |run| run.end);
        (0..count).map(move |k| (first + k) % shards)
    }

    /// Whether every worker holds the samples of the new placement.
    pub(super) fn target_is_held(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.awaited.is_empty())
    }

    /// The unit of work at the current position.
    pub(super) fn work(&self, incarnation: u64) -> WorkId {
        let Position { epoch, phase, step } = self.position;
        WorkId { job: self.job, incarnation, epoch, phase, step, parameter_tag: self.parameter_tag }
    }

    /// An empty tree for the unit of work at the current position.
    pub(super) fn new_open(&self, work: WorkId) -> Open {
        Open::new(work, Tree::new(self.facts.shards), &self.facts.present(work.phase, work.step))
    }

    /// Assigns the nodes of the open tree that are missing and not pending with any worker; `None` if no tree is
    /// being computed.
    pub(super) fn dispatch(
        &mut self,
        now: Duration,
        config: &ControlConfig,
        members: &Members,
    ) -> Option<(WorkId, Dispatch)> {
        let Stage::Stepping(open) = &mut self.stage else { return None };
        let (work, job, facts, holders) = (open.work, self.job, &self.facts, &self.holders);
        let split = work.phase.split();
        // Only a dispatch of loose shards asks for owners.
        let owners = LazyCell::new(|| owners(&self.placement, facts.shards));
        let owner = |index: u32| owners[index as usize];
        let holders = |index| holders.of(Shard { split, index });
        let candidate = |worker| candidate(members, job, worker);
        let samples = |shard| u64::from(facts.samples(work.phase, work.step, shard));
        let place = u64::from(work.epoch) << 40 | u64::from(work.step) << 2 | work.phase as u64;
        let audited = |node: Node| is_audited(config.audit_rate, work.incarnation, place, node.first);
        let terms = DispatchContext {
            now,
            owner: &owner,
            holders: &holders,
            candidate: &candidate,
            samples: &samples,
            audited: &audited,
        };
        Some((work, open.dispatch(&terms)))
    }

    /// The unassigned shards of this tree that no able worker holds.
    pub(super) fn unheld(&self, open: &Open, members: &Members) -> Vec<u32> {
        let split = open.work.phase.split();
        let able = |&worker: &WorkerId| candidate(members, self.job, worker).is_some();
        let held = |index| self.holders.of(Shard { split, index }).iter().any(able);
        open.unassigned().filter(|&index| !held(index)).collect()
    }

    /// Advances to the next unit of work in the epoch. Returns whether there was one.
    pub(super) fn advance(&mut self) -> bool {
        let Position { phase, step, .. } = self.position;
        if phase == Phase::Train && self.facts.accumulation.completes(step) {
            self.parameter_tag += 1;
        }
        let next = self.position.next(&self.facts);
        if let Some(position) = next {
            self.position = position;
        }
        next.is_some()
    }
}

/// A worker as a candidate for work; `None` if it can't compute this job, or drains.
fn candidate(members: &Members, job: JobId, worker: WorkerId) -> Option<Candidate> {
    let member = members.get(&worker).filter(|member| member.is_able(job))?;
    Some(Candidate { weight: f64::from(member.hello.slots.max(1)), straggler: member.straggler })
}

/// The worker to which a placement gives each shard.
fn owners(placement: &Placement, shards: u32) -> Vec<Option<WorkerId>> {
    let mut owners = vec![None; shards as usize];
    for (&worker, run) in placement {
        owners[run.start as usize..run.end as usize].fill(Some(worker));
    }
    owners
}
