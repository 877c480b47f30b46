//! Shards: the units in which samples are transferred, checked and stored.
//!
//! Sample i of a split belongs to shard i mod S. The number of shards is part of the job; the number of workers
//! is not.
//!
//! A shard is one contiguous byte string, stored everywhere under its SHA-256:
//!
//! ```text
//! [len] features, one sample after another, ascending; each laid out by the schema
//! [len] targets, in the same order
//! [len] weights, in the same order, if the schema has weights
//! ```
//!
//! [`ShardStore`] is the coordinator's copy of all shards. It partitions the data set from its end and frees the
//! data set's memory on the way, so that the samples are never in memory twice.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::dataset::{DataFile, Dataset, Samples};
use super::inputs::Inputs;
use super::schema::{Schema, Target};
use super::split::{Sizes, Split};

/// How many samples are partitioned before their memory is freed.
const PARTITIONED_AT_ONCE: usize = 4096;

/// Identifies a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// The split.
    pub split: Split,
    /// The index among the split's shards, from 0.
    pub index: u32,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.split, self.index)
    }
}

/// How many of `samples` samples belong to shard `index` of `shards`.
pub fn shard_len(samples: u32, shards: u32, index: u32) -> u32 {
    samples.saturating_sub(index).div_ceil(shards)
}

/// The samples of a shard. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSamples {
    bytes: Bytes,
    schema: Arc<Schema>,
    len: u32,
}

/// Why bytes are not a valid shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShardError {
    /// The number of bytes is wrong.
    #[error("{found} bytes, but {len} samples of {each} bytes, target included, are {expected}")]
    Length {
        /// How many bytes there are.
        found: usize,
        /// How many there should be.
        expected: u64,
        /// The expected number of samples.
        len: u32,
        /// The bytes of a sample.
        each: usize,
    },
    /// A label is not a class.
    #[error("the label of sample {index} is {value} (there are {classes} classes, 0 to {})", classes - 1)]
    Label {
        /// Which sample of the shard, from 0.
        index: usize,
        /// The label's value.
        value: u32,
        /// How many classes there are.
        classes: u32,
    },
}

impl ShardSamples {
    /// Interprets `bytes` as `len` samples of a schema.
    ///
    /// # Errors
    ///
    /// If the number of bytes is wrong or a label is not a class. Only the [hash](Self::sha256) can show that
    /// they are the *right* samples.
    pub fn decode(bytes: Bytes, schema: Arc<Schema>, len: u32) -> Result<Self, ShardError> {
        let each = schema.sample_bytes();
        let expected = u64::from(len).saturating_mul(each as u64);
        if bytes.len() as u64 != expected {
            return Err(ShardError::Length { found: bytes.len(), expected, len, each });
        }
        let samples = Self { bytes, schema, len };
        let target = samples.schema.target;
        match (target, target.first_unknown(samples.targets())) {
            (Target::Class { classes }, Some((index, value))) => {
                Err(ShardError::Label { index, value, classes })
            }
            _ => Ok(samples),
        }
    }

    /// The layout of each sample.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many samples there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the shard has no samples, as in a split with fewer samples than shards.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All bytes, as they are transferred.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// `[len]` features, as they are stored.
    pub fn features(&self) -> &[u8] {
        &self.bytes[..self.len as usize * self.schema.features.bytes()]
    }

    /// `[len]` targets, as they are stored.
    pub fn targets(&self) -> &[u8] {
        &self.bytes[self.len as usize * self.schema.features.bytes()..self.weights_begin()]
    }

    /// `[len]` weights, as they are stored; empty if the schema has none.
    pub fn weights(&self) -> &[u8] {
        &self.bytes[self.weights_begin()..]
    }

    /// The weights, decoded.
    pub(crate) fn all_weights(&self) -> impl Iterator<Item = f64> {
        self.weights().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into())
    }

    fn weights_begin(&self) -> usize {
        self.len as usize * (self.schema.sample_bytes() - self.schema.weight_bytes())
    }

    /// The features of some of the shard's samples, contiguous.
    ///
    /// # Panics
    ///
    /// If there are no such samples.
    pub fn features_of(&self, samples: Range<u32>) -> &[u8] {
        part(self.features(), self.schema.features.bytes(), samples)
    }

    /// The targets of some of the shard's samples, contiguous.
    ///
    /// # Panics
    ///
    /// If there are no such samples.
    pub fn targets_of(&self, samples: Range<u32>) -> &[u8] {
        part(self.targets(), self.schema.target.bytes(), samples)
    }

    /// The weights of some of the shard's samples, contiguous; empty if the schema has none.
    ///
    /// # Panics
    ///
    /// If there are no such samples.
    pub fn weights_of(&self, samples: Range<u32>) -> &[u8] {
        part(self.weights(), self.schema.weight_bytes(), samples)
    }

    /// SHA-256 of [`bytes`](Self::bytes), in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

