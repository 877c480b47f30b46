//! A barrier for threads that have a core each, most of the time.
//!
//! Threads of the baseline meet twice a step. Waking one that sleeps takes tens of microseconds, which would make
//! the baseline higher than it is; so the wait spins first. A thread that comes much later than the others has
//! lost its core to another program, so they stop spinning and sleep.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Turns of the loop before a waiting thread sleeps: tens of microseconds, up to a hundred.
const SPINS: u32 = 4_000;

/// Lets threads go on once all of them have come.
#[derive(Debug)]
pub(crate) struct Barrier {
    threads: usize,
    waiting: AtomicUsize,
    generation: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    pub(crate) fn new(threads: usize) -> Self {
        let zero = || AtomicUsize::new(0);
        Self { threads, waiting: zero(), generation: zero(), sleep: Mutex::new(()), wake: Condvar::new() }
    }

    /// Returns when every thread has called it. What they wrote before is seen by all.
    pub(crate) fn wait(&self) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.waiting.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.waiting.store(0, Ordering::Relaxed);
            self.open(generation + 1);
        } else if !self.spin(generation) {
            self.sleep(generation);
        }
    }

    fn is_open(&self, generation: usize) -> bool {
        self.generation.load(Ordering::Acquire) != generation
    }

    fn open(&self, next: usize) {
        // Under the lock, so that nobody misses it between the last look and the sleep.
        let guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.store(next, Ordering::Release);
        drop(guard);
        self.wake.notify_all();
    }

    /// Whether it opened meanwhile.
    fn spin(&self, generation: usize) -> bool {
        (0..SPINS).any(|_| {
            std::hint::spin_loop();
            self.is_open(generation)
        })
    }

    fn sleep(&self, generation: usize) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_open(generation) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_before_everybody_has_come() {
        let (barrier, arrived) = (Barrier::new(3), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 1..=100 {
                        arrived.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(arrived.load(Ordering::Relaxed), 3 * round);
                        barrier.wait();
                    }
                });
            }
        });
    }
}
