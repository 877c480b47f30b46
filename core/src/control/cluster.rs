//! The control machine itself: events in, actions out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::members::{Hello, Member, Members, Part, Role};
use super::queue::Queue;
use super::run::{Facts, Position, Run, Stage, Taken};
use super::{
    Action, Departure, Discard, Dismissal, Event, JobId, JobState, Note, Outcome, Phase, Placement, WorkId,
    WorkerId,
};
use crate::data::shard::Shard;
use crate::learn::tree::Node;

/// The settings of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        /// Who.
        workers: Vec<WorkerId>,
    },
    /// The coordinator writes the result.
    Disk,
}

/// The state of the cluster.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    members: Members,
    queue: Queue,
    run: Option<Run>,
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
            Event::Leave { worker, departure } => self.leave(now, worker, &describe(&departure), out),
            Event::Drain { worker, reason } => {
                self.leave(now, worker, &format!("it was told to stop: {reason}"), out);
            }
            Event::Heard { worker, at } => self.heard(at, worker),
            Event::JobAccepted { worker, job, fingerprint } => {
                self.accepted(now, worker, job, fingerprint, out)
            }
            Event::ShardHeld { worker, job, generation, shard } => {
                self.heard(now, worker);
                self.shard_held(worker, job, generation, shard, out);
            }
            Event::Result { worker, work, node, samples, busy } => {
                self.measure(now, worker, work, samples, busy);
                self.result(worker, work, node, out);
            }
            Event::Closed { work, finite } => self.closed(work, finite, out),
            Event::Submit { job } => self.submit(job, out),
            Event::Loaded { job, facts } => self.loaded(now, job, facts, out),
            Event::Saved { job } => self.end_if_running(job, Outcome::Done, out),
            Event::Broken { job, failure } => self.end_if_running(job, Outcome::Broken(failure), out),
            Event::Cancel { job } => self.cancel(job, out),
            Event::Tick => self.tick(now, out),
        }
        actions
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

    /// Who computes what for the running job.
    pub fn placement(&self) -> Option<&Placement> {
        self.run.as_ref().map(|run| &run.placement)
    }

    /// A worker's part in the running job.
    pub fn role(&self, worker: WorkerId) -> Role {
        let (Some(run), Some(member)) = (&self.run, self.members.get(&worker)) else { return Role::Idle };
        match member.part(run.job) {
            Some(_) if run.placement.contains_key(&worker) => Role::Computing,
            Some(_) if run.target.as_ref().is_some_and(|target| target.contains_key(&worker)) => {
                Role::Fetching
            }
            Some(_) => Role::Spare,
            None => Role::Idle,
        }
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
            Stage::Stepping | Stage::Closing => {
                Waiting::Results { work: run.work(self.config.incarnation), workers: run.owing() }
            }
            Stage::Saving => Waiting::Disk,
        }
    }

    fn fetching(&self, run: &Run) -> Vec<WorkerId> {
        let lacks = |worker: &WorkerId| {
            let part = self.members.get(worker).and_then(|member| member.part(run.job));
            part.is_none_or(|part| part.told.iter().any(|shard| !part.held.contains(shard)))
        };
        run.target.iter().flat_map(|target| target.keys()).copied().filter(lacks).collect()
    }

    fn join(&mut self, now: Duration, worker: WorkerId, hello: Hello, out: &mut Vec<Action>) {
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
        self.invite(worker, out);
    }

    /// What to answer to a worker that can't compute the running job.
    fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        let facts = self.run.as_ref()?.facts.as_ref()?;
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
    fn invite(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        let (Some(run), Some(member)) = (&self.run, self.members.get_mut(&worker)) else { return };
        if run.facts.is_none() {
            return;
        }
        let job = run.job;
        member.job = Some(Part {
            job,
            accepted: false,
            told: Vec::new(),
            spare: false,
            generation: 0,
            held: Default::default(),
        });
        out.push(Action::StartJob { worker, job });
    }

    fn leave(&mut self, now: Duration, worker: WorkerId, how: &str, out: &mut Vec<Action>) {
        let Some(member) = self.members.remove(&worker) else { return };
        let name = member.hello.name;
        out.push(Action::Note(Note::Left { worker, name: name.clone(), how: how.to_string() }));
        let Some(run) = &mut self.run else { return };
        if matches!(run.stage, Stage::Stepping | Stage::Closing) && run.placement.contains_key(&worker) {
            let during = run.work(self.config.incarnation).to_string();
            let (worker, how) = (format!("{worker} ({name})"), how.to_string());
            return self.end(Outcome::WorkerLost { worker, during, how }, out);
        }
        if run.target.as_ref().is_some_and(|target| target.contains_key(&worker)) {
            run.target = None;
            self.place_again(now, out);
        }
    }

    fn heard(&mut self, now: Duration, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.heard = member.heard.max(now);
        }
    }

    fn accepted(
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
    }

    fn shard_held(
        &mut self,
        worker: WorkerId,
        job: JobId,
        generation: u64,
        shard: Shard,
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        let Some(part) = member.job.as_mut().filter(|part| part.job == job) else { return };
        // An answer to what it was told before may be about samples that it has forgotten since.
        if part.generation != generation {
            return;
        }
        part.held.insert(shard);
        self.begin_if_ready(out);
    }

    fn measure(&mut self, now: Duration, worker: WorkerId, work: WorkId, samples: u64, busy: Duration) {
        self.heard(now, worker);
        if let Some(member) = self.members.get_mut(&worker).filter(|_| work.phase == Phase::Train) {
            member.measure(samples, busy);
        }
    }

    fn result(&mut self, worker: WorkerId, work: WorkId, node: Node, out: &mut Vec<Action>) {
        let taken = self.run.as_mut().map(|run| run.take(worker, work, node));
        match taken.unwrap_or(Taken::Discarded(Discard::Late)) {
            Taken::Discarded(reason) => out.push(Action::Discard { reason }),
            Taken::Accepted { complete } => {
                out.push(Action::Accept { work, node });
                if complete {
                    out.push(Action::Close { work });
                }
            }
        }
    }

    fn closed(&mut self, work: WorkId, finite: bool, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| run.current() == Some(work)) else { return };
        if !finite {
            return self.end(Outcome::Diverged { work }, out);
        }
        if run.advance() {
            return self.open_next(out);
        }
        let (job, epoch) = (run.job, work.epoch);
        out.push(Action::EndEpoch { job, epoch });
        if epoch + 1 == run.facts().epochs {
            run.stage = Stage::Saving;
            out.push(Action::Save { job });
        } else {
            run.position = Position::start_of(epoch + 1);
            self.open_next(out);
        }
    }

    /// Opens the tree at the run's position, under the new placement if everybody is ready for it.
    fn open_next(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let work = run.work(self.config.incarnation);
        if run.target_is_held(&self.members) {
            run.placement = run.target.take().unwrap_or_default();
            let (job, placement) = (run.job, run.placement.clone());
            out.push(Action::Note(Note::Placed { job, placement, from: work }));
            self.tell_holdings(out);
        }
        let Some(run) = &mut self.run else { return };
        out.push(Action::Begin { work });
        let asked = run.open(work);
        out.extend(asked.into_iter().map(|(worker, nodes)| Action::Send { worker, work, nodes }));
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

    fn loaded(&mut self, now: Duration, job: JobId, facts: Facts, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| run.job == job && run.stage == Stage::Loading) else {
            return;
        };
        run.facts = Some(facts);
        run.stage = Stage::Gathering { since: now };
        let members: Vec<_> =
            self.members.iter().map(|(&worker, member)| (worker, member.hello.clone())).collect();
        for (worker, hello) in members {
            match self.refusal(worker, &hello) {
                None => self.invite(worker, out),
                Some(refusal) => {
                    out.push(refusal);
                    self.leave(now, worker, "it needs another arithmetic", out);
                }
            }
        }
    }

    /// Places shards anew after a change of members.
    fn place_again(&mut self, now: Duration, out: &mut Vec<Action>) {
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
        run.replace(&self.members);
        self.tell_holdings(out);
        self.begin_if_ready(out);
    }

    /// Tells every worker what to hold, where that has changed.
    fn tell_holdings(&mut self, out: &mut Vec<Action>) {
        let Some(run) = &self.run else { return };
        let job = run.job;
        for (&worker, member) in &mut self.members {
            if member.part(job).is_none() {
                continue;
            }
            let shards = run.shards_to_hold(worker, member.hello.cache_bytes);
            let placed = |placement: &Placement| placement.contains_key(&worker);
            let spare = !placed(&run.placement) && !run.target.as_ref().is_some_and(placed);
            if let Some(part) = member.job.as_mut().filter(|part| part.told != shards || part.spare != spare)
            {
                part.held.clear();
                part.generation += 1;
                let generation = part.generation;
                part.told.clone_from(&shards);
                part.spare = spare;
                out.push(Action::Hold { worker, job, generation, shards, spare });
            }
        }
    }

    /// Begins the job once the first placement's samples are all there.
    fn begin_if_ready(&mut self, out: &mut Vec<Action>) {
        let Some(run) = self.run.as_mut().filter(|run| matches!(run.stage, Stage::Gathering { .. })) else {
            return;
        };
        if run.target_is_held(&self.members) {
            run.stage = Stage::Stepping;
            self.queue.set(run.job, JobState::Running);
            self.open_next(out);
        }
    }

    fn cancel(&mut self, job: JobId, out: &mut Vec<Action>) {
        if self.queue.remove(job) {
            self.queue.set(job, JobState::Ended(Outcome::Cancelled));
            out.push(Action::End { job, outcome: Outcome::Cancelled });
        } else {
            self.end_if_running(job, Outcome::Cancelled, out);
        }
    }

    fn end_if_running(&mut self, job: JobId, outcome: Outcome, out: &mut Vec<Action>) {
        if self.running() == Some(job) {
            self.end(outcome, out);
        }
    }

    fn end(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(run) = self.run.take() else { return };
        for member in self.members.values_mut() {
            member.job = None;
            member.pace = None;
        }
        self.queue.set(run.job, JobState::Ended(outcome.clone()));
        out.push(Action::End { job: run.job, outcome });
        self.start_next(out);
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        let deadline = self.config.heartbeat_deadline;
        let silence = |member: &Member| now.saturating_sub(member.heard);
        let silent: Vec<_> =
            self.members.iter().map(|(&w, m)| (w, silent_for(silence(m), deadline))).collect();
        for (worker, silence) in silent.into_iter().filter_map(|(worker, silence)| Some((worker, silence?))) {
            out.push(Action::Dismiss { worker, reason: Dismissal::Silent { silence } });
            self.leave(now, worker, &format!("nothing came from it for {:.1} s", silence.as_secs_f64()), out);
        }
        self.check_gathering(now, out);
    }

    /// Begins with those who are there once the moment to wait for more is over; gives up when there are too few.
    fn check_gathering(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(Run { stage: Stage::Gathering { since }, target: None, .. }) = &self.run else { return };
        let waited = now.saturating_sub(*since);
        let present = self.run.as_ref().map_or(0, |run| run.candidates(&self.members).len());
        let needed = self.config.min_workers;
        if present >= needed && waited >= self.config.settle {
            self.place_again(now, out);
        } else if present < needed && self.config.wait_workers.is_some_and(|limit| waited >= limit) {
            self.end(Outcome::TooFewWorkers { present, needed, waited }, out);
        }
    }
}

fn silent_for(silence: Duration, deadline: Duration) -> Option<Duration> {
    (silence > deadline).then_some(silence)
}

fn describe(departure: &Departure) -> String {
    match departure {
        Departure::Closed => "its connection was closed".to_string(),
        Departure::Goodbye(reason) => format!("it said goodbye: {reason}"),
        Departure::Misbehaved(how) => format!("it broke the protocol: {how}"),
    }
}
