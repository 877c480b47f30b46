//! Who is in the cluster: coming, being told of the job, fetching samples, leaving in every way.

use std::time::Duration;

use super::cluster::Cluster;
use super::members::{Hello, Member, Part};
use super::run::Stage;
use super::{Action, Dismissal, JobId, JobState, Note, Outcome, Placement, WorkerId};
use crate::data::shard::Shard;

/// A wait for workers that lasts so long is told of.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// So many answers that nobody asked for end a session.
const UNASKED_ANSWERS: u32 = 8;
/// A process whose sessions ended so often because it broke the protocol is put out.
const OFFENCES: u32 = 3;

impl Cluster {
    pub(super) fn join(&mut self, now: Duration, worker: WorkerId, hello: Hello, out: &mut Vec<Action>) {
        let same = |member: &Member| member.hello.instance_id == hello.instance_id;
        let before = self.members.iter().find(|(_, member)| same(member)).map(|(&before, _)| before);
        if let Some(before) = before {
            out.push(Action::Dismiss { worker: before, reason: Dismissal::Superseded });
            self.leave(now, before, "the same process has joined again", out);
        }
        if self.members.len() >= self.config.max_workers {
            let reason = Dismissal::Full { limit: self.config.max_workers };
            return out.push(Action::Dismiss { worker, reason });
        }
        if let Some(refusal) = self.refusal(worker, &hello) {
            return out.push(refusal);
        }
        out.push(Action::Welcome { worker });
        out.push(Action::Note(Note::Joined { worker, name: hello.name.clone(), slots: hello.slots }));
        self.members.insert(worker, Member::new(now, hello));
        self.invite(now, worker, out);
    }

