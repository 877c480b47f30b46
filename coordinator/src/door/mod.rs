//! The door of the coordinator: who gets in, and what they may ask for.
//!
//! Whoever connects has to show within [`PATIENCE`] that it is worth a place: with TLS by a certificate of a trusted
//! CA, and in any case by speaking HTTP/2. Until then it costs a socket and a small task, and the oldest of more than
//! [`MOST_WAITING`] has to go: an honest peer is through in milliseconds. Behind the door there are [`MOST_INSIDE`]
//! places. What a certificate allows is asked before every call ([`roles`]).
//!
//! Whoever is turned away is told so in its own protocol, as far as it speaks one, and is a line in the log; many
//! alike are one line and a count ([`refusals`]). Renewed certificates are found while the cluster runs
//! ([`certificate`]); connections that stand are not touched.

mod admit;
mod certificate;
mod refusals;
mod roles;

use std::collections::VecDeque;
use std::io;
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
/// Connections that have not yet said who they are.
const MOST_WAITING: usize = 512;
/// Connections that are open: two for each of 1,024 workers, and people.
const MOST_INSIDE: usize = 2 * 1024 + 512;
/// How long to wait when no connection can be accepted, for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// The door, before it is opened.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// The coordinator's certificate; without one, everything is plain text and everybody may do everything.
    pub certificate: Option<Arc<Certificate>>,
    /// Whom it has turned away.
    pub refusals: Arc<Refusals>,
}

impl Door {
    /// Opens the door: the connections of those who got in, as they come. It closes when the stream is dropped.
    pub fn open(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (inside, stream) = mpsc::channel(1);
        tokio::spawn(self.keep(listener, inside));
        ReceiverStream::new(stream)
    }

    /// The layer that asks for roles.
    pub fn roles(&self) -> RolesLayer {
        RolesLayer::new(Arc::clone(&self.refusals))
    }

    async fn keep(self, listener: TcpListener, inside: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(MOST_INSIDE));
        let mut waiting = VecDeque::new();
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
                        self.make_room(&mut waiting);
                        let task = self.clone().take_in(stream, address, place, inside.clone());
                        waiting.push_back(tokio::spawn(task).abort_handle());
                        // Or connections that come in a flood would be sent away before their first turn.
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
        waiting.iter().for_each(AbortHandle::abort);
        renewals.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// Sends away who has waited longest, if too many wait.
    fn make_room(&self, waiting: &mut VecDeque<AbortHandle>) {
        if waiting.len() < MOST_WAITING {
            return;
        }
        waiting.retain(|task| !task.is_finished());
        while waiting.len() >= MOST_WAITING {
            if let Some(oldest) = waiting.pop_front() {
                oldest.abort();
                self.refusals.crowded();
            }
        }
    }

    async fn take_in(
        self,
        stream: TcpStream,
        address: std::net::SocketAddr,
        place: OwnedSemaphorePermit,
        inside: mpsc::Sender<io::Result<Connection>>,
    ) {
        let admitted = admit::admit(stream, address, self.certificate.as_deref(), place);
        match tokio::time::timeout(PATIENCE, admitted).await {
            Ok(Ok(Some(connection))) => _ = inside.send(Ok(connection)).await,
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
