//! The settings of a cluster, for the commands that run one.

use std::time::Duration;

use clap::Args;
use millefeuille_core::failure::FailureKind;
use millefeuille_program::process;

use super::{Failed, Result};
use crate::cluster::ClusterConfig;

/// The heading of the settings in the help.
pub(super) const HEADING: &str = "Cluster";

/// In seconds. The coordinator checks for silent workers ten times a second.
const SHORTEST_DEADLINE: f64 = 0.5;

/// How a cluster treats its workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Settings {
    /// Number of workers that a job waits for
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_MIN_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(super) min_workers: u16,
    /// Interval of a worker's heartbeats, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_INTERVAL", default_value = "1", value_parser = process::seconds, allow_negative_numbers = true)]
    heartbeat_interval: Duration,
    /// Silence after which a worker is disconnected, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_DEADLINE", default_value = "5", value_parser = process::seconds, allow_negative_numbers = true)]
    heartbeat_deadline: Duration,
    /// Interval of checkpoints within an epoch, in seconds, or `off`
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CHECKPOINT_INTERVAL", default_value = "10", value_parser = interval, allow_negative_numbers = true)]
    checkpoint_interval: Interval,
    /// Fraction of the work that two workers compute, to validate their results: from 0 to 1
    #[arg(long, value_name = "RATE", env = "MILLEFEUILLE_AUDIT", default_value = "0", value_parser = share, allow_hyphen_values = true)]
    audit: f64,
}

/// A repetition interval, or `off`.
#[derive(Clone, Copy, Debug)]
struct Interval(Option<Duration>);

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    process::seconds(text)
        .map(|interval| Interval(Some(interval)))
        .map_err(|_| "expected a positive number of seconds, or off".to_string())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_string())
}

impl Settings {
    /// Checks that the settings are consistent.
    pub(super) fn check(&self) -> Result {
        let (interval, deadline) =
            (self.heartbeat_interval.as_secs_f64(), self.heartbeat_deadline.as_secs_f64());
        if deadline <= interval {
            let message = format!(
                "--heartbeat-deadline {deadline}: must be longer than the heartbeat interval of {interval} s \
                 (several times as long, or one late heartbeat costs a worker)"
            );
            return Err(Failed::new(FailureKind::Usage, message));
        }
        if deadline < SHORTEST_DEADLINE {
            let message = format!(
                "--heartbeat-deadline {deadline}: must be at least {SHORTEST_DEADLINE} s (a busy machine is silent for as \
                 long now and then)"
            );
            return Err(Failed::new(FailureKind::Usage, message));
        }
        Ok(())
    }

    /// Applies the settings to a cluster's configuration.
    pub(super) fn apply(&self, config: &mut ClusterConfig) {
        config.control.min_workers = self.min_workers.into();
        config.control.heartbeat_deadline = self.heartbeat_deadline;
        config.control.checkpoint_interval = self.checkpoint_interval.0;
        config.control.audit_rate = self.audit;
        config.heartbeat_interval = self.heartbeat_interval;
    }
}
