//! The open unit of work: the nodes assigned to each worker, the results received, and the shards still
//! unassigned.
//!
//! [`Open::dispatch`] is the only place that assigns work. It takes the shards of the tree that are missing and
//! not pending with any worker, and assigns each to a worker that holds its samples: to the worker that the
//! placement names, or else to the worker with the least work. The same rule starts a step, reassigns the nodes
//! of a lost worker and starts backup tasks for a straggler. If nothing is missing, it assigns nothing.
//!
//! An *ask* is one node assigned to one worker. It is pending until the worker returns the result or leaves. It
//! becomes *overdue* when the worker takes far longer than the pace of the other workers predicts. An overdue ask
//! no longer counts, and the node is assigned to another worker, too.
//!
//! A step of many workers must cost each of them the same as a step of few. So a result looks at its own worker and
//! its own shards only, and a dispatch at the shards (`loose`) and the validations (`due`) that something has happened
//! to since the dispatch before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::action::Discard;
use super::ids::{WorkId, WorkerId};
use super::members::Hello;
use super::validation::{Digest, Source, SourcedResult, Validation, Verdict};
use crate::learn::tree::{Node, Tree};

/// A worker that nodes may be assigned to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its share of the work, relative to the other workers.
    pub(super) weight: f64,
    /// It has not yet returned a result for work that is over. It gets nodes only if no other worker can take
    /// them.
    pub(super) straggler: bool,
}

/// A worker with pending nodes, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The worker.
    pub worker: WorkerId,
    /// When the nodes were assigned.
    pub since: Duration,
    /// Whether the nodes were also assigned to other workers, because this worker is a straggler.
    pub overdue: bool,
}

#[derive(Clone, Copy, Debug)]
struct Assignment {
    node: Node,
    overdue: bool,
}

/// With how many workers a shard is pending.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    on_time: u32,
    overdue: u32,
}

/// What a worker has to do with the unit of work.
#[derive(Clone, Debug, Default)]
struct Assignee {
    /// What is pending with it.
    assignments: Vec<Assignment>,
    /// When it last had nothing pending and was assigned something.
    since: Duration,
    /// The samples assigned to it since then.
    samples: u64,
    /// Nodes of which it returned the result, or from which it may still return one that is not needed.
    answered: Vec<Node>,
    /// Whether a result of it is in the tree.
    used: bool,
}

impl Assignee {
    fn is_late(&self) -> bool {
        self.assignments.iter().any(|ask| ask.overdue)
    }

    fn shards_pending(&self) -> u32 {
        self.assignments.iter().map(|ask| ask.node.len()).sum()
    }
}

/// The tree of one unit of work, with its pending nodes and its result validations.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) work: WorkId,
    tree: Tree,
    /// The shards that have samples in this unit of work, ascending.
    present: Vec<u32>,
    /// Those of them that are not yet in the tree.
    missing: BTreeSet<u32>,
    /// Shards that may be missing and with nobody: the next dispatch looks at them.
    loose: BTreeSet<u32>,
    /// With how many workers each shard is pending.
    asked: Vec<Asked>,
    assignees: BTreeMap<WorkerId, Assignee>,
    validations: BTreeMap<Node, Validation>,
    /// Validations that may need another result: the next dispatch looks at them.
    due: BTreeSet<Node>,
    /// Workers that sent a result for this step and have since left. The result may still turn out to be wrong.
    departed: BTreeMap<WorkerId, Hello>,
}

/// A result that was received for a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedResult {
    pub(super) of: SourcedResult,
    pub(super) finite: bool,
    pub(super) digest: Option<Digest>,
}

/// What became of a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultOutcome {
    /// It is not needed.
    Discarded(Discard),
    /// It waits for a second result to be compared with.
    SetAside,
    /// It was put into the tree.
    Accepted,
    /// It was compared with other results.
    Compared(Verdict),
}

