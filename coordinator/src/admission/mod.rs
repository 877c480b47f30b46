//! Admission: who may connect to the coordinator, and what they may call.
//!
//! A peer must qualify within [`ADMISSION_TIMEOUT`]: with TLS, by a certificate of a trusted CA, and in any case by
//! speaking HTTP/2. Until then it costs a socket and a small task. If there are more than [`MAX_UNADMITTED`] such
//! connections, the oldest one of the address with the most of them is closed, so that a flood crowds out itself. At
//! most [`MAX_ADMITTED`] connections are admitted, and what they hold in memory has one bound for all ([`memory`]). The
//! certificate's role is checked before every call ([`roles`]).
//!
//! A rejected peer gets an error in its own protocol, if it speaks one, and a line in the log; many similar
//! rejections are logged as one line and a count ([`rejections`]). Renewed certificates are picked up while the
//! cluster runs ([`certificate`]); open connections stay as they are.

mod admit;
mod certificate;
mod memory;
mod rejections;
mod roles;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::control::MAX_WORKERS;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;

pub use admit::Connection;
pub use certificate::ServerCertificate;
pub use memory::{Memory, MeterLayer};
pub use rejections::{Reason, Rejections};
pub use roles::{Peer, RolesLayer};

/// Time limit from connecting to the first bytes of HTTP/2.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of connections that are not admitted yet.
const MAX_UNADMITTED: usize = 512;
/// Maximum number of admitted connections: two for each worker, and people.
const MAX_ADMITTED: usize = 2 * MAX_WORKERS as usize + 512;
/// File descriptors reserved for files and for the ops port.
const OTHER_FILES: usize = 256;
/// Pause when no connection can be accepted for lack of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Decides who may connect, and counts rejections; it starts with [`accept`](Self::accept).
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The coordinator's certificate. Without one, everything is plain text and every peer may make every call.
    pub certificate: Option<Arc<ServerCertificate>>,
    /// The connections and calls that were rejected.
    pub rejections: Arc<Rejections>,
    /// What all connections hold in memory.
    pub memory: Arc<Memory>,
}

impl Admission {
    /// Accepts connections, and yields the admitted ones. It stops when the stream is dropped.
    pub fn accept(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (connections, stream) = mpsc::channel(1);
        tokio::spawn(self.accept_all(listener, connections));
        ReceiverStream::new(stream)
    }

    /// The layer that checks roles.
    pub fn roles(&self) -> RolesLayer {
        RolesLayer::new(self.certificate.is_some(), Arc::clone(&self.rejections))
    }

    async fn accept_all(self, listener: TcpListener, connections: mpsc::Sender<io::Result<Connection>>) {
        let most = Places::of_this_process();
        let places = Arc::new(Semaphore::new(most.admitted));
        let mut unadmitted = Unadmitted { most: most.unadmitted, waiting: VecDeque::new() };
        let renewals =
            self.certificate.as_ref().map(|certificate| tokio::spawn(Arc::clone(certificate).renew()));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.closed() => break,
            };
            match accepted {
                Ok((stream, address)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        unadmitted.make_room(&self.rejections);
                        let task = self.clone().admit(stream, address, place, connections.clone());
                        unadmitted.waiting.push_back((address.ip(), tokio::spawn(task).abort_handle()));
                        // Otherwise connections that come in a flood would be closed before their first turn.
                        tokio::task::yield_now().await;
                    }
                    Err(_) => self.rejections.reject(Reason::Full, address, "all places are taken"),
                },
                Err(error) => {
                    self.rejections.cannot_accept(&error);
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        unadmitted.waiting.iter().for_each(|(_, task)| task.abort());
        renewals.iter().for_each(tokio::task::JoinHandle::abort);
    }

