//! Named points at which tests make a program fail.
//!
//! They exist in builds with the feature `failpoints` only, which no release has; elsewhere they are nothing. The
//! variable `FAILPOINTS` says what happens at them, in the words of the crate `fail`: `name=actions`, several of
//! them with `;` in between. `worker-before-send=3*off->return` lets three results go and strikes at the fourth.
//!
//! Each program lists its own points in a module of this name. Those that both have are:
//!
//! | point | where it is passed | what `return` does |
//! | --- | --- | --- |
//! | `instructions` | when the process starts | `return(N)`: loops use the N narrowest instruction sets only |
//! | `openblas-picks` | a process asks which kernel OpenBLAS picks by itself | with the name of a kernel: it is that one |
//! | `kernel-wrong` | a process that tries a kernel has computed a product | with names of kernels, the one among them: an entry is wrong |
//! | `kernel-kills` | a process begins to try a kernel | likewise: the process dies by SIGILL |
//! | `kernel-hangs` | a process begins to try a kernel | likewise: the process stays there, and is given up after a second |
//!
//! Death is an abort: nothing is sent, flushed or said any more, as with SIGKILL. A process counts for itself: one
//! that is started again with the same variable counts anew.

use std::time::Duration;

use fail::fail_point;
#[cfg(feature = "failpoints")]
use millefeuille_core::learn::elementwise;
use rustix::process::{Signal, getpid, kill_process};

const OPENBLAS_PICKS: &str = "openblas-picks";
const KERNEL_WRONG: &str = "kernel-wrong";
const KERNEL_KILLS: &str = "kernel-kills";
const KERNEL_HANGS: &str = "kernel-hangs";

/// Between two looks at a point that makes a process hang.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// Arms the points that the variable `FAILPOINTS` names. Another call arms them anew.
///
/// # Panics
/// If an action is none that `fail` knows.
#[cfg(feature = "failpoints")]
pub fn set_up() {
    // Not by a `FailScenario`: that holds a lock for as long as it lives, and a second one would wait for it.
    let points = crate::variables::text("FAILPOINTS").unwrap_or_default();
    for point in points.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').unwrap_or((point, ""));
        fail::cfg(name, actions).unwrap_or_else(|error| panic!("FAILPOINTS: {point}: {error}"));
    }
    fail_point!("instructions", |most| {
        elementwise::narrow_to(most.and_then(|most| most.parse().ok()).unwrap_or(1));
    });
}

/// Nothing: this build has no points.
#[cfg(not(feature = "failpoints"))]
pub fn set_up() {}

/// Whether the point says `return`. What else it may say (to sleep, to pause) it does meanwhile.
#[cfg_attr(not(feature = "failpoints"), allow(unused_variables))]
pub fn strikes(point: &str) -> bool {
    fail_point!(point, |_| true);
    false
}

/// Dies if the point says so.
pub fn die_at(point: &str) {
    if strikes(point) {
        std::process::abort();
    }
}

/// What the point returns, where it says `return(…)`.
#[cfg_attr(not(feature = "failpoints"), allow(unused_variables))]
fn told(point: &str) -> Option<String> {
    fail_point!(point, |what| what);
    None
}

/// What OpenBLAS picks, if the point says so.
pub(crate) fn own_pick() -> Option<String> {
    told(OPENBLAS_PICKS)
}

/// Whether this kernel is among those that the point returns.
fn strikes_kernel(point: &str, kernel: &str) -> bool {
    told(point).is_some_and(|kernels| kernels.split(' ').any(|name| name == kernel))
}

/// How long a process that tries a kernel is waited for, if one is to hang.
pub(crate) fn patience() -> Option<Duration> {
    told(KERNEL_HANGS).map(|_| Duration::from_secs(1))
}

/// Dies or hangs if the points say so of this kernel.
pub(crate) fn misbehave_as(kernel: &str) {
    if strikes_kernel(KERNEL_KILLS, kernel) {
        let _ = kill_process(getpid(), Signal::ILL);
    }
    while strikes_kernel(KERNEL_HANGS, kernel) {
        std::thread::sleep(NEXT_LOOK);
    }
}

/// Makes an entry of a product wrong if the point says so of this kernel.
pub(crate) fn spoil_product(kernel: &str, out: &mut [f32]) {
    let middle = out.len() / 2;
    if strikes_kernel(KERNEL_WRONG, kernel) {
        out[middle] += 1e6;
    }
}
