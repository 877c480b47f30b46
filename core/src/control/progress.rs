//! How the running job moves on: answers, the next unit of work, epochs, and help for slow workers.

use std::time::Duration;

use super::cluster::Cluster;
use super::members::usual_turnaround;
use super::open::{Dispatch, Taken};
use super::run::{Position, Stage, Start};
use super::trial::{Author, Digest, Verdict};
use super::{Action, Discard, Dismissal, Note, Outcome, Phase, WorkId, WorkerId};
use crate::learn::tree::Node;

/// Others are asked too when an answer takes so many times as long as is usual.
const SLOW: f64 = 4.0;
/// But not before this: below it lies the noise of a busy machine.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(100);
/// As long as nobody has answered yet, nobody knows what is usual.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// A worker that owes an answer so many times as long as is usual hangs.
const HANGS: f64 = 100.0;
const SHORTEST_HANG: Duration = Duration::from_secs(60);
const FIRST_HANG: Duration = Duration::from_secs(600);
/// How often the placement is looked at again while steps go on.
const BALANCE_EVERY: Duration = Duration::from_secs(2);
/// The disk may be so many epochs behind.
const UNWRITTEN_EPOCHS: u32 = 2;

/// An answer, as the event brings it.
pub(super) struct Answer {
    pub(super) worker: WorkerId,
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) samples: u64,
    pub(super) busy: Duration,
    pub(super) finite: bool,
    pub(super) digest: Option<Digest>,
}

impl Cluster {
    pub(super) fn result(&mut self, now: Duration, answer: Answer, out: &mut Vec<Action>) {
        let Answer { worker, work, node, samples, busy, finite, digest } = answer;
        self.heard(now, worker);
        if let Some(member) = self.members.get_mut(&worker) {
            member.behind = false;
            if work.phase == Phase::Train {
                member.measure(now, samples, busy);
            }
        }
        let open = self.run.as_mut().and_then(|run| run.open.as_mut()).filter(|open| open.work == work);
        let Some(open) = open.filter(|open| !open.is_complete()) else {
            return out.push(Action::Discard { reason: Discard::Late });
        };
        let (taken, turnaround) = open.take(now, worker, node, finite, digest);
        if let (Some(member), Some(turnaround)) = (self.members.get_mut(&worker), turnaround) {
            member.answered(work.phase, turnaround);
        }
        self.took(now, node, Author::Worker(worker), taken, out);
        self.say_farewell(now, out);
    }

    pub(super) fn arbitrated(
        &mut self,
        now: Duration,
        work: WorkId,
        node: Node,
        result: Option<(bool, Digest)>,
        out: &mut Vec<Action>,
    ) {
        let open = self.run.as_mut().and_then(|run| run.open.as_mut()).filter(|open| open.work == work);
        let Some(open) = open else { return };
        match result {
            None => {
                open.no_arbiter(node);
                self.give_out(now, None, out);
            }
            Some((finite, digest)) => {
                let taken = open.arbitrated(node, finite, digest);
                self.took(now, node, Author::Coordinator, taken, out);
            }
        }
    }

    fn took(&mut self, now: Duration, node: Node, author: Author, taken: Taken, out: &mut Vec<Action>) {
        match taken {
            Taken::Discarded(reason) => {
                out.push(Action::Discard { reason });
                if let (Discard::Unasked, Author::Worker(worker)) = (reason, author) {
                    self.count_unasked(now, worker, out);
                }
            }
            Taken::Kept => {
                out.push(Action::Keep { node, author });
                self.give_out(now, None, out);
            }
            Taken::Accepted(author) => {
                let Some(work) = self.run.as_ref().and_then(super::run::Run::current) else { return };
                out.push(Action::Accept { work, node, author });
                self.close_if_complete(out);
            }
            Taken::Tried(verdict) => {
                out.push(Action::Keep { node, author });
                self.settle(now, node, &verdict, out);
            }
        }
    }

    /// Carries out what the comparison of answers came to.
    fn settle(&mut self, now: Duration, node: Node, verdict: &Verdict, out: &mut Vec<Action>) {
        let Some(open) = self.run.as_mut().and_then(|run| run.open.as_mut()) else { return };
        let work = open.work;
        if verdict.right.is_some() && !verdict.finite {
            return self.end(now, Outcome::Diverged { work }, out);
        }
        let accepted = open.settle(node, verdict);
        if let Some(author) = verdict.right.filter(|_| accepted) {
            out.push(Action::Accept { work, node, author });
        }
        for &worker in &verdict.faulty {
            let others = if verdict.right.is_some() {
                "a third one confirms the other"
            } else {
                "no third one decides"
            };
            let reason = format!("its result for {node} of {work} differs from another one, and {others}");
            self.put_out(now, worker, &reason, out);
        }
        self.close_if_complete(out);
        self.give_out(now, None, out);
    }

    fn close_if_complete(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let complete = run.open.as_ref().filter(|open| open.is_complete()).map(|open| open.work);
        if let Some(work) = complete.filter(|_| matches!(run.stage, Stage::Stepping | Stage::Short { .. })) {
            run.stage = Stage::Closing;
            out.push(Action::Close { work });
        }
    }