    async fn admit(
        self,
        stream: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        connections: mpsc::Sender<io::Result<Connection>>,
    ) {
        let memory = Arc::clone(&self.memory);
        let admitted = admit::admit(stream, address, self.certificate.as_deref(), memory, place);
        match tokio::time::timeout(ADMISSION_TIMEOUT, admitted).await {
            // In a separate task: an admitted connection must not be closed to make room.
            Ok(Ok(Some(connection))) => {
                _ = tokio::spawn(async move { connections.send(Ok(connection)).await })
            }
            Ok(Ok(None)) => {}
            Ok(Err((reason, message))) => self.rejections.reject(reason, address, &message),
            Err(_) => {
                let seconds = ADMISSION_TIMEOUT.as_secs();
                let message = format!("it did not complete the handshake within {seconds} s");
                self.rejections.reject(Reason::Slow, address, &message);
            }
        }
    }
}

/// How many connections of each kind there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    admitted: usize,
    unadmitted: usize,
}

impl Places {
    /// As many as the limit of open files allows.
    fn of_this_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let places = Self::within(limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX)));
        if places.admitted < MAX_ADMITTED {
            tracing::warn!(
                "{} connections at most: the limit of open files is low (ulimit -n)",
                places.admitted
            );
        }
        places
    }

    /// Where the limit is low, half of it is for admitted connections, and a quarter for those that are not.
    fn within(limit: usize) -> Self {
        let (others, unadmitted) = (OTHER_FILES.min(limit / 4), MAX_UNADMITTED.min(limit / 4).max(1));
        Self { admitted: limit.saturating_sub(others + unadmitted).clamp(1, MAX_ADMITTED), unadmitted }
    }
}

/// The connections that are not admitted yet, oldest first.
#[derive(Debug)]
struct Unadmitted {
    most: usize,
    waiting: VecDeque<(IpAddr, AbortHandle)>,
}

impl Unadmitted {
    /// Closes a connection, if too many wait.
    fn make_room(&mut self, rejections: &Arc<Rejections>) {
        if self.waiting.len() < self.most {
            return;
        }
        self.waiting.retain(|(_, task)| !task.is_finished());
        while self.waiting.len() >= self.most {
            let Some(address) = self.crowd() else { return };
            let oldest = self.waiting.iter().position(|(other, _)| *other == address);
            if let Some((_, task)) = oldest.and_then(|oldest| self.waiting.remove(oldest)) {
                task.abort();
                rejections.reject(
                    Reason::Crowded,
                    address,
                    "too many others wait without saying who they are",
                );
            }
        }
    }

    /// The address with the most waiting connections.
    fn crowd(&self) -> Option<IpAddr> {
        let mut counts = BTreeMap::<_, usize>::new();
        self.waiting.iter().for_each(|(address, _)| *counts.entry(*address).or_default() += 1);
        counts.into_iter().max_by_key(|&(_, count)| count).map(|(address, _)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_of_files_leaves_places_for_workers() {
        let places = |limit| {
            let Places { admitted, unadmitted } = Places::within(limit);
            (admitted, unadmitted)
        };
        assert_eq!(places(usize::MAX), (MAX_ADMITTED, MAX_UNADMITTED));
        assert_eq!(places(20_000), (MAX_ADMITTED, MAX_UNADMITTED));
        assert_eq!(places(1024), (512, 256));
        assert_eq!(places(256), (128, 64));
        assert_eq!(places(0), (1, 1));
    }

    #[tokio::test]
    async fn a_crowd_makes_room_and_nobody_else() {
        let rejections = Arc::new(Rejections::default());
        let mut unadmitted = Unadmitted { most: MAX_UNADMITTED, waiting: VecDeque::new() };
        let come = |unadmitted: &mut Unadmitted, address: [u8; 4]| {
            unadmitted.make_room(&rejections);
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            unadmitted.waiting.push_back((IpAddr::from(address), task));
        };
        come(&mut unadmitted, [10, 0, 0, 1]);
        for _ in 0..2 * MAX_UNADMITTED {
            come(&mut unadmitted, [10, 0, 0, 2]);
        }
        assert_eq!(unadmitted.waiting.len(), MAX_UNADMITTED);
        assert_eq!(
            unadmitted.waiting[0].0,
            IpAddr::from([10, 0, 0, 1]),
            "the one who came first and alone is still there"
        );
        tokio::task::yield_now().await;
        assert!(unadmitted.waiting.iter().all(|(_, task)| !task.is_finished()), "who is there waits");
    }
}
