//! The unit of work under way: which nodes are assigned to whom, which results have come, what is unassigned.
//!
//! [`Open::dispatch`] is the only place where work is assigned, at the start of a step as after any loss: it finds
//! the shards of the tree that are pending with nobody, and assigns each to a worker that holds its samples: first to
//! the one that the placement names, then to the one with the least work. So one rule begins a step, reassigns a lost
//! worker's nodes and starts backup tasks for a straggler's; called when nothing is missing, it assigns nothing.
//!
//! An *ask* is one node assigned to one worker. It is pending until the worker returns it or leaves. It becomes
//! *overdue* when the worker has had far more time than the others' pace says; then it no longer counts, and the node
//! is assigned to others, too.

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
    /// What the placement gives it.
    pub(super) owns: Range<u32>,
    /// How much it does beside the others.
    pub(super) weight: f64,
    /// It has not yet answered to work that is over: only if there is nobody else.
    pub(super) straggler: bool,
}

/// That nodes are pending with a worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who.
    pub worker: WorkerId,
    /// When they were assigned.
    pub since: Duration,
    /// Whether they were assigned to others too, because the worker is a straggler.
    pub overdue: bool,
}

#[derive(Clone, Debug)]
struct Ask {
    worker: WorkerId,
    node: Node,
    overdue: bool,
}

/// What was assigned to a worker in this unit of work, all in all.
#[derive(Clone, Copy, Debug)]
struct Load {
    since: Duration,
    samples: u64,
}

/// The tree of one unit of work, and what is under way for it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) work: WorkId,
    tree: Tree,
    present: BTreeSet<u32>,
    reduction: Reduction<()>,
    asks: Vec<Ask>,
    answered: BTreeSet<(WorkerId, Node)>,
    loads: BTreeMap<WorkerId, Load>,
    validations: BTreeMap<Node, Validation>,
    /// Whose answers are in the tree.
    used: BTreeSet<WorkerId>,
    /// Who has answered and is gone: the answer may yet turn out to be wrong.
    departed: BTreeMap<WorkerId, Hello>,
}

/// A node's sum that has come: what is known of it here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) of: SourcedResult,
    pub(super) finite: bool,
    pub(super) digest: Option<Digest>,
}

/// What an answer did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is of no use.
    Discarded(Discard),
    /// It waits for another to be compared with.
    SetAside,
    /// It is in the tree.
    Accepted,
    /// Answers were compared.
    Compared(Verdict),
}

/// What is to be assigned.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    pub(super) asks: BTreeMap<WorkerId, Vec<Node>>,
    /// What the coordinator shall compute itself.
    pub(super) arbitrate: Vec<Node>,
    /// Validations that nobody is left to settle.
    pub(super) settled: Vec<(Node, Verdict)>,
}

/// Which nodes are audited, and how large they are.
pub(super) struct Terms<'a> {
    pub(super) now: Duration,
    /// Whether a worker holds a shard of the split.
    pub(super) holds: &'a dyn Fn(WorkerId, u32) -> bool,
    /// Samples of a shard in this work.
    pub(super) samples: &'a dyn Fn(u32) -> u64,
    /// Whether a node is compared whoever answers.
    pub(super) audited: &'a dyn Fn(Node) -> bool,
}

impl Open {
    pub(super) fn new(work: WorkId, tree: Tree, present: BTreeSet<u32>) -> Self {
        Self {
            work,
            tree,
            reduction: Reduction::new(tree, &present),
            present,
            asks: Vec::new(),
            answered: BTreeSet::new(),
            loads: BTreeMap::new(),
            validations: BTreeMap::new(),
            used: BTreeSet::new(),
            departed: BTreeMap::new(),
        }
    }

    /// The same work, begun anew. Results that were assigned before may still come.
    pub(super) fn again(&self) -> Self {
        let asked = self.asks.iter().map(|ask| (ask.worker, ask.node));
        let answered = self.answered.iter().copied().chain(asked).collect();
        let departed = self.departed.clone();
        Self { answered, departed, ..Self::new(self.work, self.tree, self.present.clone()) }
    }

