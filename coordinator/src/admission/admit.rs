//! Takes a connection from the accepted socket to the start of HTTP/2.
//!
//! A peer that is not admitted yet costs resources and has proved nothing. So their number is limited, and each has a
//! deadline: for the TLS handshake, with TLS, then for the first bytes of HTTP/2. Rejections are counted, and logged
//! at a limited rate.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use millefeuille_proto::tls::{self, Role};
use rustls::{CertificateError, Error as TlsError, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::memory::{Frames, LOOK, Memory, Meter};
use super::roles::Peer;
use super::{Reason, ServerCertificate};

/// The first bytes of HTTP/2 ([RFC 9113, 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of TLS: a handshake record.
const TLS_HANDSHAKE: u8 = 22;
/// The reply to TLS on a plain-text port: the fatal alert `handshake_failure`.
const TLS_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
/// Time for a rejected peer to read why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a connection is rejected, for the counts and for the log.
type Rejection = (Reason, String);

/// Identifies and admits a peer. `None` if it left again without sending anything, as port probes do.
pub(super) async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    certificate: Option<&ServerCertificate>,
    memory: Arc<Memory>,
    place: OwnedSemaphorePermit,
) -> Result<Option<Connection>, Rejection> {
    let _ = stream.set_nodelay(true);
    let mut first = [0; 3];
    let Ok(seen @ 1..) = stream.peek(&mut first).await else { return Ok(None) };
    let speaks_tls = first[0] == TLS_HANDSHAKE;
    let (stream, role) = match certificate {
        Some(certificate) if speaks_tls => {
            let stream = handshake(stream, certificate).await?;
            let role = role(&stream);
            (Transport::Tls(Box::new(stream)), role)
        }
        Some(_) => {
            let http2 = PREFACE.starts_with(&first[..seen]);
            last_words(stream, if http2 { http2_asks_for_tls() } else { http1(ASKS_FOR_TLS) }).await;
            return Err((
                Reason::UnexpectedPlaintext,
                "it speaks plain text, and this port asks for TLS".into(),
            ));
        }
        None if speaks_tls => {
            last_words(stream, TLS_ALERT.to_vec()).await;
            return Err((
                Reason::UnexpectedTls,
                "it speaks TLS, and this coordinator serves without --tls".into(),
            ));
        }
        None => (Transport::Plain(stream), None),
    };
    let peer = Peer { address, role, meter: Arc::new(Meter::new(memory)) };
    // The replayed bytes start at their end: until then, reads go to the socket.
    let mut begun = Cursor::new(PREFACE);
    begun.set_position(PREFACE.len() as u64);
    let mut connection = Connection {
        begun,
        stream,
        peer,
        admitted: false,
        frames: Frames::default(),
        look: None,
        _place: place,
    };
    match preface(&mut connection).await {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            last_words(connection, http1(SPEAKS_GRPC)).await;
            return Err((Reason::NotHttp2, "it does not speak HTTP/2, as gRPC does".into()));
        }
        Err(error) => return Err(in_words(&error)),
    }
    connection.begun.set_position(0);
    connection.admitted = true;
    Ok(Some(connection))
}

async fn handshake(
    stream: TcpStream,
    certificate: &ServerCertificate,
) -> Result<TlsStream<TcpStream>, Rejection> {
    let accepted = TlsAcceptor::from(certificate.current()).accept(stream).into_fallible().await;
    match accepted {
        Ok(stream) => Ok(stream),
        Err((error, stream)) => {
            // The alert with the reason is already being sent.
            last_words(stream, Vec::new()).await;
            Err(in_words(&error))
        }
    }
}

