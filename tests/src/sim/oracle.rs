//! What must hold, checked all the time: the simulation's opinion of what it sees.
//!
//! - Trees close one after another, in the order of the plan, each once; after each, the parameters are those of an
//!   undisturbed run.
//! - Each epoch's ledger has every sample exactly once.
//! - Nothing is asked for that is in the tree; what is asked for again is what somebody owed who is gone or slow.
//! - No healthy worker is evicted, blamed, or said to hang when it owes nothing.
//! - What was reported as written is there after a crash, and a run goes on from no earlier place.
//! - Whatever an event leads to is bounded, and so is what waits.
//! - A job ends, and ends as it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millefeuille_core::control::{
    Action, Disconnection, JobId, Note, Outcome, Pending, Phase, Position, Start, Waiting, WorkId, WorkerId,
};
use millefeuille_core::learn::tree::Node;

use super::disk::Record;
use super::scenario::Scenario;
use super::toy::{Expected, Job, Ledger};
use super::world::{Connection, World};

/// What is known of the jobs, and what is expected of them.
pub(crate) struct Oracle {
    jobs: Vec<(Arc<Job>, Expected)>,
    /// The next unit of work of the running job.
    next: Option<(JobId, Position)>,
    step: Step,
    /// The newest checkpoint that was reported.
    pub(crate) written: BTreeMap<JobId, Start>,
    pub(crate) cancelled: BTreeSet<JobId>,
    /// What a crash has lost, for a mutation.
    pub(crate) ledgers: BTreeMap<JobId, Ledger>,
    ended: BTreeSet<JobId>,
    pub(crate) stats: Stats,
}

/// What a world has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Trees closed, those that a resumed run closed again included.
    pub closed: u64,
    /// Pieces asked for beyond the first time.
    pub repeated: u64,
    /// Workers lost.
    pub lost: u64,
    /// Workers evicted.
    pub evicted: u64,
    /// Times that a run went on from a checkpoint.
    pub resumed: u64,
}

/// The open tree.
#[derive(Default)]
struct Step {
    work: Option<WorkId>,
    present: BTreeSet<u32>,
    accepted: BTreeSet<u32>,
    nodes: usize,
    pending: BTreeMap<WorkerId, BTreeSet<u32>>,
    asked: usize,
    /// What may be asked for again: what was owed by those who are gone or slow.
    excused: BTreeSet<(WorkerId, u32)>,
    /// It waited for workers, and who was slow meanwhile could not be seen.
    waited: bool,
}

impl Oracle {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            jobs: scenario.jobs.iter().map(|job| (Arc::clone(job), job.expected())).collect(),
            next: None,
            step: Step::default(),
            written: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            ledgers: BTreeMap::new(),
            ended: BTreeSet::new(),
            stats: Stats::default(),
        }
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.ended.len() == self.jobs.len()
    }

    fn job(&self, job: JobId) -> &(Arc<Job>, Expected) {
        &self.jobs[job.0 as usize - 1]
    }

    fn present_in(&self, node: Node) -> BTreeSet<u32> {
        self.step.present.range(node.first..node.end).copied().collect()
    }
}

impl World {
    /// How many actions an event leads to is bounded by the cluster's size.
    pub(crate) fn judge_size(&mut self, actions: usize) {
        let (Some(coordinator), jobs) = (&self.coordinator, &self.scenario.jobs) else { return };
        let members = coordinator.control.members().len();
        let shards = jobs.iter().map(|job| job.facts.shards as usize).max().unwrap_or_default();
        let most = 24 + 8 * members + 6 * shards;
        if actions > most {
            self.fail(format!(
                "one event led to {actions} actions, with {members} workers and {shards} shards"
            ));
        }
    }

    pub(crate) fn judge_action(&mut self, action: &Action) {
        match action {
            Action::Begin { work } => self.judge_begin(*work),
            Action::Send { worker, work, nodes } => self.judge_send(*worker, *work, nodes),
            Action::Accept { work, node, .. } => self.judge_accept(*work, *node),
            Action::Disconnect { worker, reason } => self.judge_disconnection(*worker, reason),
            Action::Note(Note::Evicted { instance_id, .. }) => {
                self.oracle.stats.evicted += 1;
                if !self.faulty.contains(instance_id) && !self.scenario.may_blame_the_healthy() {
                    self.fail(format!("process {instance_id} was evicted and is healthy"));
                }
            }
            Action::Note(Note::Left { worker, .. }) => {
                self.oracle.stats.lost += 1;
                self.excuse(*worker);
                self.oracle.step.pending.remove(worker);
            }
            // Who is slow while a job waits is helped when it goes on.
            Action::Note(Note::Short { .. }) => self.oracle.step.waited = true,
            Action::Note(Note::Reassigned { pending_with, straggler: true, .. }) => {
                self.judge_slow(*pending_with, "slow");
                self.excuse(*pending_with);
            }
            _ => {}
        }
    }

