//! The samples that a worker holds.
//!
//! The coordinator says which shards to hold, most urgent first. The worker fetches them one after another, checks
//! their hashes, and stores them by hash. Shards that are no longer wanted stay as long as there is room. So a later
//! job over the same data fetches nothing, and neither does a worker that reconnects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millefeuille_core::control::{JobId, WorkerId};
use millefeuille_core::data::schema::Schema;
use millefeuille_core::data::shard::{Shard, ShardSamples};
use millefeuille_program::backoff::Backoff;
use millefeuille_proto::session::ShardToHold;
use tracing::warn;

use crate::failpoints;
use crate::link::{Samples, Trouble};

/// A transfer fails when no data arrives for this long. There is no limit on its total time.
const STALL: Duration = Duration::from_secs(10);
/// Attempts to fetch a shard before the worker gives up the session.
const ATTEMPTS: u32 = 4;

/// A shard as the coordinator describes it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) shard: Shard,
    pub(crate) samples: u32,
    pub(crate) sha256: String,
}

impl From<ShardToHold> for Wanted {
    fn from(from: ShardToHold) -> Self {
        let ShardToHold { shard, samples, sha256, .. } = from;
        Self { shard, samples, sha256 }
    }
}

/// The connection to fetch samples over, and the ids that a request needs.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) samples: Samples,
    pub(crate) worker: WorkerId,
    pub(crate) job: JobId,
}

/// The shards that are held, and those that are wanted.
pub(crate) struct Shards {
    by_hash: BTreeMap<String, Held>,
    /// Most urgent first.
    wanted: Vec<Wanted>,
    /// Unwanted shards stay while all shards together take at most this many bytes.
    cache_bytes: u64,
    /// Counts the calls of [`Self::want`].
    round: u64,
}

struct Held {
    samples: ShardSamples,
    /// The last round in which the shard was wanted.
    wanted_in: u64,
}

impl Shards {
    /// Starts with no samples.
    pub(crate) fn new(cache_bytes: u64) -> Self {
        Self { by_hash: BTreeMap::new(), wanted: Vec::new(), cache_bytes, round: 0 }
    }

    /// Replaces the list of wanted shards. Returns those that are held already.
    pub(crate) fn want(&mut self, wanted: Vec<Wanted>) -> Vec<Shard> {
        self.round += 1;
        let mut held = Vec::new();
        for Wanted { shard, sha256, .. } in &wanted {
            if let Some(there) = self.by_hash.get_mut(sha256) {
                there.wanted_in = self.round;
                held.push(*shard);
            }
        }
        self.wanted = wanted;
        self.make_room();
        held
    }

    /// The most urgent wanted shard that is not held.
    pub(crate) fn next(&self) -> Option<Wanted> {
        self.wanted.iter().find(|shard| !self.by_hash.contains_key(&shard.sha256)).cloned()
    }

    /// Whether samples of this hash are wanted.
    pub(crate) fn wants(&self, sha256: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.sha256 == sha256)
    }

    /// Stores fetched samples. Returns the wanted shards that have this hash; several shards may have equal samples.
    pub(crate) fn keep(&mut self, sha256: &str, samples: ShardSamples) -> Vec<Shard> {
        let wanted = self.wanted.iter().filter(|wanted| wanted.sha256 == sha256);
        let shards: Vec<_> = wanted.map(|wanted| wanted.shard).collect();
        // The list of wanted shards may have changed during the transfer.
        let wanted_in = if shards.is_empty() { self.round.saturating_sub(1) } else { self.round };
        self.by_hash.insert(sha256.to_string(), Held { samples, wanted_in });
        self.make_room();
        shards
    }

    /// The samples of a wanted shard, if they are held.
    pub(crate) fn get(&self, shard: Shard) -> Option<&ShardSamples> {
        let wanted = self.wanted.iter().find(|wanted| wanted.shard == shard)?;
        self.by_hash.get(&wanted.sha256).map(|held| &held.samples)
    }

    /// How many shards are held.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Drops the unwanted shards, least recently wanted first. Never drops a wanted shard.
    fn make_room(&mut self) {
        while self.bytes() > self.cache_bytes {
            let unwanted = self.by_hash.iter().filter(|(_, held)| held.wanted_in < self.round);
            let Some((oldest, _)) = unwanted.min_by_key(|(_, held)| held.wanted_in) else { return };
            let oldest = oldest.clone();
            self.by_hash.remove(&oldest);
        }
    }

    fn bytes(&self) -> u64 {
        self.by_hash.values().map(|held| held.samples.bytes().len() as u64).sum()
    }
}

