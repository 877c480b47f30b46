//! Data sets: a small generated one, and MNIST's files.

use std::fs;
use std::io::Read as _;

use crate::home::{Home, project};

/// The side of an image.
pub const SIDE: usize = 28;

/// The pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// The names of a data set's files.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The number of training samples of the small data set, divisible neither by the shards nor by the batch.
pub const SMALL_TRAIN: usize = 2003;

/// Test samples of the small data set.
pub const SMALL_TEST: usize = 301;

/// A small model on a small data set: training takes less than a second.
pub const SMALL_JOB: &str = r#"
name = "small"

[data]
source = "data"

[[layers]]
type = "dense"
units = 24
activation = "sigmoid"

[[layers]]
type = "dropout"
rate = 0.25

[[layers]]
type = "dense"
units = 10
activation = "softmax"

[fit]
batch_size = 100
epochs = 3
"#;

/// The small job with another name and number of epochs.
pub fn small_job_as(name: &str, epochs: u32) -> String {
    SMALL_JOB
        .replace("\"small\"", &format!("\"{name}\""))
        .replace("epochs = 3", &format!("epochs = {epochs}"))
}

impl Home {
    /// Writes the small data set into `data`, and its job into `small.toml`.
    pub fn small_job(&self) {
        self.small_data("data");
        self.write("small.toml", SMALL_JOB);
    }

    /// Writes the small data set into a directory.
    pub fn small_data(&self, directory: &str) {
        let files =
            [images(SMALL_TRAIN, 1), labels(SMALL_TRAIN, 1), images(SMALL_TEST, 2), labels(SMALL_TEST, 2)];
        for (name, content) in FILES.iter().zip(files) {
            self.write(&format!("{directory}/{name}"), content);
        }
    }
}

/// An IDX file of labels.
pub fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, 1];
    file.extend(be(labels.len()));
    file.extend(labels);
    file
}

/// An IDX file of images.
pub fn idx_images(pixels: &[u8]) -> Vec<u8> {
    idx_of(&[SIDE, SIDE], pixels)
}

/// An IDX file of samples of this shape.
pub fn idx_of(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, 1 + shape.len() as u8];
    file.extend(be(values.len() / shape.iter().product::<usize>()));
    shape.iter().for_each(|&dimension| file.extend(be(dimension)));
    file.extend(values);
    file
}

fn be(dimension: usize) -> [u8; 4] {
    u32::try_from(dimension).expect("data sets of tests are small").to_be_bytes()
}

/// The label of a sample: a digit that depends only on the index.
fn label(index: usize, seed: u64) -> u8 {
    (random(index as u64, seed) % 10) as u8
}

fn labels(count: usize, seed: u64) -> Vec<u8> {
    idx_labels(&(0..count).map(|index| label(index, seed)).collect::<Vec<_>>())
}

/// Each digit is a bright bar at its own height, with noise.
fn images(count: usize, seed: u64) -> Vec<u8> {
    let pixel = |index: usize, place: usize| {
        let noise = random((index * PIXELS + place) as u64, seed + 100) % 96;
        let row = place / SIDE;
        let bar = row / 2 == 2 + usize::from(label(index, seed));
        noise as u8 + if bar { 150 } else { 0 }
    };
    let pixels = (0..count).flat_map(|index| (0..PIXELS).map(move |place| pixel(index, place)));
    idx_images(&pixels.collect::<Vec<_>>())
}

/// SplitMix64 at a place: a pseudorandom number.
pub(crate) fn random(place: u64, seed: u64) -> u64 {
    let mut z = (place ^ (seed << 48)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One of MNIST's files, unpacked, without its header.
///
/// # Panics
/// If it is not in the repository.
pub fn mnist(name: &str) -> Vec<u8> {
    let path = project().join(format!("data/mnist/{name}.gz"));
    let file = fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("it is gzip");
    let header = if name.contains("images") { 16 } else { 8 };
    bytes.split_off(header)
}