fn part(bytes: &[u8], each: usize, samples: Range<u32>) -> &[u8] {
    &bytes[samples.start as usize * each..samples.end as usize * each]
}

/// A shard in the store, with its hash.
#[derive(Clone, Debug)]
pub struct StoredShard {
    /// The samples.
    pub samples: ShardSamples,
    /// Their SHA-256, in hex.
    pub sha256: String,
}

/// All shards of all splits.
#[derive(Clone, Debug)]
pub struct ShardStore {
    shards: BTreeMap<Shard, StoredShard>,
    per_split: u32,
    sizes: Sizes,
    schema: Arc<Schema>,
    inputs: Inputs,
    files: Vec<DataFile>,
}

impl ShardStore {
    /// Partitions `dataset` into `shards` shards per split.
    ///
    /// # Panics
    ///
    /// If `shards` is 0.
    pub fn new(dataset: Dataset, shards: u32) -> Self {
        assert!(shards > 0, "a job has at least one shard");
        let Dataset { schema, train, test, sizes, inputs, files } = dataset;
        let schema = Arc::new(schema);
        let (mut partitioned, tested) = thread::scope(|scope| {
            let test = scope.spawn(|| partition(test, &schema, &[(Split::Test, sizes.test)], shards));
            let cuts = [(Split::Train, sizes.train), (Split::Validation, sizes.validation)];
            (partition(train, &schema, &cuts, shards), test.join().expect("partitioning does not fail"))
        });
        partitioned.extend(tested);
        Self { shards: hashed(partitioned), per_split: shards, sizes, schema, inputs, files }
    }

    /// The shard; `None` if the job does not have it.
    pub fn get(&self, shard: Shard) -> Option<&StoredShard> {
        self.shards.get(&shard)
    }

    /// All shards, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Shard, &StoredShard)> {
        self.shards.iter().map(|(&shard, stored)| (shard, stored))
    }

    /// The stored features and target of sample `index` of `split`, from 0 in file order.
    pub fn sample(&self, split: Split, index: u32) -> Option<(&[u8], &[u8])> {
        let (shard, k) = (index % self.per_split, index / self.per_split);
        let samples = &self.get(Shard { split, index: shard })?.samples;
        (k < samples.len()).then(|| (samples.features_of(k..k + 1), samples.targets_of(k..k + 1)))
    }

    /// How many samples each split has.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many shards each split has.
    pub fn shards(&self) -> u32 {
        self.per_split
    }

    /// The layout of each sample.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// What the model takes and answers, in the words of the data.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The files that the data comes from.
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// SHA-256, in hex, of each of [`files`](Self::files).
    pub fn file_hashes(&self) -> Vec<String> {
        self.files.iter().map(|file| file.sha256.clone()).collect()
    }
}

/// Partitions `samples`, which are the named splits one after another, into `shards` shards each.
fn partition(
    mut samples: Samples,
    schema: &Arc<Schema>,
    splits: &[(Split, u32)],
    shards: u32,
) -> Vec<(Shard, ShardSamples)> {
    let mut partitioned = Vec::new();
    for &(split, len) in splits.iter().rev() {
        let mut partitions = Partitions::new(schema, len, shards);
        while partitions.open > 0 {
            partitions.take_last(&mut samples);
        }
        partitioned.extend(partitions.close(split));
    }
    partitioned
}

/// The shards of one split while they are partitioned, from its last sample to its first.
struct Partitions<'a> {
    schema: &'a Arc<Schema>,
    /// How many samples have not been partitioned yet.
    open: usize,
    lens: Vec<u32>,
    buffers: Vec<Vec<u8>>,
}

impl<'a> Partitions<'a> {
    fn new(schema: &'a Arc<Schema>, len: u32, shards: u32) -> Self {
        let lens: Vec<u32> = (0..shards).map(|index| shard_len(len, shards, index)).collect();
        let buffers = lens.iter().map(|&len| vec![0; len as usize * schema.sample_bytes()]).collect();
        Self { schema, open: len as usize, lens, buffers }
    }

