//! How the running job moves on: results, the next unit of work, epochs, and backup tasks for stragglers.
//!
//! A result is taken, discarded, or compared with others (`validation`). When the tree is complete, the driver closes it, and
//! [`Run::closed`] moves the position on: the next step, the validation split, the test set, the next epoch. `next_unit`
//! opens the next tree, or waits for workers or for the disk. `assign` is called after everything that may have left a node
//! without a worker.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use super::action::{Action, Discard, Note};
use super::event::Computed;
use super::facts::{Position, Start};
use super::ids::{Phase, ResultId, WorkId, WorkerId};
use super::members::{Members, usual_turnaround};
use super::open::{Came, Dispatch, Taken};
use super::outcome::Outcome;
use super::run::{Run, Stage};
use super::scene::{Flow, Scene};
use super::validation::{Digest, Source, SourcedResult, Verdict};
use crate::learn::tree::Node;

/// A worker is a straggler when a result takes so many times as long as is usual.
const STRAGGLER: f64 = 4.0;
/// But not before this: below it lies the noise of a busy machine.
const MIN_STRAGGLER_TIME: Duration = Duration::from_millis(100);
/// As long as nobody has answered yet, nobody knows what is usual.
const FIRST_STRAGGLER_TIME: Duration = Duration::from_secs(10);
/// A worker hangs when a result is pending so many times as long as is usual.
const HUNG: f64 = 100.0;
const MIN_HUNG_TIME: Duration = Duration::from_secs(60);
const FIRST_HUNG_TIME: Duration = Duration::from_secs(600);
/// How often the placement is looked at again while steps are computed.
const BALANCE_EVERY: Duration = Duration::from_secs(2);
/// The disk may be so many epochs behind.
const UNWRITTEN_EPOCHS: u32 = 2;

/// An answer, as the event brings it.
pub(super) struct Answer {
    pub(super) result: ResultId,
    pub(super) worker: WorkerId,
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) samples: u64,
    pub(super) busy: Duration,
    pub(super) finite: bool,
    pub(super) digest: Option<Digest>,
}

/// Who takes too long with a unit of work.
pub(super) struct Stragglers {
    pub(super) work: WorkId,
    /// Stragglers: what is pending with them is to be assigned to others, too.
    pub(super) late: Vec<WorkerId>,
    /// These hang; how long ago their work was assigned.
    pub(super) hung: Vec<(WorkerId, Duration)>,
}

impl Run {
    /// Takes a worker's answer in.
    pub(super) fn result(&mut self, scene: &mut Scene<'_>, answer: Answer) -> Flow {
        let Answer { result, worker, work, node, finite, digest, .. } = answer;
        let open = self.stage.open_mut().filter(|open| open.work == work && !open.is_complete());
        let Some(open) = open else {
            scene.out.push(Action::Discard { result, reason: Discard::Late });
            return Continue(());
        };
        let of = SourcedResult { source: Source::Worker(worker), result };
        let (taken, turnaround) = open.take(scene.now, worker, node, Came { of, finite, digest });
        if let (Some(member), Some(turnaround)) = (scene.members.get_mut(&worker), turnaround) {
            member.answered(work.phase, turnaround);
        }
        self.took(scene, work, node, of, taken)?;
        self.release_drained(scene)
    }

    /// Takes the coordinator's own answer in; none if it can't compute this job.
    pub(super) fn arbitrated(
        &mut self,
        scene: &mut Scene<'_>,
        work: WorkId,
        node: Node,
        computed: Option<Computed>,
    ) -> Flow {
        let Some(open) = self.stage.open_mut().filter(|open| open.work == work) else { return Continue(()) };
        match computed {
            None => {
                open.no_arbiter(node);
                self.assign(scene, None)
            }
            Some(Computed { result, finite, digest }) => {
                let of = SourcedResult { source: Source::Coordinator, result };
                let taken = open.arbitrated(node, Came { of, finite, digest: Some(digest) });
                self.took(scene, work, node, of, taken)
            }
        }
    }

