//! Named points at which tests make a worker fail. [`millefeuille_program::failpoints`] explains how, and lists more.
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
//! | `worker-hang` | before a piece begins | nothing; meant for `pause`, which holds the slot for good |

use std::time::Duration;

pub(crate) use millefeuille_program::failpoints::{die_at, set_up, strikes};

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

/// Long enough for messages in the connection's queue to be sent.
const LEAVES: Duration = Duration::from_millis(50);

/// Aborts the process if the point is active, after earlier messages have been sent.
pub(crate) async fn die_after_sending(point: &str) {
    if strikes(point) {
        tokio::time::sleep(LEAVES).await;
        std::process::abort();
    }
}

/// Sleeps or hangs if the point is active.
pub(crate) fn dawdle_at(point: &str) {
    let _ = strikes(point);
}

/// Corrupts a piece's gradient and loss if the points are active.
pub(crate) fn spoil(gradient: &mut [f32], loss_sum: &mut f64) {
    // The bias of the last unit: it is never zero by itself, and its high bits reach every parameter within a few
    // steps.
    let Some(last) = gradient.last_mut() else { return };
    if strikes(FLIP_BIT) {
        *last = f32::from_bits(last.to_bits() ^ 1 << 20);
    }
    if strikes(NAN) {
        *last = f32::NAN;
        *loss_sum = f64::NAN;
    }
}
