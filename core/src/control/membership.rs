//! Workers in the running job: how they are told about it, fetch samples, and leave.
//!
//! A worker is invited (`StartJob`), accepts with its fingerprint of the job's shapes, and is told which shards
//! to hold. Placements change here: `target` is the next placement, and replaces `placement` between two units of
//! work, once every worker holds its samples. Every worker that leaves, for whatever reason, leaves through
//! [`Run::leave`]; its nodes are reassigned at once. With too few workers the job waits in [`Stage::Short`] and
//! keeps the open tree.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use super::action::{Action, Disconnection, Note};
use super::context::{Context, Flow};
use super::ids::{JobId, WorkerId};
use super::members::{Hello, JobMembership, Member};
use super::open::Open;
use super::outcome::Outcome;
use super::place::Placement;
use super::run::{Run, Stage};
use crate::data::shard::Shard;

/// A wait for workers is noted once it lasts this long.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// A session ends after this many results that were not assigned.
const MAX_UNASSIGNED_RESULTS: u32 = 8;

impl Run {
    /// The action that refuses a worker that can't compute this job; `None` if it can.
    pub(super) fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        if let Some(refusal) = self.violations.refusal(worker, hello) {
            return Some(refusal);
        }
        let facts = &self.facts;
        let as_asked = hello.started_for == facts.kernel_request;
        let same_bits = hello.arithmetic.fingerprint == facts.arithmetic.fingerprint;
        if same_bits && (as_asked || hello.arithmetic.kernel == facts.arithmetic.kernel) {
            None
        } else if !as_asked {
            Some(Action::UseKernel { worker, kernel: facts.kernel_request.clone() })
        } else {
            let reason = Disconnection::Arithmetic {
                theirs: hello.arithmetic.clone(),
                needed: facts.arithmetic.clone(),
            };
            Some(Action::Disconnect { worker, reason })
        }
    }

    /// Tells a member about the job.
    pub(super) fn invite(&self, context: &mut Context<'_>, worker: WorkerId) {
        let Some(member) = context.members.get_mut(&worker) else { return };
        if matches!(self.stage, Stage::Saving) || member.draining {
            return;
        }
        let job = self.job;
        member.job = Some(JobMembership {
            job,
            accepted: false,
            told: Vec::new(),
            moved: context.now,
            standby: false,
            generation: 0,
            held: Default::default(),
        });
        context.out.push(Action::StartJob { worker, job });
    }

    /// Invites every member that can compute the job, which has just been loaded, and refuses the others.
    pub(super) fn invite_all(&mut self, context: &mut Context<'_>) -> Flow {
        let members: Vec<_> =
            context.members.iter().map(|(&worker, member)| (worker, member.hello.clone())).collect();
        for (worker, hello) in members {
            match self.refusal(worker, &hello) {
                None => self.invite(context, worker),
                Some(refusal) => {
                    context.out.push(refusal);
                    self.leave(context, worker, "the job needs a different BLAS kernel")?;
                }
            }
        }
        Continue(())
    }

    /// Removes a worker, for any reason, and reassigns its pending nodes.
    pub(super) fn leave(&mut self, context: &mut Context<'_>, worker: WorkerId, how: &str) -> Flow {
        match context.remove(worker, how) {
            Some(member) => self.left(context, worker, member),
            None => Continue(()),
        }
    }

    /// Handles a worker that has left: keeps its hello, because its results may still turn out to be wrong.
    fn left(&mut self, context: &mut Context<'_>, worker: WorkerId, member: Member) -> Flow {
        if let Some(open) = self.stage.open_mut() {
            open.remember(worker, member.hello);
        }
        self.lost(context, worker)
    }

    /// Handles a lost worker: reassigns its pending nodes and its shards.
    fn lost(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        let pending = self.stage.open_mut().is_some_and(|open| open.forget(worker));
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        // A job that was about to begin starts its wait for workers now.
        if let Stage::Gathering { since } = &mut self.stage
            && targeted
        {
            *since = context.now;
        }
        if placed || targeted {
            self.reassign_shards(context)?;
        }
        self.wait_if_short(context);
        self.assign(context, pending.then_some((worker, false)))
    }

    /// Handles a worker that drains: no new work is assigned to it.
    pub(super) fn unassign_draining(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        if placed || targeted {
            self.reassign_shards(context)?;
        }
        self.release_drained(context)
    }

    /// Releases draining workers that have nothing pending.
    pub(super) fn release_drained(&mut self, context: &mut Context<'_>) -> Flow {
        let open = self.stage.open();
        for worker in context.finished(|worker| open.is_some_and(|open| open.is_pending_with(worker))) {
            if let Some(member) = context.release_drained(worker) {
                self.left(context, worker, member)?;
            }
        }
        Continue(())
    }

    /// Evicts the process behind this worker, because its result was wrong. The eviction holds for every session
    /// of the process. If the open tree contains a result of it, the whole tree is computed again.
    pub(super) fn evict(&mut self, context: &mut Context<'_>, worker: WorkerId, reason: &str) -> Flow {
        let present = context.members.get(&worker).map(|member| &member.hello);
        let departed = self.stage.open().and_then(|open| open.departed(worker));
        let Some(Hello { instance_id, name, .. }) = present.or(departed).cloned() else {
            return Continue(());
        };
        let same = |member: &Member| member.hello.instance_id == instance_id;
        let present = context.members.iter().find(|(_, member)| same(member)).map(|(&present, _)| present);
        let new = self.violations.evict(&instance_id, reason);
        // The eviction must survive a restart of the coordinator.
        self.checkpoint_due = true;
        let reason = reason.to_string();
        if let Some(worker) = present {
            context.members.remove(&worker);
            context.out.push(Action::Evict { worker, reason: reason.clone() });
        }
        if new {
            context.note(Note::Evicted { worker, name, instance_id, reason });
        }
        if let Some(open) = self.stage.open_mut()
            && (open.has_used(worker) || present.is_some_and(|present| open.has_used(present)))
        {
            *open = open.again();
            context.out.push(Action::Begin { work: open.work });
        }
        self.lost(context, present.unwrap_or(worker))
    }

    /// Counts a result that was not assigned to this worker. Too many end its session.
    pub(super) fn count_unassigned(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        let Some(member) = context.members.get_mut(&worker) else { return Continue(()) };
        member.unassigned += 1;
        let answers = member.unassigned;
        if answers < MAX_UNASSIGNED_RESULTS {
            return Continue(());
        }
        self.violations.count_violation(&member.hello.instance_id);
        context.out.push(Action::Disconnect { worker, reason: Disconnection::Unassigned { answers } });
        self.leave(context, worker, "it sent results that were not assigned to it")
    }

    /// Handles a worker's fingerprint of the job's own shapes.
    pub(super) fn accepted(
        &mut self,
        context: &mut Context<'_>,
        worker: WorkerId,
        job: JobId,
        theirs: String,
    ) -> Flow {
        let part = context.members.get_mut(&worker).and_then(|member| member.job.as_mut());
        let Some(part) = part.filter(|_| self.job == job) else { return Continue(()) };
        if theirs != self.facts.shapes_fingerprint {
            let needed = self.facts.shapes_fingerprint.clone();
            context.out.push(Action::Disconnect { worker, reason: Disconnection::Shapes { theirs, needed } });
            return self.leave(context, worker, "it computes other bits");
        }
        part.accepted = true;
        self.reassign_shards(context)?;
        self.continue_if_enough(context)
    }

    /// Handles a worker that holds a shard of the `Hold` with this generation.
    pub(super) fn shard_held(
        &mut self,
        context: &mut Context<'_>,
        worker: WorkerId,
        (job, generation): (JobId, u64),
        shard: Shard,
    ) -> Flow {
        let part = context.members.get_mut(&worker).and_then(|member| member.job.as_mut());
        // A message about an earlier `Hold` may name samples that the worker has dropped since.
        let answers = |part: &&mut JobMembership| {
            part.job == job && part.generation == generation && part.told.contains(&shard)
        };
        let Some(part) = part.filter(answers) else { return Continue(()) };
        part.held.insert(shard);
        part.moved = context.now;
        self.begin_if_ready(context)?;
        self.assign(context, None)
    }

    /// Plans a new placement after a change of members.
    pub(super) fn reassign_shards(&mut self, context: &mut Context<'_>) -> Flow {
        let waits = match self.stage {
            Stage::Gathering { since } => self.waits_for_more(context, since),
            Stage::Saving => true,
            _ => false,
        };
        if waits {
            return Continue(());
        }
        self.plan_placement(context.now, context.members);
        self.tell_holdings(context);
        self.begin_if_ready(context)
    }

    /// Whether a job that has not begun waits for more workers before shards are placed.
    fn waits_for_more(&self, context: &Context<'_>, since: Duration) -> bool {
        let present = self.candidates(context.members).len();
        let settled = context.now >= since + context.config.settle;
        // Workers that have not yet shown that they can compute the job are waited for, too.
        let told = context.members.values().filter(|member| member.job.is_some()).count();
        let expected = context.config.expected_workers.max(told);
        present < context.config.min_workers || present < expected && !settled
    }

    /// Sends a `Hold` to every worker whose shards have changed.
    pub(super) fn tell_holdings(&self, context: &mut Context<'_>) {
        let job = self.job;
        for (&worker, member) in context.members.iter_mut() {
            if member.part(job).is_none() {
                continue;
            }
            let shards = self.shards_to_hold(worker, member.hello.cache_bytes);
            let placed = |placement: &Placement| placement.contains_key(&worker);
            let standby = !placed(&self.placement) && !self.target.as_ref().is_some_and(placed);
            let Some(part) = member.job.as_mut() else { continue };
            // A worker that holds all of these shards need not know that their order changed.
            let same =
                part.told.len() == shards.len() && shards.iter().all(|shard| part.held.contains(shard));
            if part.standby == standby && (same || part.told == shards) {
                continue;
            }
            // The worker keeps the shards that it holds and that are still in the list.
            part.held.retain(|shard| shards.contains(shard));
            part.generation += 1;
            part.told.clone_from(&shards);
            part.moved = context.now;
            part.standby = standby;
            let generation = part.generation;
            context.out.push(Action::Hold { worker, job, generation, shards, standby });
        }
    }

    /// Begins the job once the workers hold all samples of the first placement.
    fn begin_if_ready(&mut self, context: &mut Context<'_>) -> Flow {
        if !self.stage.is_gathering() {
            return Continue(());
        }
        if self.candidates(context.members).len() < context.config.min_workers {
            self.target = None;
        } else if self.target_is_held(context.members) {
            self.begun = true;
            self.recovered(context);
            return self.open_next(context);
        }
        Continue(())
    }

    /// Makes a job that has begun wait if too few workers are left.
    fn wait_if_short(&mut self, context: &mut Context<'_>) {
        if !matches!(self.stage, Stage::Stepping(_)) {
            return;
        }
        let present = self.candidates(context.members).len();
        if present >= context.config.min_workers {
            return self.recovered(context);
        }
        let open = self.stage.leave();
        self.fall_short(context, present, open);
    }

    /// Makes the job wait for workers; keeps the open tree, if there is one.
    pub(super) fn fall_short(&mut self, context: &mut Context<'_>, present: usize, open: Option<Open>) {
        let since = self.short_since.unwrap_or(context.now);
        self.stage = Stage::Short { since, open };
        self.note_short(context, since, present);
    }

    /// Notes once that there are too few workers.
    fn note_short(&mut self, context: &mut Context<'_>, since: Duration, present: usize) {
        let needed = context.config.min_workers;
        if self.short_since.replace(since).is_none() {
            context.note(Note::Short { job: self.job, present, needed });
        }
    }

    /// Notes that there are enough workers, if there were too few before.
    pub(super) fn recovered(&mut self, context: &mut Context<'_>) {
        if self.short_since.take().is_some() {
            context.note(Note::Recovered { job: self.job });
        }
    }

    /// Continues a job that had too few workers, once there are enough.
    fn continue_if_enough(&mut self, context: &mut Context<'_>) -> Flow {
        let enough = self.candidates(context.members).len() >= context.config.min_workers;
        if !enough || !matches!(self.stage, Stage::Short { .. }) {
            return Continue(());
        }
        let open = self.stage.leave();
        self.recovered(context);
        match open {
            Some(open) => {
                self.stage = Stage::Stepping(open);
                self.assign(context, None)
            }
            None => self.open_next(context),
        }
    }

    /// Places shards on the present workers once the settle time is over. Gives up if there have been too few
    /// workers for too long.
    pub(super) fn check_waiting(&mut self, context: &mut Context<'_>) -> Flow {
        let (since, gathering) = match self.stage {
            Stage::Gathering { since } if self.target.is_none() => (since, true),
            Stage::Short { since, .. } => (since, false),
            _ => return Continue(()),
        };
        let waited = context.now.saturating_sub(since);
        let present = self.candidates(context.members).len();
        let needed = context.config.min_workers;
        if present < needed && waited >= WORTH_SAYING {
            self.note_short(context, since, present);
        }
        if gathering && present >= needed && waited >= context.config.settle {
            self.reassign_shards(context)
        } else if present < needed && context.config.wait_workers.is_some_and(|limit| waited >= limit) {
            Break(Outcome::TooFewWorkers { present, needed, waited })
        } else {
            Continue(())
        }
    }
}