/// The work to assign.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    pub(super) assignments: BTreeMap<WorkerId, Vec<Node>>,
    /// Nodes for the coordinator to compute itself.
    pub(super) arbitrate: Vec<Node>,
    /// Validations that no worker is left to settle.
    pub(super) settled: Vec<(Node, Verdict)>,
}

/// What [`Open::dispatch`] needs to know of the run.
pub(super) struct DispatchContext<'a> {
    pub(super) now: Duration,
    /// The worker to which the placement gives a shard.
    pub(super) owner: &'a dyn Fn(u32) -> Option<WorkerId>,
    /// The workers that hold a shard of the split, in the order in which they joined.
    pub(super) holders: &'a dyn Fn(u32) -> &'a [WorkerId],
    /// A worker as a candidate; `None` if no work may be assigned to it.
    pub(super) candidate: &'a dyn Fn(WorkerId) -> Option<Candidate>,
    /// The number of samples a shard has in this unit of work.
    pub(super) samples: &'a dyn Fn(u32) -> u64,
    /// Whether results for a node are always compared.
    pub(super) audited: &'a dyn Fn(Node) -> bool,
}

/// The shards that a dispatch gives to each worker.
type Given = BTreeMap<WorkerId, Vec<u32>>;

impl Open {
    pub(super) fn new(work: WorkId, tree: Tree, present: &BTreeSet<u32>) -> Self {
        Self {
            work,
            tree,
            present: present.iter().copied().collect(),
            missing: present.clone(),
            loose: present.clone(),
            asked: vec![Asked::default(); tree.root().len() as usize],
            assignees: BTreeMap::new(),
            validations: BTreeMap::new(),
            due: BTreeSet::new(),
            departed: BTreeMap::new(),
        }
    }

    /// The same unit of work, started again. Results that were assigned before may still arrive.
    pub(super) fn again(&self) -> Self {
        let known = |(&worker, assignee): (&WorkerId, &Assignee)| {
            let asked = assignee.assignments.iter().map(|ask| ask.node);
            let answered = assignee.answered.iter().copied().chain(asked).collect();
            (worker, Assignee { answered, ..Assignee::default() })
        };
        let assignees = self.assignees.iter().map(known).collect();
        let present = self.present.iter().copied().collect();
        Self { assignees, departed: self.departed.clone(), ..Self::new(self.work, self.tree, &present) }
    }

    /// Whether every node is in the tree.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether results for this node are compared, so that their digest is needed.
    pub(super) fn compares(&self, node: Node) -> bool {
        self.validations.contains_key(&node)
    }

    /// Whether the tree contains a result of this worker.
    pub(super) fn has_used(&self, worker: WorkerId) -> bool {
        self.assignees.get(&worker).is_some_and(|assignee| assignee.used)
    }

    /// Whether a result of this process is in the tree, from one of these sessions or from one that has ended.
    pub(super) fn has_used_process(&self, instance_id: &str, sessions: &[WorkerId]) -> bool {
        let ended = self.departed.iter().filter(|(_, hello)| hello.instance_id == instance_id);
        ended.map(|(worker, _)| worker).chain(sessions).any(|&worker| self.has_used(worker))
    }

    /// Whether a result of this worker is in the tree or under validation.
    fn has_heard(&self, worker: WorkerId) -> bool {
        self.has_used(worker) || self.validations.values().any(|validation| validation.has_heard(worker))
    }

    /// Whether anything is pending with this worker.
    pub(super) fn is_pending_with(&self, worker: WorkerId) -> bool {
        self.assignees.get(&worker).is_some_and(|assignee| !assignee.assignments.is_empty())
    }