    /// What to answer to a worker that can't compute the running job.
    fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        let run = self.run.as_ref()?;
        if let Some(reason) = run.banned.get(&hello.instance_id) {
            return Some(Action::PutOut { worker, reason: reason.clone() });
        }
        let facts = run.facts.as_ref()?;
        let as_asked = hello.started_for == facts.kernel_request;
        let same_bits = hello.arithmetic.fingerprint == facts.arithmetic.fingerprint;
        if same_bits && (as_asked || hello.arithmetic.kernel == facts.arithmetic.kernel) {
            None
        } else if !as_asked {
            Some(Action::UseKernel { worker, kernel: facts.kernel_request.clone() })
        } else {
            let reason =
                Dismissal::Arithmetic { theirs: hello.arithmetic.clone(), needed: facts.arithmetic.clone() };
            Some(Action::Dismiss { worker, reason })
        }
    }

    /// Tells a member of the running job.
    fn invite(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Action>) {
        let (Some(run), Some(member)) = (&self.run, self.members.get_mut(&worker)) else { return };
        if run.facts.is_none() || run.stage == Stage::Saving || member.draining {
            return;
        }
        let job = run.job;
        member.job = Some(Part {
            job,
            accepted: false,
            told: Vec::new(),
            moved: now,
            spare: false,
            generation: 0,
            held: Default::default(),
        });
        out.push(Action::StartJob { worker, job });
    }

    /// Measures every member against the job whose facts have just become known.
    pub(super) fn invite_all(&mut self, now: Duration, out: &mut Vec<Action>) {
        let members: Vec<_> =
            self.members.iter().map(|(&worker, member)| (worker, member.hello.clone())).collect();
        for (worker, hello) in members {
            match self.refusal(worker, &hello) {
                None => self.invite(now, worker, out),
                Some(refusal) => {
                    out.push(refusal);
                    self.leave(now, worker, "the job needs a different BLAS kernel", out);
                }
            }
        }
    }

    /// Takes a worker out, whatever the reason; what it owes goes to others.
    pub(super) fn leave(&mut self, now: Duration, worker: WorkerId, how: &str, out: &mut Vec<Action>) {
        let Some(member) = self.members.remove(&worker) else { return };
        let name = member.hello.name.clone();
        out.push(Action::Note(Note::Left { worker, name, how: how.to_string() }));
        if let Some(run) =
            self.run.as_mut().filter(|run| run.open.as_ref().is_some_and(|open| open.has_heard(worker)))
        {
            run.departed.insert(worker, member.hello);
        }
        self.lost(now, worker, out);
    }

    /// After a worker has gone: others take over what it owes and what it was to compute.
    fn lost(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let owed = run.open.as_mut().is_some_and(|open| open.forget(worker));
        let placed = run.placement.remove(&worker).is_some();
        let targeted = run.target.as_ref().is_some_and(|target| target.contains_key(&worker));
        if targeted {
            run.target = None;
            // A job that was about to begin begins to wait only now.
            if let Stage::Gathering { since } = &mut run.stage {
                *since = now;
            }
        }
        if placed || targeted {
            self.place_again(now, out);
        }
        self.wait_if_short(now, out);
        self.give_out(now, owed.then_some((worker, false)), out);
    }

    pub(super) fn drain(&mut self, now: Duration, worker: WorkerId, reason: String, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker).filter(|member| !member.draining) else { return };
        member.draining = true;
        out.push(Action::Note(Note::Draining { worker, name: member.hello.name.clone(), reason }));
        if let Some(run) = &mut self.run
            && run.placement.remove(&worker).is_some()
                | run.target.take_if(|target| target.contains_key(&worker)).is_some()
        {
            self.place_again(now, out);
        }
        self.say_farewell(now, out);
    }

    /// Lets those go who were told to stop and owe nothing any more.
    pub(super) fn say_farewell(&mut self, now: Duration, out: &mut Vec<Action>) {
        let open = self.run.as_ref().and_then(|run| run.open.as_ref());
        let owes = |worker| open.is_some_and(|open| open.is_owed_by(worker));
        let free: Vec<_> = self
            .members
            .iter()
            .filter(|&(&worker, member)| member.draining && !owes(worker))
            .map(|(&worker, _)| worker)
            .collect();
        for worker in free {
            out.push(Action::Farewell { worker });
            self.leave(now, worker, "it is drained", out);
        }
    }

    /// A worker's answer was wrong: its process leaves the job for good, in whatever session it is now, and what it
    /// had part in of the open tree is done anew.
    pub(super) fn put_out(&mut self, now: Duration, worker: WorkerId, reason: &str, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let member = self.members.get(&worker).map(|member| &member.hello);
        let Some(Hello { instance_id, name, .. }) = member.or(run.departed.get(&worker)).cloned() else {
            return;
        };
        let same = |member: &Member| member.hello.instance_id == instance_id;
        let present = self.members.iter().find(|(_, member)| same(member)).map(|(&present, _)| present);
        let reason = reason.to_string();
        let new = run.banned.insert(instance_id.clone(), reason.clone()).is_none();
        // What is known of it now must not be lost with the coordinator.
        run.checkpoint_due = true;
        if let Some(worker) = present {
            self.members.remove(&worker);
            out.push(Action::PutOut { worker, reason: reason.clone() });
        }
        if new {
            out.push(Action::Note(Note::PutOut { worker, name, instance_id, reason }));
        }
        let had_part = |worker| run.open.as_ref().is_some_and(|open| open.has_used(worker));
        if had_part(worker) || present.is_some_and(had_part) {
            run.open = run.open.as_ref().map(super::open::Open::again);
            out.extend(run.current().map(|work| Action::Begin { work }));
        }
        self.lost(now, present.unwrap_or(worker), out);
    }

    /// A worker broke the protocol. Its process may come again a few times; then it is put out of the job.
    pub(super) fn count_offence(&mut self, worker: WorkerId) {
        let (Some(run), Some(member)) = (&mut self.run, self.members.get(&worker)) else { return };
        let instance_id = &member.hello.instance_id;
        let offences = run.offences.entry(instance_id.clone()).or_default();
        *offences += 1;
        if *offences >= OFFENCES {
            let reason = format!("it broke the protocol {offences} times");
            run.banned.insert(instance_id.clone(), reason);
        }
    }

    /// An answer that nobody asked for.
    pub(super) fn count_unasked(&mut self, now: Duration, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.unasked += 1;
        let answers = member.unasked;
        if answers >= UNASKED_ANSWERS {
            self.count_offence(worker);
            out.push(Action::Dismiss { worker, reason: Dismissal::Unasked { answers } });
            self.leave(now, worker, "it sent results that were not assigned to it", out);
        }
    }

    pub(super) fn heard(&mut self, at: Duration, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.heard = member.heard.max(at);
        }
    }

    /// Bytes went to a worker: a transfer that moves is no stall.
    pub(super) fn moved(&mut self, now: Duration, worker: WorkerId, moved: u64) {
        if let Some(member) = self.members.get_mut(&worker)
            && moved > member.moved.0
        {
            member.moved = (moved, now);
        }
    }

    pub(super) fn accepted(
        &mut self,
        now: Duration,
        worker: WorkerId,
        job: JobId,
        theirs: String,
        out: &mut Vec<Action>,
    ) {
        self.heard(now, worker);
        let Some(run) = self.run.as_ref().filter(|run| run.job == job && run.facts.is_some()) else { return };
        let needed = run.facts().shapes_fingerprint.clone();
        let Some(part) = self.members.get_mut(&worker).and_then(|member| member.job.as_mut()) else { return };
        if theirs != needed {
            out.push(Action::Dismiss { worker, reason: Dismissal::Shapes { theirs, needed } });
            return self.leave(now, worker, "it computes other bits", out);
        }
        part.accepted = true;
        self.place_again(now, out);
        self.go_on_if_enough(now, out);
    }

    pub(super) fn shard_held(
        &mut self,
        now: Duration,
        worker: WorkerId,
        (job, generation): (JobId, u64),
        shard: Shard,
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        let Some(part) = member.job.as_mut().filter(|part| part.job == job) else { return };
        // An answer to what it was told before may be about samples that it has forgotten since.
        if part.generation != generation || !part.told.contains(&shard) {
            return;
        }
        part.held.insert(shard);
        part.moved = now;
        self.begin_if_ready(now, out);
        self.give_out(now, None, out);
    }

    /// Places shards anew after a change of members.
    pub(super) fn place_again(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| run.facts.is_some()) else { return };
        if let Stage::Gathering { since } = run.stage {
            let present = run.candidates(&self.members).len();
            let settled = now >= since + self.config.settle;
            // Those who are there and have yet to show that they can compute the job are waited for too.
            let told = self.members.values().filter(|member| member.job.is_some()).count();
            let expected = self.config.expected_workers.max(told);
            if present < self.config.min_workers || present < expected && !settled {
                return;
            }
        }
        if run.stage == Stage::Saving {
            return;
        }
        run.replace(now, &self.members);
        self.tell_holdings(now, out);
        self.begin_if_ready(now, out);
    }

    /// Tells every worker what to hold, where that has changed.
    pub(super) fn tell_holdings(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = &self.run else { return };
        let job = run.job;
        for (&worker, member) in &mut self.members {
            if member.part(job).is_none() {
                continue;
            }
            let shards = run.shards_to_hold(worker, member.hello.cache_bytes);
            let placed = |placement: &Placement| placement.contains_key(&worker);
            let spare = !placed(&run.placement) && !run.target.as_ref().is_some_and(placed);
            let Some(part) = member.job.as_mut() else { continue };
            // To one that holds it all, another order of urgency is no news.
            let same =
                part.told.len() == shards.len() && shards.iter().all(|shard| part.held.contains(shard));
            if part.spare == spare && (same || part.told == shards) {
                continue;
            }
            // What was held and still is to be held stays; the worker forgets nothing of that.
            part.held.retain(|shard| shards.contains(shard));
            part.generation += 1;
            part.told.clone_from(&shards);
            part.moved = now;
            part.spare = spare;
            let generation = part.generation;
            out.push(Action::Hold { worker, job, generation, shards, spare });
        }
    }

    /// Begins the job once the first placement's samples are all there.
    pub(super) fn begin_if_ready(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| matches!(run.stage, Stage::Gathering { .. })) else {
            return;
        };
        if run.candidates(&self.members).len() < self.config.min_workers {
            run.target = None;
        } else if run.target_is_held(&self.members) {
            run.stage = Stage::Stepping;
            self.queue.set(run.job, JobState::Running);
            self.recovered(out);
            self.open_next(now, out);
        }
    }

    /// Makes a job that had begun wait when too few are left.
    pub(super) fn wait_if_short(&mut self, now: Duration, out: &mut Vec<Action>) {
        let needed = self.config.min_workers;
        let Some(run) = self.run.as_mut().filter(|run| run.stage == Stage::Stepping) else { return };
        let (job, present) = (run.job, run.candidates(&self.members).len());
        if present >= needed {
            return self.recovered(out);
        }
        // A step that was open may have been closed in the meantime: it is still the same wait.
        let since = run.short_since.unwrap_or(now);
        run.stage = Stage::Short { since };
        self.queue.set(job, JobState::Waiting);
        self.note_short(since, present, out);
    }

    /// There are too few workers; says so once.
    fn note_short(&mut self, since: Duration, present: usize, out: &mut Vec<Action>) {
        let needed = self.config.min_workers;
        let Some(run) = &mut self.run else { return };
        if run.short_since.replace(since).is_none() {
            out.push(Action::Note(Note::Short { job: run.job, present, needed }));
        }
    }

    /// There are enough workers; says so if there were not.
    fn recovered(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        if run.short_since.take().is_some() {
            let job = run.job;
            self.queue.set(job, JobState::Running);
            out.push(Action::Note(Note::Recovered { job }));
        }
    }

    /// Goes on with a job that had too few workers.
    pub(super) fn go_on_if_enough(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| matches!(run.stage, Stage::Short { .. })) else {
            return;
        };
        if run.candidates(&self.members).len() < self.config.min_workers {
            return;
        }
        run.stage = Stage::Stepping;
        let under_way = run.open.as_ref().is_some_and(|open| !open.is_complete());
        self.recovered(out);
        if under_way { self.give_out(now, None, out) } else { self.open_next(now, out) }
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.give_up_silent(now, out);
        self.give_up_stalled(now, out);
        self.look_after_slow(now, out);
        self.check_waiting(now, out);
        self.balance(now, out);
    }

    fn give_up_silent(&mut self, now: Duration, out: &mut Vec<Action>) {
        let deadline = self.config.heartbeat_deadline;
        let silence = |member: &Member| now.saturating_sub(member.heard);
        let silent = self.members.iter().map(|(&worker, member)| (worker, silence(member)));
        let silent: Vec<_> = silent.filter(|&(_, silence)| silence > deadline).collect();
        for (worker, silence) in silent {
            out.push(Action::Dismiss { worker, reason: Dismissal::Silent { silence } });
            self.leave(now, worker, &format!("nothing came from it for {:.1} s", silence.as_secs_f64()), out);
        }
    }

    /// Gives up who was told to fetch samples and does not.
    fn give_up_stalled(&mut self, now: Duration, out: &mut Vec<Action>) {
        let stalled = |member: &Member| {
            let part = member.job.as_ref().filter(|part| part.accepted && !member.draining)?;
            let lacks = part.told.iter().any(|shard| !part.held.contains(shard));
            let moved = part.moved.max(member.moved.1);
            Some(now.saturating_sub(moved)).filter(|&idle| lacks && idle > self.config.stall_deadline)
        };
        let stalled: Vec<_> =
            self.members.iter().filter_map(|(&worker, member)| Some((worker, stalled(member)?))).collect();
        for (worker, stalled) in stalled {
            out.push(Action::Dismiss { worker, reason: Dismissal::Stalled { stalled } });
            let how = format!("no sample reached it for {:.0} s", stalled.as_secs_f64());
            self.leave(now, worker, &how, out);
        }
    }

    /// Begins with those who are there once the moment to wait for more is over; gives up when there are too few.
    fn check_waiting(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = &self.run else { return };
        let first = match run.stage {
            Stage::Gathering { since } if run.target.is_none() => Some((since, true)),
            Stage::Short { since } => Some((since, false)),
            _ => None,
        };
        let Some((since, gathering)) = first else { return };
        let waited = now.saturating_sub(since);
        let present = run.candidates(&self.members).len();
        let needed = self.config.min_workers;
        if present < needed && waited >= WORTH_SAYING {
            self.note_short(since, present, out);
        }
        if gathering && present >= needed && waited >= self.config.settle {
            self.place_again(now, out);
        } else if present < needed && self.config.wait_workers.is_some_and(|limit| waited >= limit) {
            self.end(now, Outcome::TooFewWorkers { present, needed, waited }, out);
        }
    }
}

/// How a session has ended, for people.
pub(super) fn describe(departure: &super::Departure) -> String {
    use super::Departure;
    match departure {
        Departure::Closed => "its connection was closed".to_string(),
        Departure::Goodbye(reason) => format!("it shut down: {reason}"),
        Departure::Misbehaved(how) => format!("it broke the protocol: {how}"),
    }
}
