//! Time limits for a process that tests a kernel.
//!
//! The limits are on the processor time that the process uses, and on time in which it uses none, never on wall-clock
//! time alone. When other processes use the cores, a good kernel responds late, and the same machine must still
//! resolve to the same kernel.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Time between two checks of the process.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The limits for a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Total processor time.
    pub(super) computing: Duration,
    /// Wall-clock time without any processor time used.
    pub(super) idle: Duration,
}

/// Why the process reported nothing.
#[derive(Debug, PartialEq)]
pub(super) enum Silence {
    /// The sender is gone.
    Ended,
    /// A limit was exceeded; the text says which.
    Hangs(String),
}

impl Patience {
    /// Waits for a process's report. `used` returns its processor time; if that is unknown, wall-clock time counts.
    pub(super) fn wait<T>(
        self,
        output: &Receiver<T>,
        mut used: impl FnMut() -> Option<Duration>,
    ) -> Result<T, Silence> {
        let started = Instant::now();
        let mut moved = (Duration::ZERO, started);
        loop {
            match output.recv_timeout(CHECK_INTERVAL.min(self.idle)) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let computing = used().unwrap_or_else(|| started.elapsed());
            if computing > moved.0 {
                moved = (computing, Instant::now());
            }
            if computing >= self.computing {
                let seconds = self.computing.as_secs();
                return Err(Silence::Hangs(format!(
                    "does not come back within {seconds} s of processor time"
                )));
            }
            if moved.1.elapsed() >= self.idle {
                return Err(Silence::Hangs(format!("does not come back within {} s", self.idle.as_secs())));
            }
        }
    }
}

/// The processor time of all threads of a process, to a hundredth of a second: see `proc_pid_stat(5)`. `None` without
/// `/proc`.
pub(super) fn processor_time(process: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Linux reports ticks of 10 ms to programs, whatever its internal tick is.
const TICK: Duration = Duration::from_millis(10);

fn parse(stat: &str) -> Option<Duration> {
    // The program's name is in parentheses, and may contain some itself.
    let after_name = stat.rsplit_once(") ")?.1;
    let ticks: Vec<u32> =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { return None };
    Some(TICK * (user + system))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Patience =
        Patience { computing: Duration::from_secs(5), idle: Duration::from_millis(50) };

    #[test]
    fn a_process_that_uses_too_much_processor_time_hangs() {
        let (_sender, output) = mpsc::channel::<()>();
        let mut used = Duration::ZERO;
        let waited = PATIENCE.wait(&output, || {
            used += Duration::from_secs(1);
            Some(used)
        });
        assert_eq!(
            waited,
            Err(Silence::Hangs("does not come back within 5 s of processor time".to_string()))
        );
        assert_eq!(used, Duration::from_secs(5));
    }

    #[test]
    fn a_process_that_uses_no_processor_time_hangs() {
        let (_sender, output) = mpsc::channel::<()>();
        let waited = PATIENCE.wait(&output, || Some(Duration::ZERO));
        assert_eq!(waited, Err(Silence::Hangs("does not come back within 0 s".to_string())));
    }

    #[test]
    fn a_process_that_gets_little_processor_time_is_waited_for() {
        let (sender, output) = mpsc::channel();
        let mut checks = 0;
        // Long past the wall-clock limit, at 10 ms of processor time per check.
        let waited = PATIENCE.wait(&output, || {
            checks += 1;
            if checks == 10 {
                sender.send("answer").unwrap();
            }
            Some(TICK * checks)
        });
        assert_eq!(waited, Ok("answer"));
    }

    #[test]
    fn a_process_that_ends_does_not_hang() {
        let (_, output) = mpsc::channel::<()>();
        assert_eq!(PATIENCE.wait(&output, || None), Err(Silence::Ended));
    }

    #[test]
    fn processor_time_is_read_whatever_the_name_of_the_process() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 123 27 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Duration::from_millis(1_500)));
        assert_eq!(parse("42 (a"), None);
        assert_eq!(parse("42 (a) S 1"), None);
    }

    #[test]
    fn the_processor_time_of_this_process_grows() {
        let before = processor_time(std::process::id()).expect("/proc");
        let mut number = 1_u64;
        while processor_time(std::process::id()).unwrap() == before {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
    }
}