/// Reads the HTTP/2 preface; false if the peer closes before its end.
async fn preface(stream: &mut Connection) -> io::Result<bool> {
    let mut begun = [0; PREFACE.len()];
    let mut read = 0;
    while read < begun.len() {
        match stream.read(&mut begun[read..]).await? {
            0 => return Ok(false),
            more => read += more,
        }
        if begun[..read] != PREFACE[..read] {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    Ok(true)
}

fn role(stream: &TlsStream<TcpStream>) -> Option<Role> {
    stream.get_ref().1.peer_certificates()?.first().and_then(Role::of_certificate)
}

const ASKS_FOR_TLS: &str = "this coordinator asks for TLS 1.3 and a certificate";
const SPEAKS_GRPC: &str = "this port speaks gRPC; probes and metrics have a port of their own (--ops-listen)";

/// A GOAWAY frame with the code `INADEQUATE_SECURITY`. No SETTINGS frame precedes it: a client that gets one takes
/// the connection for a good one, and many clients then retry at once and forever.
fn http2_asks_for_tls() -> Vec<u8> {
    let length = u8::try_from(8 + ASKS_FOR_TLS.len()).expect("a short text");
    let goaway =
        [0, 0, length, 7, 0, 0, 0, 0, 0, /* last stream */ 0, 0, 0, 0, /* code */ 0, 0, 0, 12];
    [&goaway[..], ASKS_FOR_TLS.as_bytes()].concat()
}

fn http1(reason: &str) -> Vec<u8> {
    let length = reason.len() + 1;
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reason}\n"
    )
    .into_bytes()
}

/// Sends the reason, and waits until the peer has closed: closing a socket with unread input discards sent data.
async fn last_words(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: Vec<u8>) {
    let said = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

/// Why a handshake failed.
fn in_words(error: &io::Error) -> Rejection {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return (Reason::Handshake, format!("it closed the connection during the handshake ({error})"));
    };
    match tls {
        TlsError::NoCertificatesPresented => (Reason::NoCertificate, "it shows no certificate".into()),
        TlsError::InvalidCertificate(trouble) => {
            (reason(trouble), format!("its certificate {}", tls::certificate_trouble(trouble)))
        }
        TlsError::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => (Reason::TlsVersion, "it does not offer TLS 1.3".into()),
        TlsError::AlertReceived(alert) => match tls::refused_for(*alert) {
            Some(words) => {
                (Reason::Distrusted, format!("it does not accept this coordinator's certificate: {words}"))
            }
            None => (Reason::Handshake, format!("it broke the handshake off: {alert:?}")),
        },
        TlsError::InvalidMessage(_) => (Reason::Handshake, "it does not speak TLS".into()),
        other => (Reason::Handshake, format!("the handshake failed: {other}")),
    }
}

fn reason(trouble: &CertificateError) -> Reason {
    match trouble {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Reason::NotYetValid,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::UnknownIssuer,
        _ => Reason::BadCertificate,
    }
}

/// An admitted connection. Dropping it frees its place.
#[derive(Debug)]
pub struct Connection {
    /// The HTTP/2 preface, which was read for admission and must be read again by the server.
    begun: Cursor<&'static [u8; 24]>,
    stream: Transport,
    peer: Peer,
    /// Whether the preface has been read: frames follow.
    admitted: bool,
    frames: Frames,
    /// The next time to look whether it may be read again, while it may not.
    look: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Ready once the connection may be read, for what it and all others hold.
    fn poll_may_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.peer.meter.may_read() {
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
            ready!(look.as_mut().poll(context));
            self.look = None;
        }
        self.look = None;
        Poll::Ready(())
    }
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Runs the same code on either kind of stream.
macro_rules! either {
    ($transport:expr, $stream:ident => $do:expr) => {
        match $transport {
            Transport::Plain($stream) => $do,
            Transport::Tls($stream) => $do,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.position() < PREFACE.len() as u64 {
            return Pin::new(&mut self.begun).poll_read(context, buffer);
        }
        ready!(self.poll_may_read(context));
        let before = buffer.filled().len();
        let read = either!(&mut self.stream, stream => Pin::new(stream).poll_read(context, buffer));
        // Until it is admitted, what comes is the preface.
        if self.admitted {
            let Self { frames, peer, .. } = &mut *self;
            frames.count(&buffer.filled()[before..], &peer.meter);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.stream, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_has_the_length_that_it_announces() {
        let frame = http2_asks_for_tls();
        assert_eq!(frame.len(), 9 + usize::from(frame[2]));
    }
}
