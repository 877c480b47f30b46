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
use super::context::{Context, Departure, Flow};
use super::ids::{JobId, WorkerId};
use super::members::{Hello, JobMembership, Member, Members};
use super::open::Open;
use super::outcome::Outcome;
use super::run::{Run, Shortage, Stage};
use super::violations::Process;
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
        member.job = Some(JobMembership::new(context.now, self.job));
        context.out.push(Action::StartJob { worker, job: self.job });
    }

    /// Invites every member that can compute the job, which has just been loaded, and refuses the others.
    pub(super) fn invite_all(&mut self, context: &mut Context<'_>) -> Flow {
        let members: Vec<_> =
            context.members.iter().map(|(&worker, member)| (worker, member.hello.clone())).collect();
        for (worker, hello) in members {
            match self.refusal(worker, &hello) {
                None => self.invite(context, worker),
                Some(refusal) => {
                    let how = "the job needs a different BLAS kernel";
                    let restarts = matches!(refusal, Action::UseKernel { .. });
                    let departure = if restarts { Departure::in_order(how) } else { Departure::lost(how) };
                    context.out.push(refusal);
                    self.leave(context, worker, departure)?;
                }
            }
        }
        Continue(())
    }

    /// Removes a worker, for any reason, and reassigns its pending nodes.
    pub(super) fn leave(
        &mut self,
        context: &mut Context<'_>,
        worker: WorkerId,
        departure: Departure,
    ) -> Flow {
        match context.remove(worker, departure) {
            Some(member) => self.left(context, worker, member),
            None => Continue(()),
        }
    }

    /// Handles a worker that has left: keeps its hello, because its results may still turn out to be wrong.
    fn left(&mut self, context: &mut Context<'_>, worker: WorkerId, member: Member) -> Flow {
        self.drop_holdings(worker, &member);
        if let Some(open) = self.stage.open_mut() {
            open.remember(worker, member.hello);
        }
        self.lost(context, worker)
    }

    /// A worker that is no member any more holds nothing.
    fn drop_holdings(&mut self, worker: WorkerId, member: &Member) {
        self.draining.remove(&worker);
        let held = member.job.iter().flat_map(|part| &part.held);
        held.for_each(|&shard| self.holders.remove(shard, worker));
    }

    /// Handles a lost worker: reassigns its pending nodes and its shards.
    fn lost(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        let pending = self.stage.open_mut().is_some_and(|open| open.forget(worker));
        let displaced = self.displace(context.now, worker);
        self.count_workers(context);
        if displaced {
            self.reassign_shards(context)?;
        }
        self.assign(context, pending.then_some((worker, false)))
    }

    /// Takes a worker out of both placements. Returns whether it was in one.
    fn displace(&mut self, now: Duration, worker: WorkerId) -> bool {
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.as_ref().is_some_and(|target| target.placement.contains_key(&worker));
        if targeted {
            self.drop_target(now);
        }
        placed || targeted
    }

    /// Drops the next placement. A job that was about to begin starts its wait for workers anew.
    fn drop_target(&mut self, now: Duration) {
        if self.target.take().is_some()
            && let Stage::Gathering { since } = &mut self.stage
        {
            *since = now;
        }
    }

    /// Handles a worker that drains: no new work is assigned to it.
    pub(super) fn unassign_draining(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        self.draining.insert(worker);
        if self.displace(context.now, worker) {
            self.reassign_shards(context)?;
        }
        self.release_drained(context)
    }

    /// Releases draining workers that have nothing pending.
    pub(super) fn release_drained(&mut self, context: &mut Context<'_>) -> Flow {
        let open = self.stage.open();
        let is_pending = |worker| open.is_some_and(|open| open.is_pending_with(worker));
        let finished: Vec<_> = self.draining.iter().copied().filter(|&worker| !is_pending(worker)).collect();
        for worker in finished {
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
        match present.or(departed).map(|hello| Process::new(worker, hello)) {
            Some(process) => self.evict_process(context, process, reason),
            None => Continue(()),
        }
    }

    /// Evicts every process that has broken the protocol too often.
    pub(super) fn evict_offenders(&mut self, context: &mut Context<'_>) -> Flow {
        for (process, reason) in self.violations.offenders() {
            self.evict_process(context, process, &reason)?;
        }
        Continue(())
    }

    fn evict_process(&mut self, context: &mut Context<'_>, process: Process, reason: &str) -> Flow {
        let Process { worker, name, instance_id } = process;
        let same = |member: &Member| member.hello.instance_id == instance_id;
        let present = context.members.iter().find(|(_, member)| same(member)).map(|(&present, _)| present);
        let new = self.violations.evict(&instance_id, reason);
        // The eviction must survive a restart of the coordinator.
        self.checkpoint_due = true;
        let reason = reason.to_string();
        if let Some(worker) = present {
            if let Some(member) = context.members.remove(&worker) {
                self.drop_holdings(worker, &member);
            }
            context.out.push(Action::Evict { worker, reason: reason.clone() });
        }
        let used = self
            .stage
            .open()
            .is_some_and(|open| open.has_used_process(&instance_id, &[worker, present.unwrap_or(worker)]));
        if new {
            context.note(Note::Evicted { worker, name, instance_id, reason });
        }
        if let Some(open) = self.stage.open_mut().filter(|_| used) {
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
        self.violations.count_violation(Process::new(worker, &member.hello));
        context.out.push(Action::Disconnect { worker, reason: Disconnection::Unassigned { answers } });
        self.leave(context, worker, Departure::lost("it sent results that were not assigned to it"))?;
        self.evict_offenders(context)
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
            return self.leave(context, worker, Departure::lost("it computes other bits"));
        }
        part.accepted = true;
        self.count_workers(context);
        // Of workers that come together, the placement considers all at once.
        self.newcomers = true;
        if !self.expects_workers(context.members) {
            self.reassign_shards(context)?;
        }
        self.continue_if_enough(context)
    }

    /// Whether a worker that was told about the job has not yet shown that it can compute it.
    fn expects_workers(&self, members: &Members) -> bool {
        let told = |member: &Member| member.job.as_ref().is_some_and(|part| !part.accepted);
        members.values().any(|member| !member.draining && told(member))
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
        let current = |part: &&mut JobMembership| part.job == job && part.generation == generation;
        let Some(part) = part.filter(current) else { return Continue(()) };
        if !part.lacks.remove(&shard) {
            return Continue(());
        }
        part.held.insert(shard);
        part.moved = context.now;
        self.holders.add(shard, worker);
        if let Some(target) = &mut self.target {
            target.awaited.remove(&(worker, shard));
        }
        self.begin_if_ready(context)?;
        let needed =
            |open: &Open| open.work.phase.split() == shard.split && open.needs_holders_of(shard.index);
        if self.stage.open().is_some_and(needed) { self.assign(context, None) } else { Continue(()) }
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
        let present = self.present(context.members);
        let settled = context.now >= since + context.config.settle;
        // Workers that have not yet shown that they can compute the job are waited for, too.
        let told = context.members.values().filter(|member| member.job.is_some()).count();
        let expected = context.config.expected_workers.max(told);
        present < context.config.min_workers || present < expected && !settled
    }

    /// Sends a `Hold` to every worker whose shards have changed.
    pub(super) fn tell_holdings(&mut self, context: &mut Context<'_>) {
        let job = self.job;
        for (&worker, member) in context.members.iter_mut().filter(|(_, member)| member.is_able(job)) {
            let shards = self.shards_to_hold(worker, member.hello.cache_bytes);
            let target = self.target.iter().map(|target| &target.placement);
            let standby = !target.chain([&self.placement]).any(|placement| placement.contains_key(&worker));
            let Some(part) = member.job.as_mut().filter(|part| part.differs(&shards, standby)) else {
                continue;
            };
            for dropped in part.tell(context.now, &shards, standby) {
                self.holders.remove(dropped, worker);
            }
            let generation = part.generation;
            context.out.push(Action::Hold { worker, job, generation, shards, standby });
        }
    }

    /// Begins the job once the workers hold all samples of the first placement.
    fn begin_if_ready(&mut self, context: &mut Context<'_>) -> Flow {
        if self.stage.is_gathering() && self.target_is_held() {
            self.begun = true;
            return self.open_next(context);
        }
        Continue(())
    }

    /// Counts the workers after one has come or gone. A job with too few waits from now on; one that had too few before it
    /// began has enough.
    fn count_workers(&mut self, context: &mut Context<'_>) {
        let present = self.present(context.members);
        match (&self.stage, present >= context.config.min_workers) {
            (Stage::Gathering { .. } | Stage::Stepping(_), true) => self.recovered(context),
            (Stage::Gathering { .. }, false) => {
                self.drop_target(context.now);
                self.shortage.get_or_insert(Shortage { since: context.now, noted: false });
            }
            (Stage::Stepping(_), false) => {
                let open = self.stage.leave();
                self.fall_short(context, present, open);
            }
            (Stage::Short { .. } | Stage::Resting | Stage::Closing(_) | Stage::Saving, _) => {}
        }
    }

    /// Makes the job wait for workers; keeps the open tree, if there is one.
    pub(super) fn fall_short(&mut self, context: &mut Context<'_>, present: usize, open: Option<Open>) {
        self.stage = Stage::Short { open };
        self.note_short(context, present);
    }

    /// Notes once that there are too few workers.
    fn note_short(&mut self, context: &mut Context<'_>, present: usize) {
        let shortage = self.shortage.get_or_insert(Shortage { since: context.now, noted: false });
        if !std::mem::replace(&mut shortage.noted, true) {
            context.note(Note::Short { job: self.job, present, needed: context.config.min_workers });
        }
    }

    /// Ends the lack of workers, if there was one; notes that if the lack was noted.
    pub(super) fn recovered(&mut self, context: &mut Context<'_>) {
        if self.shortage.take().is_some_and(|shortage| shortage.noted) {
            context.note(Note::Recovered { job: self.job, continues: self.begun });
        }
    }

    /// Continues a job that had too few workers, once there are enough.
    fn continue_if_enough(&mut self, context: &mut Context<'_>) -> Flow {
        let enough = self.present(context.members) >= context.config.min_workers;
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
        match (&self.stage, self.shortage) {
            (Stage::Gathering { .. } | Stage::Short { .. }, Some(Shortage { since, .. })) => {
                self.wait_for_workers(context, context.now.saturating_sub(since))
            }
            (Stage::Gathering { since }, None) if self.target.is_none() => {
                let settled = context.now.saturating_sub(*since) >= context.config.settle;
                if settled { self.reassign_shards(context) } else { Continue(()) }
            }
            _ => Continue(()),
        }
    }

    /// Notes a lack of workers that lasts. Gives up at the limit.
    fn wait_for_workers(&mut self, context: &mut Context<'_>, waited: Duration) -> Flow {
        let present = self.present(context.members);
        if waited >= WORTH_SAYING {
            self.note_short(context, present);
        }
        if context.config.wait_workers.is_some_and(|limit| waited >= limit) {
            let needed = context.config.min_workers;
            return Break(Outcome::TooFewWorkers { present, needed, waited });
        }
        Continue(())
    }
}
