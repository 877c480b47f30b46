//! The bits that this process computes, as one hash.

use sha2::{Digest, Sha256};

use crate::learn::elementwise;
use crate::learn::gemm::{Matrix, gemm};
use crate::learn::model::Model;
use crate::learn::piece::{EVALUATION_ROWS, Learner, Scratch, ShardSamples};
use crate::learn::spec::Spec;

/// `[rows, inputs, units]` of dense layers of which all three products of training are hashed: small and odd
/// ones, and those of the default job in steps of 500 over 8 shards.
const TRAINED: [[usize; 3]; 9] = [
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

/// The same of layers that only go forward: the default job's evaluation.
const EVALUATED: [[usize; 3]; 3] =
    [[EVALUATION_ROWS, 784, 256], [EVALUATION_ROWS, 256, 128], [EVALUATION_ROWS, 128, 10]];

/// Rows above which a piece of a job is cut off for its fingerprint, so that a large batch does not take
/// long.
const MOST_ROWS: usize = 256;

pub(super) fn of_this_process() -> String {
    let mut hash = Sha256::new();
    hash_functions(&mut hash);

    let numbers = numbers(EVALUATION_ROWS.max(256) * 784);
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

/// The functions that are not single operations of the CPU, over a grid of all floats.
fn hash_functions(hash: &mut Sha256) {
    let grid: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(1_048_573))).collect();
    for function in [elementwise::exp, elementwise::log, elementwise::sigmoid] as [fn(&mut [f32]); 3] {
        let mut values = grid.clone();
        function(&mut values);
        hash.update(bytemuck::cast_slice(&values));
    }
}

fn hash_product(a: Matrix<'_>, b: Matrix<'_>, len: usize, hash: &mut Sha256) {
    let mut out = vec![0.0f32; len];
    gemm(a, b, &mut out);
    hash.update(bytemuck::cast_slice(&out));
}

/// Numbers in `[-1, 1)` without a pattern that a sum could cancel.
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (scattered(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A word that looks random, from its number: the finalizer of MurmurHash3 (A. Appleby).
fn scattered(i: u32) -> u32 {
    let mixed = (i ^ (i >> 16)).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}

/// Hex SHA-256 of what this process computes on the shapes of one job, with samples made up for the purpose.
///
/// Covers the gradients of training pieces with ⌊b/S⌋ and ⌈b/S⌉ samples, at most 256, and the outputs of one
/// chunk of an evaluation.
pub fn model_fingerprint(spec: &Spec) -> String {
    let model = Model::new(spec.inputs as usize, &spec.layers);
    let parameters = model.initial_parameters(spec.seed);
    let learner = Learner { model: &model, spec, parameters: &parameters };
    let mut scratch = Scratch::default();
    let mut hash = Sha256::new();

    let (fewest, most) = (spec.batch_size / spec.shards, spec.batch_size.div_ceil(spec.shards));
    let pixels: Vec<u8> = (0..(EVALUATION_ROWS.max(MOST_ROWS) * model.inputs()) as u32)
        .map(|i| (scattered(i) >> 24) as u8)
        .collect();
    let mut gradient = vec![0.0f32; model.parameter_count()];
    for rows in if fewest == most { vec![most] } else { vec![fewest, most] } {
        let rows = (rows as usize).min(MOST_ROWS);
        let labels: Vec<u8> = (0..rows as u32).map(|row| (row % spec.classes) as u8).collect();
        let pixels = &pixels[..rows * model.inputs()];
        let samples = ShardSamples { shard: 0, shards: 1, width: model.inputs(), pixels, labels: &labels };
        let order: Vec<u32> = (0..rows as u32).collect();
        let outcome = learner.train_piece(&samples, &order, 0, &mut gradient, &mut scratch);
        hash.update(bytemuck::cast_slice(&gradient));
        hash.update(outcome.loss_sum.to_le_bytes());
    }
    let outputs = learner.outputs(&pixels[..EVALUATION_ROWS * model.inputs()], &mut scratch);
    hash.update(bytemuck::cast_slice(&outputs));
    hex::encode(hash.finalize())
}
