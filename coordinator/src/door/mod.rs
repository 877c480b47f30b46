//! Admission: who may connect to the coordinator, and what they may call.
//!
//! A peer has to qualify within [`PATIENCE`]: with TLS by a certificate of a trusted CA, and in any case by speaking
//! HTTP/2. Until then it costs a socket and a small task. Of more than [`MOST_WAITING`] such connections, the oldest of
//! the address with most of them is closed, so that a flood crowds out itself. At most [`MOST_INSIDE`] connections are
//! admitted. The certificate's role is checked before every call ([`roles`]).
//!
//! A rejected peer is told so in its own protocol, if it speaks one, and gets a line in the log; many similar ones
//! are one line and a count ([`refusals`]). Renewed certificates are noticed while the cluster runs
//! ([`certificate`]); open connections are not touched.

mod admit;
mod certificate;
mod refusals;
mod roles;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;

pub use admit::Connection;
pub use certificate::Certificate;
pub use refusals::{Reason, Refusals};
pub use roles::{Peer, RolesLayer};

/// How long a peer may take from connecting to the first words of HTTP/2.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are not admitted yet.
const MOST_WAITING: usize = 512;
/// Connections that are open: two for each of 1,024 workers, and people.
const MOST_INSIDE: usize = 2 * 1024 + 512;
/// File descriptors that are left for files and for the ops port.
const OTHER_FILES: usize = 256;
/// How long to wait when no connection can be accepted, for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// The door, before it is opened.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// The coordinator's certificate; without one, everything is plain text and everybody may do everything.
    pub certificate: Option<Arc<Certificate>>,
    /// The connections and calls that were rejected.
    pub refusals: Arc<Refusals>,
}

impl Door {
    /// Accepts connections, and gives those that are admitted. It stops when the stream is dropped.
    pub fn open(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (inside, stream) = mpsc::channel(1);
        tokio::spawn(self.keep(listener, inside));
        ReceiverStream::new(stream)
    }

    /// The layer that asks for roles.
    pub fn roles(&self) -> RolesLayer {
        RolesLayer::new(self.certificate.is_some(), Arc::clone(&self.refusals))
    }

    async fn keep(self, listener: TcpListener, inside: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(most_inside()));
        let mut waiting = Waiting::default();
        let renewals =
            self.certificate.as_ref().map(|certificate| tokio::spawn(Arc::clone(certificate).renew()));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = inside.closed() => break,
            };
            match accepted {
                Ok((stream, address)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        waiting.make_room(&self.refusals);
                        let task = self.clone().take_in(stream, address, place, inside.clone());
                        waiting.0.push_back((address.ip(), tokio::spawn(task).abort_handle()));
                        // Or connections that come in a flood would be closed before their first turn.
                        tokio::task::yield_now().await;
                    }
                    Err(_) => self.refusals.turn_away(Reason::Full, address, "all places are taken"),
                },
                Err(error) => {
                    self.refusals.cannot_accept(&error);
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        waiting.0.iter().for_each(|(_, task)| task.abort());
        renewals.iter().for_each(tokio::task::JoinHandle::abort);
    }

    async fn take_in(
        self,
        stream: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        inside: mpsc::Sender<io::Result<Connection>>,
    ) {
        let admitted = admit::admit(stream, address, self.certificate.as_deref(), place);
        match tokio::time::timeout(PATIENCE, admitted).await {
            // In a task of its own: an admitted connection is no longer among those that may be closed.
            Ok(Ok(Some(connection))) => _ = tokio::spawn(async move { inside.send(Ok(connection)).await }),
            Ok(Ok(None)) => {}
            Ok(Err((reason, message))) => self.refusals.turn_away(reason, address, &message),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                let message = format!("it has not said who it is for {seconds} s");
                self.refusals.turn_away(Reason::Slow, address, &message);
            }
        }
    }
}

/// As many as there may be, and as the system has file descriptors for.
fn most_inside() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = limit.map_or(MOST_INSIDE, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let most = most.saturating_sub(OTHER_FILES + MOST_WAITING).clamp(1, MOST_INSIDE);
    if most < MOST_INSIDE {
        tracing::warn!("{most} connections at most: the limit of open files is low (ulimit -n)");
    }
    most
}

/// Those who have not yet said who they are, the oldest first.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(IpAddr, AbortHandle)>);

impl Waiting {
    /// Sends somebody away, if too many wait.
    fn make_room(&mut self, refusals: &Arc<Refusals>) {
        if self.0.len() < MOST_WAITING {
            return;
        }
        self.0.retain(|(_, task)| !task.is_finished());
        while self.0.len() >= MOST_WAITING {
            let Some(address) = self.crowd() else { return };
            let oldest = self.0.iter().position(|(other, _)| *other == address);
            if let Some((_, task)) = oldest.and_then(|oldest| self.0.remove(oldest)) {
                task.abort();
                refusals.turn_away(
                    Reason::Crowded,
                    address,
                    "too many others wait without saying who they are",
                );
            }
        }
    }

    /// The address from which most wait.
    fn crowd(&self) -> Option<IpAddr> {
        let mut counts = BTreeMap::<_, usize>::new();
        self.0.iter().for_each(|(address, _)| *counts.entry(*address).or_default() += 1);
        counts.into_iter().max_by_key(|&(_, count)| count).map(|(address, _)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_makes_room_and_nobody_else() {
        let refusals = Arc::new(Refusals::default());
        let mut waiting = Waiting::default();
        let come = |waiting: &mut Waiting, address: [u8; 4]| {
            waiting.make_room(&refusals);
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            waiting.0.push_back((IpAddr::from(address), task));
        };
        come(&mut waiting, [10, 0, 0, 1]);
        for _ in 0..2 * MOST_WAITING {
            come(&mut waiting, [10, 0, 0, 2]);
        }
        assert_eq!(waiting.0.len(), MOST_WAITING);
        assert_eq!(
            waiting.0[0].0,
            IpAddr::from([10, 0, 0, 1]),
            "the one who came first and alone is still there"
        );
        tokio::task::yield_now().await;
        assert!(waiting.0.iter().all(|(_, task)| !task.is_finished()), "who is there waits");
    }
}
