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
use super::ids::{JobId, WorkerId};
use super::members::{Hello, Member, Part};
use super::open::Open;
use super::outcome::Outcome;
use super::place::Placement;
use super::run::{Run, Stage};
use super::scene::{Flow, Scene};
use crate::data::shard::Shard;

/// A wait for workers is noted once it lasts this long.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// A session ends after this many results that were not assigned.
const MAX_UNASSIGNED_RESULTS: u32 = 8;

impl Run {
    /// The action that refuses a worker that can't compute this job; `None` if it can.
    pub(super) fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        if let Some(refusal) = self.conduct.refusal(worker, hello) {
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
    pub(super) fn invite(&self, scene: &mut Scene<'_>, worker: WorkerId) {
        let Some(member) = scene.members.get_mut(&worker) else { return };
        if matches!(self.stage, Stage::Saving) || member.draining {
            return;
        }
        let job = self.job;
        member.job = Some(Part {
            job,
            accepted: false,
            told: Vec::new(),
            moved: scene.now,
            standby: false,
            generation: 0,
            held: Default::default(),
        });
        scene.out.push(Action::StartJob { worker, job });
    }

    /// Invites every member that can compute the job, which has just been loaded, and refuses the others.
    pub(super) fn invite_all(&mut self, scene: &mut Scene<'_>) -> Flow {
        let members: Vec<_> =
            scene.members.iter().map(|(&worker, member)| (worker, member.hello.clone())).collect();
        for (worker, hello) in members {
            match self.refusal(worker, &hello) {
                None => self.invite(scene, worker),
                Some(refusal) => {
                    scene.out.push(refusal);
                    self.leave(scene, worker, "the job needs a different BLAS kernel")?;
                }
            }
        }
        Continue(())
    }

    /// Removes a worker, for any reason, and reassigns its pending nodes.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, worker: WorkerId, how: &str) -> Flow {
        match scene.remove(worker, how) {
            Some(member) => self.left(scene, worker, member),
            None => Continue(()),
        }
    }

    /// Handles a worker that has left: keeps its hello, because its results may still turn out to be wrong.
    fn left(&mut self, scene: &mut Scene<'_>, worker: WorkerId, member: Member) -> Flow {
        if let Some(open) = self.stage.open_mut() {
            open.remember(worker, member.hello);
        }
        self.lost(scene, worker)
    }

    /// Handles a lost worker: reassigns its pending nodes and its shards.
    fn lost(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        let pending = self.stage.open_mut().is_some_and(|open| open.forget(worker));
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        // A job that was about to begin starts its wait for workers now.
        if let Stage::Gathering { since } = &mut self.stage
            && targeted
        {
            *since = scene.now;
        }
        if placed || targeted {
            self.reassign_shards(scene)?;
        }
        self.wait_if_short(scene);
        self.assign(scene, pending.then_some((worker, false)))
    }

    /// Handles a worker that drains: no new work is assigned to it.
    pub(super) fn relieve(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        if placed || targeted {
            self.reassign_shards(scene)?;
        }
        self.release_drained(scene)
    }

    /// Releases draining workers that have nothing pending.
    pub(super) fn release_drained(&mut self, scene: &mut Scene<'_>) -> Flow {
        let open = self.stage.open();
        for worker in scene.finished(|worker| open.is_some_and(|open| open.is_pending_with(worker))) {
            if let Some(member) = scene.release_drained(worker) {
                self.left(scene, worker, member)?;
            }
        }
        Continue(())
    }

