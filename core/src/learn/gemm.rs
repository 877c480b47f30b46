//! Matrix multiplication: the only place that multiplies matrices.
//!
//! A product's bits depend on which code computes it, so that is a function of the shape alone: a product with no
//! dimension above [`TINY`] is a plain loop, summed in order; every other one is a single call of `cblas_sgemm`, on one
//! thread.
//!
//! The rows of one call are never computed together with those of another: for some kernels a row's bits
//! depend on how many rows there are, so merging two calls changes the result.
//!
//! Subnormal numbers are zero, whichever code computes ([`subnormals`](super::subnormals)).

use ndarray::{ArrayView2, ArrayViewMut2};

use super::subnormals::flushed;
use crate::blas;

/// The largest dimension of a product that is a plain loop: a call of BLAS costs more there. It is part of the
/// arithmetic; another number gives other bits.
const TINY: usize = 7;

/// A view of `[rows, columns]` numbers, row-major, or of the transpose of such a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a>(ArrayView2<'a, f32>);

impl<'a> Matrix<'a> {
    /// `values` as a matrix with `columns` columns and as many rows as there are.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "a matrix has whole rows");
        let shape = (values.len() / columns, columns);
        Self(ArrayView2::from_shape(shape, values).expect("there are as many values"))
    }

    /// The same numbers, `[columns, rows]`.
    pub fn transposed(self) -> Self {
        Self(self.0.reversed_axes())
    }
}

/// `out ← a · b`, for `a` `[m, k]`, `b` `[k, n]` and `out` `[m, n]`, row-major. What `out` held does not
/// matter.
pub fn gemm(Matrix(a): Matrix<'_>, Matrix(b): Matrix<'_>, out: &mut [f32]) {
    let ((m, k), (inner, n)) = (a.dim(), b.dim());
    assert!(k == inner && out.len() == m * n, "shapes fit: [{m}, {k}] · [{inner}, {n}]");
    let out = ArrayViewMut2::from_shape((m, n), out).expect("the length was checked above");
    let dimensions = [m, k, n];
    if dimensions.contains(&0) || dimensions.iter().all(|dimension| *dimension <= TINY) {
        flushed(|| plain(a, b, out));
    } else {
        flushed(|| blas::sgemm(a, b, out));
    }
}

fn plain(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
    for ((row, column), out) in out.indexed_iter_mut() {
        *out = a.row(row).iter().zip(b.column(column)).fold(0.0, |sum, (a, b)| sum + a * b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 97) as f32 / 97.0 - 0.5).collect()
    }

    fn as_matrix(values: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
        ArrayViewMut2::from_shape((values.len() / columns, columns), values).unwrap()
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
            plain(Matrix::new(&a, k).0, Matrix::new(&b, n).0, as_matrix(&mut wanted, n));
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
