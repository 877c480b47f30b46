//! Protocol violations and evictions of processes in the current job, over all their sessions.

use std::collections::BTreeMap;

use super::action::Action;
use super::ids::WorkerId;
use super::members::Hello;

/// A process is evicted after this many sessions that ended with a protocol violation.
const MAX_VIOLATIONS: u32 = 3;

/// A worker's process, and the number of one of its sessions.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) worker: WorkerId,
    pub(super) name: String,
    pub(super) instance_id: String,
}

impl Process {
    /// The process behind this session.
    pub(super) fn new(worker: WorkerId, hello: &Hello) -> Self {
        Self { worker, name: hello.name.clone(), instance_id: hello.instance_id.clone() }
    }
}

/// The violations and evictions of processes, by instance id.
#[derive(Debug, Default)]
pub(super) struct Violations {
    /// How often each process has broken the protocol.
    counts: BTreeMap<String, (u32, Process)>,
    /// The evicted processes, and why.
    evicted: BTreeMap<String, String>,
}

impl Violations {
    /// Sets the evictions from before the coordinator's restart. The list is complete.
    pub(super) fn with_evicted(self, evicted: BTreeMap<String, String>) -> Self {
        Self { evicted, ..self }
    }

    /// The action that refuses an evicted process.
    pub(super) fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        let reason = self.evicted.get(&hello.instance_id)?.clone();
        Some(Action::Evict { worker, reason })
    }

    /// Evicts a process. Returns whether it was not evicted before.
    pub(super) fn evict(&mut self, instance_id: &str, reason: &str) -> bool {
        self.evicted.insert(instance_id.to_string(), reason.to_string()).is_none()
    }

    /// Counts a protocol violation.
    pub(super) fn count_violation(&mut self, process: Process) {
        let (violations, last) =
            self.counts.entry(process.instance_id.clone()).or_insert_with(|| (0, process.clone()));
        *violations += 1;
        *last = process;
    }

    /// The processes with too many violations that are not evicted yet, and why they are to be.
    pub(super) fn offenders(&self) -> Vec<(Process, String)> {
        let offends = |(violations, process): &&(u32, Process)| {
            *violations >= MAX_VIOLATIONS && !self.evicted.contains_key(&process.instance_id)
        };
        let reason = |violations: u32| format!("it broke the protocol {violations} times");
        let offenders = self.counts.values().filter(offends);
        offenders.map(|(violations, process)| (process.clone(), reason(*violations))).collect()
    }
}
