//! Protocol violations and evictions of processes in the current job, over all their sessions.

use std::collections::BTreeMap;

use super::action::Action;
use super::ids::WorkerId;
use super::members::Hello;

/// A process is evicted after this many sessions that ended with a protocol violation.
const MAX_VIOLATIONS: u32 = 3;

/// The violations and evictions of processes, by instance id.
#[derive(Debug, Default)]
pub(super) struct Violations {
    /// How often each process has broken the protocol.
    counts: BTreeMap<String, u32>,
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

    /// Counts a protocol violation. A process with too many is evicted from the job.
    pub(super) fn count_violation(&mut self, instance_id: &str) {
        let violations = self.counts.entry(instance_id.to_string()).or_default();
        *violations += 1;
        if *violations >= MAX_VIOLATIONS {
            let reason = format!("it broke the protocol {violations} times");
            self.evicted.insert(instance_id.to_string(), reason);
        }
    }
}
