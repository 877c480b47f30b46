//! Connects to a coordinator, with or without TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, service_fn};

use super::{CA_FILE, Identity, errors};
use crate::wire;

/// Attempts, and the time between them, to read files that do not match each other: they are being renewed.
const ATTEMPTS: usize = 5;
const RENEWAL: Duration = Duration::from_millis(100);

/// Connects to coordinators, with the certificate in a directory if there is one.
///
/// The files are read again for every connection, so a renewed certificate needs no restart.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    directory: Option<PathBuf>,
    refused: Arc<Mutex<Option<String>>>,
}

impl Dialer {
    /// Connects with the identity in this directory, or in plain text without one.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, refused: Arc::default() }
    }

    /// The endpoint for `address`, a host and a port.
    ///
    /// # Errors
    /// If `address` is not valid.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, tonic::transport::Error> {
        let scheme = if self.directory.is_some() { "https" } else { "http" };
        Endpoint::from_shared(format!("{scheme}://{address}"))
    }

    /// Connects.
    ///
    /// # Errors
    /// tonic's error; [`Self::refusal`] says whether certificates caused it.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        let Some(directory) = self.directory.clone() else { return endpoint.connect().await };
        let refused = Arc::clone(&self.refused);
        let dial = service_fn(move |uri: Uri| {
            let (directory, refused) = (directory.clone(), Arc::clone(&refused));
            async move {
                let dialled = dial(&uri, &directory, &refused).await;
                dialled.map(TokioIo::new).inspect_err(|error| note(&refused, error))
            }
        });
        endpoint.connect_with_connector(dial).await
    }

    /// Why the two sides could not agree on certificates, if that is why connecting failed. Trying again would not
    /// help.
    ///
    /// In TLS 1.3, a client learns that its certificate is refused only after it considers the connection open, so a
    /// call may also fail for this reason.
    pub fn refusal(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether an error is a TLS coordinator's response to plain text.
pub fn asks_for_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let reason = cause.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        reason == Some(h2::Reason::INADEQUATE_SECURITY)
    })
}

/// `PermissionDenied` for errors that another attempt would meet again. Other TLS errors may pass, for example when
/// another program temporarily answers in place of the coordinator.
fn error_kind(error: &rustls::Error) -> io::ErrorKind {
    use rustls::{AlertDescription, Error};
    match error {
        Error::InvalidCertificate(_) => io::ErrorKind::PermissionDenied,
        Error::AlertReceived(AlertDescription::HandshakeFailure) => io::ErrorKind::PermissionDenied,
        Error::AlertReceived(alert) if errors::refused_for(*alert).is_some() => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::InvalidData,
    }
}

/// Records an error about certificates in `refused`; ignores other errors.
fn note(refused: &Mutex<Option<String>>, error: &io::Error) {
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}

async fn dial(uri: &Uri, directory: &Path, refused: &Arc<Mutex<Option<String>>>) -> io::Result<Dialled> {
    let disagreed = |message| io::Error::new(io::ErrorKind::PermissionDenied, message);
    let (identity, connector) = identity(directory).await.map_err(disagreed)?;
    let address = uri.authority().map(ToString::to_string).unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_string())
        .map_err(|_| disagreed(format!("{host}: neither a DNS name nor an IP address")))?;
    let stream = tcp(uri).await?;
    let peer = Peer { address, directory: directory.to_path_buf(), identity, refused: Arc::clone(refused) };
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Dialled { stream, peer }),
        Err(error) => Err(peer.in_words(error)),
    }
}

/// Reads the identity in a directory. During a renewal, some of its files may briefly be newer than others.
async fn identity(directory: &Path) -> Result<(Identity, TlsConnector), String> {
    for _ in 1..ATTEMPTS {
        if let Ok(identity) = read_identity(directory).await {
            return Ok(identity);
        }
        tokio::time::sleep(RENEWAL).await;
    }
    read_identity(directory).await
}

/// Reads the identity once, in a thread: a file system may hang.
async fn read_identity(directory: &Path) -> Result<(Identity, TlsConnector), String> {
    let directory = directory.to_path_buf();
    let read = tokio::task::spawn_blocking(move || {
        let identity = Identity::read(&directory)?;
        let config = identity.client_config()?;
        Ok((identity, TlsConnector::from(Arc::new(config))))
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Connects as tonic does without TLS.
async fn tcp(uri: &Uri) -> io::Result<TcpStream> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(wire::TCP_KEEPALIVE));
    Ok(connector.call(uri.clone()).await.map_err(io::Error::other)?.into_inner())
}

/// The other side of a connection, and the certificate shown to it.
struct Peer {
    address: String,
    directory: PathBuf,
    identity: Identity,
    refused: Arc<Mutex<Option<String>>>,
}

impl Peer {
    /// Adds a remedy to the error, if it is a TLS error.
    fn in_words(&self, error: io::Error) -> io::Error {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => {
                let (authorities, own) = (self.directory.join(CA_FILE), self.identity.description());
                let message = errors::disagreement(tls, &self.address, &authorities, &own);
                io::Error::new(error_kind(tls), message)
            }
            None => error,
        }
    }
}

/// A connection to a coordinator.
struct Dialled {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        Poll::Ready(read.map_err(|error| {
            let error = self.peer.in_words(error);
            note(&self.peer.refused, &error);
            error
        }))
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
