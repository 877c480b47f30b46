//! Subnormal numbers are zero wherever a model's numbers are computed.
//!
//! A subnormal `f32` is one below 2⁻¹²⁶ in size. Saturated activations fill gradients with them. They carry next to
//! no information, and Intel's cores take a hundred cycles and more for each: the article's training took four
//! times as long. So it is part of this project's arithmetic that subnormal operands count as zero and subnormal
//! results become zero, their sign kept, as TensorFlow has it in its threads.
//!
//! CPUs have a mode for that: `DAZ` and `FTZ` of MXCSR on x86-64, `FZ` of FPCR on aarch64. (They differ in results
//! just below 2⁻¹²⁶ that rounding would make normal: x86 keeps them, Arm does not.) [`flushed`] is the one place
//! that turns it on. It does so for one computation and restores what was there before. [`gemm`](super::gemm), each
//! loop of [`elementwise`](super::elementwise) and [`piece`](super::piece), for the losses, call it themselves, so
//! no caller and no thread can compute without it; calls within calls cost a look at the register.
//!
//! **What is promised about the register.** The C ABIs of both architectures let a function run in any mode and have
//! the called function preserve it, so OpenBLAS may be called so. Rust is stricter: its compiler takes every
//! floating-point operation to run in the default mode, and the documentation of `_mm_setcsr` calls it undefined
//! behaviour to change the mode under Rust code, except within one block of inline assembly. Two things could go
//! wrong if it were changed in the middle of Rust code: an operation could be moved across the change, or be
//! computed by the compiler, which keeps subnormal results. That is why this is no guard object. The mode is set,
//! the computation called and the mode restored within one block of assembly. To the compiler that is an opaque
//! call: nothing moves into it or out of it. What runs inside are loops over slices, whose operands it can't know
//! and so can't compute. It may still replace an operation by one that agrees in the default mode only: `x == 0.0`
//! became a comparison of bits, `x * 1.0` may become `x`. Loops avoid the first, and the second leaves a number
//! that the next operation flushes. That the compiled loops really flush, with every instruction set and on any
//! thread, is compared bit for bit with a model of the mode in the tests below and in `elementwise`.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Computes with subnormal operands counting as zero and subnormal results becoming zero, on this thread, until
/// `compute` returns or panics.
pub fn flushed<R>(compute: impl FnOnce() -> R) -> R {
    let before = control::read();
    if before & control::FLUSH == control::FLUSH {
        return compute();
    }
    let mut call = Call { compute: Some(compute), result: None };
    control::call(before | control::FLUSH, before, Call::run_erased(&call), (&raw mut call).cast());
    match call.result.expect("the call has run") {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

/// A closure on its way through assembly, which knows neither its type nor panics.
struct Call<F, R> {
    compute: Option<F>,
    result: Option<Result<R, Box<dyn Any + Send>>>,
}

type Erased = extern "C" fn(*mut c_void);

impl<R, F: FnOnce() -> R> Call<F, R> {
    fn run_erased(_: &Self) -> Erased {
        Self::run
    }

    #[allow(unsafe_code)] // The pointer's type was erased on the way.
    extern "C" fn run(call: *mut c_void) {
        // SAFETY: `flushed` passes a pointer to a value of this very type, which lives until the call returns and is
        // not used by other code meanwhile.
        let call = unsafe { &mut *call.cast::<Self>() };
        let compute = call.compute.take();
        call.result = compute.map(|compute| catch_unwind(AssertUnwindSafe(compute)));
    }
}

/// MXCSR (Intel's *Software Developer's Manual*, volume 1, section 10.2.3).
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // Inline assembly.
mod control {
    use std::arch::asm;
    use std::ffi::c_void;

    use super::Erased;

    pub(super) type Register = u32;

    /// Flush to zero (bit 15), and denormals are zero (bit 6).
    pub(super) const FLUSH: Register = 1 << 15 | 1 << 6;

    pub(super) fn read() -> Register {
        let mut value: Register = 0;
        // SAFETY: stores four bytes where `value` is.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// `function(argument)` with `during` in the register, then `after`.
    pub(super) fn call(during: Register, after: Register, function: Erased, argument: *mut c_void) {
        // SAFETY: both values are what the register had, but for the bits above. The call follows the C ABI: the
        // stack is aligned for calls at the beginning of a block, r12 is preserved by the called function, which
        // doesn't unwind, and all that it may change is declared.
        unsafe {
            asm!(
                "ldmxcsr [{during}]",
                "call {function}",
                "ldmxcsr [r12]",
                during = in(reg) &raw const during,
                function = in(reg) function,
                in("rdi") argument,
                in("r12") &raw const after,
                clobber_abi("sysv64"),
            );
        }
    }
}

/// FPCR (Arm's *Architecture Reference Manual* for A-profile, section C5.2).
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)] // Inline assembly.
mod control {
    use std::arch::asm;
    use std::ffi::c_void;

    use super::Erased;

    pub(super) type Register = u64;

    /// Flush to zero, operands and results (bit 24).
    pub(super) const FLUSH: Register = 1 << 24;

    pub(super) fn read() -> Register {
        let value: Register;
        // SAFETY: reads a register that every thread may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    /// `function(argument)` with `during` in the register, then `after`.
    pub(super) fn call(during: Register, after: Register, function: Erased, argument: *mut c_void) {
        // SAFETY: as for x86-64; here it is x20 that the called function preserves.
        unsafe {
            asm!(
                "msr fpcr, {during}",
                "blr {function}",
                "msr fpcr, x20",
                during = in(reg) during,
                function = in(reg) function,
                in("x0") argument,
                in("x20") after,
                clobber_abi("C"),
            );
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("say in learn/subnormals.rs how this architecture flushes subnormal numbers to zero");

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    const TINY: f32 = f32::from_bits(1);

    /// What the CPU makes of these right now, whatever the compiler knows about them.
    fn product(a: f32, b: f32) -> f32 {
        black_box(black_box(a) * black_box(b))
    }

    #[test]
    fn subnormal_operands_count_as_zero_and_keep_their_sign() {
        let (positive, negative) = flushed(|| (product(TINY, 1e30), product(-TINY, 1e30)));
        assert_eq!([positive.to_bits(), negative.to_bits()], [0, 1 << 31]);
    }

    #[test]
    fn subnormal_results_become_zero_and_keep_their_sign() {
        let (positive, negative) = flushed(|| (product(1e-30, 1e-10), product(-1e-30, 1e-10)));
        assert_eq!([positive.to_bits(), negative.to_bits()], [0, 1 << 31]);
        assert_ne!(product(1e-30, 1e-10), 0.0, "outside, the mode is unchanged");
    }

    #[test]
    fn the_mode_ends_with_the_computation_even_if_it_panics() {
        let before = control::read();
        flushed(|| flushed(|| assert_eq!(control::read() & control::FLUSH, control::FLUSH)));
        assert_eq!(control::read(), before);
        let panic = catch_unwind(|| flushed(|| panic!("on purpose")));
        assert!(panic.is_err());
        assert_eq!(control::read(), before);
    }

    #[test]
    fn a_nested_computation_leaves_the_mode_on() {
        let within = flushed(|| {
            flushed(|| product(1e-30, 1e-10));
            control::read()
        });
        assert_eq!(within & control::FLUSH, control::FLUSH);
    }

    #[test]
    fn every_thread_flushes_by_itself() {
        let zero = flushed(|| std::thread::spawn(|| flushed(|| product(1e-30, 1e-10))).join());
        assert_eq!(zero.unwrap(), 0.0);
        let apart = std::thread::spawn(|| flushed(|| product(1e-30, 1e-10))).join();
        assert_eq!(apart.unwrap(), 0.0);
    }
}