    /// Does what an answer to the open tree leads to.
    fn took(
        &mut self,
        scene: &mut Scene<'_>,
        work: WorkId,
        node: Node,
        SourcedResult { source, result }: SourcedResult,
        taken: Taken,
    ) -> Flow {
        match taken {
            Taken::Discarded(reason) => {
                scene.out.push(Action::Discard { result, reason });
                match (reason, source) {
                    (Discard::Unassigned, Source::Worker(worker)) => self.count_unassigned(scene, worker),
                    _ => Continue(()),
                }
            }
            Taken::SetAside => self.assign(scene, None),
            Taken::Accepted => {
                scene.out.push(Action::Accept { result, work, node, source });
                self.close_if_complete(scene);
                Continue(())
            }
            Taken::Compared(verdict) => self.settle(scene, node, &verdict),
        }
    }

    /// Carries out what the comparison of answers came to.
    fn settle(&mut self, scene: &mut Scene<'_>, node: Node, verdict: &Verdict) -> Flow {
        let Some(open) = self.stage.open_mut() else { return Continue(()) };
        let work = open.work;
        if verdict.right.is_some() && !verdict.finite {
            return Break(Outcome::Diverged { work });
        }
        let accepted = open.settle(node, verdict);
        if let Some(SourcedResult { source, result }) = verdict.right.filter(|_| accepted) {
            scene.out.push(Action::Accept { result, work, node, source });
        }
        for &worker in &verdict.faulty {
            let others = if verdict.right.is_some() {
                "a third one confirms the other"
            } else {
                "no third one decides"
            };
            let reason = format!("its result for {node} of {work} differs from another one, and {others}");
            self.evict(scene, worker, &reason)?;
        }
        self.close_if_complete(scene);
        self.assign(scene, None)
    }

    fn close_if_complete(&mut self, scene: &mut Scene<'_>) {
        let complete = match &self.stage {
            Stage::Stepping(open) | Stage::Short { open: Some(open), .. } => open.is_complete(),
            _ => false,
        };
        if let Some(open) = complete.then(|| self.stage.leave()).flatten() {
            scene.out.push(Action::Close { work: open.work });
            self.stage = Stage::Closing(open);
        }
    }

    /// The driver has closed the tree.
    pub(super) fn closed(&mut self, scene: &mut Scene<'_>, work: WorkId, finite: bool) -> Flow {
        let Stage::Closing(open) = &self.stage else { return Continue(()) };
        if open.work != work {
            return Continue(());
        }
        if !finite {
            return Break(Outcome::Diverged { work });
        }
        for worker in open.late() {
            scene.members.entry(worker).and_modify(|member| member.straggler = true);
        }
        self.stage = Stage::Resting;
        if self.advance() {
            self.checkpoint_if_due(scene);
        } else {
            self.end_epoch(scene, work.epoch);
        }
        self.release_drained(scene)?;
        self.next_unit(scene)
    }

    fn end_epoch(&mut self, scene: &mut Scene<'_>, epoch: u32) {
        scene.out.push(Action::EndEpoch { job: self.job, epoch });
        self.position = Position::start_of(epoch + 1);
        self.checkpointed = scene.now;
        self.checkpoint_due = false;
        self.unwritten += 1;
    }

    fn checkpoint_if_due(&mut self, scene: &mut Scene<'_>) {
        let Some(interval) = scene.config.checkpoint_interval else { return };
        // Within an evaluation there is nothing to come back to: its epoch's end is near.
        let rests = self.position.phase == Phase::Train && !self.checkpointing;
        let due = self.checkpoint_due || scene.now.saturating_sub(self.checkpointed) >= interval;
        if rests && due {
            self.checkpointed = scene.now;
            self.checkpoint_due = false;
            self.checkpointing = true;
            let from = Start { position: self.position, parameter_tag: self.parameter_tag };
            scene.out.push(Action::Checkpoint { job: self.job, from });
        }
    }

    /// A line of history is on disk.
    pub(super) fn epoch_written(&mut self, scene: &mut Scene<'_>) -> Flow {
        self.unwritten = self.unwritten.saturating_sub(1);
        if matches!(self.stage, Stage::Resting) { self.next_unit(scene) } else { Continue(()) }
    }

