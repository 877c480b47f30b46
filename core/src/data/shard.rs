//! Shards: the portions in which samples travel, are checked and are kept.
//!
//! Each split is dealt out like cards: sample i of a split belongs to shard i mod S. How many shards there are
//! is part of the job; how many workers share them is not.
//!
//! A shard is one run of bytes, whose SHA-256 is its name wherever it is kept:
//!
//! ```text
//! [len, width]  pixels, one row a sample, ascending
//! [len]         labels, in the same order
//! ```
//!
//! [`ShardStore`] is the coordinator's copy of all of them. It is dealt from the end of the data set, which
//! gives its memory back on the way, so that the samples are never there twice.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::dataset::{CLASSES, Dataset, Samples};
use super::split::{Sizes, Split};

/// How many samples are dealt before their memory is given back.
const DEALT_AT_ONCE: usize = 4096;

/// Which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// Of which split.
    pub split: Split,
    /// Which of the split's shards, from 0.
    pub index: u32,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.split, self.index)
    }
}

/// How many of `samples` belong to shard `index` of `shards`.
pub fn shard_len(samples: u32, shards: u32, index: u32) -> u32 {
    samples.saturating_sub(index).div_ceil(shards)
}

/// The samples of a shard. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSamples {
    bytes: Bytes,
    width: usize,
    len: u32,
}

/// Why bytes are not a shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShardError {
    /// The number of bytes is wrong.
    #[error("{found} bytes, but {len} samples of {width} pixels with their labels are {expected}")]
    Length {
        /// How many bytes there are.
        found: usize,
        /// How many there should be.
        expected: u64,
        /// The samples expected.
        len: u32,
        /// The pixels of a sample.
        width: usize,
    },
    /// A label is not a class.
    #[error("the label of sample {index} is {value} (there are {CLASSES} classes, 0 to 9)")]
    Label {
        /// Which sample of the shard, from 0.
        index: usize,
        /// What it is.
        value: u8,
    },
}

impl ShardSamples {
    /// Takes `bytes` as `len` samples of `width` pixels each.
    ///
    /// # Errors
    ///
    /// When the number of bytes or a label is impossible. Whether they are the *right* samples only the
    /// [hash](Self::sha256) says.
    pub fn decode(bytes: Bytes, width: usize, len: u32) -> Result<Self, ShardError> {
        let expected = u64::from(len).saturating_mul((width as u64).saturating_add(1));
        if bytes.len() as u64 != expected {
            return Err(ShardError::Length { found: bytes.len(), expected, len, width });
        }
        let samples = Self { bytes, width, len };
        match samples.labels().iter().position(|&label| label >= CLASSES) {
            None => Ok(samples),
            Some(index) => Err(ShardError::Label { index, value: samples.labels()[index] }),
        }
    }

    /// How many samples there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none, as in a split with fewer samples than shards.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pixels of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All bytes, as they travel.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// `[len, width]`, row-major.
    pub fn pixels(&self) -> &[u8] {
        &self.bytes[..self.len as usize * self.width]
    }

    /// `[len]`, each below [`CLASSES`].
    pub fn labels(&self) -> &[u8] {
        &self.bytes[self.len as usize * self.width..]
    }

    /// The pixels of the shard's sample `k`.
    ///
    /// # Panics
    ///
    /// If there is no such sample.
    pub fn row(&self, k: u32) -> &[u8] {
        &self.pixels()[k as usize * self.width..][..self.width]
    }