    /// Who is slow may be helped later, when somebody holds the samples.
    pub(crate) fn excuse_slow(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let Waiting::Results { pending, .. } = coordinator.control.waiting() else { return };
        for Pending { worker, .. } in pending.into_iter().filter(|pending| pending.overdue) {
            self.excuse(worker);
        }
    }

    fn excuse(&mut self, worker: WorkerId) {
        let step = &mut self.oracle.step;
        let pending = step.pending.get(&worker).into_iter().flatten();
        step.excused.extend(pending.map(|&shard| (worker, shard)));
    }

    fn judge_begin(&mut self, work: WorkId) {
        let again = self.oracle.step.work == Some(work);
        let at = Position { epoch: work.epoch, phase: work.phase, step: work.step };
        if self.oracle.next != Some((work.job, at)) {
            let next = self.oracle.next;
            return self.fail(format!("{work} is begun, and next is {next:?}"));
        }
        if again && !self.scenario.compares() {
            return self.fail(format!("{work} is begun anew, and nobody was evicted"));
        }
        let present = self.oracle.job(work.job).0.facts.present(work.phase, work.step);
        self.oracle.step = Step { work: Some(work), present, ..Step::default() };
    }

    fn judge_send(&mut self, worker: WorkerId, work: WorkId, nodes: &[Node]) {
        if self.oracle.step.work != Some(work) {
            return self.fail(format!("{work} is asked for and not open"));
        }
        let compares = self.scenario.compares();
        for &node in nodes {
            let shards = self.oracle.present_in(node);
            let step = &mut self.oracle.step;
            let known = shards.iter().filter(|shard| step.accepted.contains(shard)).count();
            step.asked += shards.len();
            step.pending.entry(worker).or_default().extend(&shards);
            if shards.is_empty() || known == shards.len() || known > 0 && !compares {
                return self
                    .fail(format!("{node} of {work} is asked for, of which {known} shards are there"));
            }
        }
        let Step { asked, waited, ref excused, ref present, .. } = self.oracle.step;
        let (repeated, excused) = (asked.saturating_sub(present.len()), excused.len());
        self.oracle.stats.repeated += repeated.min(nodes.len()) as u64;
        if repeated > excused && !compares && !waited {
            self.fail(format!(
                "{repeated} pieces of {work} are asked for again, and {excused} were lost or late"
            ));
        }
        let pending = self.oracle.step.pending[&worker].len();
        if pending > self.oracle.step.present.len() {
            self.fail(format!("{worker} owes {pending} pieces of {work}"));
        }
    }

    pub(crate) fn judge_answer(&mut self, worker: WorkerId, work: WorkId, node: Node) {
        let shards = self.oracle.present_in(node);
        let step = &mut self.oracle.step;
        if step.work == Some(work)
            && let Some(pending) = step.pending.get_mut(&worker)
        {
            pending.retain(|shard| !shards.contains(shard));
        }
    }

    fn judge_accept(&mut self, work: WorkId, node: Node) {
        let shards = self.oracle.present_in(node);
        let step = &mut self.oracle.step;
        step.nodes += 1;
        let new = shards.iter().filter(|shard| !step.accepted.contains(shard)).count();
        step.accepted.extend(&shards);
        let most = (2 * step.present.len()).saturating_sub(1);
        if step.work != Some(work) || new == 0 {
            self.fail(format!("{node} of {work} is accepted, with nothing new in it"));
        } else if step.nodes > most {
            self.fail(format!("more than {most} nodes of {work} are accepted"));
        }
    }

    pub(crate) fn judge_close(&mut self, work: WorkId, tag: u64, parameters: u64) {
        self.oracle.stats.closed += 1;
        let at = Position { epoch: work.epoch, phase: work.phase, step: work.step };
        if self.oracle.next != Some((work.job, at)) {
            return self.fail(format!("{work} is closed, and next is {:?}", self.oracle.next));
        }
        let (job, expected) = self.oracle.job(work.job);
        let next = job.after(at);
        let right = expected.parameters.get(tag as usize) == Some(&parameters);
        self.oracle.next = Some((work.job, next));
        if !right && !self.scenario.may_be_harmed() {
            self.fail(format!("after {work} the parameters are not those of an undisturbed run"));
        }
    }

