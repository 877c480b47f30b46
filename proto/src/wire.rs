//! Bulk data is sent as a series of chunks after its header message.
//!
//! Chunks of 128 KiB bound every message whatever the model's size, and let the receiver process the first bytes
//! while the last are being sent. The HTTP/2 settings here were chosen by measurement: with the defaults (64 KiB
//! windows, 16 KiB frames) a step's transfers take about twice as long; an adaptive window is slower than either.
//!
//! A host that vanishes closes no connection. So both sides ping a silent peer, and disconnect if no reply comes. On
//! a connection with bulk data, a ping waits behind earlier data, which takes long on a slow line. There the limit is
//! generous; heartbeats, on their own connection, detect a death sooner.

use std::time::Duration;

use bytes::Bytes;
use millefeuille_core::learn::sum::SECTION;
use tonic::transport::{Endpoint, Server};

use crate::buffer::Buffer;
use crate::convert::{Malformed, malformed};

/// Bytes of bulk data in one message: a section of a gradient.
pub const CHUNK_BYTES: usize = SECTION * size_of::<f32>();

/// The largest message that a coordinator may send. Bulk data is chunked; nothing else is large.
pub const MESSAGE_BYTES: usize = 1024 * 1024;

/// The largest message that a coordinator accepts: a chunk or a job file, with room to spare. A partly received
/// message is held in memory.
pub const REQUEST_BYTES: usize = CHUNK_BYTES + 32 * 1024;

/// Concurrent calls on a connection: a worker's session, its shards, its heartbeats, and a person's watches.
const CALLS: u32 = 32;
/// Time limit from the start of a call to the start of its response. Streams may last longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of a call's metadata. Ours have almost none; other clients send tokens and traces.
const METADATA_BYTES: u32 = 16 * 1024;

const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Maximum size of a frame, which is buffered until it is complete. A chunk fits.
const FRAME_BYTES: u32 = 256 << 10;

/// A peer that is silent for this long is pinged.
const PING_AFTER: Duration = Duration::from_secs(5);
/// A peer that does not reply to a ping for this long is gone.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// The same limit where bulk data may delay the reply.
const BULK_PONG_WITHIN: Duration = Duration::from_secs(60);
/// TCP keepalive, for the layers below HTTP/2, and for routers that drop idle connections.
pub(crate) const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// A server with the project's HTTP/2 settings.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(CALLS)
        .timeout(CALL_TIMEOUT)
        .http2_max_header_list_size(Some(METADATA_BYTES))
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(BULK_PONG_WITHIN))
        .tcp_nodelay(true)
}

/// The same settings for a client's connection. The peer is considered gone after 15 s of silence.
pub fn endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .tcp_nodelay(true)
}

/// The same for a connection that carries bulk data in both directions.
pub fn bulk_endpoint(bulk: Endpoint) -> Endpoint {
    endpoint(bulk).keep_alive_timeout(BULK_PONG_WITHIN)
}

/// Cuts bulk data into chunks without copying it.
pub fn chunks(data: Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..data.len()).step_by(CHUNK_BYTES);
    starts.map(move |start| data.slice(start..data.len().min(start + CHUNK_BYTES)))
}

/// Reassembles chunks in a buffer of the announced length.
#[derive(Debug)]
pub struct Assembly {
    values: Buffer,
    filled_bytes: usize,
}

impl Assembly {
    /// Prepares to fill `values` with little-endian `f32`.
    pub fn new(values: Buffer) -> Self {
        Self { values, filled_bytes: 0 }
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// If more bytes arrive than were announced.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Malformed> {
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut self.values);
        let total = buffer.len();
        let place = buffer.get_mut(self.filled_bytes..self.filled_bytes + chunk.len());
        let Some(place) = place else {
            return Err(malformed(format!("more than the {total} bytes announced")));
        };
        place.copy_from_slice(chunk);
        self.filled_bytes += chunk.len();
        Ok(())
    }

    /// Whether all bytes have arrived.
    pub fn is_complete(&self) -> bool {
        self.filled_bytes == self.values.len() * size_of::<f32>()
    }

    /// The values, once they are complete.
    pub fn into_values(self) -> Buffer {
        debug_assert!(self.is_complete(), "an assembly is taken only when it is complete");
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;

    #[test]
    fn chunks_come_together_again() {
        let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let data = Bytes::copy_from_slice(bytemuck::cast_slice(&values));
        let mut assembly = Assembly::new(Pool::default().take(values.len()));
        for chunk in chunks(data) {
            assert!(chunk.len() <= CHUNK_BYTES && !assembly.is_complete());
            assembly.push(&chunk).unwrap();
        }
        assert!(assembly.is_complete());
        assert_eq!(assembly.into_values()[..], values);
    }

    #[test]
    fn too_many_bytes_are_an_error() {
        let mut assembly = Assembly::new(Pool::default().take(2));
        assembly.push(&[0; 4]).unwrap();
        let error = assembly.push(&[0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "more than the 8 bytes announced");
        assert!(!assembly.is_complete());
    }
}
