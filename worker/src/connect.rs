//! Connects to the coordinator, and reconnects.
//!
//! A worker without a coordinator tries again with a back-off. It gives up after the join timeout, which starts anew
//! whenever the worker loses its coordinator, or at once when the coordinator rejects it. If a coordinator repeatedly
//! admits the worker and soon loses it, the worker reconnects more and more slowly. The same holds for one that
//! repeatedly asks for another kernel: the worker starts again more and more slowly.

use std::pin::pin;
use std::time::{Duration, Instant};

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::Hello;
use millefeuille_program::backoff::{Backoff, FIRST_WAIT, LONGEST_WAIT};
use millefeuille_program::kernel;
use millefeuille_program::machine::Cpu;
use millefeuille_program::process::{self, Shutdown};
use millefeuille_proto::PROTOCOL_VERSION;
use millefeuille_proto::session::Introduction;
use millefeuille_proto::tls::Dialer;
use tracing::{info, warn};

use crate::condition::{Condition, SessionState};
use crate::link::{Link, Trouble};
use crate::session::{Opened, SessionResources, session};
use crate::{End, WorkerConfig};

/// A session of at least this length resets the back-off.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// No wait before a restart is longer.
const LONGEST_WAIT_FOR_KERNEL: Duration = Duration::from_secs(30);
/// Minimum time between two reports of the same error.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Works for the coordinator until it is stopped or rejected, or has been without a coordinator for too long.
///
/// `condition` shows its state meanwhile.
pub async fn run(config: WorkerConfig, condition: &Condition, shutdown: impl Shutdown) -> End {
    let mut shutdown = pin!(shutdown);
    let mut resources = match SessionResources::new(&config, condition) {
        Ok(resources) => resources,
        Err(error) => return End::Failed(format!("cannot start {} threads: {error}", config.slots)),
    };
    let dialer = Dialer::new(config.tls.clone());
    let mut outage = Outage::new();
    let mut known = false;
    loop {
        let begun = Instant::now();
        let attempt = async {
            let opened = tokio::select! {
                opened = open(&config, &dialer) => opened?,
                () = &mut shutdown => return Ok(End::Stopped),
            };
            session(&config, opened, &mut resources, shutdown.as_mut()).await
        };
        let trouble = match attempt.await {
            Ok(End::UseKernel { kernel, restarts }) => {
                let restarts = if begun.elapsed() >= GOOD_SESSION { 1 } else { restarts };
                let wait = wait_before(restarts);
                if !wait.is_zero() {
                    let seconds = wait.as_secs_f64();
                    warn!(
                        "{} asks for another kernel again: starting again in {seconds:.1} s",
                        config.coordinator
                    );
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = &mut shutdown => return End::Stopped,
                }
                return End::UseKernel { kernel, restarts };
            }
            Ok(end) => return end,
            Err(trouble) => trouble,
        };
        condition.set_standing(SessionState::Looking);
        // A worker that was admitted before tries again: its certificates are being renewed, or will be soon.
        let trouble = match dialer.refusal() {
            Some(reason) if !known => return End::Refused(reason),
            Some(reason) => Trouble::Lost(reason),
            None => trouble,
        };
        let reason = match trouble {
            Trouble::Refused(reason) => {
                let coordinator = &config.coordinator;
                return End::Refused(format!("{coordinator} rejects this worker: {reason}"));
            }
            Trouble::TooLarge(reason) => return End::TooLarge(reason),
            Trouble::Lost(reason) => reason,
        };
        let was_in = std::mem::take(&mut resources.welcomed);
        known |= was_in;
        if was_in {
            outage.over(begun.elapsed());
        }
        if outage.lasts(config.join_timeout) {
            let seconds = config.join_timeout.as_secs_f64();
            return End::Refused(format!(
                "no coordinator at {} for {seconds:.0} s ({reason}); is it running? --coordinator names its address",
                config.coordinator
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(outage.backoff.next_wait()) => {}
            () = &mut shutdown => return End::Stopped,
        }
        // Only now: a worker that ends with its coordinator has ended during the wait.
        let what = if was_in { "lost the session with" } else { "no coordinator at" };
        outage.report(&format!("{what} {}: {reason}", config.coordinator), config.join_timeout);
    }
}

/// How long to wait before a restart, the first of a row at once.
fn wait_before(restarts: u32) -> Duration {
    let mut backoff = Backoff::up_to(LONGEST_WAIT_FOR_KERNEL);
    // The wait stops growing long before.
    (1..restarts.min(100)).map(|_| backoff.next_wait()).last().unwrap_or_default()
}

/// Connects and sends the introduction. A server that accepts the connection and never answers is not a coordinator.
async fn open(config: &WorkerConfig, dialer: &Dialer) -> Result<Opened, Trouble> {
    let opened = async {
        let link = Link::connect(config, dialer).await?;
        Opened::new(introduction(config), link).await
    };
    let opened = tokio::time::timeout(config.connect_timeout, opened).await;
    opened.map_err(|_| Trouble::lost("it does not answer"))?
}

fn introduction(config: &WorkerConfig) -> Introduction {
    Introduction {
        protocol_version: PROTOCOL_VERSION,
        hello: Hello {
            instance_id: process::instance_id(),
            name: process::name(),
            slots: config.slots,
            arithmetic: Arithmetic::of_this_process(),
            cache_bytes: config.cache_bytes,
            started_for: kernel::started_for().to_string(),
        },
        build: env!("CARGO_PKG_VERSION").into(),
        cpu: Cpu::of_this_machine().model,
        token: config.token.clone(),
        shared_memory: config.shared_memory.as_ref().map_or(0, |inherited| inherited.id()),
    }
}

/// A period without a coordinator.
struct Outage {
    since: Instant,
    backoff: Backoff,
    reported: Option<(Instant, String)>,
}

impl Outage {
    fn new() -> Self {
        Self { since: Instant::now(), backoff: Backoff::new(), reported: None }
    }

    /// Starts a new period after a session of this length.
    fn over(&mut self, session: Duration) {
        self.since = Instant::now();
        self.reported = None;
        if session >= GOOD_SESSION {
            self.backoff = Backoff::new();
        }
    }

    fn lasts(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }

    fn report(&mut self, trouble: &str, limit: Duration) {
        let known =
            self.reported.as_ref().is_some_and(|(at, what)| what == trouble && at.elapsed() < REPORT_EVERY);
        if known {
            return;
        }
        let left = limit.saturating_sub(self.since.elapsed()).as_secs_f64();
        warn!("{trouble}; trying again for {left:.0} s");
        if self.reported.is_none() {
            info!(
                "waits between attempts grow from {} ms to {} s",
                FIRST_WAIT.as_millis(),
                LONGEST_WAIT.as_secs()
            );
        }
        self.reported = Some((Instant::now(), trouble.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_in_a_row_become_rare() {
        assert_eq!(wait_before(1), Duration::ZERO);
        assert!(wait_before(2) <= FIRST_WAIT);
        for restarts in [20, 1000] {
            assert!(wait_before(restarts) >= LONGEST_WAIT_FOR_KERNEL / 2);
            assert!(wait_before(restarts) <= LONGEST_WAIT_FOR_KERNEL);
        }
    }
}
