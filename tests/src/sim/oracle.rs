//! The invariants of the simulation, checked at every action.
//!
//! - Trees close one after another, in the order of the plan, each once. After each, the parameters are those of the
//!   reference run.
//! - Each epoch's ledger has every sample exactly once.
//! - A node is assigned again only if it was pending with a worker that was lost or is a straggler.
//! - No healthy worker is evicted. A tree that has a result of an evicted process, from whichever of its sessions, is
//!   begun again.
//! - No worker without pending nodes is reported as a straggler or as hanging.
//! - What was reported as written exists after a crash, and a run resumes from no earlier position.
//! - The number of actions of an event and the lengths of queues have limits.
//! - Every job ends, with an outcome that its scenario allows: for a lack of workers only after one that lasted,
//!   however the workers left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control::{
    Action, Disconnection, JobId, Note, Outcome, Pending, Phase, Position, Source, Start, Waiting, WorkId,
    WorkerId,
};
use millefeuille_core::learn::tree::Node;

use super::disk::Record;
use super::scenario::Scenario;
use super::simulation::{Connection, Simulation};
use super::toy::{Expected, Job, Ledger};
use super::worker::Process;

/// The state of the jobs, and their expected results.
pub(crate) struct Oracle {
    jobs: Vec<(Arc<Job>, Expected)>,
    /// The next unit of work of the running job.
    next: Option<(JobId, Position)>,
    step: Step,
    /// The newest checkpoint that was reported as written.
    pub(crate) written: BTreeMap<JobId, Start>,
    pub(crate) cancelled: BTreeSet<JobId>,
    /// The processes that are evicted from the running job.
    evicted: BTreeSet<String>,
    /// Since when fewer workers than the running job needs can compute it and do not drain.
    short_since: Option<Duration>,
    /// Ledgers that a crash has lost, for a mutation.
    pub(crate) ledgers: BTreeMap<JobId, Ledger>,
    ended: BTreeSet<JobId>,
    pub(crate) stats: Stats,
}

/// Counts of events in a simulated run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Closed trees, including those that a resumed run closed again.
    pub closed: u64,
    /// Pieces assigned again.
    pub repeated: u64,
    /// Workers lost.
    pub lost: u64,
    /// Workers evicted.
    pub evicted: u64,
    /// Runs resumed from a checkpoint.
    pub resumed: u64,
}

