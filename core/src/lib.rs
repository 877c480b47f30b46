//! The numbers and the decisions of Millefeuille.
//!
//! Everything here is a function of its arguments: no sockets, no clock, no randomness that was not seeded. (Two
//! threads decode and partition data; the result is the same as with one.) Connections, files and processes are in
//! other crates; what must be the same on every machine and in every test is here.
//!
//! - [`job`]: what to train, as the user wrote it and as it was resolved.
//! - [`data`]: readers, the validation split, shards and the batch plan.
//! - [`learn`]: the model, its gradients, the optimizer, the reduction tree.
//! - [`control`]: who computes what, when: a state machine, `handle(now, event) -> actions`.
//! - [`view`]: what can be seen of a cluster, as plain values; [`failure`]: what went wrong, as a value; [`text`]: text from
//!   outside, cleaned.
//! - [`random`]: every random number, as a function of its coordinates.
//! - [`blas`]: which BLAS kernel is loaded, and which one a job asks for.
//! - [`arithmetic`]: what this process computes with it: which bits, and whether they are right.

// Links BLAS into everything that uses this crate.
use blas_src as _;
use openblas_src as _;

pub mod arithmetic;
pub mod blas;
pub mod control;
pub mod data;
pub mod failure;
pub mod job;
pub mod learn;
pub mod random;
mod registry;
pub mod text;
pub mod view;