    /// SHA-256 of [`bytes`](Self::bytes), in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

/// A shard in the store, with its hash.
#[derive(Clone, Debug)]
pub struct StoredShard {
    /// The samples.
    pub samples: ShardSamples,
    /// Their SHA-256, in hex.
    pub sha256: String,
}

/// Every shard of every split.
#[derive(Clone, Debug)]
pub struct ShardStore {
    shards: BTreeMap<Shard, StoredShard>,
    per_split: u32,
    sizes: Sizes,
    image: (usize, usize),
    file_hashes: [String; 4],
}

impl ShardStore {
    /// Deals out `dataset`, whose last `validation_split` of the training file validates, to `shards` shards a
    /// split.
    ///
    /// # Panics
    ///
    /// If `shards` is 0.
    pub fn new(dataset: Dataset, validation_split: f64, shards: u32) -> Self {
        assert!(shards > 0, "a job has at least one shard");
        let Dataset { train, test, hashes: file_hashes } = dataset;
        let image = train.image;
        let sizes = Sizes::new(train.len(), test.len(), validation_split);
        let (mut dealt, tested) = thread::scope(|scope| {
            let test = scope.spawn(|| deal(test, &[(Split::Test, sizes.test)], shards));
            let cuts = [(Split::Train, sizes.train), (Split::Validation, sizes.validation)];
            (deal(train, &cuts, shards), test.join().expect("dealing does not fail"))
        });
        dealt.extend(tested);
        Self { shards: hashed(dealt), per_split: shards, sizes, image, file_hashes }
    }

    /// One shard; `None` if the job has no such shard.
    pub fn get(&self, shard: Shard) -> Option<&StoredShard> {
        self.shards.get(&shard)
    }

    /// All shards, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Shard, &StoredShard)> {
        self.shards.iter().map(|(&shard, stored)| (shard, stored))
    }

    /// Pixels and label of sample `index` of `split`, from 0 in file order.
    pub fn sample(&self, split: Split, index: u32) -> Option<(&[u8], u8)> {
        let (shard, k) = (index % self.per_split, index / self.per_split);
        let samples = &self.get(Shard { split, index: shard })?.samples;
        let label = *samples.labels().get(k as usize)?;
        Some((samples.row(k), label))
    }

    /// How many samples each split has.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many shards each split has.
    pub fn shards(&self) -> u32 {
        self.per_split
    }

    /// Rows and columns of an image.
    pub fn image(&self) -> (usize, usize) {
        self.image
    }

    /// The pixels of an image.
    pub fn width(&self) -> usize {
        self.image.0 * self.image.1
    }

    /// SHA-256, in hex, of each uncompressed file, in the order of [`FILES`](super::dataset::FILES).
    pub fn file_hashes(&self) -> &[String; 4] {
        &self.file_hashes
    }
}

/// Deals `samples`, which are the named splits one after another, to `shards` shards each.
fn deal(mut samples: Samples, splits: &[(Split, u32)], shards: u32) -> Vec<(Shard, ShardSamples)> {
    let mut dealt = Vec::new();
    for &(split, len) in splits.iter().rev() {
        let mut hands = Hands::new(samples.width(), len, shards);
        while hands.open > 0 {
            hands.take_last(&mut samples);
        }
        dealt.extend(hands.close(split));
    }
    dealt
}

/// The shards of one split while they are dealt, from its last sample to its first.
struct Hands {
    width: usize,
    /// How many samples are still to be dealt.
    open: usize,
    lens: Vec<u32>,
    buffers: Vec<Vec<u8>>,
}

impl Hands {
    fn new(width: usize, len: u32, shards: u32) -> Self {
        let lens: Vec<u32> = (0..shards).map(|index| shard_len(len, shards, index)).collect();
        let buffers = lens.iter().map(|&len| vec![0; len as usize * (width + 1)]).collect();
        Self { width, open: len as usize, lens, buffers }
    }

    /// Moves the last samples of `source` over, and gives their memory back.
    fn take_last(&mut self, source: &mut Samples) {
        let count = self.open.min(DEALT_AT_ONCE);
        let first = source.labels.len() - count;
        let rows = source.pixels[first * self.width..].chunks_exact(self.width);
        self.open -= count;
        for (sample, (row, &label)) in (self.open..).zip(rows.zip(&source.labels[first..])) {
            self.put(sample, row, label);
        }
        source.labels.truncate(first);
        source.pixels.truncate(first * self.width);
        source.pixels.shrink_to_fit();
    }

    fn put(&mut self, sample: usize, row: &[u8], label: u8) {
        let (index, k) = (sample % self.buffers.len(), sample / self.buffers.len());
        let labels = self.lens[index] as usize * self.width;
        self.buffers[index][k * self.width..][..self.width].copy_from_slice(row);
        self.buffers[index][labels + k] = label;
    }

