//! Rejected connections and calls: a line in the log, and counts.
//!
//! A flood must not fill the disk. The first rejection of a kind is logged at once; similar ones within [`QUIET`] are
//! counted, and logged as one line at its end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tracing::warn;

/// Minimum time between two lines about the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection or a call is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No certificate was presented.
    NoCertificate,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// Another CA issued the certificate.
    UnknownIssuer,
    /// The certificate can't be used for another reason.
    BadCertificate,
    /// The peer does not accept the coordinator's certificate.
    Distrusted,
    /// The peer's role does not allow the call.
    Role,
    /// The peer speaks plain text, and the coordinator TLS.
    UnexpectedPlaintext,
    /// The peer speaks TLS, and the coordinator plain text.
    UnexpectedTls,
    /// The peer does not offer TLS 1.3.
    TlsVersion,
    /// The handshake failed for another reason.
    Handshake,
    /// The peer does not speak HTTP/2.
    NotHttp2,
    /// The peer did not qualify in time.
    Slow,
    /// Too many connections wait for admission.
    Crowded,
    /// The maximum number of connections is admitted.
    Full,
    /// The system has no socket left.
    NoSocket,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::NoCertificate,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownIssuer,
        Self::BadCertificate,
        Self::Distrusted,
        Self::Role,
        Self::UnexpectedPlaintext,
        Self::UnexpectedTls,
        Self::TlsVersion,
        Self::Handshake,
        Self::NotHttp2,
        Self::Slow,
        Self::Crowded,
        Self::Full,
        Self::NoSocket,
    ];

    /// The name of the reason in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadCertificate => "bad_certificate",
            Self::Distrusted => "distrusted",
            Self::Role => "role",
            Self::UnexpectedPlaintext => "unexpected_plaintext",
            Self::UnexpectedTls => "unexpected_tls",
            Self::TlsVersion => "tls_version",
            Self::Handshake => "handshake",
            Self::NotHttp2 => "not_http2",
            Self::Slow => "slow",
            Self::Crowded => "crowded",
            Self::Full => "full",
            Self::NoSocket => "no_socket",
        }
    }
}

/// The counts, by reason.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<BTreeMap<Reason, Count>>);

#[derive(Debug, Default)]
struct Count {
    total: u64,
    /// Rejections since the last line; `None` if no line was logged recently.
    unsaid: Option<u64>,
}

impl Rejections {
    /// How many were rejected, for each reason.
    pub fn totals(&self) -> [(Reason, u64); Reason::ALL.len()] {
        let counts = self.lock();
        Reason::ALL.map(|reason| (reason, counts.get(&reason).map_or(0, |count| count.total)))
    }

    /// Rejects a peer at this address.
    pub fn reject(self: &Arc<Self>, reason: Reason, address: impl Display, message: &str) {
        if self.count(reason) {
            warn!("rejected {address}: {message}");
        }
    }

    /// Counts and logs that no connection can be accepted at the moment.
    pub(super) fn cannot_accept(self: &Arc<Self>, error: &std::io::Error) {
        if self.count(Reason::NoSocket) {
            warn!("cannot accept a connection: {error}");
        }
    }

    /// Counts a rejection; returns whether to log it.
    fn count(self: &Arc<Self>, reason: Reason) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(reason).or_default();
        count.total += 1;
        if let Some(unsaid) = &mut count.unsaid {
            *unsaid += 1;
            return false;
        }
        count.unsaid = Some(0);
        tokio::spawn(sum_up(Arc::downgrade(self), reason));
        true
    }

    /// Number of rejections since the last line. If there were none, the next one is logged at once.
    fn unsaid(&self, reason: Reason) -> Option<u64> {
        let mut counts = self.lock();
        let unsaid = &mut counts.entry(reason).or_default().unsaid;
        let more = unsaid.take().filter(|&more| more > 0)?;
        *unsaid = Some(0);
        Some(more)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Reason, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs the count of further rejections, until there are none.
async fn sum_up(rejections: Weak<Rejections>, reason: Reason) {
    loop {
        tokio::time::sleep(QUIET).await;
        let Some(rejections) = rejections.upgrade() else { return };
        let Some(more) = rejections.unsaid(reason) else { return };
        let seconds = QUIET.as_secs();
        warn!("rejected {more} more for the same reason within {seconds} s ({})", reason.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_a_line_and_a_flood_is_a_count() {
        let rejections = Arc::new(Rejections::default());
        assert!(rejections.count(Reason::Slow));
        let more = (0..1000).filter(|_| rejections.count(Reason::Slow)).count();
        assert_eq!(more, 0);
        assert!(rejections.count(Reason::Role), "another kind has a line of its own");
        let some: Vec<_> = rejections.totals().into_iter().filter(|&(_, total)| total > 0).collect();
        assert_eq!(some, [(Reason::Role, 1), (Reason::Slow, 1001)]);
        // The first quiet time logs a summary, the second finds nothing to log.
        tokio::time::sleep(QUIET * 2 + Duration::from_millis(1)).await;
        assert!(rejections.count(Reason::Slow), "after a quiet time it is news again");
    }
}
