//! The open unit of work: the nodes assigned to each worker, the results received, and the shards still
//! unassigned.
//!
//! [`Open::dispatch`] is the only place that assigns work. It finds the shards of the tree that are missing and
//! not pending with any worker, and assigns each to a worker that holds its samples: to the worker that the
//! placement names, or else to the worker with the least work. The same rule starts a step, reassigns the nodes
//! of a lost worker and starts backup tasks for a straggler. If nothing is missing, it assigns nothing.
//!
//! An *ask* is one node assigned to one worker. It is pending until the worker returns the result or leaves. It
//! becomes *overdue* when the worker takes far longer than the pace of the other workers predicts. An overdue ask
//! no longer counts, and the node is assigned to another worker, too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::action::Discard;
use super::ids::{WorkId, WorkerId};
use super::members::Hello;
use super::validation::{Digest, Source, SourcedResult, Validation, Verdict};
use crate::learn::tree::{Inserted, Node, Reduction, Tree};

/// A worker that nodes may be assigned to.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) worker: WorkerId,
    /// The shards that the placement gives to this worker.
    pub(super) owns: Range<u32>,
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

#[derive(Clone, Debug)]
struct Assignment {
    worker: WorkerId,
    node: Node,
    overdue: bool,
}

/// The samples assigned to a worker since it last had nothing pending.
#[derive(Clone, Copy, Debug)]
struct Load {
    since: Duration,
    samples: u64,
}

/// The tree of one unit of work, with its pending nodes and its result validations.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) work: WorkId,
    tree: Tree,
    present: BTreeSet<u32>,
    reduction: Reduction<()>,
    assignments: Vec<Assignment>,
    answered: BTreeSet<(WorkerId, Node)>,
    loads: BTreeMap<WorkerId, Load>,
    validations: BTreeMap<Node, Validation>,
    /// Workers with a result in the tree.
    used: BTreeSet<WorkerId>,
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
    /// Whether a worker holds a shard of the split.
    pub(super) holds: &'a dyn Fn(WorkerId, u32) -> bool,
    /// The number of samples a shard has in this unit of work.
    pub(super) samples: &'a dyn Fn(u32) -> u64,
    /// Whether results for a node are always compared.
    pub(super) audited: &'a dyn Fn(Node) -> bool,
}

impl Open {
    pub(super) fn new(work: WorkId, tree: Tree, present: BTreeSet<u32>) -> Self {
        Self {
            work,
            tree,
            reduction: Reduction::new(tree, &present),
            present,
            assignments: Vec::new(),
            answered: BTreeSet::new(),
            loads: BTreeMap::new(),
            validations: BTreeMap::new(),
            used: BTreeSet::new(),
            departed: BTreeMap::new(),
        }
    }

    /// The same unit of work, started again. Results that were assigned before may still arrive.
    pub(super) fn again(&self) -> Self {
        let asked = self.assignments.iter().map(|ask| (ask.worker, ask.node));
        let answered = self.answered.iter().copied().chain(asked).collect();
        let departed = self.departed.clone();
        Self { answered, departed, ..Self::new(self.work, self.tree, self.present.clone()) }
    }

    /// Whether every node is in the tree.
    pub(super) fn is_complete(&self) -> bool {
        self.reduction.is_closed()
    }

    /// Whether results for this node are compared, so that their digest is needed.
    pub(super) fn compares(&self, node: Node) -> bool {
        self.validations.contains_key(&node)
    }

    /// Whether the tree contains a result of this worker.
    pub(super) fn has_used(&self, worker: WorkerId) -> bool {
        self.used.contains(&worker)
    }

    /// Whether a result of this worker is in the tree or under validation.
    fn has_heard(&self, worker: WorkerId) -> bool {
        self.has_used(worker) || self.validations.values().any(|validation| validation.has_heard(worker))
    }

    /// Whether anything is pending with this worker.
    pub(super) fn is_pending_with(&self, worker: WorkerId) -> bool {
        self.assignments.iter().any(|ask| ask.worker == worker)
    }

