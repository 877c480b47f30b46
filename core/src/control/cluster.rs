//! The control machine itself: events in, actions out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::members::{Member, Members, Role};
use super::membership::describe;
use super::open::Owing;
use super::progress::Answer;
use super::queue::Queue;
use super::run::{Facts, Position, Run, Stage, Start};
use super::{Action, Departure, Event, JobId, JobState, Outcome, Placement, WorkId, WorkerId};
use crate::learn::tree::Node;

/// The settings of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which life of the coordinator this is.
    pub incarnation: u64,
    /// A job waits until so many workers can compute it.
    pub min_workers: usize,
    /// A job that begins waits a moment for so many.
    pub expected_workers: usize,
    /// How long that moment is.
    pub settle: Duration,
    /// How long a job waits for `min_workers`; without limit if none.
    pub wait_workers: Option<Duration>,
    /// No more workers are let in.
    pub max_workers: usize,
    /// A worker from which nothing came for so long is given up.
    pub heartbeat_deadline: Duration,
    /// A worker that fetches samples, and has received nothing for so long, is given up.
    pub stall_deadline: Duration,
    /// How often the state is copied in the middle of an epoch; never if none.
    pub checkpoint_interval: Option<Duration>,
    /// The share of nodes that two compute, to compare their answers: from 0 to 1.
    pub audit_rate: f64,
}

/// What the running job is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No job runs.
    Nothing,
    /// Its data is read.
    Data,
    /// Not enough workers are there.
    Workers {
        /// How many can compute it.
        present: usize,
        /// How many are needed or, for a moment, expected.
        needed: usize,
        /// Since when.
        since: Duration,
    },
    /// These workers fetch samples.
    Samples(Vec<WorkerId>),
    /// These workers compute.
    Results {
        /// What.
        work: WorkId,
        /// Who, and since when.
        owing: Vec<Owing>,
        /// Shards whose samples nobody has who could compute them: they are fetched first.
        unheld: Vec<u32>,
    },
    /// The coordinator writes the result.
    Disk,
}

/// The state of the cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) config: Config,
    pub(super) members: Members,
    pub(super) queue: Queue,
    pub(super) run: Option<Run>,
}

impl Cluster {
    /// A cluster without workers and jobs.
    pub fn new(config: Config) -> Self {
        Self { config, members: Members::new(), queue: Queue::default(), run: None }
    }

