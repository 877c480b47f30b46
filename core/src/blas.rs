//! The BLAS that this process has loaded.
//!
//! OpenBLAS picks a kernel for the CPU when it is loaded, or loads the kernel that `OPENBLAS_CORETYPE` names.
//! Different kernels give different bits, and so do one and two threads. This module sets the number of threads
//! to one before the first product ([`sgemm`]). The job chooses the kernel. [`choice`] defines which kernel `native` is, and
//! [`environment`] decides whether a process has the right one. [`crate::arithmetic`] checks what the kernel
//! computes.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;

use cblas_sys::{CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_sgemm};
use ndarray::{ArrayView2, ArrayViewMut2};

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

/// Makes BLAS compute on the calling thread only. Called before every product; only the first call has an effect.
#[allow(unsafe_code)] // A call into C.
pub fn single_threaded() {
    static DONE: Once = Once::new();
    // SAFETY: the function takes any number, and `Once` keeps two threads from calling it at the same time.
    DONE.call_once(|| unsafe { c::openblas_set_num_threads(1) });
}

/// `out ← a · b`, by one call of `cblas_sgemm`, on this thread. `a` is `[m, k]`, `b` `[k, n]`, `out` `[m, n]`; `out` is
/// row-major, `a` and `b` are that or transposes of it, and none is empty. What `out` held does not matter.
#[allow(unsafe_code)] // A call into C.
pub fn sgemm(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
    let ((m, k), (inner, n)) = (a.dim(), b.dim());
    assert!(k == inner && out.dim() == (m, n) && m * k * n > 0 && out.is_standard_layout());
    single_threaded();
    let ((of_a, stride_a), (of_b, stride_b)) = (layout(&a), layout(&b));
    let (a, b, out, rows) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr(), CBLAS_LAYOUT::CblasRowMajor);
    let (m, k, n) = (index(m), index(k), index(n));
    // SAFETY: the views are valid for these sizes and strides, and `out` is borrowed by nobody else.
    unsafe { cblas_sgemm(rows, of_a, of_b, m, n, k, 1.0, a, stride_a, b, stride_b, 0.0, out, n) }
}

/// Whether BLAS must transpose the stored matrix, and the distance of its rows. A vector is the same either way: it is
/// given as it is.
fn layout(matrix: &ArrayView2<'_, f32>) -> (CBLAS_TRANSPOSE, c_int) {
    let (rows, columns) = matrix.dim();
    if matrix.is_standard_layout() || rows == 1 || columns == 1 {
        return (CBLAS_TRANSPOSE::CblasNoTrans, index(columns));
    }
    assert!(matrix.t().is_standard_layout(), "a matrix is stored by rows or by columns");
    (CBLAS_TRANSPOSE::CblasTrans, index(rows))
}

fn index(size: usize) -> c_int {
    size.try_into().expect("the limits of a job keep sizes far below 2^31")
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
