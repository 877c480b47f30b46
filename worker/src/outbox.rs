//! Outgoing messages of a session.
//!
//! The session's task never waits for the coordinator to read: its messages are queued here, and move to the
//! connection as that accepts them. What the coordinator asks for bounds the queue, as long as it reads the answers; one that
//! does not read loses the session ([`Outbox::is_overfull`]). Large sums are taken from the slots only while the queue is empty.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use millefeuille_proto::session::FromWorker;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::failpoints;

/// Capacity of the connection's queue, in messages. When it is full, slots wait.
pub(crate) const CONNECTION: usize = 16;

/// More messages than this wait only if the coordinator keeps sending requests without reading the replies. A `Hold` has an answer for
/// each of its shards, three splits of 1,024 at most.
const MOST: usize = 16 * 1024;

/// A message, and the bulk data that follows it in chunks.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: FromWorker,
    /// The chunks.
    pub(crate) bulk: Vec<Bytes>,
}

/// Messages in the order in which they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Outgoing>,
}

impl Outbox {
    pub(crate) fn say(&mut self, message: FromWorker) {
        self.waiting.push_back(Outgoing { message, bulk: Vec::new() });
    }

    pub(crate) fn say_with(&mut self, message: FromWorker, bulk: Vec<Bytes>) {
        self.waiting.push_back(Outgoing { message, bulk });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the coordinator has stopped reading the answers that it asks for.
    pub(crate) fn is_overfull(&self) -> bool {
        self.waiting.len() > MOST
    }

    /// Moves the first message to the connection.
    pub(crate) fn hand_over(&mut self, permit: mpsc::Permit<'_, Outgoing>) {
        let Some(outgoing) = self.waiting.pop_front() else { return };
        if matches!(outgoing.message, FromWorker::Result(_)) {
            failpoints::die_at(failpoints::BEFORE_SEND);
        }
        permit.send(outgoing);
    }
}

/// A channel from a session's task to the wire.
pub(crate) fn channel() -> (mpsc::Sender<Outgoing>, impl Stream<Item = FromWorker>) {
    let (sender, outgoing) = mpsc::channel(CONNECTION);
    (sender, ReceiverStream::new(outgoing).flat_map(expand))
}

/// A message as it is sent: the header, then its bulk data in chunks.
fn expand(outgoing: Outgoing) -> impl Stream<Item = FromWorker> {
    let is_result = matches!(outgoing.message, FromWorker::Result(_));
    let middle = is_result.then_some(1 + outgoing.bulk.len() / 2);
    let bulk = outgoing.bulk.into_iter().map(FromWorker::Chunk);
    let messages = std::iter::once(outgoing.message).chain(bulk).enumerate();
    let message = move |(place, message)| async move {
        if Some(place) == middle {
            failpoints::die_after_sending(failpoints::MID_MESSAGE).await;
        }
        message
    };
    let after = async move {
        if is_result {
            failpoints::die_after_sending(failpoints::AFTER_SEND).await;
        }
        None
    };
    stream::iter(messages).then(message).chain(stream::once(after).filter_map(std::future::ready))
}