    /// The workers with pending nodes that are still missing from the tree.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let pending = |(&worker, assignee): (&WorkerId, &Assignee)| {
            let mut missing = assignee.assignments.iter().filter(|ask| self.is_missing(ask.node)).peekable();
            missing.peek()?;
            Some(Pending { worker, since: assignee.since, overdue: missing.any(|ask| ask.overdue) })
        };
        self.assignees.iter().filter_map(pending).collect()
    }

    /// Workers with pending nodes that are not overdue, when the nodes were assigned, and the number of samples.
    pub(super) fn on_time(&self) -> Vec<(WorkerId, Duration, u64)> {
        let on_time = |assignee: &Assignee| assignee.assignments.iter().any(|ask| !ask.overdue);
        let on_time = self.assignees.iter().filter(|(_, assignee)| on_time(assignee));
        on_time.map(|(&worker, assignee)| (worker, assignee.since, assignee.samples)).collect()
    }

    /// The number of samples in this worker's current load.
    pub(super) fn samples_asked(&self, worker: WorkerId) -> u64 {
        self.assignees.get(&worker).map_or(0, |assignee| assignee.samples)
    }

    /// Marks this worker's pending nodes as overdue: they no longer count, but their results may still arrive.
    pub(super) fn set_overdue(&mut self, worker: WorkerId) {
        let Some(assignee) = self.assignees.get_mut(&worker) else { return };
        let on_time: Vec<_> = assignee.assignments.iter().copied().filter(|ask| !ask.overdue).collect();
        assignee.assignments.iter_mut().for_each(|ask| ask.overdue = true);
        for Assignment { node, .. } in on_time {
            for asked in self.asked_of(node) {
                asked.on_time -= 1;
                asked.overdue += 1;
            }
            self.loosen(node);
        }
    }

    /// Workers with overdue nodes.
    pub(super) fn late(&self) -> BTreeSet<WorkerId> {
        let late = self.assignees.iter().filter(|(_, assignee)| assignee.is_late());
        late.map(|(&worker, _)| worker).collect()
    }

    /// Keeps the hello of a worker that has left, if it sent a result for this step.
    pub(super) fn remember(&mut self, worker: WorkerId, hello: Hello) {
        if self.has_heard(worker) {
            self.departed.insert(worker, hello);
        }
    }

    /// The hello of a worker that sent a result for this step and has since left.
    pub(super) fn departed(&self, worker: WorkerId) -> Option<&Hello> {
        self.departed.get(&worker)
    }

    /// Unassigns the pending nodes of a worker that has left. Returns whether it had any.
    pub(super) fn forget(&mut self, worker: WorkerId) -> bool {
        let assignments =
            self.assignees.get_mut(&worker).map(|assignee| std::mem::take(&mut assignee.assignments));
        let assignments = assignments.unwrap_or_default();
        for &ask in &assignments {
            self.ends(ask);
            self.loosen(ask.node);
            let Some(validation) = self.validations.get_mut(&ask.node) else { continue };
            validation.asked.retain(|&other| other != worker);
            // An audit without results or pending nodes is dropped; it restarts when the node is assigned again.
            if validation.asked.is_empty() && !validation.is_open() && !validation.arbitrating {
                self.validations.remove(&ask.node);
            }
        }
        !assignments.is_empty()
    }

    /// Records that the coordinator can't compute this job.
    pub(super) fn no_arbiter(&mut self, node: Node) {
        if let Some(validation) = self.validations.get_mut(&node) {
            validation.arbitrating = false;
            validation.no_arbiter = true;
            self.loosen(node);
        }
    }

    /// Takes a result from a worker. Also returns the seconds per sample, once nothing more is pending with the
    /// worker.
    pub(super) fn take(
        &mut self,
        now: Duration,
        worker: WorkerId,
        node: Node,
        came: ReceivedResult,
    ) -> (ResultOutcome, Option<f64>) {
        let Some(assignee) = self.assignees.get_mut(&worker) else {
            return (ResultOutcome::Discarded(Discard::Unassigned), None);
        };
        let Some(index) = assignee.assignments.iter().position(|ask| ask.node == node) else {
            let known = assignee.answered.contains(&node);
            return (
                ResultOutcome::Discarded(if known { Discard::Duplicate } else { Discard::Unassigned }),
                None,
            );
        };
        let ask = assignee.assignments.remove(index);
        assignee.answered.push(node);
        let finished = assignee.assignments.is_empty() && assignee.samples > 0;
        let seconds = now.saturating_sub(assignee.since).as_secs_f64();
        let pace = finished.then(|| seconds / assignee.samples as f64);
        self.ends(ask);
        if let Some(validation) = self.validations.get_mut(&node) {
            validation.asked.retain(|&other| other != worker);
            self.due.insert(node);
        }
        (self.judge(node, came), pace)
    }

    /// Takes the coordinator's own result.
    pub(super) fn arbitrated(&mut self, node: Node, came: ReceivedResult) -> ResultOutcome {
        if self.validations.get(&node).is_some_and(|validation| validation.arbitrating) {
            self.judge(node, came)
        } else {
            ResultOutcome::Discarded(Discard::Late)
        }
    }

    fn judge(&mut self, node: Node, ReceivedResult { of, finite, digest }: ReceivedResult) -> ResultOutcome {
        let Some(digest) = digest.filter(|_| !finite || self.compares(node)) else {
            let accepted = self.accept(node, of.source);
            return if accepted {
                ResultOutcome::Accepted
            } else {
                ResultOutcome::Discarded(Discard::Duplicate)
            };
        };
        if !self.is_missing(node) {
            return ResultOutcome::Discarded(Discard::Duplicate);
        }
        let validation = self.validate(node);
        validation.add_result(of, finite, digest);
        match validation.verdict() {
            None => ResultOutcome::SetAside,
            Some(verdict) => ResultOutcome::Compared(verdict),
        }
    }

    /// The validation of a node, begun if there is none yet.
    fn validate(&mut self, node: Node) -> &mut Validation {
        self.due.insert(node);
        let Asked { on_time, overdue } = self.asked[node.first as usize];
        let assignees = Some(&self.assignees).filter(|_| on_time + overdue > 0).into_iter().flatten();
        let is_asked = |assignee: &Assignee| assignee.assignments.iter().any(|ask| ask.node == node);
        let asked = assignees.filter(|(_, assignee)| is_asked(assignee)).map(|(&worker, _)| worker);
        self.validations.entry(node).or_insert_with(|| Validation::asked_of(asked.collect()))
    }

    /// Ends a node's validation. Returns whether the correct result was put into the tree.
    pub(super) fn settle(&mut self, node: Node, verdict: &Verdict) -> bool {
        self.validations.remove(&node);
        self.loosen(node);
        let right = verdict.right.filter(|_| verdict.finite);
        right.is_some_and(|right| self.accept(node, right.source))
    }

    /// Puts a node into the tree, if it is missing. Returns whether it was.
    fn accept(&mut self, node: Node, source: Source) -> bool {
        let mut kept = false;
        for shard in node.first..node.end {
            kept |= self.missing.remove(&shard);
        }
        if let Source::Worker(worker) = source
            && kept
        {
            self.assignees.entry(worker).or_default().used = true;
        }
        kept
    }

    /// The shards under a node that have samples in this unit of work.
    fn present_in(&self, node: Node) -> &[u32] {
        let place = |shard: u32| self.present.partition_point(|&present| present < shard);
        &self.present[place(node.first)..place(node.end)]
    }

    /// Whether a shard of this node is not yet in the tree.
    fn is_missing(&self, node: Node) -> bool {
        self.missing.range(node.first..node.end).next().is_some()
    }

    /// The next dispatch looks at the missing shards of this node, and at its validation.
    fn loosen(&mut self, node: Node) {
        self.loose.extend(self.missing.range(node.first..node.end));
        if self.validations.contains_key(&node) {
            self.due.insert(node);
        }
    }

    fn asked_of(&mut self, node: Node) -> impl Iterator<Item = &mut Asked> {
        self.asked[node.first as usize..node.end as usize].iter_mut()
    }

    /// An ask is not pending any more.
    fn ends(&mut self, Assignment { node, overdue }: Assignment) {
        for asked in self.asked_of(node) {
            let assignments = if overdue { &mut asked.overdue } else { &mut asked.on_time };
            *assignments -= 1;
        }
    }

    /// The missing shards that are neither pending on time nor under validation.
    pub(super) fn unassigned(&self) -> impl Iterator<Item = u32> {
        self.loose.iter().copied().filter(|&shard| self.is_unassigned(shard))
    }

    fn is_unassigned(&self, shard: u32) -> bool {
        let validated = |(node, validation): (&Node, &Validation)| {
            (node.first..node.end).contains(&shard) && (validation.is_open() || validation.arbitrating)
        };
        self.missing.contains(&shard)
            && self.asked[shard as usize].on_time == 0
            && !self.validations.iter().any(validated)
    }

    /// Whether samples of this shard, newly held by a worker, may let something be assigned to it.
    pub(super) fn needs_holders_of(&self, shard: u32) -> bool {
        self.loose.contains(&shard) || self.due.iter().any(|node| (node.first..node.end).contains(&shard))
    }

    /// Assigns the missing shards that are not pending with any worker, and the nodes under validation.
    pub(super) fn dispatch(&mut self, terms: &DispatchContext<'_>) -> Dispatch {
        let mut dispatch = Dispatch::default();
        for (worker, shards) in self.give(terms) {
            for node in self.tree.cover_present(&shards, &self.present) {
                if (terms.audited)(node) {
                    self.validate(node);
                }
                self.ask(worker, node, terms);
                dispatch.assignments.entry(worker).or_default().push(node);
            }
        }
        for node in std::mem::take(&mut self.due) {
            self.dispatch_validation(node, terms, &mut dispatch);
        }
        dispatch
    }

    /// Chooses a worker for each loose shard. Shards that no able worker holds stay loose.
    fn give(&mut self, terms: &DispatchContext<'_>) -> Given {
        let mut given = Given::new();
        let mut unheld = BTreeSet::new();
        for shard in std::mem::take(&mut self.loose) {
            if !self.is_unassigned(shard) {
                continue;
            }
            match self.worker_for(shard, &given, terms) {
                Some(worker) => given.entry(worker).or_default().push(shard),
                None => _ = unheld.insert(shard),
            }
        }
        self.loose = unheld;
        given
    }

    /// Among the workers that hold a shard, chooses its owner, or else the one with the least work.
    fn worker_for(&self, shard: u32, given: &Given, terms: &DispatchContext<'_>) -> Option<WorkerId> {
        let holders = (terms.holders)(shard);
        let able = |worker: &WorkerId| !self.is_asked_for(*worker, shard);
        let prompt = |worker: &WorkerId| self.candidate(*worker, terms).is_some_and(|owner| !owner.straggler);
        let owner = (terms.owner)(shard).filter(|owner| holders.binary_search(owner).is_ok());
        let owner = owner.filter(able).filter(prompt);
        owner.or_else(|| self.least_loaded(holders.iter().copied().filter(able), given, terms))
    }

    fn least_loaded(
        &self,
        workers: impl Iterator<Item = WorkerId>,
        given: &Given,
        terms: &DispatchContext<'_>,
    ) -> Option<WorkerId> {
        let cost = |worker| {
            let Candidate { weight, straggler } = self.candidate(worker, terms)?;
            let pending = self.assignees.get(&worker).map_or(0, Assignee::shards_pending);
            let load = pending + given.get(&worker).map_or(0, Vec::len) as u32;
            Some((straggler, f64::from(load + 1) / weight, worker))
        };
        let order =
            |a: &(bool, f64, WorkerId), b: &(bool, f64, WorkerId)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        workers.filter_map(cost).min_by(order).map(|(_, _, worker)| worker)
    }

    /// A worker as a candidate. One with overdue nodes is a straggler, too.
    fn candidate(&self, worker: WorkerId, terms: &DispatchContext<'_>) -> Option<Candidate> {
        let candidate = (terms.candidate)(worker)?;
        let late = self.assignees.get(&worker).is_some_and(Assignee::is_late);
        Some(Candidate { straggler: candidate.straggler || late, ..candidate })
    }

    /// Assigns a node whose validation needs another result.
    fn dispatch_validation(&mut self, node: Node, terms: &DispatchContext<'_>, dispatch: &mut Dispatch) {
        let Some(validation) = self.validations.get(&node) else { return };
        if !self.is_missing(node) {
            self.validations.remove(&node);
            return;
        }
        let is_on_time = |worker: &&WorkerId| {
            let mut assignments = self.assignees[*worker].assignments.iter();
            assignments.any(|ask| ask.node == node && !ask.overdue)
        };
        let on_time = validation.asked.iter().filter(is_on_time).count();
        if validation.needs() <= on_time + usize::from(validation.arbitrating) {
            return;
        }
        // Whatever follows, a worker that comes to hold the samples may be needed.
        self.due.insert(node);
        if let Some(worker) = self.another_for(node, validation, terms) {
            self.ask(worker, node, terms);
            dispatch.assignments.entry(worker).or_default().push(node);
        } else if !validation.no_arbiter && !validation.arbitrating {
            self.validations.entry(node).and_modify(|validation| validation.arbitrating = true);
            dispatch.arbitrate.push(node);
        } else if validation.is_open() && validation.asked.is_empty() {
            dispatch.settled.push((node, validation.final_verdict()));
        }
    }

    /// The worker to compute a node under validation once more. Without an arbiter that may be its only author.
    fn another_for(
        &self,
        node: Node,
        validation: &Validation,
        terms: &DispatchContext<'_>,
    ) -> Option<WorkerId> {
        let (&first, others) = self.present_in(node).split_first()?;
        let holds = |worker: &WorkerId| {
            others.iter().all(|&shard| (terms.holders)(shard).binary_search(worker).is_ok())
        };
        let able = |worker: &WorkerId| holds(worker) && !validation.asked.contains(worker);
        let able: Vec<_> = (terms.holders)(first).iter().copied().filter(able).collect();
        let new = able.iter().copied().filter(|&worker| !validation.has_heard(worker));
        let new = self.least_loaded(new, &Given::new(), terms);
        let may_repeat = validation.no_arbiter && validation.has_single_source();
        new.or_else(|| {
            may_repeat.then(|| self.least_loaded(able.into_iter(), &Given::new(), terms)).flatten()
        })
    }

    fn ask(&mut self, worker: WorkerId, node: Node, terms: &DispatchContext<'_>) {
        let samples = self.present_in(node).iter().map(|&shard| (terms.samples)(shard)).sum::<u64>();
        let assignee = self.assignees.entry(worker).or_default();
        if assignee.assignments.is_empty() {
            // Nothing was pending with this worker: its time starts now.
            (assignee.since, assignee.samples) = (terms.now, 0);
        }
        assignee.samples += samples;
        assignee.assignments.push(Assignment { node, overdue: false });
        self.asked_of(node).for_each(|asked| asked.on_time += 1);
        if let Some(validation) = self.validations.get_mut(&node) {
            validation.asked.push(worker);
        }
    }

    /// Whether this shard is pending with this worker, overdue or not.
    fn is_asked_for(&self, worker: WorkerId, shard: u32) -> bool {
        let covers = |ask: &Assignment| (ask.node.first..ask.node.end).contains(&shard);
        self.assignees.get(&worker).is_some_and(|assignee| assignee.assignments.iter().any(covers))
    }
}
