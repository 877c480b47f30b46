//! What a handler needs besides the job: the time, the settings, the members, and the list of actions.

use std::ops::ControlFlow;
use std::time::Duration;

use super::action::{Action, Note};
use super::config::ControlConfig;
use super::event::SessionEnd;
use super::ids::WorkerId;
use super::members::{Member, Members};
use super::outcome::Outcome;

/// Whether the job continues after a handler; if not, how it ended.
pub(super) type Flow = ControlFlow<Outcome>;

/// How a worker leaves.
pub(super) struct Departure {
    /// The reason, for display.
    how: String,
    /// Whether it leaves in order; otherwise it is lost.
    in_order: bool,
}

impl Departure {
    /// The worker leaves as it should.
    pub(super) fn in_order(how: impl Into<String>) -> Self {
        Self { how: how.into(), in_order: true }
    }

    /// The worker is lost.
    pub(super) fn lost(how: impl Into<String>) -> Self {
        Self { how: how.into(), in_order: false }
    }
}

impl From<&SessionEnd> for Departure {
    fn from(end: &SessionEnd) -> Self {
        Self { how: end.to_string(), in_order: matches!(end, SessionEnd::Shutdown(_)) }
    }
}

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
    pub(super) fn remove(&mut self, worker: WorkerId, departure: Departure) -> Option<Member> {
        let member = self.members.remove(&worker)?;
        let Departure { how, in_order } = departure;
        self.note(Note::Left { worker, name: member.hello.name.clone(), how, in_order });
        Some(member)
    }

    /// Releases and removes a draining worker that has nothing pending.
    pub(super) fn release_drained(&mut self, worker: WorkerId) -> Option<Member> {
        self.out.push(Action::Release { worker });
        self.remove(worker, Departure::in_order("it is drained"))
    }
}
