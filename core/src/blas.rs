//! The BLAS that this process has loaded.
//!
//! OpenBLAS picks a kernel for the CPU when it is loaded, or loads the kernel that `OPENBLAS_CORETYPE` names.
//! Different kernels give different bits, and so do one and two threads. This module sets the number of threads
//! to one before the first call. The job chooses the kernel. [`choice`] defines which kernel `native` is, and
//! [`environment`] decides whether a process has the right one. [`crate::arithmetic`] checks what the kernel
//! computes.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;

use cblas_sys::{CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_sgemm};

pub mod choice;
pub mod environment;

#[allow(unsafe_code)] // OpenBLAS is C.
mod c {
    use super::{c_char, c_int};

    unsafe extern "C" {
        pub(super) fn openblas_set_num_threads(threads: c_int);
        pub(super) fn openblas_get_corename() -> *const c_char;
        pub(super) fn openblas_get_config() -> *const c_char;
    }
}

/// A matrix as `cblas_sgemm` takes it: rows, as they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    pub(crate) values: &'a [f32],
    /// From the start of a stored row to that of the next.
    pub(crate) stride: usize,
    /// Whether the transpose of what is stored is meant.
    pub(crate) transposed: bool,
}

/// `out ← a · b`, for `a` `[m, k]`, `b` `[k, n]` and `out` `[m, n]`, on the calling thread. No dimension is 0.
///
/// # Panics
/// If the numbers are not as many as the dimensions say.
#[allow(unsafe_code)] // A call into C.
pub(crate) fn sgemm([m, k, n]: [usize; 3], a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    assert!(
        a.values.len() == m * k && b.values.len() == k * n && out.len() == m * n && !out.is_empty() && k > 0,
        "matrices have as many numbers as their dimensions say"
    );
    let whole = |number: usize| c_int::try_from(number).expect("a job's dimensions have 31 bits");
    let transpose = |operand: Operand<'_>| match operand.transposed {
        true => CBLAS_TRANSPOSE::CblasTrans,
        false => CBLAS_TRANSPOSE::CblasNoTrans,
    };
    single_threaded();
    // SAFETY: the lengths are those of the dimensions, the strides those of whole rows, and `out` is nobody else's.
    unsafe {
        cblas_sgemm(
            CBLAS_LAYOUT::CblasRowMajor,
            transpose(a),
            transpose(b),
            whole(m),
            whole(n),
            whole(k),
            1.0,
            a.values.as_ptr(),
            whole(a.stride),
            b.values.as_ptr(),
            whole(b.stride),
            0.0,
            out.as_mut_ptr(),
            whole(n),
        );
    }
}

/// Makes BLAS compute on the calling thread only. Called before every product; only the first call has an effect.
#[allow(unsafe_code)] // A call into C.
pub fn single_threaded() {
    static DONE: Once = Once::new();
    // SAFETY: the function takes any number, and `Once` keeps two threads from calling it at the same time.
    DONE.call_once(|| unsafe { c::openblas_set_num_threads(1) });
}

/// The loaded kernel, such as `Haswell`.
#[allow(unsafe_code)] // A call into C.
pub fn kernel() -> String {
    // SAFETY: the function takes nothing and returns a string that lives as long as the process.
    text(unsafe { c::openblas_get_corename() })
}

/// OpenBLAS' version, such as `0.3.21`.
#[allow(unsafe_code)] // A call into C.
pub fn version() -> String {
    // SAFETY: as in `kernel`.
    version_of(&text(unsafe { c::openblas_get_config() }))
}

/// The second word of `OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …`.
fn version_of(config: &str) -> String {
    config.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}

#[allow(unsafe_code)] // Reads a C string.
fn text(string: *const c_char) -> String {
    if string.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: OpenBLAS' strings end with a zero byte and are never freed; this one is not null.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word_of_the_configuration() {
        assert_eq!(version_of("OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH Haswell MAX_THREADS=64"), "0.3.21");
        assert_eq!(version_of(""), "unknown");
    }
}
