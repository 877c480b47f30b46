//! Shows where the time of one step goes on one core: matrix products, elementwise loops, and sums.
//!
//! The products and loops of a step's pieces are measured one by one, with the article's shapes and invented numbers.
//! A whole step of real pieces is measured as well, so the time that the parts do not explain is visible.

use std::hint::black_box;
use std::time::Instant;

use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Split;
use millefeuille_core::job::Activation;
use millefeuille_core::learn::elementwise;
use millefeuille_core::learn::gemm::{Matrix, gemm};
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_core::random::DropoutWords;

use crate::fit::Article;
use crate::statistics::Summary;

/// Rows of the largest of the eight pieces of a step: ⌈500/8⌉.
const ROWS: usize = 63;

/// Inputs and units of the dense layers.
const LAYERS: [[usize; 2]; 3] = [[784, 256], [256, 128], [128, 10]];

/// Measures one step, and prints the table.
pub(crate) fn run(repeats: u32) -> anyhow::Result<()> {
    let article = Article::load()?;
    let shards = article.spec.shards;
    println!("One step on one core: {shards} shards, median of {repeats}, milliseconds\n");
    let show = |what: &str, ms: f64| println!("  {what:44} {ms:7.3}");
    show("whole pieces", pieces(&article, repeats));
    let times = f64::from(shards);
    show("  products, forward", times * products_forward(repeats));
    show("  products, gradients of kernels", times * products_gradient(repeats));
    show("  products, gradients of inputs", times * products_back(repeats));
    show("  bias and sigmoid, both layers", times * sigmoids(repeats));
    show("  their backward pass, and column sums", times * sigmoids_back(repeats));
    show("  random words for dropout", times * dropout_words(repeats));
    show("  bytes to numbers", times * scaled(repeats));
    show("sums of gradients, all but the last", (times - 2.0) * addition(repeats));
    show("last sum and optimizer, one pass", last_pass(&article, repeats));
    Ok(())
}

/// The median time of one call, in milliseconds.
fn median(repeats: u32, mut work: impl FnMut()) -> f64 {
    work();
    let times = (0..repeats.max(1)).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64() * 1e3
    });
    Summary::of(times).median
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 37 % 97) as f32 / 97.0 - 0.5).collect()
}

fn pieces(article: &Article, repeats: u32) -> f64 {
    let Article { model, spec, .. } = article;
    let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
    let parameters = model.initial_parameters(spec.seed);
    let learner = Learner { model, spec, parameters: &parameters };
    let orders: Vec<_> = (0..spec.shards).map(|shard| plan.order(spec.seed, 0, shard, true)).collect();
    let mut gradients = vec![vec![0.0; model.parameter_count()]; orders.len()];
    let mut scratch = Scratch::default();
    let mut step = 0;
    median(repeats, || {
        for ((shard, order), gradient) in (0..).zip(&orders).zip(&mut gradients) {
            let place = plan.piece(step, shard);
            let order = &order[place.start as usize..place.end as usize];
            let samples = article.samples(Split::Train, shard);
            black_box(learner.train_piece(&samples, order, 0, gradient, &mut scratch));
        }
        step = (step + 1) % plan.steps();
    })
}

fn products_forward(repeats: u32) -> f64 {
    products(
        repeats,
        |inputs, units| (ROWS * inputs, inputs * units, ROWS * units),
        |a, b, out, inputs, units| {
            gemm(Matrix::new(a, inputs), Matrix::new(b, units), out);
        },
    )
}

fn products_gradient(repeats: u32) -> f64 {
    products(
        repeats,
        |inputs, units| (ROWS * inputs, ROWS * units, inputs * units),
        |a, b, out, inputs, units| {
            gemm(Matrix::new(a, inputs).transposed(), Matrix::new(b, units), out);
        },
    )
}

/// All layers but the first: the gradient with respect to the samples is not needed.
fn products_back(repeats: u32) -> f64 {
    let times = LAYERS[1..].iter().map(|&[inputs, units]| {
        let (delta, weights) = (numbers(ROWS * units), numbers(inputs * units));
        let mut out = vec![0.0; ROWS * inputs];
        median(repeats, || {
            gemm(Matrix::new(&delta, units), Matrix::new(&weights, units).transposed(), &mut out);
        })
    });
    times.sum()
}

/// The products of all layers. `lens` returns the lengths of the operands and the result.
fn products(
    repeats: u32,
    lens: impl Fn(usize, usize) -> (usize, usize, usize),
    product: impl Fn(&[f32], &[f32], &mut [f32], usize, usize),
) -> f64 {
    let times = LAYERS.iter().map(|&[inputs, units]| {
        let (a, b, out) = lens(inputs, units);
        let (a, b, mut out) = (numbers(a), numbers(b), vec![0.0; out]);
        median(repeats, || product(&a, &b, &mut out, inputs, units))
    });
    times.sum()
}

fn sigmoids(repeats: u32) -> f64 {
    let times = LAYERS[..2].iter().map(|&[_, units]| {
        let (mut z, bias) = (numbers(ROWS * units), numbers(units));
        median(repeats, || Activation::Sigmoid.hidden().add_bias(&mut z, &bias))
    });
    times.sum()
}

fn sigmoids_back(repeats: u32) -> f64 {
    let times = LAYERS[..2].iter().map(|&[_, units]| {
        let (mut delta, outputs, mut sums) = (numbers(ROWS * units), numbers(ROWS * units), numbers(units));
        median(repeats, || {
            Activation::Sigmoid.hidden().backward(&mut delta, &outputs);
            elementwise::column_sums(&delta, &mut sums);
        })
    });
    times.sum()
}

fn dropout_words(repeats: u32) -> f64 {
    let units = LAYERS[1][1];
    let mut words = vec![0; units];
    median(repeats, || {
        let mut random = DropoutWords::new(1, 0, 2);
        (0..ROWS as u64).for_each(|sample| random.fill(sample, &mut words));
        black_box(&words);
    })
}

fn scaled(repeats: u32) -> f64 {
    let bytes = vec![7; ROWS * LAYERS[0][0]];
    let mut out = vec![0.0; bytes.len()];
    median(repeats, || elementwise::scaled_bytes(black_box(&bytes), 1.0, &mut out))
}

fn addition(repeats: u32) -> f64 {
    let len = LAYERS.iter().map(|[inputs, units]| (inputs + 1) * units).sum();
    let (mut sum, addend) = (numbers(len), vec![0.0; len]);
    median(repeats, || elementwise::add_assign(&mut sum, black_box(&addend)))
}

fn last_pass(article: &Article, repeats: u32) -> f64 {
    let len = article.model.parameter_count();
    let (parameters, left, right, mut out) = (numbers(len), numbers(len), numbers(len), vec![0.0; len]);
    let mut optimizer = OptimizerState::new(&article.optimizer, len);
    median(repeats, || {
        optimizer.step(1, 0, &parameters, (&left, Some(black_box(&right))), 500, &mut out);
    })
}
