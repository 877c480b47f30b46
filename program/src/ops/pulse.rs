//! Detects whether the task that everything depends on is stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A task that has not beaten for this long is stuck.
///
/// A healthy task beats many times in this period, even when it is idle. The longest single turn goes over a model's
/// parameters a few times. For the largest model that fits into memory, that takes seconds. Slower work (reading
/// data, computing pieces, writing files) runs on other threads. So this does not measure speed.
pub const STUCK: Duration = Duration::from_secs(20);

/// The pulse of a task: the task beats, and others check when it last did.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    start: Instant,
    /// Milliseconds from the start to the last beat.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Beats { start: Instant::now(), last: AtomicU64::new(0) }))
    }
}

impl Pulse {
    /// Records a turn of the task.
    pub fn beat(&self) {
        self.0.last.store(self.0.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        self.0.start.elapsed().saturating_sub(last)
    }

    /// How long the task has been stuck; `None` if it is not.
    pub fn stuck(&self) -> Option<Duration> {
        stuck(self.silence())
    }
}

fn stuck(silence: Duration) -> Option<Duration> {
    Some(silence).filter(|&silence| silence > STUCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_ends_the_silence() {
        let start = Instant::now() - Duration::from_secs(60);
        let pulse = Pulse(Arc::new(Beats { start, last: AtomicU64::new(0) }));
        let before = pulse.stuck().expect("a minute is too long");
        assert!(before >= Duration::from_secs(60), "{before:?}");

        pulse.clone().beat();

        assert!(pulse.silence() < before, "{:?}", pulse.silence());
    }

    #[test]
    fn a_task_is_stuck_only_after_the_limit() {
        let later = STUCK + Duration::from_millis(1);
        assert_eq!([stuck(STUCK), stuck(later)], [None, Some(later)]);
    }
}
