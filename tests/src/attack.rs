//! Attack client: raw HTTP/2 frames that no normal client sends.
//!
//! Frames are encoded by hand ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use millefeuille_proto::tls::Identity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A coordinator to attack.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: String,
    /// The directory of a certificate that it accepts; none without TLS.
    pub tls: Option<PathBuf>,
}

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How the coordinator handles a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It closed the connection.
    Closed,
    /// It read everything, and acknowledged the last ping.
    Handled,
}

/// The payload of the last ping of a flood.
const LAST: &[u8] = b"the last";

impl Target {
    /// Opens a socket.
    ///
    /// # Errors
    /// If the connection is refused.
    pub async fn socket(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&self.address).await
    }

    /// Opens a connection for HTTP/2, with TLS if so.
    ///
    /// # Errors
    /// If the coordinator refuses.
    ///
    /// # Panics
    /// If the certificate can't be used.
    pub async fn connection(&self) -> io::Result<Box<dyn Stream>> {
        let socket = self.socket().await?;
        let Some(directory) = &self.tls else { return Ok(Box::new(socket)) };
        let config = Identity::read(directory).and_then(|identity| identity.client_config());
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, socket).await?))
    }

    /// Opens a connection, begins HTTP/2, and sends `bytes` `times` times, while it reads all replies.
    ///
    /// # Errors
    /// If the connection fails.
    ///
    /// # Panics
    /// If a connection does not have so many streams.
    pub async fn flood(&self, times: usize, bytes: impl Fn(u32) -> Vec<u8>) -> io::Result<Outcome> {
        let stream = self.connection().await?;
        let (reader, mut writer) = tokio::io::split(stream);
        writer.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        let reader_task = tokio::spawn(receives(reader, frame(PING, ACK, 0, LAST)));
        for index in 0..times {
            let stream = u32::try_from(index).expect("not so many") * 2 + 1;
            if writer.write_all(&bytes(stream)).await.is_err() {
                break;
            }
        }
        // Frames are handled in order. A closed connection accepts none.
        let _ = writer.write_all(&frame(PING, 0, 0, LAST)).await;
        let handled = reader_task.await.expect("reading does not panic");
        Ok(if handled { Outcome::Handled } else { Outcome::Closed })
    }
}

/// Reads until these bytes or the end. Returns whether the bytes were received.
async fn receives(mut reader: impl AsyncRead + Unpin, wanted: Vec<u8>) -> bool {
    let (mut buffer, mut received) = (vec![0; 1 << 16], Vec::new());
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..count]);
        if received.windows(wanted.len()).any(|window| window == wanted) {
            return true;
        }
        // A part of them may have been received.
        received.drain(..received.len().saturating_sub(wanted.len()));
    }
    false
}

/// The client's connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The frame of message data.
pub const DATA: u8 = 0;
/// The frame of headers, which begins a call.
pub const HEADERS: u8 = 1;
/// The frame that resets a call.
pub const RST_STREAM: u8 = 3;
/// The frame that changes settings.
pub const SETTINGS: u8 = 4;
/// The frame of a ping.
pub const PING: u8 = 6;
/// The frame that continues headers.
pub const CONTINUATION: u8 = 9;
/// The flag of the acknowledgement of a ping.
const ACK: u8 = 1;
/// The flag of complete headers.
pub const END_HEADERS: u8 = 4;

/// An HTTP/2 frame.
///
/// # Panics
/// If the payload is longer than a frame can be.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a gRPC call, in HPACK without its tables
/// ([RFC 7541, 6.2.2](https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2)).
pub fn call(path: &str) -> Vec<u8> {
    let mut headers = vec![/* :method POST */ 0x83, /* :scheme http */ 0x86];
    let mut literal = |name: &[u8], value: &str| {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).expect("a short value"));
        headers.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    headers
}
