//! The progress of the running job: results, the next unit of work, epochs, and backup tasks for stragglers.
//!
//! A result is accepted, discarded, or compared with others (`validation`). When the tree is complete, the driver
//! closes it, and [`Run::closed`] advances the position to the next step, the validation split, the test set, or
//! the next epoch. `next_unit` opens the next tree, or waits for workers or for the disk. `assign` is called
//! after every event that may have left a node without a worker.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use super::action::{Action, Discard, Note};
use super::context::{Context, Flow};
use super::event::Computed;
use super::facts::{Position, Start};
use super::ids::{Phase, ResultId, WorkId, WorkerId};
use super::members::{Members, usual_turnaround};
use super::open::{Dispatch, ReceivedResult, ResultOutcome};
use super::outcome::Outcome;
use super::run::{Run, Stage};
use super::validation::{Digest, Source, SourcedResult, Verdict};
use crate::learn::tree::Node;
use crate::view::EpochRow;

/// A worker is a straggler when its result takes this many times the usual time.
const STRAGGLER: f64 = 4.0;
/// A worker is no straggler before this time: shorter delays are the noise of a busy machine.
const MIN_STRAGGLER_TIME: Duration = Duration::from_millis(100);
/// The time after which a worker is a straggler as long as no result has arrived, so that the usual time is
/// unknown.
const FIRST_STRAGGLER_TIME: Duration = Duration::from_secs(10);
/// A worker hangs when its result takes this many times the usual time.
const HUNG: f64 = 100.0;
const MIN_HUNG_TIME: Duration = Duration::from_secs(60);
const FIRST_HUNG_TIME: Duration = Duration::from_secs(600);
/// How often the placement is reconsidered while steps are computed.
const BALANCE_EVERY: Duration = Duration::from_secs(2);
/// Training may be this many epochs ahead of the disk.
const UNWRITTEN_EPOCHS: u32 = 2;

/// The fields of [`Event::Result`](super::event::Event::Result).
pub(super) struct ResultEvent {
    pub(super) result: ResultId,
    pub(super) worker: WorkerId,
    pub(super) work: WorkId,
    pub(super) node: Node,
    pub(super) samples: u64,
    pub(super) busy: Duration,
    pub(super) finite: bool,
    pub(super) digest: Option<Digest>,
}

/// The workers that take too long with a unit of work.
pub(super) struct Stragglers {
    pub(super) work: WorkId,
    /// Stragglers, whose pending nodes are to be assigned to other workers, too.
    pub(super) late: Vec<WorkerId>,
    /// Workers that hang, and how long ago their work was assigned.
    pub(super) hung: Vec<(WorkerId, Duration)>,
}

impl Run {
    /// Handles a worker's result.
    pub(super) fn result(&mut self, context: &mut Context<'_>, answer: ResultEvent) -> Flow {
        let ResultEvent { result, worker, work, node, finite, digest, .. } = answer;
        let open = self.stage.open_mut().filter(|open| open.work == work && !open.is_complete());
        let Some(open) = open else {
            context.out.push(Action::Discard { result, reason: Discard::Late });
            return Continue(());
        };
        let of = SourcedResult { source: Source::Worker(worker), result };
        let (taken, turnaround) = open.take(context.now, worker, node, ReceivedResult { of, finite, digest });
        if let (Some(member), Some(turnaround)) = (context.members.get_mut(&worker), turnaround) {
            member.answered(work.phase, turnaround);
        }
        self.took(context, work, node, of, taken)?;
        self.release_drained(context)
    }

    /// Handles the coordinator's own result; `computed` is `None` if the coordinator can't compute this job.
    pub(super) fn arbitrated(
        &mut self,
        context: &mut Context<'_>,
        work: WorkId,
        node: Node,
        computed: Option<Computed>,
    ) -> Flow {
        let Some(open) = self.stage.open_mut().filter(|open| open.work == work) else { return Continue(()) };
        match computed {
            None => {
                open.no_arbiter(node);
                self.assign(context, None)
            }
            Some(Computed { result, finite, digest }) => {
                let of = SourcedResult { source: Source::Coordinator, result };
                let taken = open.arbitrated(node, ReceivedResult { of, finite, digest: Some(digest) });
                self.took(context, work, node, of, taken)
            }
        }
    }

