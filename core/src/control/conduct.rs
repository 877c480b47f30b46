//! How processes behave towards the job that has its turn, over all their sessions.

use std::collections::BTreeMap;

use super::action::Action;
use super::ids::WorkerId;
use super::members::Hello;

/// A process whose sessions ended so often because it broke the protocol is evicted.
const MAX_VIOLATIONS: u32 = 3;

/// What is held against processes, by their instance ids.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// How often a process has broken the protocol.
    violations: BTreeMap<String, u32>,
    /// Processes that were evicted, and why.
    evicted: BTreeMap<String, String>,
}

impl Conduct {
    /// Takes in who was evicted in an earlier life of the coordinator; it knows of all.
    pub(super) fn know(self, evicted: BTreeMap<String, String>) -> Self {
        Self { evicted, ..self }
    }

    /// What to answer to a process that was evicted.
    pub(super) fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        let reason = self.evicted.get(&hello.instance_id)?.clone();
        Some(Action::Evict { worker, reason })
    }

    /// Evicts a process; whether it was in until now.
    pub(super) fn evict(&mut self, instance_id: &str, reason: &str) -> bool {
        self.evicted.insert(instance_id.to_string(), reason.to_string()).is_none()
    }

    /// A process broke the protocol. It may come again a few times; then it is evicted from the job.
    pub(super) fn count_violation(&mut self, instance_id: &str) {
        let violations = self.violations.entry(instance_id.to_string()).or_default();
        *violations += 1;
        if *violations >= MAX_VIOLATIONS {
            let reason = format!("it broke the protocol {violations} times");
            self.evicted.insert(instance_id.to_string(), reason);
        }
    }
}