    /// Takes in what happened at `now` (since the coordinator's start); says what is to be done, in order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        match event {
            Event::Join { worker, hello } => self.join(now, worker, hello, out),
            Event::Leave { worker, departure } => {
                if matches!(departure, Departure::Misbehaved(_)) {
                    self.count_offence(worker);
                }
                self.leave(now, worker, &describe(&departure), out);
            }
            Event::Drain { worker, reason } => self.drain(now, worker, reason, out),
            Event::Heard { worker, at, moved } => {
                self.heard(at, worker);
                self.moved(now, worker, moved);
            }
            Event::JobAccepted { worker, job, fingerprint } => {
                self.accepted(now, worker, job, fingerprint, out)
            }
            Event::ShardHeld { worker, job, generation, shard } => {
                self.heard(now, worker);
                self.shard_held(now, worker, (job, generation), shard, out);
            }
            Event::Result { worker, work, node, samples, busy, finite, digest } => {
                self.result(now, Answer { worker, work, node, samples, busy, finite, digest }, out);
            }
            Event::Arbitrated { work, node, result } => self.arbitrated(now, work, node, result, out),
            Event::Closed { work, finite } => self.closed(now, work, finite, out),
            Event::Submit { job } => self.submit(job, out),
            Event::Loaded { job, facts, from, put_out } => {
                self.loaded(now, job, facts, (from, put_out), out);
            }
            Event::CheckpointWritten { job } => {
                if let Some(run) = self.run.as_mut().filter(|run| run.job == job) {
                    run.checkpointing = false;
                }
            }
            Event::EpochWritten { job } if self.running() == Some(job) => self.epoch_written(now, out),
            Event::EpochWritten { .. } => {}
            Event::Saved { job } => self.end_if_running(now, job, Outcome::Done, out),
            Event::Broken { job, failure } => self.end_if_running(now, job, Outcome::Broken(failure), out),
            Event::Cancel { job } => self.cancel(now, job, out),
            Event::Tick => self.tick(now, out),
        }
        actions
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The workers.
    pub fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }

    /// Where a job is in its life.
    pub fn job_state(&self, job: JobId) -> Option<&JobState> {
        self.queue.state(job)
    }

    /// The place of a job in the queue, from 1; none if it is not queued.
    pub fn queue_place(&self, job: JobId) -> Option<usize> {
        self.queue.place(job)
    }

    /// How many jobs wait for their turn.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The job that has its turn.
    pub fn running(&self) -> Option<JobId> {
        self.run.as_ref().map(|run| run.job)
    }

    /// Where the running job is.
    pub fn position(&self) -> Option<Position> {
        self.run.as_ref().map(|run| run.position)
    }

    /// Where the running job could go on from its present state, if that is between two steps.
    pub fn resting_place(&self) -> Option<Start> {
        self.run.as_ref().and_then(Run::resting_place)
    }

    /// Who computes what for the running job.
    pub fn placement(&self) -> Option<&Placement> {
        self.run.as_ref().map(|run| &run.placement)
    }

    /// A worker's part in the running job.
    pub fn role(&self, worker: WorkerId) -> Role {
        let (Some(run), Some(member)) = (&self.run, self.members.get(&worker)) else { return Role::Idle };
        match member.part(run.job) {
            _ if member.draining => Role::Draining,
            Some(_) if run.placement.contains_key(&worker) => Role::Computing,
            Some(_) if run.target.as_ref().is_some_and(|target| target.contains_key(&worker)) => {
                Role::Fetching
            }
            Some(_) => Role::Spare,
            None => Role::Idle,
        }
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, job: JobId) {
        self.queue.forget(job);
    }

    /// What the running job is waiting for.
    pub fn waiting(&self) -> Waiting {
        let Some(run) = &self.run else { return Waiting::Nothing };
        match run.stage {
            Stage::Loading => Waiting::Data,
            Stage::Gathering { since } if run.target.is_none() => {
                let present = run.candidates(&self.members).len();
                let Config { min_workers, expected_workers, .. } = self.config;
                let needed = if present < min_workers { min_workers } else { expected_workers };
                Waiting::Workers { present, needed, since }
            }
            Stage::Gathering { .. } => Waiting::Samples(self.fetching(run)),
            Stage::Short { since } => Waiting::Workers {
                present: run.candidates(&self.members).len(),
                needed: self.config.min_workers,
                since,
            },
            Stage::Stepping | Stage::Closing => Waiting::Results {
                work: run.work(self.config.incarnation),
                owing: run.open.as_ref().map(|open| open.owing()).unwrap_or_default(),
                unheld: run.unheld(&self.members),
            },
            Stage::Writing | Stage::Saving => Waiting::Disk,
        }
    }

    /// Whether answers to this node are compared, so that the event needs their digest.
    pub fn compares(&self, work: WorkId, node: Node) -> bool {
        let open = self.run.as_ref().and_then(|run| run.open.as_ref());
        open.is_some_and(|open| open.work == work && open.compares(node))
    }

    fn fetching(&self, run: &Run) -> Vec<WorkerId> {
        let lacks = |worker: &WorkerId| {
            let part = self.members.get(worker).and_then(|member| member.part(run.job));
            part.is_none_or(|part| part.told.iter().any(|shard| !part.held.contains(shard)))
        };
        run.target.iter().flat_map(|target| target.keys()).copied().filter(lacks).collect()
    }

    fn submit(&mut self, job: JobId, out: &mut Vec<Action>) {
        self.queue.push(job);
        self.start_next(out);
    }

    fn start_next(&mut self, out: &mut Vec<Action>) {
        if self.run.is_some() {
            return;
        }
        if let Some(job) = self.queue.pop() {
            self.queue.set(job, JobState::Waiting);
            self.run = Some(Run::new(job));
            out.push(Action::Load { job });
        }
    }

    fn loaded(
        &mut self,
        now: Duration,
        job: JobId,
        facts: Facts,
        (from, put_out): (Start, BTreeMap<String, String>),
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.run.as_mut().filter(|run| run.job == job && run.stage == Stage::Loading) else {
            return;
        };
        run.load(now, facts, from);
        run.banned = put_out;
        if run.is_trained() {
            return self.go_on(now, out);
        }
        self.invite_all(now, out);
    }

    fn cancel(&mut self, now: Duration, job: JobId, out: &mut Vec<Action>) {
        if self.queue.remove(job) {
            self.queue.set(job, JobState::Ended(Outcome::Cancelled));
            out.push(Action::End { job, outcome: Outcome::Cancelled });
        } else {
            // Once the result is being written it is too late: the run is done, whatever is said of it.
            let saving = self.run.as_ref().is_some_and(|run| run.stage == Stage::Saving);
            if !saving {
                self.end_if_running(now, job, Outcome::Cancelled, out);
            }
        }
    }

    fn end_if_running(&mut self, now: Duration, job: JobId, outcome: Outcome, out: &mut Vec<Action>) {
        if self.running() == Some(job) {
            self.end(now, outcome, out);
        }
    }

    pub(super) fn end(&mut self, now: Duration, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(run) = self.run.take() else { return };
        // What was trained is kept where somebody may want to go on with it.
        let resumable = !matches!(outcome, Outcome::Done | Outcome::Diverged { .. });
        if let Some(from) =
            run.resting_place().filter(|_| resumable && self.config.checkpoint_interval.is_some())
        {
            out.push(Action::Checkpoint { job: run.job, from });
        }
        for member in self.members.values_mut() {
            member.job = None;
            member.pace = None;
            member.turnaround = [None; 2];
            member.behind = false;
        }
        self.queue.set(run.job, JobState::Ended(outcome.clone()));
        out.push(Action::End { job: run.job, outcome });
        self.say_farewell(now, out);
        self.start_next(out);
    }
}
