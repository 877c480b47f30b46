//! Measures the matrix products alone: every call of [`gemm`] in the article's fit, on all cores.
//!
//! Every fit must compute these products, and the [baseline](crate::baseline) computes the rest of a fit as well. So
//! the difference between the two times is overhead of the baseline, and an inefficient baseline is visible here.
//! Shapes and transposes are those of each piece of each step, and of each chunk of the evaluations; the numbers are
//! invented. The threads, one per core, take pieces from one counter and never wait for each other: no step depends
//! on the step before it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::gemm::{Matrix, gemm};
use millefeuille_core::learn::piece::EVALUATION_ROWS;
use serde::{Deserialize, Serialize};

use crate::fit::Article;

/// Target for the baseline's time, as a multiple of its products' time.
pub(crate) const BASELINE_TARGET: f64 = 1.3;

/// The measurement of the products.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Products {
    pub(crate) seconds: f64,
    /// Multiplications and additions.
    pub(crate) operations: f64,
}

/// Computes the products of one fit, of the article's job with these keys set.
pub(crate) fn run(epochs: u32, set: &[&str]) -> anyhow::Result<Products> {
    let article = Article::with(set)?;
    let layers = layers(&article);
    let pieces = pieces(&article, epochs);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let (next, ready) = (AtomicU32::new(0), Barrier::new(threads));
    let work = || {
        let mut buffers = Buffers::new(&layers);
        ready.wait();
        let started = Instant::now();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            buffers.compute(&layers, *piece);
        }
        started.elapsed().as_secs_f64()
    };
    let seconds = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("a thread does not panic"));
        ends.fold(0.0, f64::max)
    });
    Ok(Products { seconds, operations: pieces.iter().map(|piece| piece.operations(&layers)).sum() })
}

/// A dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    inputs: usize,
    units: usize,
}

/// The products for a batch of samples that is computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// Forward and backward.
    Train { rows: usize },
    /// Forward.
    Evaluate { rows: usize },
}

fn layers(article: &Article) -> Vec<Layer> {
    let tensors = article.model.tensors();
    let kernel = |shape: &[usize]| match *shape {
        [inputs, units] => Some(Layer { inputs, units }),
        _ => None, // A bias is added, not multiplied.
    };
    tensors.iter().filter_map(|tensor| kernel(&tensor.shape)).collect()
}

/// In the order of the fit: for each epoch its steps, then both evaluations.
fn pieces(article: &Article, epochs: u32) -> Vec<Piece> {
    let spec = &article.spec;
    let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
    let steps = (0..plan.steps()).flat_map(|step| (0..spec.shards).map(move |shard| (step, shard)));
    let mut epoch: Vec<_> =
        steps.map(|(step, shard)| Piece::Train { rows: plan.piece(step, shard).len() }).collect();
    for split in [Split::Validation, Split::Test] {
        for shard in 0..spec.shards {
            let len = article.samples(split, shard).samples.len() as usize;
            let chunks = (0..len).step_by(EVALUATION_ROWS);
            epoch.extend(chunks.map(|first| Piece::Evaluate { rows: EVALUATION_ROWS.min(len - first) }));
        }
    }
    (0..epochs).flat_map(|_| epoch.iter().copied()).collect()
}

impl Piece {
    fn operations(self, layers: &[Layer]) -> f64 {
        let product = |rows: usize, layer: &Layer| (2 * rows * layer.inputs * layer.units) as f64;
        let forward = |rows| layers.iter().map(move |layer| product(rows, layer)).sum::<f64>();
        match self {
            // The backward pass has two products of this size per layer, but one for the first layer.
            Self::Train { rows } => 3.0 * forward(rows) - product(rows, &layers[0]),
            Self::Evaluate { rows } => forward(rows),
        }
    }
}

/// The matrices that a thread multiplies.
struct Buffers {
    kernels: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    /// The inputs of each layer, and the outputs of the last.
    values: Vec<Vec<f32>>,
    /// The gradients with respect to the values.
    deltas: Vec<Vec<f32>>,
}

impl Buffers {
    fn new(layers: &[Layer]) -> Self {
        let kernels = || layers.iter().map(|layer| numbers(layer.inputs * layer.units)).collect();
        let widths = layers.iter().map(|layer| layer.inputs).chain(layers.last().map(|layer| layer.units));
        let values = || widths.clone().map(|width| numbers(EVALUATION_ROWS * width)).collect();
        Self { kernels: kernels(), gradients: kernels(), values: values(), deltas: values() }
    }

    fn compute(&mut self, layers: &[Layer], piece: Piece) {
        match piece {
            Piece::Train { rows } => {
                self.forward(layers, rows);
                self.backward(layers, rows);
            }
            Piece::Evaluate { rows } => self.forward(layers, rows),
        }
    }

    fn forward(&mut self, layers: &[Layer], rows: usize) {
        for (index, &Layer { inputs, units }) in layers.iter().enumerate() {
            let (below, above) = self.values.split_at_mut(index + 1);
            let input = Matrix::new(&below[index][..rows * inputs], inputs);
            gemm(input, Matrix::new(&self.kernels[index], units), &mut above[0][..rows * units]);
        }
    }

    fn backward(&mut self, layers: &[Layer], rows: usize) {
        for (index, &Layer { inputs, units }) in layers.iter().enumerate().rev() {
            let (below, above) = self.deltas.split_at_mut(index + 1);
            let delta = Matrix::new(&above[0][..rows * units], units);
            let input = Matrix::new(&self.values[index][..rows * inputs], inputs);
            gemm(input.transposed(), delta, &mut self.gradients[index]);
            if index > 0 {
                let kernel = Matrix::new(&self.kernels[index], units);
                gemm(delta, kernel.transposed(), &mut below[index][..rows * inputs]);
            }
        }
    }
}

/// Numbers whose repeated products neither vanish nor grow: they stay normal floating-point numbers.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 97) as f32 - 48.0) / 1000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_sample_as_often_as_the_fit() {
        let article = Article::load().unwrap();
        let pieces = pieces(&article, 5);
        let rows = |wanted: fn(&Piece) -> Option<usize>| pieces.iter().filter_map(wanted).sum::<usize>();
        let trained = rows(|piece| if let Piece::Train { rows } = piece { Some(*rows) } else { None });
        let evaluated = rows(|piece| if let Piece::Evaluate { rows } = piece { Some(*rows) } else { None });
        assert_eq!((trained, evaluated), (5 * 48_000, 5 * 22_000));
    }

    #[test]
    fn layers_are_the_articles_and_their_operations_add_up() {
        let layers = layers(&Article::load().unwrap());
        let of = |inputs, units| Layer { inputs, units };
        assert_eq!(layers, [of(784, 256), of(256, 128), of(128, 10)]);
        let (first, others) = (784 * 256, 256 * 128 + 128 * 10);
        let wanted = (2 * 63 * (2 * first + 3 * others)) as f64;
        assert_eq!(Piece::Train { rows: 63 }.operations(&layers), wanted);
    }

    #[test]
    fn products_stay_normal_numbers() {
        let layers = [Layer { inputs: 40, units: 30 }, Layer { inputs: 30, units: 9 }];
        let mut buffers = Buffers::new(&layers);
        for _ in 0..10 {
            buffers.compute(&layers, Piece::Train { rows: 5 });
        }
        let all = buffers.gradients.iter().chain(&buffers.values).chain(&buffers.deltas).flatten();
        assert!(
            all.copied().all(|value: f32| value == 0.0 || value.is_normal()),
            "subnormal numbers are slow"
        );
    }
}
