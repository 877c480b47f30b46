//! The control machine: takes events and returns actions.
//!
//! [`Control`] holds the state that outlives a job: the members, the queue, and the current job. It routes each
//! event. An event about the current job goes to its [`Run`] (the handlers are in `membership` and `progress`),
//! with a [`Context`] of everything else that the handler may touch. A handler that returns an [`Outcome`] ends the
//! job, and the next job in the queue starts. Each event carries its time, so that the same events give the same
//! actions.

use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use super::action::{Action, Discard, Disconnection, Note};
use super::config::ControlConfig;
use super::context::{Context, Departure, Flow};
use super::event::{Event, SessionEnd};
use super::facts::{Facts, Position, Start};
use super::ids::{JobId, Phase, WorkId, WorkerId};
use super::members::{Hello, Member, MemberState, Members};
use super::outcome::Outcome;
use super::place::Placement;
use super::progress::{ResultEvent, Stragglers};
use super::queue::{JobState, Queue};
use super::run::{Run, Stage};
use super::violations::{Process, Violations};
use super::waiting::Waiting;
use crate::learn::stopping::Watch;
use crate::learn::tree::Node;

/// The current job.
#[derive(Debug, Default)]
enum CurrentJob {
    /// No job.
    #[default]
    Free,
    /// The job's data is being read.
    Loading { job: JobId, violations: Violations },
    /// The job is loaded, and runs.
    Run(Box<Run>),
}

impl CurrentJob {
    fn job(&self) -> Option<JobId> {
        match self {
            CurrentJob::Free => None,
            CurrentJob::Loading { job, .. } => Some(*job),
            CurrentJob::Run(run) => Some(run.job),
        }
    }

    fn run(&self) -> Option<&Run> {
        match self {
            CurrentJob::Run(run) => Some(run),
            CurrentJob::Free | CurrentJob::Loading { .. } => None,
        }
    }

    fn violations(&mut self) -> Option<&mut Violations> {
        match self {
            CurrentJob::Free => None,
            CurrentJob::Loading { violations, .. } => Some(violations),
            CurrentJob::Run(run) => Some(&mut run.violations),
        }
    }
}

/// The state of the cluster.
#[derive(Debug)]
pub struct Control {
    config: ControlConfig,
    members: Members,
    queue: Queue,
    current: CurrentJob,
}

impl Control {
    /// A cluster without workers and jobs.
    pub fn new(config: ControlConfig) -> Self {
        Self { config, members: Members::new(), queue: Queue::default(), current: CurrentJob::Free }
    }