    /// Evicts the process behind this worker, because its result was wrong. The eviction holds for every session
    /// of the process. If the open tree contains a result of it, the whole tree is computed again.
    pub(super) fn evict(&mut self, scene: &mut Scene<'_>, worker: WorkerId, reason: &str) -> Flow {
        let present = scene.members.get(&worker).map(|member| &member.hello);
        let departed = self.stage.open().and_then(|open| open.departed(worker));
        let Some(Hello { instance_id, name, .. }) = present.or(departed).cloned() else {
            return Continue(());
        };
        let same = |member: &Member| member.hello.instance_id == instance_id;
        let present = scene.members.iter().find(|(_, member)| same(member)).map(|(&present, _)| present);
        let new = self.conduct.evict(&instance_id, reason);
        // The eviction must survive a restart of the coordinator.
        self.checkpoint_due = true;
        let reason = reason.to_string();
        if let Some(worker) = present {
            scene.members.remove(&worker);
            scene.out.push(Action::Evict { worker, reason: reason.clone() });
        }
        if new {
            scene.note(Note::Evicted { worker, name, instance_id, reason });
        }
        if let Some(open) = self.stage.open_mut()
            && (open.has_used(worker) || present.is_some_and(|present| open.has_used(present)))
        {
            *open = open.again();
            scene.out.push(Action::Begin { work: open.work });
        }
        self.lost(scene, present.unwrap_or(worker))
    }

    /// Counts a result that was not assigned to this worker. Too many end its session.
    pub(super) fn count_unassigned(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        let Some(member) = scene.members.get_mut(&worker) else { return Continue(()) };
        member.unassigned += 1;
        let answers = member.unassigned;
        if answers < MAX_UNASSIGNED_RESULTS {
            return Continue(());
        }
        self.conduct.count_violation(&member.hello.instance_id);
        scene.out.push(Action::Disconnect { worker, reason: Disconnection::Unassigned { answers } });
        self.leave(scene, worker, "it sent results that were not assigned to it")
    }

    /// Handles a worker's fingerprint of the job's own shapes.
    pub(super) fn accepted(
        &mut self,
        scene: &mut Scene<'_>,
        worker: WorkerId,
        job: JobId,
        theirs: String,
    ) -> Flow {
        let part = scene.members.get_mut(&worker).and_then(|member| member.job.as_mut());
        let Some(part) = part.filter(|_| self.job == job) else { return Continue(()) };
        if theirs != self.facts.shapes_fingerprint {
            let needed = self.facts.shapes_fingerprint.clone();
            scene.out.push(Action::Disconnect { worker, reason: Disconnection::Shapes { theirs, needed } });
            return self.leave(scene, worker, "it computes other bits");
        }
        part.accepted = true;
        self.reassign_shards(scene)?;
        self.continue_if_enough(scene)
    }

    /// Handles a worker that holds a shard of the `Hold` with this generation.
    pub(super) fn shard_held(
        &mut self,
        scene: &mut Scene<'_>,
        worker: WorkerId,
        (job, generation): (JobId, u64),
        shard: Shard,
    ) -> Flow {
        let part = scene.members.get_mut(&worker).and_then(|member| member.job.as_mut());
        // A message about an earlier `Hold` may name samples that the worker has dropped since.
        let answers =
            |part: &&mut Part| part.job == job && part.generation == generation && part.told.contains(&shard);
        let Some(part) = part.filter(answers) else { return Continue(()) };
        part.held.insert(shard);
        part.moved = scene.now;
        self.begin_if_ready(scene)?;
        self.assign(scene, None)
    }

    /// Plans a new placement after a change of members.
    pub(super) fn reassign_shards(&mut self, scene: &mut Scene<'_>) -> Flow {
        let waits = match self.stage {
            Stage::Gathering { since } => self.waits_for_more(scene, since),
            Stage::Saving => true,
            _ => false,
        };
        if waits {
            return Continue(());
        }
        self.plan_placement(scene.now, scene.members);
        self.tell_holdings(scene);
        self.begin_if_ready(scene)
    }

    /// Whether a job that has not begun waits for more workers before shards are placed.
    fn waits_for_more(&self, scene: &Scene<'_>, since: Duration) -> bool {
        let present = self.candidates(scene.members).len();
        let settled = scene.now >= since + scene.config.settle;
        // Workers that have not yet shown that they can compute the job are waited for, too.
        let told = scene.members.values().filter(|member| member.job.is_some()).count();
        let expected = scene.config.expected_workers.max(told);
        present < scene.config.min_workers || present < expected && !settled
    }

