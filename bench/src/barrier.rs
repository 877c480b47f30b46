//! A barrier for threads that each have a core most of the time.
//!
//! The baseline's threads wait for each other twice per step. Waking a sleeping thread takes tens of microseconds,
//! which would make the baseline slower than it is, so waiting threads spin first. If a thread arrives much later
//! than the others, another program has taken its core; the others then stop spinning and sleep.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Iterations of the loop before a waiting thread sleeps: between ten and a hundred microseconds.
const SPINS: u32 = 4_000;

/// Blocks threads until all of them have arrived.
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

    /// Returns when every thread has called it. All threads then see what each wrote before its call.
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
        // Under the lock, so that no thread misses the change between its last check and its sleep.
        let guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.store(next, Ordering::Release);
        drop(guard);
        self.wake.notify_all();
    }

    /// Spins for a while. Returns whether the barrier opened.
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
    fn no_thread_passes_before_all_have_arrived() {
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
