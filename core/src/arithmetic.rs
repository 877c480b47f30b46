//! The arithmetic of this process: the bits that it computes, and whether they are correct.
//!
//! Kernel names are not enough: some kernels with different names give equal bits, and two versions of one kernel
//! may differ. The *fingerprint* decides instead: the SHA-256 of results. The fingerprint of an [`Arithmetic`]
//! covers the elementwise functions and a fixed set of products; [`model_fingerprint`] covers one job's own
//! shapes. [`check`] tests whether products are correct, and [`exercise`] is for measuring their speed.

pub mod check;
pub mod exercise;
mod fingerprint;

use crate::blas;

pub use fingerprint::model_fingerprint;

/// The arithmetic of a process. Equal fingerprints give equal bits; kernel and version are for display.
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
    /// Determines the arithmetic of this process. Takes some milliseconds.
    pub fn of_this_process() -> Self {
        Self { kernel: blas::kernel(), version: blas::version(), fingerprint: fingerprint::of_this_process() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_of_a_process_does_not_change() {
        let arithmetic = Arithmetic::of_this_process();
        assert_eq!(arithmetic, Arithmetic::of_this_process());
        assert_eq!(arithmetic.fingerprint.len(), 64);
        assert!(arithmetic.version.starts_with("0."), "{arithmetic:?}");
        assert_ne!(arithmetic.kernel, "unknown");
    }
}
