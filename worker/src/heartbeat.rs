//! Heartbeats: the worker shows that it is alive, and checks that the coordinator is.
//!
//! Heartbeats have a connection of their own, so that bulk data cannot delay them. They serve both sides: the
//! coordinator disconnects a worker that is silent for longer than its deadline, and a worker gives up the session
//! when a heartbeat is not answered. The worker waits a little longer than the coordinator does, up to two deadlines:
//! a coordinator that was only slow keeps its workers, and a worker soon leaves one that cannot be reached.

use std::time::Duration;

use millefeuille_core::control::WorkerId;
use millefeuille_proto::session::Welcome;

use crate::link::{Heartbeats, Trouble};

/// A lower limit on the timeout, whatever the deadline: a machine under load may take this long to answer.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The worker that sends heartbeats, the interval and the timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    worker: WorkerId,
    incarnation: u64,
    interval: Duration,
    timeout: Duration,
}

impl From<Welcome> for Beat {
    fn from(welcome: Welcome) -> Self {
        let Welcome { worker, incarnation, heartbeat_interval, heartbeat_deadline: deadline } = welcome;
        let interval = heartbeat_interval.max(SHORTEST_INTERVAL);
        Self {
            worker,
            incarnation,
            interval,
            timeout: (deadline * 2).saturating_sub(interval).max(SHORTEST_TIMEOUT),
        }
    }
}

/// Sends heartbeats until one fails.
pub(crate) async fn beat(mut heartbeats: Heartbeats, beat: Beat) -> Trouble {
    let Beat { worker, incarnation, interval, timeout } = beat;
    loop {
        // The channel reconnects if necessary. If the host has vanished, connecting hangs, so the timeout covers that
        // too.
        match tokio::time::timeout(timeout, heartbeats.send(worker, incarnation)).await {
            Ok(Ok(())) => tokio::time::sleep(interval).await,
            Ok(Err(trouble)) => return trouble,
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                return Trouble::lost(format!("a heartbeat was not answered for {seconds} s"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(interval_ms: u64, deadline_ms: u64) -> Welcome {
        Welcome {
            worker: WorkerId(3),
            incarnation: 7,
            heartbeat_interval: Duration::from_millis(interval_ms),
            heartbeat_deadline: Duration::from_millis(deadline_ms),
        }
    }

    #[test]
    fn an_unanswered_heartbeat_fails_within_two_deadlines() {
        let beat = Beat::from(welcome(1_000, 5_000));
        assert_eq!(beat.interval + beat.timeout, Duration::from_secs(10));
    }

    #[test]
    fn settings_of_zero_are_raised_to_the_minimum() {
        let beat = Beat::from(welcome(0, 0));
        assert_eq!((beat.interval, beat.timeout), (SHORTEST_INTERVAL, SHORTEST_TIMEOUT));
    }
}