    /// Handles an event that happened at `now` (time since the coordinator's start). Returns the actions to carry
    /// out, in order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        match event {
            Event::Join { worker, hello } => self.join(now, worker, hello, out),
            Event::Leave { worker, end } => self.session_ended(now, worker, &end, out),
            Event::Drain { worker, reason } => self.drain(now, worker, reason, out),
            Event::Heard { worker, at, moved } => {
                self.heard(at, worker);
                self.moved(now, worker, moved);
            }
            Event::JobAccepted { worker, job, fingerprint } => {
                self.heard(now, worker);
                self.with_run(now, out, |run, context| run.accepted(context, worker, job, fingerprint));
            }
            Event::ShardHeld { worker, job, generation, shard } => {
                self.heard(now, worker);
                self.with_run(now, out, |run, context| {
                    run.shard_held(context, worker, (job, generation), shard)
                });
            }
            Event::Result { result, worker, work, node, samples, busy, finite, digest } => {
                self.result(
                    now,
                    ResultEvent { result, worker, work, node, samples, busy, finite, digest },
                    out,
                );
            }
            Event::Arbitrated { work, node, computed } => {
                self.with_run(now, out, |run, context| run.arbitrated(context, work, node, computed));
            }
            Event::Closed { work, finite, row } => {
                self.with_run(now, out, |run, context| run.closed(context, work, finite, row.as_deref()));
            }
            Event::Submit { job } => self.submit(job, out),
            Event::Loaded { job, facts, from, evicted, watch } => {
                self.loaded(now, job, facts, (from, evicted, watch), out);
            }
            Event::CheckpointWritten { job } => {
                self.with_run_of(now, job, out, |run, _| {
                    run.checkpointing = false;
                    Continue(())
                });
            }
            Event::EpochWritten { job } => self.with_run_of(now, job, out, Run::epoch_written),
            Event::Saved { job } => self.end_if_running(now, job, Outcome::Done, out),
            Event::Broken { job, failure } => self.end_if_running(now, job, Outcome::Broken(failure), out),
            Event::Cancel { job } => self.cancel(now, job, out),
            Event::Tick => self.tick(now, out),
        }
        actions
    }

    /// The cluster's settings.
    pub fn config(&self) -> &ControlConfig {
        &self.config
    }

    /// The workers that have joined.
    pub fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }

    /// A job's state.
    pub fn job_state(&self, job: JobId) -> Option<JobState<'_>> {
        match &self.current {
            CurrentJob::Loading { job: loading, .. } if *loading == job => Some(JobState::Waiting),
            CurrentJob::Run(run) if run.job == job => Some(run.state()),
            _ => self.queue.state(job),
        }
    }

    /// The place of a job in the queue, from 1; `None` if it is not queued.
    pub fn queue_place(&self, job: JobId) -> Option<usize> {
        self.queue.place(job)
    }

    /// The queued jobs, the next one first.
    pub fn queue(&self) -> impl Iterator<Item = JobId> {
        self.queue.waiting()
    }

    /// How many jobs are queued.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The current job.
    pub fn running(&self) -> Option<JobId> {
        self.current.job()
    }

    /// The running job's position; `None` until its data is read.
    pub fn position(&self) -> Option<Position> {
        self.current.run().map(|run| run.position)
    }

    /// Where the running job could resume from its present state; `None` if the state is not one between two
    /// training steps.
    pub fn checkpoint_position(&self) -> Option<Start> {
        self.current.run().and_then(Run::checkpoint_position)
    }

    /// The running job's placement.
    pub fn placement(&self) -> Option<&Placement> {
        self.current.run().map(|run| &run.placement)
    }

    /// A worker's state in the running job.
    pub fn member_state(&self, worker: WorkerId) -> MemberState {
        let (Some(run), Some(member)) = (self.current.run(), self.members.get(&worker)) else {
            return MemberState::Idle;
        };
        match member.part(run.job) {
            _ if member.draining => MemberState::Draining,
            Some(_) if run.placement.contains_key(&worker) => MemberState::Computing,
            Some(_) if run.target.iter().any(|target| target.placement.contains_key(&worker)) => {
                MemberState::Fetching
            }
            Some(_) => MemberState::Standby,
            None => MemberState::Idle,
        }
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, job: JobId) {
        self.queue.forget(job);
    }

    /// What the running job is waiting for.
    pub fn waiting(&self) -> Waiting {
        match &self.current {
            CurrentJob::Free => Waiting::Nothing,
            CurrentJob::Loading { .. } => Waiting::Data,
            CurrentJob::Run(run) => run.waiting(&self.config, &self.members),
        }
    }

    /// Whether results for this node are compared, so that the event needs their digest.
    pub fn compares(&self, work: WorkId, node: Node) -> bool {
        let open = self.current.run().and_then(|run| run.stage.open());
        open.is_some_and(|open| open.work == work && open.compares(node))
    }

    /// Calls `handler` on the current job, and ends the job if the handler breaks. Returns whether there is a
    /// loaded job.
    fn with_run(
        &mut self,
        now: Duration,
        out: &mut Vec<Action>,
        handler: impl FnOnce(&mut Run, &mut Context<'_>) -> Flow,
    ) -> bool {
        let CurrentJob::Run(run) = &mut self.current else { return false };
        let mut context = Context { now, config: &self.config, members: &mut self.members, out: &mut *out };
        if let Break(outcome) = handler(run, &mut context) {
            self.end(outcome, now, out);
        }
        true
    }

    /// Like [`Self::with_run`], but only if `job` is the running job.
    fn with_run_of(
        &mut self,
        now: Duration,
        job: JobId,
        out: &mut Vec<Action>,
        handler: impl FnOnce(&mut Run, &mut Context<'_>) -> Flow,
    ) {
        if self.running() == Some(job) {
            self.with_run(now, out, handler);
        }
    }

    fn context<'a>(&'a mut self, now: Duration, out: &'a mut Vec<Action>) -> Context<'a> {
        Context { now, config: &self.config, members: &mut self.members, out }
    }

    fn join(&mut self, now: Duration, worker: WorkerId, hello: Hello, out: &mut Vec<Action>) {
        let same = |member: &Member| member.hello.instance_id == hello.instance_id;
        let before = self.members.iter().find(|(_, member)| same(member)).map(|(&before, _)| before);
        if let Some(before) = before {
            out.push(Action::Disconnect { worker: before, reason: Disconnection::Superseded });
            self.leave(now, before, Departure::lost("the same process has joined again"), out);
        }
        if self.members.len() >= self.config.max_workers {
            let reason = Disconnection::Full { limit: self.config.max_workers };
            return out.push(Action::Disconnect { worker, reason });
        }
        if let Some(refusal) = self.refusal(worker, &hello) {
            return out.push(refusal);
        }
        out.push(Action::Welcome { worker });
        out.push(Action::Note(Note::Joined { worker, name: hello.name.clone(), slots: hello.slots }));
        self.members.insert(worker, Member::new(now, hello));
        self.with_run(now, out, |run, context| {
            run.invite(context, worker);
            Continue(())
        });
    }

    /// The action that refuses a worker that can't compute the running job; `None` if it can.
    fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        match &self.current {
            // Nobody is evicted before the job is loaded.
            CurrentJob::Free | CurrentJob::Loading { .. } => None,
            CurrentJob::Run(run) => run.refusal(worker, hello),
        }
    }

    fn session_ended(&mut self, now: Duration, worker: WorkerId, end: &SessionEnd, out: &mut Vec<Action>) {
        if let (SessionEnd::Violation(_), Some(violations), Some(member)) =
            (end, self.current.violations(), self.members.get(&worker))
        {
            violations.count_violation(Process::new(worker, &member.hello));
        }
        self.leave(now, worker, end.into(), out);
        self.with_run(now, out, Run::evict_offenders);
    }

    /// Removes a worker, for any reason, and reassigns its pending nodes.
    fn leave(&mut self, now: Duration, worker: WorkerId, departure: Departure, out: &mut Vec<Action>) {
        match &mut self.current {
            CurrentJob::Run(_) => {
                _ = self.with_run(now, out, |run, context| run.leave(context, worker, departure))
            }
            CurrentJob::Free | CurrentJob::Loading { .. } => {
                _ = self.context(now, out).remove(worker, departure)
            }
        }
    }

    fn drain(&mut self, now: Duration, worker: WorkerId, reason: String, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker).filter(|member| !member.draining) else { return };
        member.draining = true;
        out.push(Action::Note(Note::Draining { worker, name: member.hello.name.clone(), reason }));
        if !self.with_run(now, out, |run, context| run.unassign_draining(context, worker)) {
            self.release_drained(now, out);
        }
    }

    /// Releases every draining worker. Called while no tree is open.
    fn release_drained(&mut self, now: Duration, out: &mut Vec<Action>) {
        let mut context = self.context(now, out);
        let draining =
            context.members.iter().filter(|(_, member)| member.draining).map(|(&worker, _)| worker);
        for worker in draining.collect::<Vec<_>>() {
            context.release_drained(worker);
        }
    }

    fn heard(&mut self, at: Duration, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.heard = member.heard.max(at);
        }
    }

    /// Records the bytes moved to and from a worker: a transfer that makes progress is not a stall.
    fn moved(&mut self, now: Duration, worker: WorkerId, moved: u64) {
        if let Some(member) = self.members.get_mut(&worker)
            && moved > member.moved.0
        {
            member.moved = (moved, now);
        }
    }

    fn result(&mut self, now: Duration, answer: ResultEvent, out: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&answer.worker) {
            member.heard = member.heard.max(now);
            member.straggler = false;
            if answer.work.phase == Phase::Train {
                member.measure(now, answer.samples, answer.busy);
            }
        }
        let result = answer.result;
        if !self.with_run(now, out, |run, context| run.result(context, answer)) {
            out.push(Action::Discard { result, reason: Discard::Late });
        }
    }

    fn submit(&mut self, job: JobId, out: &mut Vec<Action>) {
        self.queue.push(job);
        self.start_next(out);
    }

    fn start_next(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.current, CurrentJob::Free) {
            return;
        }
        if let Some(job) = self.queue.pop() {
            self.current = CurrentJob::Loading { job, violations: Violations::default() };
            out.push(Action::Load { job });
        }
    }

    fn loaded(
        &mut self,
        now: Duration,
        loaded: JobId,
        facts: Facts,
        (from, evicted, watch): (Start, BTreeMap<String, String>, Watch),
        out: &mut Vec<Action>,
    ) {
        let CurrentJob::Loading { job, violations } = &mut self.current else { return };
        if *job != loaded {
            return;
        }
        let violations = std::mem::take(violations).with_evicted(evicted);
        self.current = CurrentJob::Run(Box::new(Run::new(now, loaded, violations, facts, (from, watch))));
        self.with_run(now, out, |run, context| {
            run.evict_offenders(context)?;
            if run.is_trained() { run.next_unit(context) } else { run.invite_all(context) }
        });
    }

    fn cancel(&mut self, now: Duration, job: JobId, out: &mut Vec<Action>) {
        if self.queue.remove(job) {
            self.queue.end(job, Outcome::Cancelled);
            out.push(Action::End { job, outcome: Outcome::Cancelled });
        } else {
            // Once the result is being written it is too late to cancel: the job is done.
            let saving = self.current.run().is_some_and(|run| matches!(run.stage, Stage::Saving));
            if !saving {
                self.end_if_running(now, job, Outcome::Cancelled, out);
            }
        }
    }

    fn end_if_running(&mut self, now: Duration, job: JobId, outcome: Outcome, out: &mut Vec<Action>) {
        if self.running() == Some(job) {
            self.end(outcome, now, out);
        }
    }

    /// Ends the current job and starts the next.
    fn end(&mut self, outcome: Outcome, now: Duration, out: &mut Vec<Action>) {
        let Some(job) = self.running() else { return };
        // Write a checkpoint if somebody may want to resume the job.
        let resumable = !matches!(outcome, Outcome::Done | Outcome::Diverged { .. });
        let kept = resumable && self.config.checkpoint_interval.is_some();
        out.extend(self.checkpoint_position().filter(|_| kept).map(|from| Action::Checkpoint { job, from }));
        self.current = CurrentJob::Free;
        for member in self.members.values_mut() {
            member.job = None;
            member.pace = None;
            member.turnaround = [None; 2];
            member.straggler = false;
        }
        self.queue.end(job, outcome.clone());
        out.push(Action::End { job, outcome });
        self.release_drained(now, out);
        self.start_next(out);
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.end_silent_sessions(now, out);
        self.end_stalled_sessions(now, out);
        let stragglers = self.current.run().and_then(|run| run.stragglers(now, &self.members));
        if let Some(Stragglers { work, late, hung }) = stragglers {
            self.start_backup_tasks(now, late, out);
            self.end_hung_sessions(now, work, hung, out);
        }
        self.with_run(now, out, Run::check_waiting);
        self.with_run(now, out, Run::balance);
    }

    fn end_silent_sessions(&mut self, now: Duration, out: &mut Vec<Action>) {
        let deadline = self.config.heartbeat_deadline;
        let silence = |member: &Member| now.saturating_sub(member.heard);
        let silent = self.members.iter().map(|(&worker, member)| (worker, silence(member)));
        let silent: Vec<_> = silent.filter(|&(_, silence)| silence > deadline).collect();
        for (worker, silence) in silent {
            out.push(Action::Disconnect { worker, reason: Disconnection::Silent { silence } });
            let how = format!("nothing came from it for {:.1} s", silence.as_secs_f64());
            self.leave(now, worker, Departure::lost(how), out);
        }
    }

    /// Disconnects workers that were told to fetch samples and to which no bytes move.
    fn end_stalled_sessions(&mut self, now: Duration, out: &mut Vec<Action>) {
        let stalled = |member: &Member| {
            let part = member.job.as_ref().filter(|part| part.accepted && !member.draining)?;
            let moved = part.moved.max(member.moved.1);
            let idle = now.saturating_sub(moved);
            (!part.lacks.is_empty() && idle > self.config.stall_deadline).then_some(idle)
        };
        let stalled: Vec<_> =
            self.members.iter().filter_map(|(&worker, member)| Some((worker, stalled(member)?))).collect();
        for (worker, stalled) in stalled {
            out.push(Action::Disconnect { worker, reason: Disconnection::Stalled { stalled } });
            let how = format!("no sample reached it for {:.0} s", stalled.as_secs_f64());
            self.leave(now, worker, Departure::lost(how), out);
        }
    }

    /// Assigns each straggler's pending nodes to other workers, too.
    fn start_backup_tasks(&mut self, now: Duration, late: Vec<WorkerId>, out: &mut Vec<Action>) {
        for worker in late {
            self.with_run(now, out, |run, context| run.start_backup_task(context, worker));
        }
    }

    /// Disconnects workers that hang.
    fn end_hung_sessions(
        &mut self,
        now: Duration,
        work: WorkId,
        hung: Vec<(WorkerId, Duration)>,
        out: &mut Vec<Action>,
    ) {
        for (worker, asked) in hung {
            out.push(Action::Disconnect { worker, reason: Disconnection::Hung { work, asked } });
            let how = format!("it has not returned {work} for {:.0} s", asked.as_secs_f64());
            self.leave(now, worker, Departure::lost(how), out);
        }
    }
}
