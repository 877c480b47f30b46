//! How processes behave towards the job that has its turn, over all their sessions.

use std::collections::BTreeMap;

use super::action::Action;
use super::ids::WorkerId;
use super::members::Hello;

/// A process whose sessions ended so often because it broke the protocol is put out.
const OFFENCES: u32 = 3;

/// What is held against processes, by their instance ids.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// How often a process has broken the protocol.
    offences: BTreeMap<String, u32>,
    /// Processes that were put out, and why.
    banned: BTreeMap<String, String>,
}

impl Conduct {
    /// Takes in who was put out in an earlier life of the coordinator; it knows of all.
    pub(super) fn know(self, banned: BTreeMap<String, String>) -> Self {
        Self { banned, ..self }
    }

    /// What to answer to a process that was put out.
    pub(super) fn refusal(&self, worker: WorkerId, hello: &Hello) -> Option<Action> {
        let reason = self.banned.get(&hello.instance_id)?.clone();
        Some(Action::PutOut { worker, reason })
    }

    /// Puts a process out; whether it was in until now.
    pub(super) fn ban(&mut self, instance_id: &str, reason: &str) -> bool {
        self.banned.insert(instance_id.to_string(), reason.to_string()).is_none()
    }

    /// A process broke the protocol. It may come again a few times; then it is put out of the job.
    pub(super) fn count_offence(&mut self, instance_id: &str) {
        let offences = self.offences.entry(instance_id.to_string()).or_default();
        *offences += 1;
        if *offences >= OFFENCES {
            let reason = format!("it broke the protocol {offences} times");
            self.banned.insert(instance_id.to_string(), reason);
        }
    }
}
