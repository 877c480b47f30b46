//! Who takes part in the running job: being told of it, fetching samples, leaving in every way.
//!
//! A worker is invited (`StartJob`), accepts with its fingerprint of the job's shapes, and is told what to hold. Placements
//! change here: `target` is what everybody is to hold next, and takes the place of `placement` between two units of work,
//! once all hold it. Whoever leaves, for whichever reason, leaves by [`Run::leave`]: its nodes are unassigned and go to others
//! at once. With too few workers the job waits in [`Stage::Short`], and keeps the tree that is open.

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

/// A wait for workers that lasts so long is told of.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// So many results that were not assigned end a session.
const MAX_UNASSIGNED_RESULTS: u32 = 8;

impl Run {
    /// What to answer to a worker that can't compute this job.
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

    /// Tells a member of the job.
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

    /// Measures every member against the job, which has just become known.
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

    /// Removes a worker, whatever the reason; what is pending with it is reassigned.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, worker: WorkerId, how: &str) -> Flow {
        match scene.remove(worker, how) {
            Some(member) => self.left(scene, worker, member),
            None => Continue(()),
        }
    }

    /// After a worker has gone in peace: what it has answered may yet turn out to be wrong.
    fn left(&mut self, scene: &mut Scene<'_>, worker: WorkerId, member: Member) -> Flow {
        if let Some(open) = self.stage.open_mut() {
            open.remember(worker, member.hello);
        }
        self.lost(scene, worker)
    }

    /// After a worker has gone: what is pending with it, and its shards, are assigned to others.
    fn lost(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        let pending = self.stage.open_mut().is_some_and(|open| open.forget(worker));
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        // A job that was about to begin begins to wait only now.
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

    /// A worker drains: no new work is assigned to it.
    pub(super) fn relieve(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        let placed = self.placement.remove(&worker).is_some();
        let targeted = self.target.take_if(|target| target.contains_key(&worker)).is_some();
        if placed || targeted {
            self.reassign_shards(scene)?;
        }
        self.release_drained(scene)
    }

    /// Releases draining workers with which nothing is pending any more.
    pub(super) fn release_drained(&mut self, scene: &mut Scene<'_>) -> Flow {
        let open = self.stage.open();
        for worker in scene.finished(|worker| open.is_some_and(|open| open.is_pending_with(worker))) {
            if let Some(member) = scene.release_drained(worker) {
                self.left(scene, worker, member)?;
            }
        }
        Continue(())
    }

    /// A worker's answer was wrong: its process leaves the job for good, in whatever session it is now, and what it
    /// had part in of the open tree is done anew.
    pub(super) fn evict(&mut self, scene: &mut Scene<'_>, worker: WorkerId, reason: &str) -> Flow {
        let present = scene.members.get(&worker).map(|member| &member.hello);
        let departed = self.stage.open().and_then(|open| open.departed(worker));
        let Some(Hello { instance_id, name, .. }) = present.or(departed).cloned() else {
            return Continue(());
        };
        let same = |member: &Member| member.hello.instance_id == instance_id;
        let present = scene.members.iter().find(|(_, member)| same(member)).map(|(&present, _)| present);
        let new = self.conduct.evict(&instance_id, reason);
        // What is known of it now must not be lost with the coordinator.
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

    /// A result that was not assigned to this worker.
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

    /// A worker has computed the job's own shapes.
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

    /// A worker holds a shard, as the `Hold` with this generation has told it to.
    pub(super) fn shard_held(
        &mut self,
        scene: &mut Scene<'_>,
        worker: WorkerId,
        (job, generation): (JobId, u64),
        shard: Shard,
    ) -> Flow {
        let part = scene.members.get_mut(&worker).and_then(|member| member.job.as_mut());
        // An answer to what it was told before may be about samples that it has forgotten since.
        let answers =
            |part: &&mut Part| part.job == job && part.generation == generation && part.told.contains(&shard);
        let Some(part) = part.filter(answers) else { return Continue(()) };
        part.held.insert(shard);
        part.moved = scene.now;
        self.begin_if_ready(scene)?;
        self.assign(scene, None)
    }

    /// Places shards anew after a change of members.
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
        // Those who are there and have yet to show that they can compute the job are waited for too.
        let told = scene.members.values().filter(|member| member.job.is_some()).count();
        let expected = scene.config.expected_workers.max(told);
        present < scene.config.min_workers || present < expected && !settled
    }

    /// Tells every worker what to hold, where that has changed.
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
            // A worker that holds all of these need not be told of another order.
            let same =
                part.told.len() == shards.len() && shards.iter().all(|shard| part.held.contains(shard));
            if part.standby == standby && (same || part.told == shards) {
                continue;
            }
            // What was held and still is to be held stays; the worker forgets nothing of that.
            part.held.retain(|shard| shards.contains(shard));
            part.generation += 1;
            part.told.clone_from(&shards);
            part.moved = scene.now;
            part.standby = standby;
            let generation = part.generation;
            scene.out.push(Action::Hold { worker, job, generation, shards, standby });
        }
    }

    /// Begins the job once the first placement's samples are all there.
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

    /// Makes a job that had begun wait when too few are left.
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

    /// Waits for workers, with the tree that is open, if one is.
    pub(super) fn fall_short(&mut self, scene: &mut Scene<'_>, present: usize, open: Option<Open>) {
        let since = self.short_since.unwrap_or(scene.now);
        self.stage = Stage::Short { since, open };
        self.note_short(scene, since, present);
    }

    /// There are too few workers; says so once.
    fn note_short(&mut self, scene: &mut Scene<'_>, since: Duration, present: usize) {
        let needed = scene.config.min_workers;
        if self.short_since.replace(since).is_none() {
            scene.note(Note::Short { job: self.job, present, needed });
        }
    }

    /// There are enough workers; says so if there were not.
    pub(super) fn recovered(&mut self, scene: &mut Scene<'_>) {
        if self.short_since.take().is_some() {
            scene.note(Note::Recovered { job: self.job });
        }
    }

    /// Continues a job that had too few workers, once it has enough.
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

    /// Begins with those who are there once the moment to wait for more is over; gives up when there are too few.
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
