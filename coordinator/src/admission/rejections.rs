//! Rejected connections and calls: a line in the log, and counts.
//!
//! A flood must not fill the disk. The first of a kind is a line at once; those like it within [`QUIET`] are
//! counted, and become one line at its end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tracing::warn;

/// Between two lines about the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection or a call is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Shows no certificate.
    NoCertificate,
    /// Shows one that has expired.
    Expired,
    /// Shows one that is not valid yet.
    NotYetValid,
    /// Shows one of another CA.
    UnknownIssuer,
    /// Shows one that can't be used for another reason.
    BadCertificate,
    /// Does not accept the coordinator's certificate.
    Distrusted,
    /// Its role does not allow what it asks for.
    Role,
    /// Speaks plain text where TLS is spoken.
    UnexpectedPlaintext,
    /// Speaks TLS where plain text is spoken.
    UnexpectedTls,
    /// Offers no TLS 1.3.
    TlsVersion,
    /// The handshake failed for another reason.
    Handshake,
    /// Does not speak HTTP/2.
    NotHttp2,
    /// Says too little in too long a time.
    Slow,
    /// Waits among too many others.
    Crowded,
    /// All places inside are taken.
    Full,
    /// The system gives no socket for it.
    NoSocket,
}

impl Reason {
    /// All of them.
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

    /// A word for it, for metrics.
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
    /// Since the last line; none while no line was written lately.
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

    /// No connection can be accepted at the moment.
    pub(super) fn cannot_accept(self: &Arc<Self>, error: &std::io::Error) {
        if self.count(Reason::NoSocket) {
            warn!("cannot accept a connection: {error}");
        }
    }

    /// Whether there should be a line.
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

    /// How many there were since the last line; if there were none, the next is news.
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

/// Says how many more there were, until there are no more.
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
        // One quiet time sums up, the next finds nothing to say.
        tokio::time::sleep(QUIET * 2 + Duration::from_millis(1)).await;
        assert!(rejections.count(Reason::Slow), "after a quiet time it is news again");
    }
}
