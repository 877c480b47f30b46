//! Matrix multiplication: the only place that multiplies matrices.
//!
//! A product's bits depend on which code computes it: OpenBLAS, or a plain loop. Here the choice is a function of the
//! shape alone. A product with no dimension above [`TINY`], or with an empty one, is a plain loop, summed in order; every other
//! one is a single call of `cblas_sgemm`, on one thread.
//!
//! The rows of one call are never computed together with those of another: for some kernels a row's bits
//! depend on how many rows there are, so merging two calls changes the result.
//!
//! Subnormal numbers are zero, whichever code computes ([`subnormals`](super::subnormals)).

use super::subnormals::flushed;
use crate::blas::{self, Operand};

/// The largest dimension of a product that is computed without BLAS. Part of what every job's bits depend on.
const TINY: usize = 7;

/// A view of `[rows, columns]` numbers, row-major, or of the transpose of such a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `values` as a matrix with `columns` columns and as many rows as there are.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "a matrix has whole rows");
        Self { values, rows: values.len() / columns, columns, transposed: false }
    }

    /// The same numbers, `[columns, rows]`.
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, as seen through the transposition.
    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        self.values[row * self.columns + column]
    }

    /// The numbers as BLAS takes them. The transpose of a single row or column is the same numbers in the same order, so
    /// nothing needs to be transposed.
    fn operand(&self) -> Operand<'a> {
        let Self { values, rows, columns, .. } = *self;
        match self.transposed && rows > 1 && columns > 1 {
            true => Operand { values, stride: columns, transposed: true },
            false => Operand { values, stride: self.shape().1, transposed: false },
        }
    }
}

/// `out ← a · b`, for `a` `[m, k]`, `b` `[k, n]` and `out` `[m, n]`, row-major. What `out` held does not
/// matter.
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    let ((m, k), (inner, n)) = (a.shape(), b.shape());
    assert!(k == inner && out.len() == m * n, "shapes fit: [{m}, {k}] · [{inner}, {n}]");
    let dimensions = [m, k, n];
    if dimensions.contains(&0) || dimensions.iter().all(|dimension| *dimension <= TINY) {
        flushed(|| plain(a, b, out));
    } else {
        flushed(|| blas::sgemm(dimensions, a.operand(), b.operand(), out));
    }
}

fn plain(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    let ((_, k), (_, n)) = (a.shape(), b.shape());
    for (place, out) in out.iter_mut().enumerate() {
        let (row, column) = (place / n, place % n);
        *out = (0..k).fold(0.0, |sum, i| sum + a.at(row, i) * b.at(i, column));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 97) as f32 / 97.0 - 0.5).collect()
    }

    fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
        let rows = values.len() / columns;
        (0..values.len()).map(|i| values[(i % rows) * columns + i / rows]).collect()
    }

    #[test]
    fn products_are_right_for_every_shape_and_transposition() {
        let sizes = [1, 2, 7, 8, 9, 31, 62];
        for (m, k, n) in sizes.iter().flat_map(|m| sizes.iter().flat_map(move |k| sizes.map(|n| (*m, *k, n))))
        {
            let (a, b) = (values(m * k), values(k * n));
            let mut wanted = vec![0.0; m * n];
            plain(Matrix::new(&a, k), Matrix::new(&b, n), &mut wanted);
            let (a_turned, b_turned) = (transpose(&a, k), transpose(&b, n));
            for (a, b) in [
                (Matrix::new(&a, k), Matrix::new(&b, n)),
                (Matrix::new(&a_turned, m).transposed(), Matrix::new(&b, n)),
                (Matrix::new(&a, k), Matrix::new(&b_turned, k).transposed()),
            ] {
                let mut got = vec![f32::NAN; m * n];
                gemm(a, b, &mut got);
                for (got, wanted) in got.iter().zip(&wanted) {
                    assert!((got - wanted).abs() < 1e-5, "{m} {k} {n}: {got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn a_product_with_an_inner_size_of_zero_is_zero() {
        let mut out = [f32::NAN; 20];
        gemm(Matrix::new(&[], 10).transposed(), Matrix::new(&[], 2), &mut out);
        assert_eq!(out, [0.0; 20]);
    }

    #[test]
    fn a_product_of_no_rows_is_empty() {
        gemm(Matrix::new(&[], 10), Matrix::new(&values(200), 20), &mut []);
    }

    #[test]
    fn subnormal_operands_and_results_are_zero_in_every_product() {
        let tiny = f32::MIN_POSITIVE / 2.0;
        for size in [2, 7, 8, 20, 62, 300] {
            for (a, b) in [(tiny, 1e30), (1e30, tiny), (1e-20, 1e-20), (-1e-20, 1e-20)] {
                let (a, b) = (vec![a; size * size], vec![b; size * size]);
                let mut out = vec![f32::NAN; size * size];
                gemm(Matrix::new(&a, size), Matrix::new(&b, size), &mut out);
                assert!(out.iter().all(|value| *value == 0.0), "{size}: {}", out[0]);
            }
        }
    }

    #[test]
    fn nan_operands_give_nan_results() {
        for size in [2, 20] {
            let mut a = values(size * size);
            a[0] = f32::NAN;
            let mut out = vec![0.0; size * size];
            gemm(Matrix::new(&a, size), Matrix::new(&vec![0.0; size * size], size), &mut out);
            assert!(out[..size].iter().all(|value| value.is_nan()));
            assert!(out[size..].iter().all(|value| *value == 0.0));
        }
    }
}