    /// What comes between two units of work: the end, a wait, or the next.
    pub(super) fn next_unit(&mut self, scene: &mut Scene<'_>) -> Flow {
        if self.is_trained() {
            self.stage = Stage::Saving;
            scene.out.push(Action::Save { job: self.job });
            return Continue(());
        }
        if self.unwritten > UNWRITTEN_EPOCHS {
            self.stage = Stage::Resting;
            return Continue(());
        }
        let present = self.candidates(scene.members).len();
        if present < scene.config.min_workers {
            self.fall_short(scene, present, None);
            return Continue(());
        }
        self.recovered(scene);
        self.open_next(scene)
    }

    /// Opens the tree at the run's position, under the new placement if everybody is ready for it.
    pub(super) fn open_next(&mut self, scene: &mut Scene<'_>) -> Flow {
        let work = self.work(scene.config.incarnation);
        self.stage = Stage::Stepping(self.new_open(work));
        if self.target_is_held(scene.members) {
            self.placement = self.target.take().unwrap_or_default();
            let (job, placement) = (self.job, self.placement.clone());
            scene.note(Note::Assigned { job, placement, from: work });
            self.tell_holdings(scene);
        }
        scene.out.push(Action::Begin { work });
        self.assign(scene, None)
    }

    /// Assigns what is missing and pending with nobody; notes a reassignment, with the worker that caused it.
    pub(super) fn assign(&mut self, scene: &mut Scene<'_>, because_of: Option<(WorkerId, bool)>) -> Flow {
        let Some((work, dispatch)) = self.dispatch(scene.now, scene.config, scene.members) else {
            return Continue(());
        };
        let Dispatch { asks, arbitrate, settled } = dispatch;
        if let Some((pending_with, straggler)) = because_of.filter(|_| !asks.is_empty()) {
            let to = asks.iter().map(|(&worker, nodes)| (worker, nodes.clone())).collect();
            scene.note(Note::Reassigned { work, pending_with, straggler, to });
        }
        scene.out.extend(asks.into_iter().map(|(worker, nodes)| Action::Send { worker, work, nodes }));
        scene.out.extend(arbitrate.into_iter().map(|node| Action::Arbitrate { work, node }));
        for (node, verdict) in settled {
            self.settle(scene, node, &verdict)?;
        }
        Continue(())
    }

    /// Who takes too long with the open tree, if one is.
    pub(super) fn stragglers(&self, now: Duration, members: &Members) -> Option<Stragglers> {
        let open = self.stage.open()?;
        let usual = usual_turnaround(members, open.work.phase);
        let times = |factor: f64, samples: u64, shortest: Duration, first: Duration| {
            usual.map_or(first, |usual| {
                Duration::try_from_secs_f64(factor * usual * samples as f64).unwrap_or(first).max(shortest)
            })
        };
        let late = |&(_, since, samples): &(WorkerId, Duration, u64)| {
            now.saturating_sub(since) > times(STRAGGLER, samples, MIN_STRAGGLER_TIME, FIRST_STRAGGLER_TIME)
        };
        let late = open.on_time().into_iter().filter(late).map(|(worker, ..)| worker).collect();
        // While bytes move, the question or the answer is still on its way.
        let moved = |worker| members.get(&worker).map_or(Duration::ZERO, |member| member.moved.1);
        let hung = open.pending().into_iter().filter(|pending| {
            let samples = open.samples_asked(pending.worker);
            let idle = now.saturating_sub(pending.since.max(moved(pending.worker)));
            idle > times(HUNG, samples, MIN_HUNG_TIME, FIRST_HUNG_TIME)
        });
        let hung = hung.map(|pending| (pending.worker, now.saturating_sub(pending.since))).collect();
        Some(Stragglers { work: open.work, late, hung })
    }

    /// Assigns what is pending with this straggler to others, too.
    pub(super) fn start_backup_task(&mut self, scene: &mut Scene<'_>, worker: WorkerId) -> Flow {
        if let Some(open) = self.stage.open_mut() {
            open.set_overdue(worker);
        }
        self.assign(scene, Some((worker, true)))
    }

    /// Plans another placement, if measured speeds require one.
    pub(super) fn balance(&mut self, scene: &mut Scene<'_>) {
        let steady = matches!(self.stage, Stage::Stepping(_)) && self.target.is_none();
        if steady && scene.now.saturating_sub(self.placed_at) >= BALANCE_EVERY {
            self.plan_placement(scene.now, scene.members);
            self.tell_holdings(scene);
        }
    }
}