/// Fetches a shard and checks its hash; retries failed transfers with a back-off.
///
/// # Errors
/// If the coordinator can't send the shard, or what it sent is not the shard that it described.
pub(crate) async fn fetch(
    source: Source,
    wanted: Wanted,
    schema: Arc<Schema>,
) -> Result<ShardSamples, Trouble> {
    let mut backoff = Backoff::new();
    let mut attempt = 1;
    loop {
        let trouble = match fetch_once(source.clone(), &wanted, Arc::clone(&schema)).await {
            Ok(samples) => return Ok(samples),
            Err(trouble) => trouble,
        };
        let failed = format!("cannot fetch the samples of shard {}: {trouble}", wanted.shard);
        if attempt == ATTEMPTS {
            return Err(Trouble::lost(format!("{failed} (tried {ATTEMPTS} times)")));
        }
        warn!("{failed}; trying again");
        attempt += 1;
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn fetch_once(source: Source, wanted: &Wanted, schema: Arc<Schema>) -> Result<ShardSamples, Trouble> {
    let Source { mut samples, worker, job } = source;
    let mut parts = moves(samples.fetch(worker, job, wanted.shard), 0).await?;
    let expected = (wanted.samples as usize).saturating_mul(schema.sample_bytes());
    let mut bytes = BytesMut::with_capacity(expected);
    while let Some(data) = moves(parts.next(), bytes.len()).await? {
        if data.is_empty() {
            return Err(Trouble::lost("a part without any bytes came"));
        }
        if bytes.len() + data.len() > expected {
            return Err(Trouble::lost(format!("more than its {expected} bytes came")));
        }
        bytes.extend_from_slice(&data);
        failpoints::die_at(failpoints::MID_FETCH);
    }
    check(wanted, bytes.freeze(), schema).await
}

/// The next part of a transfer, or an error if the transfer stalls.
async fn moves<T>(next: impl Future<Output = Result<T, Trouble>>, bytes_so_far: usize) -> Result<T, Trouble> {
    tokio::time::timeout(STALL, next).await.unwrap_or_else(|_| {
        let seconds = STALL.as_secs();
        Err(Trouble::lost(format!("nothing came for {seconds} s after {bytes_so_far} bytes")))
    })
}

async fn check(wanted: &Wanted, bytes: Bytes, schema: Arc<Schema>) -> Result<ShardSamples, Trouble> {
    let Wanted { samples, sha256, .. } = wanted.clone();
    let task = tokio::task::spawn_blocking(move || {
        let samples =
            ShardSamples::decode(bytes, schema, samples).map_err(|error| Trouble::lost(error.to_string()))?;
        match samples.sha256() == sha256 {
            true => Ok(samples),
            false => Err(Trouble::lost("damaged in transit: the hash differs")),
        }
    });
    task.await.map_err(|error| Trouble::lost(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use millefeuille_core::data::schema::{Features, Target};
    use millefeuille_core::data::split::Split;

    use super::*;

    /// A shard of eight equal bytes.
    fn shard(index: u32, value: u8) -> (Wanted, ShardSamples) {
        let schema = Schema::new(Features::image(1, 7), Target::Class { classes: 10 });
        let samples = ShardSamples::decode(vec![value; 8].into(), Arc::new(schema), 1).unwrap();
        let shard = Shard { split: Split::Train, index };
        (Wanted { shard, samples: 1, sha256: samples.sha256() }, samples)
    }

    fn wanted(shards: &[(Wanted, ShardSamples)]) -> Vec<Wanted> {
        shards.iter().map(|(wanted, _)| wanted.clone()).collect()
    }

    fn indices(shards: &[Shard]) -> Vec<u32> {
        shards.iter().map(|shard| shard.index).collect()
    }

    /// Fetches the wanted shards that are not held, and returns their indices.
    fn fetch_all(held: &mut Shards, store: &[(Wanted, ShardSamples)]) -> Vec<u32> {
        let mut fetched = Vec::new();
        while let Some(next) = held.next() {
            let (_, samples) = store.iter().find(|(wanted, _)| wanted.sha256 == next.sha256).unwrap();
            fetched.extend(indices(&held.keep(&next.sha256, samples.clone())));
        }
        fetched
    }

    #[test]
    fn wanted_shards_are_fetched_in_order_and_reported_once_held() {
        let store = [shard(4, 1), shard(0, 2), shard(2, 3)];
        let mut held = Shards::new(1 << 20);

        assert!(held.want(wanted(&store)).is_empty());
        assert!(held.get(store[0].0.shard).is_none());
        assert_eq!(fetch_all(&mut held, &store), [4, 0, 2]);

        assert_eq!(held.get(store[2].0.shard), Some(&store[2].1));
        assert_eq!(indices(&held.want(wanted(&store[..2]))), [4, 0]);
    }

    #[test]
    fn a_later_job_over_the_same_samples_fetches_nothing() {
        let store = [shard(0, 1), shard(1, 2)];
        let mut held = Shards::new(1 << 20);
        held.want(wanted(&store));
        fetch_all(&mut held, &store);

        // The job ends, and another partitions the same samples into other shards.
        held.want(Vec::new());
        assert!(held.get(store[0].0.shard).is_none(), "without a job no shard is known");
        let again = [shard(7, 2), shard(3, 1)];

        assert_eq!(indices(&held.want(wanted(&again))), [7, 3]);
        assert!(held.next().is_none());
    }

    #[test]
    fn the_least_recently_wanted_shard_is_dropped_first_and_wanted_ones_stay() {
        // Given room for three shards of eight bytes.
        let store: Vec<_> = (0..6).map(|index| shard(index, index as u8)).collect();
        let mut held = Shards::new(24);
        for round in [&store[..1], &store[1..2], &store[2..3]] {
            held.want(wanted(round));
            fetch_all(&mut held, round);
        }
        held.want(wanted(&store[..1]));

        // When another shard arrives, the least recently wanted one is dropped.
        held.want(wanted(&store[3..4]));
        fetch_all(&mut held, &store[3..4]);
        let asked = [store[0].clone(), store[1].clone(), store[2].clone()];
        assert_eq!(indices(&held.want(wanted(&asked))), [0, 2]);
        assert_eq!(fetch_all(&mut held, &asked), [1]);

        // When more is wanted than fits, all wanted shards are held, and nothing else.
        held.want(wanted(&store));
        assert_eq!(fetch_all(&mut held, &store), [3, 4, 5]);
        assert_eq!(held.len(), 6);
        held.want(wanted(&store[5..]));
        assert_eq!(held.len(), 3);
        assert!(held.get(store[5].0.shard).is_some());
    }

    #[test]
    fn equal_samples_are_held_once_and_reported_for_each_shard() {
        let store = [shard(0, 9), shard(1, 9), shard(2, 8)];
        let mut held = Shards::new(1 << 20);
        held.want(wanted(&store));

        assert_eq!(fetch_all(&mut held, &store), [0, 1, 2]);
        assert_eq!(held.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_transfer_fails_with_the_number_of_received_bytes() {
        let trouble = moves(std::future::pending::<Result<(), Trouble>>(), 131_072).await.unwrap_err();
        assert_eq!(trouble.to_string(), "nothing came for 10 s after 131072 bytes");

        let slow = async {
            tokio::time::sleep(STALL - Duration::from_millis(1)).await;
            Ok(7)
        };
        assert_eq!(moves(slow, 0).await.unwrap(), 7, "data arrives within the limit");
    }

    #[test]
    fn a_late_shard_is_kept_if_it_fits_into_the_cache() {
        let (late, now) = (shard(0, 1), shard(1, 2));
        for (cache_bytes, kept) in [(16, true), (8, false)] {
            let mut held = Shards::new(cache_bytes);
            held.want(vec![late.0.clone()]);
            held.want(vec![now.0.clone()]);
            fetch_all(&mut held, std::slice::from_ref(&now));

            assert!(held.keep(&late.0.sha256, late.1.clone()).is_empty(), "it is no longer wanted");

            assert_eq!(
                held.want(vec![late.0.clone()]).len(),
                usize::from(kept),
                "a cache of {cache_bytes} bytes"
            );
        }
    }
}
