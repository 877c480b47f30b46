//! What a handler needs besides the job: the time, the settings, the members, and the list of actions.

use std::ops::ControlFlow;
use std::time::Duration;

use super::action::{Action, Note};
use super::config::ControlConfig;
use super::ids::WorkerId;
use super::members::{Member, Members};
use super::outcome::Outcome;

/// Whether the job continues after a handler; if not, how it ended.
pub(super) type Flow = ControlFlow<Outcome>;

/// The state around the running job while one event is handled.
pub(super) struct Context<'a> {
    pub(super) now: Duration,
    pub(super) config: &'a ControlConfig,
    pub(super) members: &'a mut Members,
    /// The actions to carry out, in order.
    pub(super) out: &'a mut Vec<Action>,
}

impl Context<'_> {
    /// Adds a note.
    pub(super) fn note(&mut self, note: Note) {
        self.out.push(Action::Note(note));
    }

    /// Removes a worker from the cluster.
    pub(super) fn remove(&mut self, worker: WorkerId, how: &str) -> Option<Member> {
        let member = self.members.remove(&worker)?;
        self.note(Note::Left { worker, name: member.hello.name.clone(), how: how.to_string() });
        Some(member)
    }

    /// Releases and removes a draining worker that has nothing pending.
    pub(super) fn release_drained(&mut self, worker: WorkerId) -> Option<Member> {
        self.out.push(Action::Release { worker });
        self.remove(worker, "it is drained")
    }

    /// The draining workers for which `is_pending` is false.
    pub(super) fn finished(&self, is_pending: impl Fn(WorkerId) -> bool) -> Vec<WorkerId> {
        let draining = self.members.iter().filter(|(_, member)| member.draining);
        draining.map(|(&worker, _)| worker).filter(|&worker| !is_pending(worker)).collect()
    }
}
