//! The numbers: models, gradients, the optimizer, and the order in which sums are added.
//!
//! The same bits must come out on whichever machine, so each kind of computation has one place:
//!
//! - [`gemm`] is the only caller of matrix products, one shard at a time, on one BLAS thread.
//! - [`elementwise`] has every loop over single numbers, with functions of its own instead of the C
//!   library's.
//! - [`subnormals`] has both of them compute without subnormal numbers.
//! - [`model`] knows the layers and where their parameters lie.
//! - [`piece`] puts them together: forward, loss, backward for one shard's part of a step.
//! - [`tree`] says in which order pieces are added, [`sum`] adds them, [`optimizer`] says what is done with the sum.
//! - [`spec`] is what a worker must know of a job for all this.
//!
//! A new activation is an arm in [`piece`] and a pair of loops in [`elementwise`]; a new loss an arm beside a
//! function in `loss`; a new optimizer a variant of [`optimizer::OptimizerState`]. The compiler names the
//! places, and the reference vectors in the tests name what is not covered yet.

pub mod elementwise;
pub mod gemm;
mod loss;
pub mod model;
pub mod optimizer;
pub mod piece;
pub mod spec;
pub mod subnormals;
pub mod sum;
pub mod tree;
