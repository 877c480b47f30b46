//! The hash of the bits that this process computes.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::data::schema::{Element, Features, Schema, Target};
use crate::data::shard::ShardSamples;
use crate::learn::activations::sigmoid::sigmoid;
use crate::learn::elementwise;
use crate::learn::gemm::{Matrix, gemm};
use crate::learn::model::Model;
use crate::learn::piece::{EVALUATION_ROWS, Learner, Scratch, ShardView};
use crate::learn::spec::Spec;

/// `[rows, inputs, units]` of dense layers for which all three products of training are hashed: small and odd
/// shapes, and the shapes of the default job in steps of 500 over 8 shards.
pub(super) const TRAINED: [[usize; 3]; 9] = [
    [8, 8, 8],
    [1, 100, 50],
    [17, 33, 65],
    [62, 784, 256],
    [62, 256, 128],
    [62, 128, 10],
    [63, 784, 256],
    [63, 256, 128],
    [63, 128, 10],
];

/// `[rows, inputs, units]` of dense layers for which only the forward product is hashed: the default job's
/// evaluation.
pub(super) const EVALUATED: [[usize; 3]; 3] =
    [[EVALUATION_ROWS, 784, 256], [EVALUATION_ROWS, 256, 128], [EVALUATION_ROWS, 128, 10]];

pub(super) fn of_this_process() -> String {
    let mut hash = Sha256::new();
    hash_functions(&mut hash);

    let numbers = numbers(EVALUATION_ROWS.max(256) * 784);
    hash_subnormals(&numbers, &mut hash);
    for [rows, inputs, units] in TRAINED {
        let x = Matrix::new(&numbers[..rows * inputs], inputs);
        let weights = Matrix::new(&numbers[..inputs * units], units);
        let delta = Matrix::new(&numbers[..rows * units], units);
        hash_product(x, weights, rows * units, &mut hash);
        hash_product(x.transposed(), delta, inputs * units, &mut hash);
        hash_product(delta, weights.transposed(), rows * inputs, &mut hash);
    }
    for [rows, inputs, units] in EVALUATED {
        let x = Matrix::new(&numbers[..rows * inputs], inputs);
        let weights = Matrix::new(&numbers[..inputs * units], units);
        hash_product(x, weights, rows * units, &mut hash);
    }
    hex::encode(hash.finalize())
}

/// Hashes the functions that are not single CPU operations, over a grid of all floats.
fn hash_functions(hash: &mut Sha256) {
    let grid: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(1_048_573))).collect();
    for function in [elementwise::exp, elementwise::log, sigmoid] as [fn(&mut [f32]); 3] {
        let mut values = grid.clone();
        function(&mut values);
        hash.update(bytemuck::cast_slice(&values));
    }
}

/// Hashes the treatment of subnormal operands and results in a sum, in the optimizer's step, and in products by a
/// plain loop and by BLAS. A process that does not flush them to zero gets another hash.
fn hash_subnormals(numbers: &[f32], hash: &mut Sha256) {
    const SIZES: [usize; 3] = [4, 16, 64];
    let scaled = |len: usize, scale: f32| numbers[..len].iter().map(|x| x * scale).collect::<Vec<f32>>();
    for size in SIZES {
        let (subnormal, small, large) =
            (scaled(size * size, 1e-39), scaled(size * size, 1e-20), scaled(size * size, 1e20));
        let mut sum = subnormal.clone();
        elementwise::add_assign(&mut sum, &scaled(size * size, 2e-38));
        hash.update(bytemuck::cast_slice(&sum));
        elementwise::descend(&subnormal, &small, 1e10, 1e-10, &mut sum);
        hash.update(bytemuck::cast_slice(&sum));
        for (a, b) in [(&subnormal, &large), (&small, &small)] {
            hash_product(Matrix::new(a, size), Matrix::new(b, size), size * size, hash);
        }
    }
}

fn hash_product(a: Matrix<'_>, b: Matrix<'_>, len: usize, hash: &mut Sha256) {
    let mut out = vec![0.0f32; len];
    gemm(a, b, &mut out);
    hash.update(bytemuck::cast_slice(&out));
}

