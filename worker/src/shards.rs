//! The samples that a worker holds.
//!
//! The coordinator says which shards to hold, the most urgent first. They are fetched one after another, checked by
//! their hash, and kept by it, so that a later job over the same data fetches nothing.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use millefeuille_core::data::shard::{Shard, ShardSamples};
use millefeuille_proto::v1;
use millefeuille_proto::v1::worker_client::WorkerClient;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::transport::Channel;

/// A shard as the coordinator describes it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) shard: Shard,
    pub(crate) samples: u32,
    pub(crate) sha256: String,
}

/// What is held, and what is wanted.
#[derive(Default)]
pub(crate) struct Shards {
    by_hash: BTreeMap<String, ShardSamples>,
    wanted: Vec<Wanted>,
}

impl Shards {
    /// Replaces what is wanted, and forgets what is not. What was there before is reported as held at once.
    pub(crate) fn want(&mut self, wanted: Vec<Wanted>) -> Vec<Shard> {
        self.by_hash.retain(|hash, _| wanted.iter().any(|shard| &shard.sha256 == hash));
        let held = wanted.iter().filter(|shard| self.by_hash.contains_key(&shard.sha256));
        let held = held.map(|wanted| wanted.shard).collect();
        self.wanted = wanted;
        held
    }

    /// The most urgent shard that is not held.
    pub(crate) fn next(&self) -> Option<Wanted> {
        self.wanted.iter().find(|shard| !self.by_hash.contains_key(&shard.sha256)).cloned()
    }

    /// Keeps a shard that was fetched.
    pub(crate) fn keep(&mut self, wanted: &Wanted, samples: ShardSamples) {
        self.by_hash.insert(wanted.sha256.clone(), samples);
    }

    /// The samples of a shard, if they are held.
    pub(crate) fn get(&self, shard: Shard) -> Option<&ShardSamples> {
        let wanted = self.wanted.iter().find(|wanted| wanted.shard == shard)?;
        self.by_hash.get(&wanted.sha256)
    }

    /// How many shards are held.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }
}

/// Fetches a shard and checks it.
///
/// # Errors
/// If the coordinator can't send it, or what it sent is not the shard that it described.
pub(crate) async fn fetch(
    mut client: WorkerClient<Channel>,
    request: v1::FetchShardRequest,
    wanted: Wanted,
    width: usize,
) -> Result<(Wanted, ShardSamples), Status> {
    let mut stream = client.fetch_shard(request).await?.into_inner();
    let expected = wanted.samples as usize * (width + 1);
    let mut bytes = BytesMut::with_capacity(expected);
    while let Some(part) = stream.next().await {
        let part = part?.data;
        if bytes.len() + part.len() > expected {
            return Err(Status::data_loss(format!("shard {} has more than {expected} bytes", wanted.shard)));
        }
        bytes.extend_from_slice(&part);
    }
    check(wanted, bytes.freeze(), width).await
}

async fn check(wanted: Wanted, bytes: Bytes, width: usize) -> Result<(Wanted, ShardSamples), Status> {
    let task = tokio::task::spawn_blocking(move || {
        let samples = ShardSamples::decode(bytes, width, wanted.samples)
            .map_err(|error| Status::data_loss(format!("shard {}: {error}", wanted.shard)))?;
        if samples.sha256() == wanted.sha256 {
            Ok((wanted, samples))
        } else {
            Err(Status::data_loss(format!("shard {} arrived damaged: its hash is another", wanted.shard)))
        }
    });
    task.await.map_err(|error| Status::internal(error.to_string()))?
}
