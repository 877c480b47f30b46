//! What a handler needs besides the job: the time, the settings, the workers, and the list of actions.

use std::ops::ControlFlow;
use std::time::Duration;

use super::action::{Action, Note};
use super::config::ControlConfig;
use super::ids::WorkerId;
use super::members::{Member, Members};
use super::outcome::Outcome;

/// Whether the job continues after what a handler has done, or has ended, and how.
pub(super) type Flow = ControlFlow<Outcome>;

/// The surroundings of the running job at one moment.
pub(super) struct Scene<'a> {
    pub(super) now: Duration,
    pub(super) config: &'a ControlConfig,
    pub(super) members: &'a mut Members,
    /// What is to be done, in order.
    pub(super) out: &'a mut Vec<Action>,
}

impl Scene<'_> {
    /// Notes something that people want to know.
    pub(super) fn note(&mut self, note: Note) {
        self.out.push(Action::Note(note));
    }

    /// Removes a worker from the cluster.
    pub(super) fn remove(&mut self, worker: WorkerId, how: &str) -> Option<Member> {
        let member = self.members.remove(&worker)?;
        self.note(Note::Left { worker, name: member.hello.name.clone(), how: how.to_string() });
        Some(member)
    }

    /// Removes a draining worker with which nothing is pending any more.
    pub(super) fn release_drained(&mut self, worker: WorkerId) -> Option<Member> {
        self.out.push(Action::Release { worker });
        self.remove(worker, "it is drained")
    }

    /// The draining workers with which, says `is_pending`, nothing is pending.
    pub(super) fn finished(&self, is_pending: impl Fn(WorkerId) -> bool) -> Vec<WorkerId> {
        let draining = self.members.iter().filter(|(_, member)| member.draining);
        draining.map(|(&worker, _)| worker).filter(|&worker| !is_pending(worker)).collect()
    }
}