    /// The workers with pending nodes that are still missing from the tree.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let missing = self.reduction.missing();
        let is_missing = |ask: &&Assignment| {
            missing.iter().any(|gap| gap.first < ask.node.end && ask.node.first < gap.end)
        };
        let mut pending: BTreeMap<WorkerId, bool> = BTreeMap::new();
        for ask in self.assignments.iter().filter(is_missing) {
            *pending.entry(ask.worker).or_default() |= ask.overdue;
        }
        let of = |(worker, overdue)| Pending { worker, since: self.loads[&worker].since, overdue };
        pending.into_iter().map(of).collect()
    }

    /// Workers with pending nodes that are not overdue, when the nodes were assigned, and the number of samples.
    pub(super) fn on_time(&self) -> Vec<(WorkerId, Duration, u64)> {
        let on_time: BTreeSet<_> =
            self.assignments.iter().filter(|ask| !ask.overdue).map(|ask| ask.worker).collect();
        on_time
            .into_iter()
            .map(|worker| (worker, self.loads[&worker].since, self.loads[&worker].samples))
            .collect()
    }

    /// The number of samples in this worker's current load.
    pub(super) fn samples_asked(&self, worker: WorkerId) -> u64 {
        self.loads.get(&worker).map_or(0, |load| load.samples)
    }

    /// Marks this worker's pending nodes as overdue: they no longer count, but their results may still arrive.
    pub(super) fn set_overdue(&mut self, worker: WorkerId) {
        self.assignments.iter_mut().filter(|ask| ask.worker == worker).for_each(|ask| ask.overdue = true);
    }

    /// Whether this worker has overdue nodes.
    pub(super) fn is_late(&self, worker: WorkerId) -> bool {
        self.assignments.iter().any(|ask| ask.worker == worker && ask.overdue)
    }

    /// Workers with overdue nodes.
    pub(super) fn late(&self) -> BTreeSet<WorkerId> {
        self.assignments.iter().filter(|ask| ask.overdue).map(|ask| ask.worker).collect()
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

    /// Removes a worker that has left and unassigns its pending nodes. Returns whether it had any.
    pub(super) fn forget(&mut self, worker: WorkerId) -> bool {
        let before = self.assignments.len();
        self.assignments.retain(|ask| ask.worker != worker);
        let assignments = &self.assignments;
        // An audit without results or pending nodes is dropped; it restarts when the node is assigned again.
        self.validations.retain(|&node, validation| {
            validation.is_open() || validation.arbitrating || assignments.iter().any(|ask| ask.node == node)
        });
        self.assignments.len() < before
    }

    /// Records that the coordinator can't compute this job.
    pub(super) fn no_arbiter(&mut self, node: Node) {
        if let Some(validation) = self.validations.get_mut(&node) {
            validation.arbitrating = false;
            validation.no_arbiter = true;
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
        let before = self.assignments.len();
        self.assignments.retain(|ask| (ask.worker, ask.node) != (worker, node));
        if self.assignments.len() == before {
            let known = self.answered.contains(&(worker, node));
            return (
                ResultOutcome::Discarded(if known { Discard::Duplicate } else { Discard::Unassigned }),
                None,
            );
        }
        self.answered.insert((worker, node));
        let pace = self.loads.get(&worker).filter(|load| load.samples > 0 && !self.is_pending_with(worker));
        let pace = pace.map(|load| now.saturating_sub(load.since).as_secs_f64() / load.samples as f64);
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
        if self.is_superfluous(node) {
            return ResultOutcome::Discarded(Discard::Duplicate);
        }
        let validation = self.validations.entry(node).or_default();
        validation.add_result(of, finite, digest);
        match validation.verdict() {
            None => ResultOutcome::SetAside,
            Some(verdict) => ResultOutcome::Compared(verdict),
        }
    }

    /// Ends a node's validation. Returns whether the correct result was put into the tree.
    pub(super) fn settle(&mut self, node: Node, verdict: &Verdict) -> bool {
        self.validations.remove(&node);
        let right = verdict.right.filter(|_| verdict.finite);
        right.is_some_and(|right| self.accept(node, right.source))
    }

    /// Puts a node into the tree, if it is missing. Returns whether it was.
    fn accept(&mut self, node: Node, source: Source) -> bool {
        let kept = matches!(self.reduction.insert(node, (), |(), ()| ()), Inserted::Kept { .. });
        if let Source::Worker(worker) = source
            && kept
        {
            self.used.insert(worker);
        }
        kept
    }

    fn is_superfluous(&self, node: Node) -> bool {
        let missing = self.missing();
        !(node.first..node.end).any(|shard| missing.contains(&shard))
    }

    /// The shards that have samples in this unit of work and are not yet in the tree.
    fn missing(&self) -> BTreeSet<u32> {
        let gaps = self.reduction.missing();
        gaps.iter().flat_map(|gap| self.present.range(gap.first..gap.end)).copied().collect()
    }

    /// The missing shards that are neither pending on time nor under validation.
    pub(super) fn unassigned(&self) -> BTreeSet<u32> {
        let mut missing = self.missing();
        let pending = self.assignments.iter().filter(|ask| !ask.overdue).map(|ask| ask.node);
        let validated =
            self.validations.iter().filter(|(_, validation)| validation.is_open() || validation.arbitrating);
        for node in pending.chain(validated.map(|(&node, _)| node)) {
            missing.retain(|&shard| !(node.first..node.end).contains(&shard));
        }
        missing
    }

    /// Assigns the missing shards that are not pending with any worker, and the nodes under validation.
    pub(super) fn dispatch(&mut self, candidates: &[Candidate], terms: &DispatchContext<'_>) -> Dispatch {
        let mut dispatch = Dispatch::default();
        let mut given: BTreeMap<WorkerId, BTreeSet<u32>> = BTreeMap::new();
        let mut loads = self.shards_pending();
        for shard in self.unassigned() {
            let able = |candidate: &Candidate| {
                (terms.holds)(candidate.worker, shard) && !self.is_asked_for(candidate.worker, shard)
            };
            if let Some(worker) = choose(candidates, &loads, Some(shard), able) {
                *loads.entry(worker).or_default() += 1;
                given.entry(worker).or_default().insert(shard);
            }
        }
        for (worker, shards) in given {
            for node in self.tree.cover_present(&shards, &self.present) {
                self.ask(worker, node, terms);
                dispatch.assignments.entry(worker).or_default().push(node);
                if (terms.audited)(node) && !self.compares(node) {
                    self.validations.insert(node, Validation::default());
                }
            }
        }
        self.dispatch_validations(candidates, terms, &mut loads, &mut dispatch);
        dispatch
    }

    /// Assigns the nodes whose validation needs another result.
    fn dispatch_validations(
        &mut self,
        candidates: &[Candidate],
        terms: &DispatchContext<'_>,
        loads: &mut BTreeMap<WorkerId, u32>,
        dispatch: &mut Dispatch,
    ) {
        for node in self.validations.keys().copied().collect::<Vec<_>>() {
            if self.is_superfluous(node) {
                self.validations.remove(&node);
                continue;
            }
            let on_time = self.assignments.iter().filter(|ask| ask.node == node && !ask.overdue).count();
            let validation = &self.validations[&node];
            let needed = validation.needs().saturating_sub(on_time + usize::from(validation.arbitrating));
            if needed == 0 {
                continue;
            }
            let shards: Vec<u32> = self.present.range(node.first..node.end).copied().collect();
            let holds =
                |candidate: &Candidate| shards.iter().all(|&shard| (terms.holds)(candidate.worker, shard));
            let asked = |candidate: &Candidate| {
                self.assignments.iter().any(|ask| (ask.worker, ask.node) == (candidate.worker, node))
            };
            let new = |candidate: &Candidate| {
                holds(candidate) && !validation.has_heard(candidate.worker) && !asked(candidate)
            };
            let again = |candidate: &Candidate| {
                validation.no_arbiter
                    && validation.has_single_source()
                    && holds(candidate)
                    && !asked(candidate)
            };
            let chosen = choose(candidates, loads, None, new);
            if let Some(worker) = chosen.or_else(|| choose(candidates, loads, None, again)) {
                *loads.entry(worker).or_default() += shards.len() as u32;
                self.ask(worker, node, terms);
                dispatch.assignments.entry(worker).or_default().push(node);
            } else if !validation.no_arbiter && !validation.arbitrating {
                self.validations.entry(node).and_modify(|validation| validation.arbitrating = true);
                dispatch.arbitrate.push(node);
            } else if validation.is_open() && self.assignments.iter().all(|ask| ask.node != node) {
                dispatch.settled.push((node, validation.final_verdict()));
            }
        }
    }

    fn ask(&mut self, worker: WorkerId, node: Node, terms: &DispatchContext<'_>) {
        let samples =
            self.present.range(node.first..node.end).map(|&shard| (terms.samples)(shard)).sum::<u64>();
        let load = self.loads.entry(worker).or_insert(Load { since: terms.now, samples: 0 });
        if !self.assignments.iter().any(|ask| ask.worker == worker) {
            // Nothing was pending with this worker: its time starts now.
            *load = Load { since: terms.now, samples: 0 };
        }
        load.samples += samples;
        self.assignments.push(Assignment { worker, node, overdue: false });
    }

    /// Whether this shard is pending with this worker, overdue or not.
    fn is_asked_for(&self, worker: WorkerId, shard: u32) -> bool {
        let pending =
            |ask: &Assignment| ask.worker == worker && (ask.node.first..ask.node.end).contains(&shard);
        self.assignments.iter().any(pending)
    }

    fn shards_pending(&self) -> BTreeMap<WorkerId, u32> {
        let mut loads = BTreeMap::new();
        for ask in &self.assignments {
            *loads.entry(ask.worker).or_default() += ask.node.len();
        }
        loads
    }
}

/// Among the able candidates, chooses the owner of the shard, or else the one with the least work.
fn choose(
    candidates: &[Candidate],
    loads: &BTreeMap<WorkerId, u32>,
    shard: Option<u32>,
    able: impl Fn(&Candidate) -> bool,
) -> Option<WorkerId> {
    let owner =
        candidates.iter().find(|candidate| shard.is_some_and(|shard| candidate.owns.contains(&shard)));
    if let Some(owner) = owner.filter(|owner| !owner.straggler && able(owner)) {
        return Some(owner.worker);
    }
    let cost = |candidate: &Candidate| {
        let load = loads.get(&candidate.worker).copied().unwrap_or(0);
        f64::from(load + 1) / candidate.weight
    };
    let order =
        |a: &&Candidate, b: &&Candidate| a.straggler.cmp(&b.straggler).then(cost(a).total_cmp(&cost(b)));
    candidates.iter().filter(|candidate| able(candidate)).min_by(order).map(|candidate| candidate.worker)
}