    /// Moves the last samples of `source` into the shards, and frees their memory.
    fn take_last(&mut self, source: &mut Samples) {
        let [row, target] = [self.schema.features.bytes(), self.schema.target.bytes()];
        let count = self.open.min(PARTITIONED_AT_ONCE);
        let first = source.len as usize - count;
        self.open -= count;
        let rows = source.features[first * row..].chunks_exact(row);
        let targets = source.targets[first * target..].chunks_exact(target);
        for (sample, (row, target)) in (self.open..).zip(rows.zip(targets)) {
            self.put(sample, row, target);
        }
        if self.schema.weighted {
            let weights = source.weights.drain(first..);
            (self.open..).zip(weights).for_each(|(sample, weight)| self.put_weight(sample, weight));
        }
        source.len = first as u32;
        source.targets.truncate(first * target);
        source.features.truncate(first * row);
        source.features.shrink_to_fit();
    }

    fn put(&mut self, sample: usize, row: &[u8], target: &[u8]) {
        let (index, k) = (sample % self.buffers.len(), sample / self.buffers.len());
        let targets = self.lens[index] as usize * row.len();
        self.buffers[index][k * row.len()..][..row.len()].copy_from_slice(row);
        self.buffers[index][targets + k * target.len()..][..target.len()].copy_from_slice(target);
    }

    fn put_weight(&mut self, sample: usize, weight: f32) {
        let (index, k) = (sample % self.buffers.len(), sample / self.buffers.len());
        let (buffer, weights) = (&mut self.buffers[index], self.lens[index] as usize * size_of::<f32>());
        let place = buffer.len() - weights + k * size_of::<f32>();
        buffer[place..][..size_of::<f32>()].copy_from_slice(&weight.to_le_bytes());
    }

    fn close(self, split: Split) -> impl Iterator<Item = (Shard, ShardSamples)> {
        let Self { schema, lens, buffers, .. } = self;
        (0..).zip(lens.into_iter().zip(buffers)).map(move |(index, (len, buffer))| {
            (Shard { split, index }, ShardSamples { bytes: buffer.into(), schema: Arc::clone(schema), len })
        })
    }
}