    /// Whether nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.reduction.is_closed()
    }

    /// Whether answers to this node are compared, so that their digest is needed.
    pub(super) fn compares(&self, node: Node) -> bool {
        self.validations.contains_key(&node)
    }

    /// Whether an answer of this worker is in the tree.
    pub(super) fn has_used(&self, worker: WorkerId) -> bool {
        self.used.contains(&worker)
    }

    /// Whether it has an answer of this worker, used or under validation.
    fn has_heard(&self, worker: WorkerId) -> bool {
        self.has_used(worker) || self.validations.values().any(|validation| validation.has_heard(worker))
    }

    /// Whether anything is pending with this worker.
    pub(super) fn is_pending_with(&self, worker: WorkerId) -> bool {
        self.asks.iter().any(|ask| ask.worker == worker)
    }

    /// The workers with which something is pending that is still missing.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let missing = self.reduction.missing();
        let is_missing =
            |ask: &&Ask| missing.iter().any(|gap| gap.first < ask.node.end && ask.node.first < gap.end);
        let mut pending: BTreeMap<WorkerId, bool> = BTreeMap::new();
        for ask in self.asks.iter().filter(is_missing) {
            *pending.entry(ask.worker).or_default() |= ask.overdue;
        }
        let of = |(worker, overdue)| Pending { worker, since: self.loads[&worker].since, overdue };
        pending.into_iter().map(of).collect()
    }

    /// Workers with pending nodes that are not overdue: since when, and for how many samples.
    pub(super) fn on_time(&self) -> Vec<(WorkerId, Duration, u64)> {
        let on_time: BTreeSet<_> =
            self.asks.iter().filter(|ask| !ask.overdue).map(|ask| ask.worker).collect();
        on_time
            .into_iter()
            .map(|worker| (worker, self.loads[&worker].since, self.loads[&worker].samples))
            .collect()
    }

    /// How many samples were lately assigned to this worker.
    pub(super) fn samples_asked(&self, worker: WorkerId) -> u64 {
        self.loads.get(&worker).map_or(0, |load| load.samples)
    }

    /// What is pending with this worker is overdue: it does not count any more, though the results may still come.
    pub(super) fn set_overdue(&mut self, worker: WorkerId) {
        self.asks.iter_mut().filter(|ask| ask.worker == worker).for_each(|ask| ask.overdue = true);
    }

    /// Whether what is pending with this worker is overdue.
    pub(super) fn is_late(&self, worker: WorkerId) -> bool {
        self.asks.iter().any(|ask| ask.worker == worker && ask.overdue)
    }

    /// Workers whose answers others gave, because they took too long.
    pub(super) fn late(&self) -> BTreeSet<WorkerId> {
        self.asks.iter().filter(|ask| ask.overdue).map(|ask| ask.worker).collect()
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

    /// A worker is gone: what was pending with it is unassigned. Says whether there was anything.
    pub(super) fn forget(&mut self, worker: WorkerId) -> bool {
        let before = self.asks.len();
        self.asks.retain(|ask| ask.worker != worker);
        let asks = &self.asks;
        // An audit that nobody works on begins with whoever takes the node over.
        self.validations.retain(|&node, validation| {
            validation.is_open() || validation.arbitrating || asks.iter().any(|ask| ask.node == node)
        });
        self.asks.len() < before
    }

    /// The coordinator can't compute this job.
    pub(super) fn no_arbiter(&mut self, node: Node) {
        if let Some(validation) = self.validations.get_mut(&node) {
            validation.arbitrating = false;
            validation.no_arbiter = true;
        }
    }

    /// Takes a result of a worker; also how long a sample took it, once nothing is pending with it.
    pub(super) fn take(
        &mut self,
        now: Duration,
        worker: WorkerId,
        node: Node,
        came: Came,
    ) -> (Taken, Option<f64>) {
        let before = self.asks.len();
        self.asks.retain(|ask| (ask.worker, ask.node) != (worker, node));
        if self.asks.len() == before {
            let known = self.answered.contains(&(worker, node));
            return (Taken::Discarded(if known { Discard::Duplicate } else { Discard::Unassigned }), None);
        }
        self.answered.insert((worker, node));
        let pace = self.loads.get(&worker).filter(|load| load.samples > 0 && !self.is_pending_with(worker));
        let pace = pace.map(|load| now.saturating_sub(load.since).as_secs_f64() / load.samples as f64);
        (self.judge(node, came), pace)
    }

    /// Takes the coordinator's own answer.
    pub(super) fn arbitrated(&mut self, node: Node, came: Came) -> Taken {
        if self.validations.get(&node).is_some_and(|validation| validation.arbitrating) {
            self.judge(node, came)
        } else {
            Taken::Discarded(Discard::Late)
        }
    }

    fn judge(&mut self, node: Node, Came { of, finite, digest }: Came) -> Taken {
        let Some(digest) = digest.filter(|_| !finite || self.compares(node)) else {
            let accepted = self.accept(node, of.source);
            return if accepted { Taken::Accepted } else { Taken::Discarded(Discard::Duplicate) };
        };
        if self.is_superfluous(node) {
            return Taken::Discarded(Discard::Duplicate);
        }
        let validation = self.validations.entry(node).or_default();
        validation.hear(of, finite, digest);
        match validation.verdict() {
            None => Taken::SetAside,
            Some(verdict) => Taken::Compared(verdict),
        }
    }

    /// Ends a node's validation; whether the right answer is in the tree now.
    pub(super) fn settle(&mut self, node: Node, verdict: &Verdict) -> bool {
        self.validations.remove(&node);
        let right = verdict.right.filter(|_| verdict.finite);
        right.is_some_and(|right| self.accept(node, right.source))
    }

    /// Puts a node into the tree, if it is missing there.
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

    /// The shards that have samples in this work and are not in the tree.
    fn missing(&self) -> BTreeSet<u32> {
        let gaps = self.reduction.missing();
        gaps.iter().flat_map(|gap| self.present.range(gap.first..gap.end)).copied().collect()
    }

    /// The shards that are missing and that nobody is about to deliver.
    pub(super) fn unassigned(&self) -> BTreeSet<u32> {
        let mut missing = self.missing();
        let pending = self.asks.iter().filter(|ask| !ask.overdue).map(|ask| ask.node);
        let validated =
            self.validations.iter().filter(|(_, validation)| validation.is_open() || validation.arbitrating);
        for node in pending.chain(validated.map(|(&node, _)| node)) {
            missing.retain(|&shard| !(node.first..node.end).contains(&shard));
        }
        missing
    }

    /// Assigns what is pending with nobody.
    pub(super) fn dispatch(&mut self, candidates: &[Candidate], terms: &Terms<'_>) -> Dispatch {
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
                dispatch.asks.entry(worker).or_default().push(node);
                if (terms.audited)(node) && !self.compares(node) {
                    self.validations.insert(node, Validation::default());
                }
            }
        }
        self.dispatch_validations(candidates, terms, &mut loads, &mut dispatch);
        dispatch
    }

    /// Assigns the nodes of which a validation needs another result.
    fn dispatch_validations(
        &mut self,
        candidates: &[Candidate],
        terms: &Terms<'_>,
        loads: &mut BTreeMap<WorkerId, u32>,
        dispatch: &mut Dispatch,
    ) {
        for node in self.validations.keys().copied().collect::<Vec<_>>() {
            if self.is_superfluous(node) {
                self.validations.remove(&node);
                continue;
            }
            let on_time = self.asks.iter().filter(|ask| ask.node == node && !ask.overdue).count();
            let validation = &self.validations[&node];
            let needed = validation.needs().saturating_sub(on_time + usize::from(validation.arbitrating));
            if needed == 0 {
                continue;
            }
            let shards: Vec<u32> = self.present.range(node.first..node.end).copied().collect();
            let holds =
                |candidate: &Candidate| shards.iter().all(|&shard| (terms.holds)(candidate.worker, shard));
            let asked = |candidate: &Candidate| {
                self.asks.iter().any(|ask| (ask.worker, ask.node) == (candidate.worker, node))
            };
            let new = |candidate: &Candidate| {
                holds(candidate) && !validation.has_heard(candidate.worker) && !asked(candidate)
            };
            let again = |candidate: &Candidate| {
                validation.no_arbiter && validation.is_of_one() && holds(candidate) && !asked(candidate)
            };
            let chosen = choose(candidates, loads, None, new);
            if let Some(worker) = chosen.or_else(|| choose(candidates, loads, None, again)) {
                *loads.entry(worker).or_default() += shards.len() as u32;
                self.ask(worker, node, terms);
                dispatch.asks.entry(worker).or_default().push(node);
            } else if !validation.no_arbiter && !validation.arbitrating {
                self.validations.entry(node).and_modify(|validation| validation.arbitrating = true);
                dispatch.arbitrate.push(node);
            } else if validation.is_open() && self.asks.iter().all(|ask| ask.node != node) {
                dispatch.settled.push((node, validation.last_word()));
            }
        }
    }

    fn ask(&mut self, worker: WorkerId, node: Node, terms: &Terms<'_>) {
        let samples =
            self.present.range(node.first..node.end).map(|&shard| (terms.samples)(shard)).sum::<u64>();
        let load = self.loads.entry(worker).or_insert(Load { since: terms.now, samples: 0 });
        if !self.asks.iter().any(|ask| ask.worker == worker) {
            // Nothing was pending with it: its time starts anew.
            *load = Load { since: terms.now, samples: 0 };
        }
        load.samples += samples;
        self.asks.push(Ask { worker, node, overdue: false });
    }

    /// Whether this shard is pending with this worker, overdue or not.
    fn is_asked_for(&self, worker: WorkerId, shard: u32) -> bool {
        let pending = |ask: &Ask| ask.worker == worker && (ask.node.first..ask.node.end).contains(&shard);
        self.asks.iter().any(pending)
    }

    fn shards_pending(&self) -> BTreeMap<WorkerId, u32> {
        let mut loads = BTreeMap::new();
        for ask in &self.asks {
            *loads.entry(ask.worker).or_default() += ask.node.len();
        }
        loads
    }
}

/// Of those who are able: whoever owns the shard, or whoever has least to do.
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