    /// Acts on what [`Open`](super::open::Open) made of a result.
    fn took(
        &mut self,
        context: &mut Context<'_>,
        work: WorkId,
        node: Node,
        SourcedResult { source, result }: SourcedResult,
        taken: ResultOutcome,
    ) -> Flow {
        match taken {
            ResultOutcome::Discarded(reason) => {
                context.out.push(Action::Discard { result, reason });
                match (reason, source) {
                    (Discard::Unassigned, Source::Worker(worker)) => self.count_unassigned(context, worker),
                    _ => Continue(()),
                }
            }
            ResultOutcome::SetAside => self.assign(context, None),
            ResultOutcome::Accepted => {
                context.out.push(Action::Accept { result, work, node, source });
                self.close_if_complete(context);
                Continue(())
            }
            ResultOutcome::Compared(verdict) => self.settle(context, node, &verdict),
        }
    }

    /// Carries out the verdict of a validation.
    fn settle(&mut self, context: &mut Context<'_>, node: Node, verdict: &Verdict) -> Flow {
        let Some(open) = self.stage.open_mut() else { return Continue(()) };
        let work = open.work;
        if verdict.right.is_some() && !verdict.finite {
            return Break(Outcome::Diverged { work });
        }
        let accepted = open.settle(node, verdict);
        if let Some(SourcedResult { source, result }) = verdict.right.filter(|_| accepted) {
            context.out.push(Action::Accept { result, work, node, source });
        }
        for &worker in &verdict.faulty {
            let others = if verdict.right.is_some() {
                "a third one confirms the other"
            } else {
                "no third one decides"
            };
            let reason = format!("its result for {node} of {work} differs from another one, and {others}");
            self.evict(context, worker, &reason)?;
        }
        self.close_if_complete(context);
        self.assign(context, None)
    }

    fn close_if_complete(&mut self, context: &mut Context<'_>) {
        let complete = match &self.stage {
            Stage::Stepping(open) | Stage::Short { open: Some(open), .. } => open.is_complete(),
            _ => false,
        };
        if let Some(open) = complete.then(|| self.stage.leave()).flatten() {
            context.out.push(Action::Close { work: open.work });
            self.stage = Stage::Closing(open);
        }
    }

    /// Handles a tree that the driver has closed.
    ///
    /// `row` has the figures of the epoch, if it ends with this unit of work.
    pub(super) fn closed(
        &mut self,
        context: &mut Context<'_>,
        work: WorkId,
        finite: bool,
        row: Option<&EpochRow>,
    ) -> Flow {
        let Stage::Closing(open) = &self.stage else { return Continue(()) };
        if open.work != work {
            return Continue(());
        }
        if !finite {
            return Break(Outcome::Diverged { work });
        }
        for worker in open.late() {
            context.members.entry(worker).and_modify(|member| member.straggler = true);
        }
        self.stage = Stage::Resting;
        if self.advance() {
            self.checkpoint_if_due(context);
        } else {
            self.end_epoch(context, work.epoch, row);
        }
        self.release_drained(context)?;
        self.next_unit(context)
    }

    /// Ends the epoch, and decides whether the job goes on.
    fn end_epoch(&mut self, context: &mut Context<'_>, epoch: u32, row: Option<&EpochRow>) {
        let (job, best) = (self.job, row.is_some_and(|row| self.watch.see(row)));
        let stopped = self.watch.stopped();
        context.out.push(Action::EndEpoch { job, epoch, best, stopped });
        if let Some(stopped) = stopped {
            context.note(Note::Stopped { job, stopped });
        }
        self.position = Position::start_of(epoch + 1);
        self.checkpointed = context.now;
        self.checkpoint_due = false;
        self.unwritten += 1;
    }

    fn checkpoint_if_due(&mut self, context: &mut Context<'_>) {
        let Some(interval) = context.config.checkpoint_interval else { return };
        // No checkpoint within an evaluation: the end of the epoch writes one soon.
        // Nor between mini-batches that make one step.
        let between = self.facts.accumulation.is_empty_before(self.position.step);
        let rests = self.position.phase == Phase::Train && between && !self.checkpointing;
        let due = self.checkpoint_due || context.now.saturating_sub(self.checkpointed) >= interval;
        if rests && due {
            self.checkpointed = context.now;
            self.checkpoint_due = false;
            self.checkpointing = true;
            let from = Start { position: self.position, parameter_tag: self.parameter_tag };
            context.out.push(Action::Checkpoint { job: self.job, from });
        }
    }

