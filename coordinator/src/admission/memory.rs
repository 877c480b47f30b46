//! What all connections together hold in memory: bytes of messages that have come and are not read yet.
//!
//! HTTP/2 gives each connection a window, and gRPC collects each message until it is complete; with thousands of
//! connections and calls, the product of such limits is no limit. So bytes are counted where they come in, by the
//! [`Frames`] of a connection, and where a call has read a whole message, by the [`MeterLayer`]. While all connections
//! together hold more than [`ALL`], a connection is read only if it holds less than [`EACH`], which is more than any
//! message has. So a connection that keeps its share small is always read, and only those that flood wait. A connection that is not read for long answers no
//! ping, and is closed for that.
//!
//! A call that ends early leaves bytes that are counted until its connection ends. That can only hold up the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::Request;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use millefeuille_proto::wire;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::roles::Peer;

/// Bytes that all connections may hold before those that hold much are not read.
const ALL: u64 = 64 << 20;
/// Bytes that each connection may hold all the same.
const EACH: u64 = 256 << 10;
const _: () = assert!(EACH > wire::REQUEST_BYTES as u64 + 5, "a message can become complete");
/// Time until a connection that is not read is looked at again.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// What all connections hold.
#[derive(Debug, Default)]
pub struct Memory {
    held: AtomicU64,
}

/// What one connection holds.
#[derive(Debug)]
pub struct Meter {
    memory: Arc<Memory>,
    held: AtomicU64,
}

impl Meter {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, held: AtomicU64::new(0) }
    }

    /// Whether the connection may be read now.
    pub(super) fn may_read(&self) -> bool {
        self.held.load(Ordering::Relaxed) < EACH || self.memory.held.load(Ordering::Relaxed) < ALL
    }

    fn add(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.memory.held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: u64) {
        // Padding of frames is never read by a call, and a caller that sends some has it counted.
        let held = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
        let released = held.map_or(0, |held| held.min(bytes));
        self.memory.held.fetch_sub(released, Ordering::Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

/// Finds the bytes of messages in what a connection brings
/// ([RFC 9113, 4.1](https://www.rfc-editor.org/rfc/rfc9113#section-4.1)).
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; Self::HEADER],
    /// Bytes of the header that have come.
    known: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Frames {
    const HEADER: usize = 9;
    const DATA: u8 = 0;

    /// Counts the payload of DATA frames in the next bytes.
    pub(super) fn count(&mut self, mut bytes: &[u8], meter: &Meter) {
        let mut data = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let payload = self.left.min(bytes.len());
                data += if self.header[3] == Self::DATA { payload } else { 0 };
                self.left -= payload;
                bytes.advance(payload);
                continue;
            }
            let header = (Self::HEADER - self.known).min(bytes.len());
            self.header[self.known..self.known + header].copy_from_slice(&bytes[..header]);
            self.known += header;
            bytes.advance(header);
            if self.known == Self::HEADER {
                let [a, b, c, ..] = self.header;
                (self.known, self.left) = (0, u32::from_be_bytes([0, a, b, c]) as usize);
            }
        }
        if data > 0 {
            meter.add(data as u64);
        }
    }
}

/// Counts what calls have read.
#[derive(Clone, Copy, Debug)]
pub struct MeterLayer;

impl<S> Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered(inner)
    }
}

/// A service whose requests are [`MeteredBody`]s.
#[derive(Clone, Debug)]
pub struct Metered<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Metered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let meter = request.extensions().get::<Peer>().map(|peer| Arc::clone(&peer.meter));
        self.0.call(match meter {
            Some(meter) => {
                request.map(|body| Body::new(MeteredBody { body, meter, messages: Messages::default() }))
            }
            None => request,
        })
    }
}

/// The body of a request. Whoever asks for more of it has read the messages that are complete.
struct MeteredBody {
    body: Body,
    meter: Arc<Meter>,
    messages: Messages,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let read = self.messages.take_read();
        self.meter.release(read);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.messages.come(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        self.meter.release(self.messages.take_all());
    }
}

/// The messages of a call, as gRPC delimits them: a byte of flags, four of length, and so many.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; Self::PREFIX],
    /// Bytes of the prefix that have come.
    known: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Bytes of complete messages that were not counted as read.
    complete: u64,
    /// Bytes of the message that is not complete, its prefix included.
    partial: u64,
}

impl Messages {
    const PREFIX: usize = 5;

    fn come(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let more = if self.known < Self::PREFIX {
                let more = (Self::PREFIX - self.known).min(bytes.len());
                self.prefix[self.known..self.known + more].copy_from_slice(&bytes[..more]);
                self.known += more;
                if self.known == Self::PREFIX {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                }
                more
            } else {
                let more = self.left.min(bytes.len());
                self.left -= more;
                more
            };
            bytes.advance(more);
            self.partial += more as u64;
            if self.known == Self::PREFIX && self.left == 0 {
                self.complete += std::mem::take(&mut self.partial);
                self.known = 0;
            }
        }
    }

    /// Bytes of complete messages since the last call.
    fn take_read(&mut self) -> u64 {
        std::mem::take(&mut self.complete)
    }

    /// All bytes since then.
    fn take_all(&mut self) -> u64 {
        self.take_read() + std::mem::take(&mut self.partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> (Arc<Memory>, Meter) {
        let memory = Arc::new(Memory::default());
        (Arc::clone(&memory), Meter::new(memory))
    }

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &vec![7; payload]].concat()
    }

    #[test]
    fn data_is_counted_however_it_is_cut() {
        let bytes = [frame(0, 300), frame(1, 40), frame(0, 0), frame(0, 5), frame(8, 4)].concat();
        for cut in [1, 2, 8, 9, 10, 100, bytes.len()] {
            let ((memory, meter), mut frames) = (meter(), Frames::default());
            bytes.chunks(cut).for_each(|part| frames.count(part, &meter));
            assert_eq!(memory.held.load(Ordering::Relaxed), 305, "cut into {cut}");
            drop(meter);
            assert_eq!(memory.held.load(Ordering::Relaxed), 0, "a connection that ends holds nothing");
        }
    }

    #[test]
    fn a_message_is_read_once_it_is_complete() {
        let message = |len: usize| [&[0][..], &(len as u32).to_be_bytes(), &vec![1; len]].concat();
        let bytes = [message(10), message(0), message(100)].concat();
        for cut in 1..=bytes.len() {
            let mut messages = Messages::default();
            bytes[..120].chunks(cut).for_each(|part| messages.come(part));
            assert_eq!((messages.complete, messages.partial), (20, 100), "cut into {cut}");
            messages.come(&bytes[120..]);
            assert_eq!((messages.take_read(), messages.take_all()), (125, 0));
        }
    }

    #[test]
    fn who_holds_much_waits_while_all_hold_too_much() {
        let (memory, greedy) = meter();
        let modest = Meter::new(Arc::clone(&memory));
        greedy.add(ALL - 1);
        modest.add(EACH / 2);
        assert!(!greedy.may_read() && modest.may_read());
        modest.release(EACH / 2);
        assert!(greedy.may_read(), "all together hold less again");
        greedy.add(10);
        drop(greedy);
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }
}
