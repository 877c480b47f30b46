//! The numbers: models, gradients, the optimizer, and the order in which sums are added.
//!
//! The same bits must come out on whichever machine, so each kind of computation has one place:
//!
//! - [`gemm`] is the only caller of matrix products, one shard at a time, on one BLAS thread.
//! - [`elementwise`] has every loop over single numbers, with functions of its own instead of the C
//!   library's.
//! - [`subnormals`] has both of them compute without subnormal numbers.
//! - [`layers`] and [`model`] say what is computed and where the parameters lie; [`activations`], [`heads`] (losses) and
//!   [`metrics`] have a file for each of their kind. [`initializers`] say what kernels are at first; `normalization` and
//!   `regularization` have the loops of these.
//! - [`piece`] puts them together: forward, loss, backward for one shard's part of a step.
//! - [`work`] says which pieces a unit of work has, and computes any of them.
//! - [`tree`] says in which order pieces are added, [`sum`] adds them, [`optimizers`] say what is done with the sum.
//! - [`schedules`] say how the learning rate changes, [`accumulation`] how many mini-batches make a step, [`monitor`] which
//!   figure of an epoch decides something, [`stopping`] when a job is over before its last epoch.
//! - [`spec`] is what a worker must know of a job for all this, [`limits`] how large its parts may be, [`memory`] how much
//!   memory they take.
//!
//! A new activation, loss, metric or optimizer is one file and a line in the registry of its kind; the reference
//! vectors in the tests list the cases that have no implementation yet.
//!
//! Not here: which worker computes what (`control`), and reading or writing of anything.

pub mod accumulation;
pub mod activations;
pub mod elementwise;
pub mod gemm;
pub mod heads;
pub mod initializers;
pub mod layers;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod monitor;
mod normalization;
pub mod optimizers;
pub mod piece;
mod regularization;
pub mod schedules;
pub mod spec;
pub mod stopping;
pub mod subnormals;
pub mod sum;
pub mod tree;
pub mod work;
