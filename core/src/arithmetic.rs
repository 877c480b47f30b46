//! What this process computes: which bits, and whether they are right.
//!
//! Names mislead: some kernels of different names give equal bits, two versions of one name need not. So what
//! counts is the *fingerprint*: the SHA-256 of results. That of an [`Arithmetic`] covers the elementwise
//! functions and a fixed set of products; [`model_fingerprint`] covers one job's own shapes. Whether products are right
//! says [`check`], and [`exercise`] is for those who measure how fast they are.

pub mod check;
pub mod exercise;
mod fingerprint;

use crate::blas;

pub use fingerprint::model_fingerprint;

/// How a process computes. Equal fingerprints give equal bits; kernel and version are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// The loaded kernel, such as `Haswell`.
    pub kernel: String,
    /// OpenBLAS' version, such as `0.3.21`.
    pub version: String,
    /// Hex SHA-256 of the results of the elementwise functions and of products of fixed shapes.
    pub fingerprint: String,
}

impl Arithmetic {
    /// How this process computes. Takes some milliseconds.
    pub fn of_this_process() -> Self {
        Self { kernel: blas::kernel(), version: blas::version(), fingerprint: fingerprint::of_this_process() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_arithmetic() {
        let arithmetic = Arithmetic::of_this_process();
        assert_eq!(arithmetic, Arithmetic::of_this_process());
        assert_eq!(arithmetic.fingerprint.len(), 64);
        assert!(arithmetic.version.starts_with("0."), "{arithmetic:?}");
        assert_ne!(arithmetic.kernel, "unknown");
    }
}