/// The open tree.
#[derive(Default)]
struct Step {
    work: Option<WorkId>,
    present: BTreeSet<u32>,
    accepted: BTreeSet<u32>,
    /// The processes whose results are in the tree. A result that others confirm after its process was evicted is not
    /// counted.
    processes: BTreeSet<String>,
    nodes: usize,
    pending: BTreeMap<WorkerId, BTreeSet<u32>>,
    assigned: usize,
    /// Pieces that may be assigned again: pieces pending with lost workers or stragglers.
    may_be_reassigned: BTreeSet<(WorkerId, u32)>,
    /// The job waited for workers. Which workers were stragglers meanwhile was not recorded.
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
            evicted: BTreeSet::new(),
            short_since: None,
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

impl Simulation {
    /// The number of actions of an event has a limit that depends on the cluster's size.
    pub(crate) fn check_action_count(&mut self, actions: usize) {
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

    /// Counts the workers, by the simulation's clock, before the next event.
    pub(crate) fn count_workers(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let able = |job| {
            let members = coordinator.control.members().values();
            members.filter(|member| !member.draining && member.part(job).is_some()).count()
        };
        let running = coordinator.control.position().and(coordinator.control.running());
        let short = running.is_some_and(|job| able(job) < self.scenario.control.min_workers);
        let since = self.oracle.short_since.unwrap_or(self.now);
        self.oracle.short_since = short.then_some(since);
    }

    pub(crate) fn check_action(&mut self, action: &Action) {
        match action {
            Action::Begin { work } => self.check_begin(*work),
            Action::Send { worker, work, nodes } => self.check_send(*worker, *work, nodes),
            Action::Accept { work, node, source, .. } => self.check_accept(*work, *node, *source),
            Action::Disconnect { worker, reason } => self.check_disconnection(*worker, reason),
            Action::Note(Note::Evicted { name, .. }) => self.check_eviction(name),
            Action::Note(Note::Left { worker, .. }) => {
                self.oracle.stats.lost += 1;
                self.allow_reassignment(*worker);
                self.oracle.step.pending.remove(worker);
            }
            // Nodes of stragglers are reassigned when the job continues.
            Action::Note(Note::Short { .. }) => self.oracle.step.waited = true,
            Action::Note(Note::Reassigned { pending_with, straggler: true, .. }) => {
                self.check_straggler(*pending_with, "a straggler");
                self.allow_reassignment(*pending_with);
            }
            _ => {}
        }
    }

    /// A straggler's nodes may also be reassigned later, when another worker holds the samples.
    pub(crate) fn allow_straggler_reassignment(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let Waiting::Results { pending, .. } = coordinator.control.waiting() else { return };
        for Pending { worker, .. } in pending.into_iter().filter(|pending| pending.overdue) {
            self.allow_reassignment(worker);
        }
    }

    fn allow_reassignment(&mut self, worker: WorkerId) {
        let step = &mut self.oracle.step;
        let pending = step.pending.get(&worker).into_iter().flatten();
        step.may_be_reassigned.extend(pending.map(|&shard| (worker, shard)));
    }

    fn check_begin(&mut self, work: WorkId) {
        let again = self.oracle.step.work == Some(work);
        let at = Position { epoch: work.epoch, phase: work.phase, step: work.step };
        if self.oracle.next != Some((work.job, at)) {
            let next = self.oracle.next;
            return self.fail(format!("{work} is begun, but the next unit of work is {next:?}"));
        }
        if again && !self.scenario.compares() {
            return self.fail(format!("{work} is restarted, but no worker was evicted"));
        }
        let present = self.oracle.job(work.job).0.facts.present(work.phase, work.step);
        self.oracle.step = Step { work: Some(work), present, ..Step::default() };
    }

    fn check_send(&mut self, worker: WorkerId, work: WorkId, nodes: &[Node]) {
        if self.oracle.step.work != Some(work) {
            return self.fail(format!("nodes of {work} are assigned, but it is not open"));
        }
        let compares = self.scenario.compares();
        for &node in nodes {
            let shards = self.oracle.present_in(node);
            let step = &mut self.oracle.step;
            let known = shards.iter().filter(|shard| step.accepted.contains(shard)).count();
            step.assigned += shards.len();
            step.pending.entry(worker).or_default().extend(&shards);
            if shards.is_empty() || known == shards.len() || known > 0 && !compares {
                return self.fail(format!(
                    "{node} of {work} is assigned, but {known} of its shards are already accepted"
                ));
            }
        }
        let Step { assigned, waited, ref may_be_reassigned, ref present, .. } = self.oracle.step;
        let (repeated, may_be_reassigned) = (assigned.saturating_sub(present.len()), may_be_reassigned.len());
        self.oracle.stats.repeated += repeated.min(nodes.len()) as u64;
        if repeated > may_be_reassigned && !compares && !waited {
            self.fail(format!(
                "{repeated} pieces of {work} are assigned again, but only {may_be_reassigned} were pending with lost workers or stragglers"
            ));
        }
        let pending = self.oracle.step.pending[&worker].len();
        if pending > self.oracle.step.present.len() {
            self.fail(format!("{worker} has {pending} pending pieces of {work}, more than there are"));
        }
    }

    pub(crate) fn check_result(&mut self, worker: WorkerId, work: WorkId, node: Node) {
        let shards = self.oracle.present_in(node);
        let step = &mut self.oracle.step;
        if step.work == Some(work)
            && let Some(pending) = step.pending.get_mut(&worker)
        {
            pending.retain(|shard| !shards.contains(shard));
        }
    }

    fn check_eviction(&mut self, process: &str) {
        self.oracle.stats.evicted += 1;
        self.oracle.evicted.insert(process.to_owned());
        if !self.faulty.contains(process) && !self.scenario.healthy_worker_may_be_evicted() {
            self.fail(format!("process {process} was evicted, but is healthy"));
        }
    }

    fn check_accept(&mut self, work: WorkId, node: Node, source: Source) {
        let shards = self.oracle.present_in(node);
        let process = self.process_of(source).filter(|process| !self.oracle.evicted.contains(process));
        let step = &mut self.oracle.step;
        step.processes.extend(process);
        step.nodes += 1;
        let new = shards.iter().filter(|shard| !step.accepted.contains(shard)).count();
        step.accepted.extend(&shards);
        let most = (2 * step.present.len()).saturating_sub(1);
        if step.work != Some(work) || new == 0 {
            self.fail(format!("{node} of {work} is accepted, but all of its shards were already"));
        } else if step.nodes > most {
            self.fail(format!("more than {most} nodes of {work} are accepted"));
        }
    }

    /// The name of the process behind a worker's session, which may have ended.
    fn process_of(&self, source: Source) -> Option<String> {
        let Source::Worker(worker) = source else { return None };
        let of_session = |connection: &&Connection| {
            connection.worker == Some(worker) && connection.coordinator == self.incarnation
        };
        let connection = self.connections.iter().find(of_session)?;
        Some(Process::name(connection.process, connection.incarnation))
    }

    pub(crate) fn check_close(&mut self, work: WorkId, tag: u64, parameters: u64) {
        self.oracle.stats.closed += 1;
        let at = Position { epoch: work.epoch, phase: work.phase, step: work.step };
        if self.oracle.next != Some((work.job, at)) {
            return self
                .fail(format!("{work} is closed, but the next unit of work is {:?}", self.oracle.next));
        }
        let Oracle { step, evicted, .. } = &self.oracle;
        if let Some(process) = step.processes.intersection(evicted).next() {
            return self
                .fail(format!("{work} is closed with a result of process {process}, which is evicted"));
        }
        let (job, expected) = self.oracle.job(work.job);
        let next = job.after(at);
        let right = expected.parameters.get(tag as usize) == Some(&parameters);
        self.oracle.next = Some((work.job, next));
        if !right && !self.scenario.wrong_results_may_be_accepted() {
            self.fail(format!("after {work} the parameters are not those of the reference run"));
        }
    }

    pub(crate) fn check_row(&mut self, job: JobId, epoch: u32, row: u64) {
        if self.oracle.job(job).1.rows.get(epoch as usize) != Some(&row) {
            self.fail(format!("the figures of epoch {epoch} are not those of the reference run"));
        }
    }

    fn check_disconnection(&mut self, worker: WorkerId, reason: &Disconnection) {
        match reason {
            Disconnection::Unassigned { answers } => {
                self.fail(format!("{worker} is disconnected for {answers} results that were assigned to it"));
            }
            Disconnection::Hung { .. } => self.check_straggler(worker, "hanging"),
            Disconnection::Arithmetic { .. } | Disconnection::Shapes { .. } => {
                self.fail(format!("{worker} is refused for its arithmetic"));
            }
            _ => {}
        }
    }

    /// A worker that is reported as a straggler or as hanging has pending nodes, or a message to or from it is
    /// under way.
    fn check_straggler(&mut self, worker: WorkerId, what: &str) {
        let current = |connection: &Connection| {
            connection.worker == Some(worker) && connection.coordinator == self.incarnation
        };
        let Some(wire) = self.connections.iter().rposition(current) else { return };
        let connection = &self.connections[wire];
        let session = self.processes[connection.process].session.as_ref();
        let idle = session.is_some_and(|session| session.wire == wire && session.is_idle());
        if idle && !connection.broken && connection.ups == 0 && connection.downs == 0 {
            self.fail(format!("{worker} is reported as {what}, but has no pending nodes"));
        }
    }

    /// A run resumes from no earlier position than that of the newest checkpoint that was reported as written.
    pub(crate) fn check_start(&mut self, job: JobId, from: Start) {
        let place = |start: &Start| (start.position.epoch, start.position.step);
        if let Some(written) = self.oracle.written.get(&job).filter(|written| place(written) > place(&from)) {
            return self
                .fail(format!("{job:?} resumes from {from:?}, but a checkpoint of {written:?} was written"));
        }
        if from != Start::BEGINNING {
            self.oracle.stats.resumed += 1;
        }
        self.oracle.step = Step::default();
        self.oracle.short_since = None;
        self.oracle.next = Some((job, from.position));
    }

    /// A model and a history that are reported as written exist and are right.
    pub(crate) fn check_saved_result(&mut self, job: JobId) {
        let expected = &self.oracle.job(job).1;
        let (model, rows) = (self.files.model(job), self.files.history(job));
        let wrong_allowed = self.scenario.wrong_results_may_be_accepted();
        let right = wrong_allowed || model == expected.parameters.last().copied() && rows == expected.rows;
        if model.is_none() || !right {
            self.fail(format!("the result of {job:?} is reported as written, but is {model:?}, {rows:?}"));
        }
    }

    pub(crate) fn check_end(&mut self, job: JobId, outcome: &Outcome) {
        let diverges_at = self.oracle.job(job).0.diverges_at;
        let wrong_allowed = self.scenario.wrong_results_may_be_accepted();
        let may = match outcome {
            Outcome::Done => diverges_at.is_none() || wrong_allowed,
            Outcome::Cancelled => self.oracle.cancelled.contains(&job),
            Outcome::Diverged { work } => {
                diverges_at == Some((work.epoch, work.step)) && work.phase == Phase::Train || wrong_allowed
            }
            Outcome::TooFewWorkers { present, needed, waited } => {
                let lasts = self.oracle.short_since.map_or(Duration::ZERO, |since| self.now - since);
                let long = |limit| *waited >= limit && lasts >= limit;
                self.scenario.control.wait_workers.is_some_and(long) && present < needed
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
                self.oracle.evicted.clear();
            }
            other => self.fail(format!("{job:?} has ended, but its record says {other:?}")),
        }
    }

    /// The checks after the end of all jobs.
    pub(crate) fn check_saved_results(&mut self) {
        for job in 1..=self.scenario.jobs.len() as u64 {
            let job = JobId(job);
            if self.files.record(job) == Some(&Record::Ended(Outcome::Done)) {
                self.check_saved_result(job);
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
