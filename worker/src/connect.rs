//! Finding the coordinator, and finding it again.
//!
//! A worker that has no coordinator tries again, with a back-off. It gives up after the join timeout, counted anew
//! for each spell without a coordinator, or at once when it is refused. A coordinator that lets it in and loses it
//! soon after, time and again, is come back to ever more slowly.

use std::pin::pin;
use std::time::{Duration, Instant};

use millefeuille_core::blas;
use millefeuille_program::backoff::{Backoff, FIRST_WAIT, LONGEST_WAIT};
use millefeuille_program::kernel;
use millefeuille_program::machine::Cpu;
use millefeuille_program::process::{self, Shutdown};
use millefeuille_proto::tls::{self, Dialer};
use millefeuille_proto::{PROTOCOL_VERSION, v1, wire};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::condition::{Condition, Standing};
use crate::session::{Kept, Opened, session};
use crate::{Config, End};

/// A session that lasted so long was a good one.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// The same trouble is not reported more often than this.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Works for the coordinator until told to stop, refused, or without a coordinator for too long.
///
/// How it stands meanwhile is shown by `condition`.
pub async fn run(config: Config, condition: &Condition, shutdown: impl Shutdown) -> End {
    let mut shutdown = pin!(shutdown);
    let mut kept = match Kept::new(&config, condition) {
        Ok(kept) => kept,
        Err(error) => return End::Failed(format!("cannot start {} threads: {error}", config.slots)),
    };
    let dialer = Dialer::new(config.tls.clone());
    let mut spell = Spell::new();
    let mut known = false;
    loop {
        let begun = Instant::now();
        let attempt = async {
            let opened = tokio::select! {
                opened = open(&config, &dialer) => opened?,
                () = &mut shutdown => return Ok(End::Stopped),
            };
            session(&config, opened, &mut kept, shutdown.as_mut()).await
        };
        let status = match attempt.await {
            Ok(end) => return end,
            Err(status) => status,
        };
        condition.is(Standing::Looking);
        // Where it was let in before, certificates are just being changed, or will be soon.
        let status = match dialer.refusal() {
            Some(reason) if !known => return End::Refused(reason),
            Some(reason) => Status::unavailable(reason),
            None => status,
        };
        if is_refusal(&status) {
            return End::Refused(format!(
                "{} does not let this worker in: {}",
                config.coordinator,
                reason(&status)
            ));
        }
        let was_in = std::mem::take(&mut kept.welcomed);
        known |= was_in;
        if was_in {
            spell.over(begun.elapsed());
        }
        if spell.lasts(config.join_timeout) {
            let seconds = config.join_timeout.as_secs_f64();
            let reason = reason(&status);
            return End::Refused(format!(
                "no coordinator at {} for {seconds:.0} s ({reason}); is it running? --coordinator names its address",
                config.coordinator
            ));
        }
        let what = if was_in { "lost the session with" } else { "no coordinator at" };
        spell.report(&format!("{what} {}: {}", config.coordinator, reason(&status)), config.join_timeout);
        tokio::select! {
            () = tokio::time::sleep(spell.backoff.next_wait()) => {}
            () = &mut shutdown => return End::Stopped,
        }
    }
}

/// Connects and says hello. Whoever listens and never answers is no coordinator.
async fn open(config: &Config, dialer: &Dialer) -> Result<Opened, Status> {
    let opened = async {
        let (channel, heartbeats) = connect(config, dialer).await?;
        Opened::new(hello(config), channel, heartbeats).await
    };
    let opened = tokio::time::timeout(config.connect_timeout, opened).await;
    opened.map_err(|_| Status::unavailable("it does not answer"))?
}

/// Two connections: bulk data must not delay heartbeats.
async fn connect(config: &Config, dialer: &Dialer) -> Result<(Channel, Channel), Status> {
    let endpoint = dialer.endpoint(&config.coordinator);
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(config.connect_timeout);
    let connect = async |endpoint: Endpoint| {
        let connected = dialer.connect(endpoint).await;
        connected.map_err(|error| Status::unavailable(process::root_cause(&error)))
    };
    Ok((connect(wire::bulk_endpoint(endpoint.clone())).await?, connect(wire::endpoint(endpoint)).await?))
}

fn hello(config: &Config) -> v1::Hello {
    v1::Hello {
        protocol_version: PROTOCOL_VERSION,
        build: env!("CARGO_PKG_VERSION").into(),
        instance_id: process::instance_id(),
        name: process::name(),
        slots: config.slots,
        arithmetic: Some((&blas::arithmetic()).into()),
        cpu: Cpu::of_this_machine().model,
        token: config.token.clone(),
        cache_bytes: config.cache_bytes,
        started_for: kernel::started_for().to_string(),
        shared_memory: config.shared_memory.as_ref().map_or(0, |guest| guest.id()),
    }
}

fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

fn reason(status: &Status) -> String {
    if tls::asks_for_tls(status) {
        return "it asks for TLS: name the directory of a certificate with --tls".into();
    }
    process::reason(status)
}

/// A spell without a coordinator.
struct Spell {
    since: Instant,
    backoff: Backoff,
    reported: Option<(Instant, String)>,
}

impl Spell {
    fn new() -> Self {
        Self { since: Instant::now(), backoff: Backoff::new(), reported: None }
    }

    /// A session lay in between, of this length.
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