/// Numbers in `[-1, 1)`, without a pattern that could cancel in a sum. They repeat after 2³².
pub(super) fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (scattered(i as u32) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A pseudorandom word for each number: the finalizer of MurmurHash3 (A. Appleby).
pub(super) fn scattered(i: u32) -> u32 {
    let mixed = (i ^ (i >> 16)).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}

/// Hex SHA-256 of the results of this process on the shapes of one job, with made-up samples.
///
/// Covers the gradients of training pieces of every size in the job, including the last, smaller step, and the
/// outputs of every size of evaluation chunk.
pub fn model_fingerprint(spec: &Spec) -> String {
    let model = Model::new(spec.inputs(), &spec.layers);
    let parameters = model.initial_parameters(spec.seed);
    let learner = Learner { model: &model, spec, parameters: &parameters };
    let mut scratch = Scratch::default();
    let mut hash = Sha256::new();

    let (trained, evaluated) = (piece_sizes(spec), chunk_sizes(spec));
    let most = trained.iter().chain(&evaluated).copied().max().unwrap_or(0) as usize;
    let features = made_up_features(&spec.schema.features, most);
    let bytes = spec.schema.features.bytes();
    let mut gradient = vec![0.0f32; model.parameter_count()];
    for rows in trained {
        let targets = made_up_targets(spec.schema.target, rows);
        let weights = made_up_weights(&spec.schema, rows);
        let samples = [&features[..rows as usize * bytes], &targets, &weights].concat();
        let samples = ShardSamples::decode(samples.into(), Arc::new(spec.schema.clone()), rows);
        let samples = samples.unwrap_or_else(|error| unreachable!("samples of the job's schema: {error}"));
        let order: Vec<u32> = (0..rows).collect();
        let view = ShardView { shard: 0, shards: 1, samples: &samples };
        let outcome = learner.train_piece(&view, &order, 0, &mut gradient, &mut scratch);
        hash.update(bytemuck::cast_slice(&gradient));
        hash.update(outcome.figures.loss_sum.to_le_bytes());
    }
    for rows in evaluated {
        let outputs = learner.outputs(&features[..rows as usize * bytes], &mut scratch);
        hash.update(bytemuck::cast_slice(&outputs));
    }
    hex::encode(hash.finalize())
}

fn made_up_features(features: &Features, samples: usize) -> Vec<u8> {
    let values = 0..samples * features.width();
    match features.element {
        Element::U8 => values.map(|i| (scattered(i as u32) >> 24) as u8).collect(),
        Element::F32 => numbers(values.len()).into_iter().flat_map(f32::to_le_bytes).collect(),
    }
}

/// Made-up targets: the classes in turn, or numbers in `[-1, 1)`.
fn made_up_targets(target: Target, samples: u32) -> Vec<u8> {
    match target {
        Target::Class { classes } => {
            (0..samples).flat_map(|i| (i % classes).to_le_bytes().into_iter().take(target.bytes())).collect()
        }
        Target::Reals { width } => {
            numbers(samples as usize * width as usize).into_iter().flat_map(f32::to_le_bytes).collect()
        }
    }
}

/// Made-up weights, if samples have weights: 0, 0.5 and 1 in turn.
fn made_up_weights(schema: &Schema, samples: u32) -> Vec<u8> {
    let samples = if schema.weighted { samples } else { 0 };
    (0..samples).flat_map(|i| ((i % 3) as f32 / 2.0).to_le_bytes()).collect()
}

/// The possible sizes of a training piece: of a full step and of the last step, divided among the shards.
pub(super) fn piece_sizes(spec: &Spec) -> BTreeSet<u32> {
    let steps = [spec.batch_size.min(spec.sizes.train), spec.sizes.train % spec.batch_size];
    let shares = steps.into_iter().flat_map(|samples| shares(samples, spec.shards));
    shares.filter(|&rows| rows > 0).collect()
}

/// The possible sizes of an evaluation chunk: full chunks, and the remainder of a shard.
pub(super) fn chunk_sizes(spec: &Spec) -> BTreeSet<u32> {
    let full = EVALUATION_ROWS as u32;
    let shards = [spec.sizes.validation, spec.sizes.test].into_iter();
    let shards = shards.flat_map(|samples| shares(samples, spec.shards));
    shards.flat_map(|rows| [rows.min(full), rows % full]).filter(|&rows| rows > 0).collect()
}

/// The two sizes of the parts when `samples` are divided among the shards.
fn shares(samples: u32, shards: u32) -> [u32; 2] {
    [samples / shards, samples.div_ceil(shards)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain loops without the flush-to-zero mode in which a model is computed.
    #[test]
    fn without_flush_to_zero_the_fingerprint_would_differ() {
        let numbers = numbers(16 * 16);
        let [subnormal, normal, small, large] =
            [1e-39, 2e-38, 1e-20, 1e20].map(|scale| numbers.iter().map(|x| x * scale).collect::<Vec<f32>>());
        let product = |a: &[f32], b: &[f32]| -> Vec<f32> {
            let entry =
                |row: usize, column: usize| (0..16).map(|i| a[row * 16 + i] * b[i * 16 + column]).sum();
            (0..16 * 16).map(|place| entry(place / 16, place % 16)).collect()
        };
        let by_blas = |a: &[f32], b: &[f32]| {
            let mut out = vec![0.0; 16 * 16];
            gemm(Matrix::new(a, 16), Matrix::new(b, 16), &mut out);
            out
        };
        let zeros = |values: &[f32]| values.iter().all(|value| *value == 0.0);
        for (a, b) in [(&subnormal, &large), (&small, &small)] {
            assert!(!zeros(&product(a, b)) && zeros(&by_blas(a, b)));
        }
        let mut sum = subnormal.clone();
        elementwise::add_assign(&mut sum, &normal);
        assert!(sum.iter().zip(&subnormal).zip(&normal).any(|((sum, a), b)| *sum != a + b));
    }
}
