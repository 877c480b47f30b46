//! Checks that the loaded kernel computes correct products.
//!
//! Some builds of OpenBLAS compute wrong numbers on CPUs newer than they are, in the last rows of a product or in
//! all of it. So every product shape that a job needs is computed once on made-up numbers, and compared with sums
//! in f64. A sum of k products in f32, in any order and with or without fused multiplication, differs from the
//! exact sum by at most
//!
//! ```text
//! |fl(x·y) − x·y| ≤ γₖ · |x|·|y|,   γₖ = k·u / (1 − k·u),   u = 2⁻²⁴
//! ```
//!
//! (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1). A result outside of this
//! bound is wrong; a result inside is as accurate as f32 arithmetic guarantees. Each product is checked in two
//! ways:
//!
//! - *Entries*, each on its own: entries of the first and the last rows and columns, where a kernel's tiles are
//!   not full, and of some in between.
//! - *Rows*, as a whole: the entries of a row are added up, each with a sign, and compared with the same sum over
//!   the factors, which takes two matrix-vector products (R. Freivalds, 1977). The bounds of all entries add up,
//!   so that this finds large errors anywhere, while checking entries finds small errors.
//!
//! The numbers are multiples of 2⁻²³ in `[-1, 1)`, so that nothing underflows.

use std::collections::BTreeSet;
use std::fmt;

use super::fingerprint;
use crate::learn::gemm::{Matrix, gemm};
use crate::learn::layers::Layer;
use crate::learn::model::Model;
use crate::learn::spec::Spec;

/// A matrix product of training or evaluation: `[rows, inner] · [inner, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Product {
    /// Rows of the left factor.
    pub rows: usize,
    /// Columns of the left factor, and rows of the right factor.
    pub inner: usize,
    /// Columns of the right factor.
    pub columns: usize,
    /// Which factor lies transposed in memory.
    pub transposed: Transposed,
}

/// Which factor of a product lies transposed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transposed {
    /// Neither: a layer's forward pass.
    Neither,
    /// The left factor: the gradient of a layer's weights.
    Left,
    /// The right factor: the gradient of a layer's inputs.
    Right,
}

/// An entry or a whole row of a product that differs from the correct result by more than any order of additions
/// explains.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// The product.
    pub product: Product,
    /// The row, from 0.
    pub row: usize,
    /// The column, from 0; `None` for a sum over the row.
    pub column: Option<usize>,
    /// What the kernel computed.
    pub got: f64,
    /// The correct result.
    pub right: f64,
    /// The maximum error that is allowed.
    pub bound: f64,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, inner, columns, transposed } = *self;
        match transposed {
            Transposed::Neither => write!(f, "[{rows}, {inner}] · [{inner}, {columns}]"),
            Transposed::Left => write!(f, "[{inner}, {rows}]ᵀ · [{inner}, {columns}]"),
            Transposed::Right => write!(f, "[{rows}, {inner}] · [{columns}, {inner}]ᵀ"),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { product, row, column, got, right, bound } = self;
        match column {
            Some(column) => write!(f, "in {product}, row {row} and column {column} come to {got:.6}")?,
            None => write!(f, "in {product}, row {row} adds up to {got:.6}")?,
        }
        write!(f, "; right is {right:.6} ± {bound:.1e}")
    }
}

/// Computes the products, and returns an error for the first wrong one. Takes some milliseconds.
///
/// `spoil` is called on each result before the check, so that tests can falsify it.
///
/// # Errors
/// The first wrong entry or row.
pub fn check(
    products: impl IntoIterator<Item = Product>,
    mut spoil: impl FnMut(&Product, &mut [f32]),
) -> Result<(), Wrong> {
    let mut numbers = Vec::new();
    for product in products {
        let needed = product.rows * product.inner + product.inner * product.columns;
        if numbers.len() < needed {
            numbers = fingerprint::numbers(needed);
        }
        let (left, right) = numbers[..needed].split_at(product.rows * product.inner);
        let mut out = product.compute(left, right);
        spoil(&product, &mut out);
        product.compare(left, right, &out)?;
    }
    Ok(())
}

/// Products of every kind and many sizes, to check a process before its job is known.
pub fn general() -> BTreeSet<Product> {
    let trained =
        fingerprint::TRAINED.into_iter().flat_map(|[rows, inputs, units]| of_training(rows, inputs, units));
    let evaluated =
        fingerprint::EVALUATED.into_iter().map(|[rows, inputs, units]| forward(rows, inputs, units));
    trained.chain(evaluated).collect()
}

