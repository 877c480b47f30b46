//! Named points at which tests make a worker fail.
//!
//! They exist in builds with the feature `failpoints` only, which no release has; elsewhere they are nothing. The
//! variable `FAILPOINTS` says what happens at them, in the words of the crate `fail`: `name=actions`, several of
//! them with `;` in between. `worker-before-send=3*off->return` lets three results go and strikes at the fourth.
//!
//! | point | where it is passed | what `return` does |
//! | --- | --- | --- |
//! | `worker-before-piece` | a slot takes a piece | the process dies |
//! | `worker-before-evaluation` | a slot takes a piece of a validation or test | the process dies |
//! | `worker-mid-fetch` | a part of a shard's samples has come | the process dies |
//! | `worker-before-send` | a result is about to be sent | the process dies |
//! | `worker-mid-message` | half of a gradient's chunks have left | the process dies |
//! | `worker-after-send` | a result has left | the process dies |
//! | `worker-flip-bit` | a gradient of one piece is computed | one bit of it flips |
//! | `worker-nan` | a gradient of one piece is computed | it and its loss turn NaN |
//! | `worker-slow` | within the time that a piece takes | nothing; meant for `sleep(milliseconds)` |
//! | `instructions` | when the process starts (the coordinator too) | `return(N)`: loops use the N narrowest instruction sets only |
//! | `worker-hang` | before a piece begins | nothing; meant for `pause`, which holds the slot for good |
//! | `openblas-picks` | a process asks which kernel OpenBLAS picks by itself | with the name of a kernel: it is that one |
//! | `kernel-wrong` | a process that tries a kernel has computed a product | with names of kernels, the one among them: an entry is wrong |
//! | `kernel-kills` | a process begins to try a kernel | likewise: the process dies by SIGILL |
//! | `kernel-hangs` | a process begins to try a kernel | likewise: the process stays there, and is given up after a second |
//!
//! Death is an abort: nothing is sent, flushed or said any more, as with SIGKILL. A process counts for itself: a
//! worker that is started again with the same variable counts anew.

use std::time::Duration;

use fail::fail_point;
#[cfg(feature = "failpoints")]
use millefeuille_core::learn::elementwise;
use rustix::process::{Signal, getpid, kill_process};

pub(crate) const BEFORE_PIECE: &str = "worker-before-piece";
pub(crate) const BEFORE_EVALUATION: &str = "worker-before-evaluation";
pub(crate) const MID_FETCH: &str = "worker-mid-fetch";
pub(crate) const BEFORE_SEND: &str = "worker-before-send";
pub(crate) const MID_MESSAGE: &str = "worker-mid-message";
pub(crate) const AFTER_SEND: &str = "worker-after-send";
pub(crate) const FLIP_BIT: &str = "worker-flip-bit";
pub(crate) const NAN: &str = "worker-nan";
pub(crate) const SLOW: &str = "worker-slow";
pub(crate) const HANG: &str = "worker-hang";

const OPENBLAS_PICKS: &str = "openblas-picks";
const KERNEL_WRONG: &str = "kernel-wrong";
const KERNEL_KILLS: &str = "kernel-kills";
const KERNEL_HANGS: &str = "kernel-hangs";

/// Long enough for what was handed to the connection to leave.
const LEAVES: Duration = Duration::from_millis(50);

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

/// Whether the point says `return`.
#[cfg_attr(not(feature = "failpoints"), allow(unused_variables))]
pub(crate) fn strikes(point: &str) -> bool {
    fail_point!(point, |_| true);
    false
}

/// Dies if the point says so.
pub(crate) fn die_at(point: &str) {
    if strikes(point) {
        std::process::abort();
    }
}

/// Dies if the point says so, when what was sent before has left.
pub(crate) async fn die_after_sending(point: &str) {
    if strikes(point) {
        tokio::time::sleep(LEAVES).await;
        std::process::abort();
    }
}

/// Sleeps or hangs if the point says so.
pub(crate) fn dawdle_at(point: &str) {
    let _ = strikes(point);
}

/// Makes a piece's gradient and loss wrong if the points say so.
pub(crate) fn spoil(gradient: &mut [f32], loss_sum: &mut f64) {
    // The bias of the last unit: it is never zero by itself, and its high bits reach every parameter within steps.
    let Some(last) = gradient.last_mut() else { return };
    if strikes(FLIP_BIT) {
        *last = f32::from_bits(last.to_bits() ^ 1 << 20);
    }
    if strikes(NAN) {
        *last = f32::NAN;
        *loss_sum = f64::NAN;
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
        std::thread::sleep(LEAVES);
    }
}

/// Makes an entry of a product wrong if the point says so of this kernel.
pub(crate) fn spoil_product(kernel: &str, out: &mut [f32]) {
    let middle = out.len() / 2;
    if strikes_kernel(KERNEL_WRONG, kernel) {
        out[middle] += 1e6;
    }
}