    /// Sends a `Hold` to every worker whose shards have changed.
    pub(super) fn tell_holdings(&self, scene: &mut Scene<'_>) {
        let job = self.job;
        for (&worker, member) in scene.members.iter_mut() {
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
            part.moved = scene.now;
            part.standby = standby;
            let generation = part.generation;
            scene.out.push(Action::Hold { worker, job, generation, shards, standby });
        }
    }

    /// Begins the job once the workers hold all samples of the first placement.
    fn begin_if_ready(&mut self, scene: &mut Scene<'_>) -> Flow {
        if !self.stage.is_gathering() {
            return Continue(());
        }
        if self.candidates(scene.members).len() < scene.config.min_workers {
            self.target = None;
        } else if self.target_is_held(scene.members) {
            self.begun = true;
            self.recovered(scene);
            return self.open_next(scene);
        }
        Continue(())
    }

    /// Makes a job that has begun wait if too few workers are left.
    fn wait_if_short(&mut self, scene: &mut Scene<'_>) {
        if !matches!(self.stage, Stage::Stepping(_)) {
            return;
        }
        let present = self.candidates(scene.members).len();
        if present >= scene.config.min_workers {
            return self.recovered(scene);
        }
        let open = self.stage.leave();
        self.fall_short(scene, present, open);
    }

    /// Makes the job wait for workers; keeps the open tree, if there is one.
    pub(super) fn fall_short(&mut self, scene: &mut Scene<'_>, present: usize, open: Option<Open>) {
        let since = self.short_since.unwrap_or(scene.now);
        self.stage = Stage::Short { since, open };
        self.note_short(scene, since, present);
    }

    /// Notes once that there are too few workers.
    fn note_short(&mut self, scene: &mut Scene<'_>, since: Duration, present: usize) {
        let needed = scene.config.min_workers;
        if self.short_since.replace(since).is_none() {
            scene.note(Note::Short { job: self.job, present, needed });
        }
    }

    /// Notes that there are enough workers, if there were too few before.
    pub(super) fn recovered(&mut self, scene: &mut Scene<'_>) {
        if self.short_since.take().is_some() {
            scene.note(Note::Recovered { job: self.job });
        }
    }

    /// Continues a job that had too few workers, once there are enough.
    fn continue_if_enough(&mut self, scene: &mut Scene<'_>) -> Flow {
        let enough = self.candidates(scene.members).len() >= scene.config.min_workers;
        if !enough || !matches!(self.stage, Stage::Short { .. }) {
            return Continue(());
        }
        let open = self.stage.leave();
        self.recovered(scene);
        match open {
            Some(open) => {
                self.stage = Stage::Stepping(open);
                self.assign(scene, None)
            }
            None => self.open_next(scene),
        }
    }

    /// Places shards on the present workers once the settle time is over. Gives up if there have been too few
    /// workers for too long.
    pub(super) fn check_waiting(&mut self, scene: &mut Scene<'_>) -> Flow {
        let (since, gathering) = match self.stage {
            Stage::Gathering { since } if self.target.is_none() => (since, true),
            Stage::Short { since, .. } => (since, false),
            _ => return Continue(()),
        };
        let waited = scene.now.saturating_sub(since);
        let present = self.candidates(scene.members).len();
        let needed = scene.config.min_workers;
        if present < needed && waited >= WORTH_SAYING {
            self.note_short(scene, since, present);
        }
        if gathering && present >= needed && waited >= scene.config.settle {
            self.reassign_shards(scene)
        } else if present < needed && scene.config.wait_workers.is_some_and(|limit| waited >= limit) {
            Break(Outcome::TooFewWorkers { present, needed, waited })
        } else {
            Continue(())
        }
    }
}