    pub(crate) fn judge_row(&mut self, job: JobId, epoch: u32, row: u64) {
        if self.oracle.job(job).1.rows.get(epoch as usize) != Some(&row) {
            self.fail(format!("the figures of epoch {epoch} are not those of an undisturbed run"));
        }
    }

    fn judge_disconnection(&mut self, worker: WorkerId, reason: &Disconnection) {
        match reason {
            Disconnection::Unassigned { answers } => {
                self.fail(format!("{worker} is sent away for {answers} answers that were asked for"));
            }
            Disconnection::Hung { .. } => self.judge_slow(worker, "hanging"),
            Disconnection::Arithmetic { .. } | Disconnection::Shapes { .. } => {
                self.fail(format!("{worker} is refused for its arithmetic"));
            }
            _ => {}
        }
    }

    /// A worker that is called slow has something to do, or something of it is on its way.
    fn judge_slow(&mut self, worker: WorkerId, what: &str) {
        let current = |connection: &Connection| {
            connection.worker == Some(worker) && connection.coordinator == self.lives
        };
        let Some(wire) = self.connections.iter().rposition(current) else { return };
        let connection = &self.connections[wire];
        let session = self.processes[connection.process].session.as_ref();
        let idle = session.is_some_and(|session| session.wire == wire && session.is_idle());
        if idle && !connection.broken && connection.ups == 0 && connection.downs == 0 {
            self.fail(format!("{worker} is called {what}, and owes nothing that it knows of"));
        }
    }

    /// A run goes on from no earlier place than the newest checkpoint that was reported.
    pub(crate) fn judge_start(&mut self, job: JobId, from: Start) {
        let place = |start: &Start| (start.position.epoch, start.position.step);
        if let Some(written) = self.oracle.written.get(&job).filter(|written| place(written) > place(&from)) {
            return self
                .fail(format!("{job:?} goes on from {from:?}, and a checkpoint of {written:?} was written"));
        }
        if from != Start::BEGINNING {
            self.oracle.stats.resumed += 1;
        }
        self.oracle.step = Step::default();
        self.oracle.next = Some((job, from.position));
    }

    /// A result that is called written is there, and right.
    pub(crate) fn judge_result(&mut self, job: JobId) {
        let expected = &self.oracle.job(job).1;
        let (model, rows) = (self.files.model(job), self.files.history(job));
        let harmed = self.scenario.may_be_harmed();
        let right = harmed || model == expected.parameters.last().copied() && rows == expected.rows;
        if model.is_none() || !right {
            self.fail(format!("the result of {job:?} is called written: {model:?}, {rows:?}"));
        }
    }

    pub(crate) fn judge_end(&mut self, job: JobId, outcome: &Outcome) {
        let diverges_at = self.oracle.job(job).0.diverges_at;
        let harmed = self.scenario.may_be_harmed();
        let may = match outcome {
            Outcome::Done => diverges_at.is_none() || harmed,
            Outcome::Cancelled => self.oracle.cancelled.contains(&job),
            Outcome::Diverged { work } => {
                diverges_at == Some((work.epoch, work.step)) && work.phase == Phase::Train || harmed
            }
            Outcome::TooFewWorkers { present, needed, waited } => {
                self.scenario.control.wait_workers.is_some_and(|limit| *waited >= limit) && present < needed
            }
            Outcome::Broken(_) => false,
        };
        if !may {
            self.fail(format!("{job:?} has ended with {outcome:?}"));
        }
    }

    /// A job's end is on disk.
    pub(crate) fn ended(&mut self, job: JobId) {
        match self.files.record(job) {
            Some(Record::Ended(_)) => {
                self.oracle.ended.insert(job);
            }
            other => self.fail(format!("{job:?} has ended, and its record says {other:?}")),
        }
    }

    /// What must hold in the end.
    pub(crate) fn judge(&mut self) {
        for job in 1..=self.scenario.jobs.len() as u64 {
            let job = JobId(job);
            if self.files.record(job) == Some(&Record::Ended(Outcome::Done)) {
                self.judge_result(job);
            }
        }
    }
}

impl Stats {
    pub(crate) fn add(&mut self, other: Self) {
        self.closed += other.closed;
        self.repeated += other.repeated;
        self.lost += other.lost;
        self.evicted += other.evicted;
        self.resumed += other.resumed;
    }
}
