//! Named points at which tests make a program fail.
//!
//! They exist only in builds with the feature `failpoints`, which no release has; otherwise they compile to nothing.
//! The variable `FAILPOINTS` sets their actions, in the syntax of the crate `fail`: `name=actions`, separated by `;`.
//! For example, `worker-before-send=3*off->return` lets three results pass and fails at the fourth.
//!
//! Each program lists its own points in a module of this name. The points that both programs have:
//!
//! | point | where it is passed | what `return` does |
//! | --- | --- | --- |
//! | `instructions` | when the process starts | `return(N)`: loops use the N narrowest instruction sets only |
//! | `openblas-picks` | a process asks which kernel OpenBLAS picks by itself | with the name of a kernel: it is that one |
//! | `kernel-wrong` | a process that tries a kernel has computed a product | with names of kernels, the one among them: an entry is wrong |
//! | `kernel-kills` | a process begins to try a kernel | likewise: the process dies by SIGILL |
//! | `node-elsewhere` | a process with a job's kernel is about to compute a node | the process dies |
//! | `kernel-hangs` | a process begins to try a kernel | likewise: the process stays there, and is given up after a second |
//!
//! To die is to abort: nothing more is sent, flushed or logged, as with SIGKILL. Each process counts for itself: a
//! restarted process with the same variable counts anew.

use std::time::Duration;

use fail::fail_point;
#[cfg(feature = "failpoints")]
use millefeuille_core::learn::elementwise;
use rustix::process::{Signal, getpid, kill_process};

const OPENBLAS_PICKS: &str = "openblas-picks";
const KERNEL_WRONG: &str = "kernel-wrong";
const KERNEL_KILLS: &str = "kernel-kills";
pub(crate) const NODE_ELSEWHERE: &str = "node-elsewhere";
const KERNEL_HANGS: &str = "kernel-hangs";

/// Time between two checks of a point that makes a process hang.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// Arms the points that the variable `FAILPOINTS` names. Calling this again arms them anew.
///
/// # Panics
/// If `fail` does not know an action.
#[cfg(feature = "failpoints")]
pub fn set_up() {
    // Not with a `FailScenario`: it holds a lock for as long as it lives, and a second one would wait for that.
    let points = crate::variables::text("FAILPOINTS").unwrap_or_default();
    for point in points.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').unwrap_or((point, ""));
        fail::cfg(name, actions).unwrap_or_else(|error| panic!("FAILPOINTS: {point}: {error}"));
    }
    fail_point!("instructions", |most| {
        elementwise::narrow_to(most.and_then(|most| most.parse().ok()).unwrap_or(1));
    });
}

/// Does nothing: this build has no points.
#[cfg(not(feature = "failpoints"))]
pub fn set_up() {}

/// Whether the point's action is `return`. Other actions (sleep, pause) happen during this call.
#[cfg_attr(not(feature = "failpoints"), allow(unused_variables))]
pub fn strikes(point: &str) -> bool {
    fail_point!(point, |_| true);
    false
}

/// Aborts the process if the point is active.
pub fn die_at(point: &str) {
    if strikes(point) {
        std::process::abort();
    }
}

/// The value of the point's `return(…)` action, if it has one.
#[cfg_attr(not(feature = "failpoints"), allow(unused_variables))]
fn told(point: &str) -> Option<String> {
    fail_point!(point, |what| what);
    None
}

/// The kernel that OpenBLAS picks, if the point sets one.
pub(crate) fn own_pick() -> Option<String> {
    told(OPENBLAS_PICKS)
}

/// Whether this kernel is among those that the point returns.
fn strikes_kernel(point: &str, kernel: &str) -> bool {
    told(point).is_some_and(|kernels| kernels.split(' ').any(|name| name == kernel))
}

/// The time limit for a process that tests a kernel, if the point makes it hang.
pub(crate) fn patience() -> Option<Duration> {
    told(KERNEL_HANGS).map(|_| Duration::from_secs(1))
}

/// Dies or hangs if the points name this kernel.
pub(crate) fn misbehave_as(kernel: &str) {
    if strikes_kernel(KERNEL_KILLS, kernel) {
        let _ = kill_process(getpid(), Signal::ILL);
    }
    while strikes_kernel(KERNEL_HANGS, kernel) {
        std::thread::sleep(NEXT_LOOK);
    }
}

/// Corrupts an entry of a product if the point names this kernel.
pub(crate) fn spoil_product(kernel: &str, out: &mut [f32]) {
    let middle = out.len() / 2;
    if strikes_kernel(KERNEL_WRONG, kernel) {
        out[middle] += 1e6;
    }
}