    pub(super) fn closed(&mut self, now: Duration, work: WorkId, finite: bool, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| run.stage == Stage::Closing) else { return };
        if run.current() != Some(work) {
            return;
        }
        if !finite {
            return self.end(now, Outcome::Diverged { work }, out);
        }
        for worker in run.open.take().map(|open| open.late()).unwrap_or_default() {
            self.members.entry(worker).and_modify(|member| member.behind = true);
        }
        let run = self.run.as_mut().expect("it was there a moment ago");
        run.departed.clear();
        if run.advance() {
            self.checkpoint_if_due(now, out);
        } else {
            out.push(Action::EndEpoch { job: run.job, epoch: work.epoch });
            run.position = Position::start_of(work.epoch + 1);
            run.checkpointed = now;
            run.checkpoint_due = false;
            run.unwritten += 1;
        }
        self.say_farewell(now, out);
        self.go_on(now, out);
    }

    fn checkpoint_if_due(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(interval) = self.config.checkpoint_interval else { return };
        let Some(run) = &mut self.run else { return };
        // Within an evaluation there is nothing to come back to: its epoch's end is near.
        let rests = run.position.phase == Phase::Train && !run.checkpointing;
        let due = run.checkpoint_due || now.saturating_sub(run.checkpointed) >= interval;
        if rests && due {
            run.checkpointed = now;
            run.checkpoint_due = false;
            run.checkpointing = true;
            let from = Start { position: run.position, parameter_tag: run.parameter_tag };
            out.push(Action::Checkpoint { job: run.job, from });
        }
    }

    pub(super) fn epoch_written(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        run.unwritten = run.unwritten.saturating_sub(1);
        if run.stage == Stage::Writing {
            self.go_on(now, out);
        }
    }

    /// What comes between two units of work: the end, a wait, or the next.
    pub(super) fn go_on(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        if run.is_trained() {
            run.stage = Stage::Saving;
            return out.push(Action::Save { job: run.job });
        }
        if run.unwritten > UNWRITTEN_EPOCHS {
            run.stage = Stage::Writing;
            return;
        }
        run.stage = Stage::Stepping;
        self.wait_if_short(now, out);
        if self.run.as_ref().is_some_and(|run| run.stage == Stage::Stepping) {
            self.open_next(now, out);
        }
    }

    /// Opens the tree at the run's position, under the new placement if everybody is ready for it.
    pub(super) fn open_next(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let work = run.work(self.config.incarnation);
        if run.target_is_held(&self.members) {
            run.placement = run.target.take().unwrap_or_default();
            let (job, placement) = (run.job, run.placement.clone());
            out.push(Action::Note(Note::Placed { job, placement, from: work }));
            self.tell_holdings(now, out);
        }
        let Some(run) = &mut self.run else { return };
        run.open(work);
        out.push(Action::Begin { work });
        self.give_out(now, None, out);
    }

    /// Asks for what is missing and owed by nobody; says so where that is because of somebody.
    pub(super) fn give_out(
        &mut self,
        now: Duration,
        because_of: Option<(WorkerId, bool)>,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.run.as_mut().filter(|run| run.stage == Stage::Stepping) else { return };
        let Some(work) = run.current() else { return };
        let Dispatch { asks, arbitrate, settled } = run.dispatch(now, &self.members, self.config.audit_rate);
        if let Some((owed_by, slow)) = because_of.filter(|_| !asks.is_empty()) {
            let to = asks.iter().map(|(&worker, nodes)| (worker, nodes.clone())).collect();
            out.push(Action::Note(Note::Reassigned { work, owed_by, slow, to }));
        }
        out.extend(asks.into_iter().map(|(worker, nodes)| Action::Send { worker, work, nodes }));
        out.extend(arbitrate.into_iter().map(|node| Action::Arbitrate { work, node }));
        for (node, verdict) in settled {
            self.settle(now, node, &verdict, out);
        }
    }

    /// Asks others for what takes too long, and gives up who hangs.
    pub(super) fn look_after_slow(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(open) = self.run.as_ref().and_then(|run| run.open.as_ref()) else { return };
        let usual = usual_turnaround(&self.members, open.work.phase);
        let times = |factor: f64, samples: u64, shortest: Duration, first: Duration| {
            usual.map_or(first, |usual| {
                Duration::try_from_secs_f64(factor * usual * samples as f64).unwrap_or(first).max(shortest)
            })
        };
        let slow = |&(_, since, samples): &(WorkerId, Duration, u64)| {
            now.saturating_sub(since) > times(SLOW, samples, SHORTEST_PATIENCE, FIRST_PATIENCE)
        };
        let late: Vec<_> = open.pending().into_iter().filter(slow).map(|(worker, ..)| worker).collect();
        let work = open.work;
        // While bytes move, the question or the answer is still on its way.
        let moved = |worker| self.members.get(&worker).map_or(Duration::ZERO, |member| member.moved.1);
        let hung = open.owing().into_iter().filter(|owing| {
            let samples = open.samples_asked(owing.worker);
            let idle = now.saturating_sub(owing.since.max(moved(owing.worker)));
            idle > times(HANGS, samples, SHORTEST_HANG, FIRST_HANG)
        });
        let hung: Vec<_> = hung.map(|owing| (owing.worker, now.saturating_sub(owing.since))).collect();
        for worker in late {
            if let Some(open) = self.run.as_mut().and_then(|run| run.open.as_mut()) {
                open.set_overdue(worker);
            }
            self.give_out(now, Some((worker, true)), out);
        }
        for (worker, asked) in hung {
            out.push(Action::Dismiss { worker, reason: Dismissal::Hung { work, asked } });
            let how = format!("it has not returned {work} for {:.0} s", asked.as_secs_f64());
            self.leave(now, worker, &how, out);
        }
    }

    /// Looks whether measured speeds ask for another placement.
    pub(super) fn balance(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| run.stage == Stage::Stepping) else { return };
        if run.target.is_none() && now.saturating_sub(run.placed) >= BALANCE_EVERY {
            run.replace(now, &self.members);
            self.tell_holdings(now, out);
        }
    }
}