    fn close(self, split: Split) -> impl Iterator<Item = (Shard, ShardSamples)> {
        let Self { width, lens, buffers, .. } = self;
        (0..).zip(lens.into_iter().zip(buffers)).map(move |(index, (len, buffer))| {
            (Shard { split, index }, ShardSamples { bytes: buffer.into(), width, len })
        })
    }
}

/// Hashes the shards, every second one in a thread of its own.
fn hashed(mut dealt: Vec<(Shard, ShardSamples)>) -> BTreeMap<Shard, StoredShard> {
    let store = |(shard, samples): (Shard, ShardSamples)| {
        let sha256 = samples.sha256();
        (shard, StoredShard { samples, sha256 })
    };
    dealt.sort_by_key(|(shard, _)| *shard);
    let (odd, even): (Vec<_>, Vec<_>) = dealt.into_iter().partition(|(shard, _)| shard.index % 2 == 1);
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

    const WIDTH: usize = 6;

    fn samples(len: u32, salt: u32) -> Samples {
        let pixels = (0..len * WIDTH as u32).map(|i| (i * 31 + salt) as u8).collect();
        Samples { image: (2, 3), pixels, labels: (0..len).map(|i| ((i + salt) % 10) as u8).collect() }
    }

    fn dataset(train: u32, test: u32) -> Dataset {
        let hashes = ["a", "b", "c", "d"].map(str::to_owned);
        Dataset { train: samples(train, 1), test: samples(test, 2), hashes }
    }

    /// The layout, spelt out: rows of samples `index`, `index + shards` … from `first`, then their labels.
    fn encoded(samples: &Samples, first: u32, end: u32, shards: u32, index: u32) -> Vec<u8> {
        let members = || (first + index..end).step_by(shards as usize).map(|i| i as usize);
        let rows = members().flat_map(|i| &samples.pixels[i * WIDTH..][..WIDTH]);
        rows.copied().chain(members().map(|i| samples.labels[i])).collect()
    }

    #[test]
    fn every_shard_has_its_samples_in_the_documented_layout() {
        for (train, test, validation_split, shards) in
            [(10_007, 4_999, 0.2, 8), (5, 3, 0.5, 7), (4_096, 1, 0.0, 1), (100, 8_192, 0.99, 3)]
        {
            let data = dataset(train, test);
            let store = ShardStore::new(data.clone(), validation_split, shards);
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
                    let again = ShardSamples::decode(expected.into(), WIDTH, stored.samples.len());
                    assert_eq!(again.as_ref(), Ok(&stored.samples));
                }
            }
            assert_eq!(store.iter().count(), 3 * shards as usize);
        }
    }

    #[test]
    fn samples_come_back_by_their_index() {
        let data = dataset(50, 9);
        let store = ShardStore::new(data.clone(), 0.2, 8);
        for i in 0..40 {
            let row = &data.train.pixels[i * WIDTH..][..WIDTH];
            assert_eq!(store.sample(Split::Train, i as u32), Some((row, data.train.labels[i])));
        }
        let row = &data.train.pixels[40 * WIDTH..][..WIDTH];
        assert_eq!(store.sample(Split::Validation, 0), Some((row, data.train.labels[40])));
        assert_eq!(store.sample(Split::Train, 40), None);
        assert_eq!(store.sample(Split::Test, u32::MAX), None);
    }

    #[test]
    fn impossible_shards_are_refused() {
        let length = ShardSamples::decode(Bytes::from_static(&[0; 13]), WIDTH, 2);
        assert_eq!(
            length.unwrap_err().to_string(),
            "13 bytes, but 2 samples of 6 pixels with their labels are 14"
        );
        let mut bytes = vec![0; 14];
        bytes[13] = 10;
        let label = ShardSamples::decode(bytes.into(), WIDTH, 2);
        assert_eq!(label, Err(ShardError::Label { index: 1, value: 10 }));
        assert!(ShardSamples::decode(Bytes::new(), usize::MAX, u32::MAX).is_err());
        assert!(ShardSamples::decode(Bytes::new(), WIDTH, 0).is_ok_and(|shard| shard.is_empty()));
    }

    #[test]
    fn a_shard_is_called_by_split_and_index() {
        assert_eq!(Shard { split: Split::Train, index: 3 }.to_string(), "train/3");
    }
}