/// Hashes the shards, half of them on a second thread.
fn hashed(mut partitioned: Vec<(Shard, ShardSamples)>) -> BTreeMap<Shard, StoredShard> {
    let store = |(shard, samples): (Shard, ShardSamples)| {
        let sha256 = samples.sha256();
        (shard, StoredShard { samples, sha256 })
    };
    partitioned.sort_by_key(|(shard, _)| *shard);
    let (odd, even): (Vec<_>, Vec<_>) = partitioned.into_iter().partition(|(shard, _)| shard.index % 2 == 1);
    thread::scope(|scope| {
        let odd = scope.spawn(move || odd.into_iter().map(store).collect::<Vec<_>>());
        let mut stored: BTreeMap<_, _> = even.into_iter().map(store).collect();
        stored.extend(odd.join().expect("hashing does not fail"));
        stored
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::schema::{Element, Features};

    const WIDTH: usize = 6;

    fn schema() -> Schema {
        Schema::new(Features::image(2, 3), Target::Class { classes: 10 })
    }

    fn samples(len: u32, salt: u32) -> Samples {
        let features = (0..len * WIDTH as u32).map(|i| (i * 31 + salt) as u8).collect();
        Samples {
            len,
            features,
            targets: (0..len).map(|i| ((i + salt) % 10) as u8).collect(),
            weights: Vec::new(),
        }
    }

    fn dataset(train: u32, test: u32, validation_split: f64) -> Dataset {
        Dataset {
            schema: schema(),
            train: samples(train, 1),
            test: samples(test, 2),
            sizes: Sizes::new(train, test, validation_split),
            inputs: Inputs::default(),
            files: Vec::new(),
        }
    }

    /// The layout, spelt out: rows of samples `index`, `index + shards` … from `first`, then their labels.
    fn encoded(samples: &Samples, first: u32, end: u32, shards: u32, index: u32) -> Vec<u8> {
        let members = || (first + index..end).step_by(shards as usize).map(|i| i as usize);
        let rows = members().flat_map(|i| &samples.features[i * WIDTH..][..WIDTH]);
        rows.copied().chain(members().map(|i| samples.targets[i])).collect()
    }

    #[test]
    fn every_shard_has_its_samples_in_the_documented_layout() {
        for (train, test, validation_split, shards) in
            [(10_007, 4_999, 0.2, 8), (5, 3, 0.5, 7), (4_096, 1, 0.0, 1), (100, 8_192, 0.99, 3)]
        {
            let data = dataset(train, test, validation_split);
            let store = ShardStore::new(data.clone(), shards);
            let cut = store.sizes().train;
            for (split, file, first, end) in [
                (Split::Train, &data.train, 0, cut),
                (Split::Validation, &data.train, cut, train),
                (Split::Test, &data.test, 0, test),
            ] {
                for index in 0..shards {
                    let stored = store.get(Shard { split, index }).unwrap();
                    let expected = encoded(file, first, end, shards, index);
                    assert_eq!(stored.samples.bytes(), &expected, "{split}/{index} of {shards}");
                    assert_eq!(stored.samples.len(), shard_len(end - first, shards, index));
                    assert_eq!(stored.sha256, hex::encode(Sha256::digest(&expected)));
                    let again = ShardSamples::decode(expected.into(), schema().into(), stored.samples.len());
                    assert_eq!(again.as_ref(), Ok(&stored.samples));
                }
            }
            assert_eq!(store.iter().count(), 3 * shards as usize);
        }
    }

    #[test]
    fn samples_are_found_by_their_index() {
        let data = dataset(50, 9, 0.2);
        let store = ShardStore::new(data.clone(), 8);
        for i in 0..40 {
            let row = &data.train.features[i * WIDTH..][..WIDTH];
            assert_eq!(store.sample(Split::Train, i as u32), Some((row, &data.train.targets[i..i + 1])));
        }
        let row = &data.train.features[40 * WIDTH..][..WIDTH];
        assert_eq!(store.sample(Split::Validation, 0), Some((row, &data.train.targets[40..41])));
        assert_eq!(store.sample(Split::Train, 40), None);
        assert_eq!(store.sample(Split::Test, u32::MAX), None);
    }

    #[test]
    fn impossible_shards_are_refused() {
        let schema = Arc::new(schema());
        let decode = |bytes, len| ShardSamples::decode(bytes, Arc::clone(&schema), len);
        assert_eq!(
            decode(Bytes::from_static(&[0; 13]), 2).unwrap_err().to_string(),
            "13 bytes, but 2 samples of 7 bytes, target included, are 14"
        );
        let mut bytes = vec![0; 14];
        bytes[13] = 10;
        assert_eq!(decode(bytes.into(), 2), Err(ShardError::Label { index: 1, value: 10, classes: 10 }));
        let features = Features { element: Element::F32, shape: vec![u32::MAX; 3] };
        let huge = Schema::new(features, Target::Class { classes: 2 });
        assert!(ShardSamples::decode(Bytes::new(), huge.into(), u32::MAX).is_err());
        assert!(decode(Bytes::new(), 0).is_ok_and(|shard| shard.is_empty()));
    }

    #[test]
    fn float_features_with_several_targets_and_weights_are_partitioned_unchanged() {
        let schema = Schema {
            features: Features { element: Element::F32, shape: vec![2] },
            target: Target::Reals { width: 2 },
            weighted: true,
        };
        let floats =
            |salt: f32| -> Vec<u8> { (0..10).flat_map(|i| (i as f32 + salt).to_le_bytes()).collect() };
        let train = Samples {
            len: 5,
            features: floats(0.0),
            targets: floats(100.0),
            weights: vec![0.0, 0.5, 1.0, 1.5, 2.0],
        };
        let test = Samples::default();
        let sizes = Sizes::new(5, 0, 0.0);
        let dataset = Dataset { schema, train, test, sizes, inputs: Inputs::default(), files: Vec::new() };
        let store = ShardStore::new(dataset, 2);

        let second = &store.get(Shard { split: Split::Train, index: 1 }).unwrap().samples;
        let expected = [2.0f32, 3.0, 6.0, 7.0, 102.0, 103.0, 106.0, 107.0, 0.5, 1.5];
        assert_eq!(second.bytes()[..], expected.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        let (features, target) = store.sample(Split::Train, 3).unwrap();
        assert_eq!((features, target), (second.features_of(1..2), second.targets_of(1..2)));
        assert_eq!(second.weights_of(1..2), 1.5f32.to_le_bytes());
    }

    #[test]
    fn a_shard_is_named_by_split_and_index() {
        assert_eq!(Shard { split: Split::Train, index: 3 }.to_string(), "train/3");
    }
}
