//! The state of a worker for its ops port: whether it is in a session, and its counters.
//!
//! A worker is live as long as the runtime that its session runs on makes progress. It is ready while it is in a
//! session and not draining.

use std::fmt;
use std::time::Duration;

use millefeuille_program::ops::{self, Health, Page, Pulse, Verdict};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// How often the runtime's task beats.
const BEAT: Duration = Duration::from_secs(1);

/// The state of a worker's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// The worker has no coordinator and looks for one.
    #[default]
    Looking,
    /// The coordinator has admitted the worker.
    InSession,
    /// The worker finishes its assigned work, then leaves.
    Draining,
}

/// The state of a worker. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    standing: watch::Sender<SessionState>,
    /// Sessions begun.
    sessions: Counter,
    /// Pieces computed.
    pub(crate) pieces: Counter,
    /// Bytes of gradient sums sent.
    pub(crate) sent: Counter,
    /// Bytes of parameters and samples received.
    pub(crate) received: Counter,
}

impl Condition {
    /// Sets the state of the session.
    pub(crate) fn set_standing(&self, standing: SessionState) {
        if standing == SessionState::InSession {
            self.sessions.inc();
        }
        self.standing.send_replace(standing);
    }

    fn ready(&self) -> Verdict {
        match *self.standing.borrow() {
            SessionState::Looking => Err("not ready: no coordinator has admitted this worker".into()),
            SessionState::InSession => Ok("ready: in a session".into()),
            SessionState::Draining => Err("not ready: draining".into()),
        }
    }

    fn table(&self, page: &mut Page<'_>, slots: u32) -> fmt::Result {
        page.process(self.ready().is_ok())?;
        page.gauge("slots", "Pieces computed at once", slots)?;
        page.counter("sessions", "Sessions with a coordinator that were begun", self.sessions.get())?;
        page.counter(
            "pieces",
            "Pieces computed: a shard's part of a step or of an evaluation",
            self.pieces.get(),
        )?;
        page.counter("sent_bytes", "Bytes of sums sent to the coordinator", self.sent.get())?;
        page.counter("received_bytes", "Bytes of parameters and samples that came", self.received.get())
    }
}

/// A worker's [`Condition`] and runtime, as its ops port sees them.
pub(crate) struct Watched {
    condition: Condition,
    pulse: Pulse,
    registry: Registry,
}

impl Watched {
    /// Watches this worker and the runtime that this is called on.
    pub(crate) fn new(condition: Condition, slots: u32) -> Self {
        let pulse = Pulse::default();
        let beating = pulse.clone();
        tokio::spawn(async move {
            loop {
                beating.beat();
                tokio::time::sleep(BEAT).await;
            }
        });
        let shown = condition.clone();
        let registry = ops::table("millefeuille_worker", move |page| shown.table(page, slots));
        Self { condition, pulse, registry }
    }
}

impl Health for Watched {
    fn live(&self) -> Verdict {
        match self.pulse.stuck() {
            None => Ok("alive".into()),
            Some(silence) => Err(format!("stuck: the session has not moved for {} s", silence.as_secs())),
        }
    }

    fn ready(&self) -> Verdict {
        self.condition.ready()
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}
