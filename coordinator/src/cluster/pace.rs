//! A rate for lines about workers, in the log and in `events.jsonl`.
//!
//! Each join logs a line or two, and a worker can join again and again. So the rate is limited: a burst of as many lines as a
//! full cluster needs when it starts, then one a second. The next line says how many were dropped.

use std::time::Duration;

/// Lines at once.
const BURST: u32 = 4096;
/// Time after which there is room for one more.
const EVERY: Duration = Duration::from_secs(1);

/// Lets lines pass at a limited rate.
#[derive(Debug)]
pub(super) struct Pace {
    room: u32,
    /// When room was last made.
    made: Duration,
    left_out: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { room: BURST, made: Duration::ZERO, left_out: 0 }
    }
}

impl Pace {
    /// Whether there is room for a line `now`; if so, how many were left out before it.
    pub(super) fn pass(&mut self, now: Duration) -> Option<u64> {
        let more = now.saturating_sub(self.made).as_secs() / EVERY.as_secs();
        self.made += EVERY * u32::try_from(more).unwrap_or(BURST);
        self.room = BURST.min(self.room.saturating_add(u32::try_from(more).unwrap_or(BURST)));
        if self.room == 0 {
            self.left_out += 1;
            return None;
        }
        self.room -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cluster_is_told_of_and_a_loop_is_counted() {
        let mut pace = Pace::default();
        let passed = |pace: &mut Pace, lines: u32, at: u64| {
            (0..lines).filter_map(|_| pace.pass(Duration::from_secs(at))).collect::<Vec<_>>()
        };
        assert_eq!(passed(&mut pace, 2 * BURST, 7).len(), BURST as usize);
        // A line has come into reach, and says how many are missing.
        assert_eq!(passed(&mut pace, 100, 8), [u64::from(BURST)]);
        assert_eq!(passed(&mut pace, 100, 18).len(), 10);
        assert_eq!(
            passed(&mut pace, 2 * BURST, 100_000).len(),
            BURST as usize,
            "after a quiet time as at first"
        );
    }
}