    /// Handles an epoch whose line of history is on disk.
    pub(super) fn epoch_written(&mut self, context: &mut Context<'_>) -> Flow {
        self.unwritten = self.unwritten.saturating_sub(1);
        if matches!(self.stage, Stage::Resting) { self.next_unit(context) } else { Continue(()) }
    }

    /// Starts what follows a unit of work: saving the result, a wait, or the next unit.
    pub(super) fn next_unit(&mut self, context: &mut Context<'_>) -> Flow {
        if self.is_trained() {
            self.stage = Stage::Saving;
            // What is left needs no workers.
            self.shortage = None;
            let (stopped, restored) = (self.watch.stopped(), self.watch.restored());
            context.out.push(Action::Save { job: self.job, stopped, restored });
            return Continue(());
        }
        if self.unwritten > UNWRITTEN_EPOCHS {
            self.stage = Stage::Resting;
            return Continue(());
        }
        let present = self.present(context.members);
        if present < context.config.min_workers {
            self.fall_short(context, present, None);
            return Continue(());
        }
        self.recovered(context);
        self.open_next(context)
    }

    /// Opens the tree at the run's position, under the new placement if every worker holds its samples.
    pub(super) fn open_next(&mut self, context: &mut Context<'_>) -> Flow {
        let work = self.work(context.config.incarnation);
        self.stage = Stage::Stepping(self.new_open(work));
        if let Some(target) = self.target.take_if(|target| target.awaited.is_empty()) {
            self.placement = target.placement;
            let (job, placement) = (self.job, self.placement.clone());
            context.note(Note::Assigned { job, placement, from: work });
            self.tell_holdings(context);
        }
        context.out.push(Action::Begin { work });
        self.assign(context, None)
    }

    /// Assigns the missing nodes that are not pending with any worker. `because_of` is the worker that caused a
    /// reassignment, and whether it is a straggler; the reassignment is noted.
    pub(super) fn assign(&mut self, context: &mut Context<'_>, because_of: Option<(WorkerId, bool)>) -> Flow {
        let Some((work, dispatch)) = self.dispatch(context.now, context.config, context.members) else {
            return Continue(());
        };
        let Dispatch { assignments, arbitrate, settled } = dispatch;
        if let Some((pending_with, straggler)) = because_of.filter(|_| !assignments.is_empty()) {
            let to = assignments.iter().map(|(&worker, nodes)| (worker, nodes.clone())).collect();
            context.note(Note::Reassigned { work, pending_with, straggler, to });
        }
        context.out.extend(assignments.into_iter().map(|(worker, nodes)| Action::Send {
            worker,
            work,
            nodes,
        }));
        context.out.extend(arbitrate.into_iter().map(|node| Action::Arbitrate { work, node }));
        for (node, verdict) in settled {
            self.settle(context, node, &verdict)?;
        }
        Continue(())
    }

    /// The workers that take too long with the open tree; `None` if no tree is open.
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
        // While bytes move, the assignment or the result is still being transferred.
        let moved = |worker| members.get(&worker).map_or(Duration::ZERO, |member| member.moved.1);
        let hung = open.pending().into_iter().filter(|pending| {
            let samples = open.samples_asked(pending.worker);
            let idle = now.saturating_sub(pending.since.max(moved(pending.worker)));
            idle > times(HUNG, samples, MIN_HUNG_TIME, FIRST_HUNG_TIME)
        });
        let hung = hung.map(|pending| (pending.worker, now.saturating_sub(pending.since))).collect();
        Some(Stragglers { work: open.work, late, hung })
    }

    /// Assigns this straggler's pending nodes to other workers, too.
    pub(super) fn start_backup_task(&mut self, context: &mut Context<'_>, worker: WorkerId) -> Flow {
        if let Some(open) = self.stage.open_mut() {
            open.set_overdue(worker);
        }
        self.assign(context, Some((worker, true)))
    }

    /// Plans another placement if workers have come, or if the measured speeds call for one.
    pub(super) fn balance(&mut self, context: &mut Context<'_>) -> Flow {
        let steady = matches!(self.stage, Stage::Stepping(_)) && self.target.is_none();
        let due = steady && context.now.saturating_sub(self.placed_at) >= BALANCE_EVERY;
        if self.newcomers || due { self.reassign_shards(context) } else { Continue(()) }
    }
}
