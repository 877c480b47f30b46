//! The products of a training piece of the default job, repeated: for measuring the kernel's speed.

use super::check::{Product, Transposed};
use super::fingerprint;
use crate::learn::gemm::{Matrix, gemm};

/// The rows of such a piece, and the inputs and units of its layers.
const ROWS: usize = 63;
const LAYERS: [[usize; 2]; 3] = [[784, 256], [256, 128], [128, 10]];

/// The operands of all products, and a buffer for results.
#[derive(Debug)]
pub struct Exercise {
    numbers: Vec<f32>,
    out: Vec<f32>,
    products: Vec<Product>,
}

impl Default for Exercise {
    fn default() -> Self {
        let products: Vec<_> = LAYERS.iter().flat_map(|&[inputs, units]| of_layer(inputs, units)).collect();
        let most = |size: fn(&Product) -> usize| products.iter().map(size).max().unwrap_or(0);
        let operand = most(|product| product.inner * product.rows.max(product.columns));
        Self {
            numbers: fingerprint::numbers(operand),
            out: vec![0.0; most(|product| product.rows * product.columns)],
            products,
        }
    }
}

/// The products of the forward pass and of the weights' gradient; for all layers except the first, also that of
/// the inputs' gradient.
fn of_layer(inputs: usize, units: usize) -> impl Iterator<Item = Product> {
    let all = super::check::of_training(ROWS, inputs, units).into_iter();
    all.filter(move |product| inputs != LAYERS[0][0] || product.transposed != Transposed::Right)
}

impl Exercise {
    /// Computes all products once. Returns the number of operations; a multiplication and an addition count as
    /// two.
    pub fn compute(&mut self) -> u64 {
        let Self { numbers, out, products } = self;
        for product in products.iter() {
            let Product { rows, inner, columns, transposed } = *product;
            let (left, right) = (&numbers[..rows * inner], &numbers[..inner * columns]);
            let (left, right) = match transposed {
                Transposed::Neither => (Matrix::new(left, inner), Matrix::new(right, columns)),
                Transposed::Left => (Matrix::new(left, rows).transposed(), Matrix::new(right, columns)),
                Transposed::Right => (Matrix::new(left, inner), Matrix::new(right, inner).transposed()),
            };
            gemm(left, right, &mut out[..rows * columns]);
        }
        2 * products.iter().map(Product::work).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_eight_products() {
        let mut exercise = Exercise::default();
        // With 63 rows: 784·256 twice, and 256·128 and 128·10 three times each.
        let work = 63 * (2 * 784 * 256 + 3 * (256 * 128 + 128 * 10));
        assert_eq!((exercise.compute(), exercise.products.len()), (2 * work, 8));
    }
}