/// The products of a job, for every size of its training pieces and of its evaluation chunks.
pub fn of_job(spec: &Spec) -> BTreeSet<Product> {
    let layers = dense_layers(spec);
    // The gradient with respect to the samples is not needed, unless something before the first dense layer learns.
    let mut before = spec.layers.iter().take_while(|layer| !matches!(layer, Layer::Dense(_)));
    let goes_on = before.any(Layer::is_trainable);
    let asked_for =
        |layer: usize, product: &Product| goes_on || layer > 0 || product.transposed != Transposed::Right;
    let trained = fingerprint::piece_sizes(spec).into_iter().flat_map(|rows| {
        layers.iter().enumerate().flat_map(move |(layer, &[inputs, units])| {
            let products = of_training(rows as usize, inputs, units);
            products.into_iter().filter(move |product| asked_for(layer, product))
        })
    });
    let evaluated = fingerprint::chunk_sizes(spec)
        .into_iter()
        .flat_map(|rows| layers.iter().map(move |&[inputs, units]| forward(rows as usize, inputs, units)));
    trained.chain(evaluated).collect()
}

/// The inputs and units of each dense layer.
fn dense_layers(spec: &Spec) -> Vec<[usize; 2]> {
    let model = Model::new(spec.inputs(), &spec.layers);
    let kernels = model.tensors().into_iter().filter_map(|tensor| <[usize; 2]>::try_from(tensor.shape).ok());
    kernels.collect()
}

fn forward(rows: usize, inputs: usize, units: usize) -> Product {
    Product { rows, inner: inputs, columns: units, transposed: Transposed::Neither }
}

pub(super) fn of_training(rows: usize, inputs: usize, units: usize) -> [Product; 3] {
    [
        forward(rows, inputs, units),
        Product { rows: inputs, inner: rows, columns: units, transposed: Transposed::Left },
        Product { rows, inner: units, columns: inputs, transposed: Transposed::Right },
    ]
}

/// A sum in f64, and the maximum error of the kernel's result.
struct Exact {
    sum: f64,
    bound: f64,
}

impl Product {
    /// The number of scalar multiplications.
    pub fn work(&self) -> u64 {
        self.rows as u64 * self.inner as u64 * self.columns as u64
    }

    /// Computes `left` `[rows, inner]` times `right` `[inner, columns]` with the kernel.
    fn compute(&self, left: &[f32], right: &[f32]) -> Vec<f32> {
        // NaN reveals entries that the kernel does not write.
        let mut out = vec![f32::NAN; self.rows * self.columns];
        match self.transposed {
            Transposed::Neither => {
                gemm(Matrix::new(left, self.inner), Matrix::new(right, self.columns), &mut out);
            }
            Transposed::Left => {
                let turned = transpose(left, self.inner);
                let left = Matrix::new(&turned, self.rows).transposed();
                gemm(left, Matrix::new(right, self.columns), &mut out);
            }
            Transposed::Right => {
                let turned = transpose(right, self.columns);
                let right = Matrix::new(&turned, self.inner).transposed();
                gemm(Matrix::new(left, self.inner), right, &mut out);
            }
        }
        out
    }

    fn compare(&self, left: &[f32], right: &[f32], out: &[f32]) -> Result<(), Wrong> {
        self.compare_rows(left, right, out)?;
        self.compare_entries(left, right, out)
    }

    fn compare_entries(&self, left: &[f32], right: &[f32], out: &[f32]) -> Result<(), Wrong> {
        let mut column_values = Vec::with_capacity(self.inner);
        for column in sample(self.columns) {
            column_values.clear();
            column_values
                .extend(right.iter().skip(column).step_by(self.columns).map(|&value| f64::from(value)));
            for row in sample(self.rows) {
                let exact = self.exact(&left[row * self.inner..][..self.inner], &column_values, None);
                let got = out[row * self.columns + column].into();
                self.accept(row, Some(column), got, &exact)?;
            }
        }
        Ok(())
    }

    fn compare_rows(&self, left: &[f32], right: &[f32], out: &[f32]) -> Result<(), Wrong> {
        let signs: Vec<f64> = (0..self.columns as u32).map(sign).collect();
        let ones = vec![1.0; self.columns];
        let sums: Vec<f64> = right.chunks_exact(self.columns).map(|row| dot(row, &signs)).collect();
        let sizes: Vec<f64> = right.chunks_exact(self.columns).map(|row| dot_of_sizes(row, &ones)).collect();
        let rows = left.chunks_exact(self.inner).zip(out.chunks_exact(self.columns));
        for (row, (left, out)) in rows.enumerate() {
            let exact = self.exact(left, &sums, Some(&sizes));
            self.accept(row, None, dot(out, &signs), &exact)?;
        }
        Ok(())
    }

    /// The sum of products, and its bound: γ times the sum of the products' magnitudes, computed from `sizes`, or
    /// from `factors` if `sizes` is `None`.
    fn exact(&self, row: &[f32], factors: &[f64], sizes: Option<&[f64]>) -> Exact {
        Exact {
            sum: dot(row, factors),
            bound: gamma(self.inner) * dot_of_sizes(row, sizes.unwrap_or(factors)),
        }
    }

