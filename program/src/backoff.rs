//! How long to wait before the next attempt.

use std::time::Duration;

use crate::process;

/// The first wait is at most this.
pub const FIRST_WAIT: Duration = Duration::from_millis(50);
/// No wait is longer, unless another longest wait is given.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Waits that double from [`FIRST_WAIT`] to the longest.
///
/// Each wait is shortened at random, down to half its length, so that peers that lost the same connection do not
/// reconnect at the same time.
#[derive(Debug)]
pub struct Backoff {
    wait: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// Begins with the first wait.
    pub fn new() -> Self {
        Self::up_to(LONGEST_WAIT)
    }

    /// The same, with another longest wait.
    pub fn up_to(longest: Duration) -> Self {
        Self { wait: FIRST_WAIT, longest }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(self.longest);
        wait.mul_f64(0.5 + 0.5 * process::random_share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_with_jitter_down_to_half() {
        let mut backoff = Backoff::new();
        let mut whole = FIRST_WAIT;
        for _ in 0..10 {
            let wait = backoff.next_wait();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(LONGEST_WAIT);
        }
        assert_eq!(whole, LONGEST_WAIT);
    }
}