    fn accept(&self, row: usize, column: Option<usize>, got: f64, exact: &Exact) -> Result<(), Wrong> {
        let Exact { sum: right, bound } = *exact;
        // Not `>`: NaN must count as wrong.
        if (got - right).abs() <= bound {
            return Ok(());
        }
        Err(Wrong { product: *self, row, column, got, right, bound })
    }
}

/// γₖ for f32, with k + 1 in place of k to cover the rounding of the sums in f64.
fn gamma(k: usize) -> f64 {
    let ku = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0;
    ku / (1.0 - ku)
}

/// Up to twelve of `len` indices: the first and last ones, and some in between.
fn sample(len: usize) -> impl Iterator<Item = usize> {
    const EDGE: usize = 3;
    let between = (1..=6).map(move |i| i * len / 7);
    let places: BTreeSet<usize> = (0..EDGE.min(len))
        .chain(between)
        .chain(len.saturating_sub(EDGE)..len)
        .filter(|&place| place < len)
        .collect();
    places.into_iter()
}

/// 1 or -1, in a pseudorandom pattern.
fn sign(place: u32) -> f64 {
    if fingerprint::scattered(place) & 1 == 0 { 1.0 } else { -1.0 }
}

fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

fn dot(left: &[f32], right: &[f64]) -> f64 {
    sum_of(left, right, |x, y| x * y)
}

/// |x|·|y|.
fn dot_of_sizes(left: &[f32], right: &[f64]) -> f64 {
    sum_of(left, right, |x, y| (x * y).abs())
}

/// Sums in several lanes, so that the compiler can vectorise.
fn sum_of(left: &[f32], right: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (lefts, rights) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = lefts.remainder().iter().zip(rights.remainder()).map(|(&x, &y)| term(x.into(), y));
    let rest: f64 = rest.sum();
    for (left, right) in lefts.zip(rights) {
        for lane in 0..LANES {
            sums[lane] += term(left[lane].into(), right[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::schema::{Features, Schema, Target};
    use crate::data::split::Sizes;
    use crate::job::Job;

    fn article() -> Spec {
        let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
        Job::default().spec(schema, Sizes { train: 48_000, validation: 12_000, test: 10_000 })
    }

    #[test]
    fn the_loaded_kernel_passes_the_check() {
        assert_eq!(check(general(), |_, _| {}), Ok(()));
        assert_eq!(check(of_job(&article()), |_, _| {}), Ok(()));
    }

    #[test]
    fn the_articles_products_are_checked() {
        let products: Vec<_> = of_job(&article()).iter().map(Product::to_string).collect();
        for product in [
            "[62, 784] · [784, 256]",
            "[63, 784]ᵀ · [63, 256]",
            "[62, 10] · [128, 10]ᵀ",
            "[250, 784] · [784, 256]",
        ] {
            assert!(products.iter().any(|found| found == product), "{product} in {products:?}");
        }
        // Three layers in two sizes: three products of each except two for the first layer, and one of each in
        // evaluation.
        assert_eq!(products.len(), (3 * 3 - 1) * 2 + 3);
    }

    #[test]
    fn a_rounding_error_is_accepted_and_a_small_mistake_is_not() {
        let product = forward(62, 784, 256);
        let nudge = |by: f32| check([product], |product, out| out[61 * product.columns + 255] += by);
        assert_eq!(nudge(1e-4), Ok(()));
        let wrong = nudge(0.05).unwrap_err();
        assert_eq!((wrong.row, wrong.column), (61, Some(255)));
    }

    #[test]
    fn an_entry_that_is_nan_is_found() {
        let wrong = check([forward(62, 256, 128)], |_, out| out[30 * 128 + 77] = f32::NAN).unwrap_err();
        assert_eq!((wrong.row, wrong.column), (30, None));
        assert!(wrong.to_string().starts_with("in [62, 256] · [256, 128], row 30 adds up to NaN; right is "));
    }

    proptest! {
        #[test]
        fn a_large_error_in_any_entry_is_found(
            product in prop::sample::select(of_job(&article()).into_iter().collect::<Vec<_>>()),
            place: prop::sample::Index,
        ) {
            let place = place.index(product.rows * product.columns);
            // Larger than any sum of so many products of numbers below 1.
            let gross = (product.inner * product.columns) as f32;
            let wrong = check([product], |_, out| out[place] += gross).unwrap_err();
            prop_assert_eq!(wrong.row, place / product.columns);
        }

        #[test]
        fn products_of_every_shape_are_right(rows in 1usize..70, inner in 1usize..70, columns in 1usize..70) {
            for transposed in [Transposed::Neither, Transposed::Left, Transposed::Right] {
                prop_assert_eq!(check([Product { rows, inner, columns, transposed }], |_, _| {}), Ok(()));
            }
        }
    }
}
