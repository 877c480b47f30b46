//! The flags of the commands that run a cluster, and the settings that follow from them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use millefeuille_core::control::MAX_WORKERS;
use millefeuille_core::failure::FailureKind;
use millefeuille_program::process::{self, Seconds};

use super::{Failed, Result};
use crate::cluster::ClusterSettings;

/// The heading of the settings in the help.
pub(super) const HEADING: &str = "Cluster";

/// In seconds. The coordinator checks for silent workers ten times a second.
const SHORTEST_DEADLINE: f64 = 0.5;

const DEFAULT: ClusterSettings = ClusterSettings::DEFAULT;

/// How a cluster treats its workers, as flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct SettingsFlags {
    /// Number of workers that a job waits for
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_MIN_WORKERS", default_value_t = DEFAULT.min_workers, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)), allow_negative_numbers = true)]
    min_workers: u16,
    /// Interval of a worker's heartbeats, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_INTERVAL", default_value_t = Seconds(DEFAULT.heartbeat_interval), allow_negative_numbers = true)]
    heartbeat_interval: Seconds,
    /// Silence after which a worker is disconnected, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_DEADLINE", default_value_t = Seconds(DEFAULT.heartbeat_deadline), allow_negative_numbers = true)]
    heartbeat_deadline: Seconds,
    /// Interval of checkpoints within an epoch, in seconds, or `off`
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CHECKPOINT_INTERVAL", default_value_t = Interval(DEFAULT.checkpoint_interval), allow_negative_numbers = true)]
    checkpoint_interval: Interval,
    /// Fraction of the work that two workers compute, to validate their results: from 0 to 1
    #[arg(long, value_name = "RATE", env = "MILLEFEUILLE_AUDIT", default_value_t = DEFAULT.audit_rate, value_parser = share, allow_hyphen_values = true)]
    audit: f64,
}

/// A repetition interval, or `off`.
#[derive(Clone, Copy, Debug)]
struct Interval(Option<Duration>);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let interval = process::seconds(text).map(|interval| Self(Some(interval)));
        interval.map_err(|_| "expected a positive number of seconds, or off".to_string())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(interval) => Seconds(interval).fmt(f),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_string())
}

impl SettingsFlags {
    /// The settings that the flags and variables name.
    ///
    /// # Errors
    /// If they contradict each other.
    pub(super) fn resolve(&self) -> Result<ClusterSettings> {
        let (Seconds(heartbeat_interval), Seconds(heartbeat_deadline)) =
            (self.heartbeat_interval, self.heartbeat_deadline);
        check_deadline(heartbeat_interval, heartbeat_deadline)?;
        Ok(ClusterSettings {
            min_workers: self.min_workers,
            heartbeat_interval,
            heartbeat_deadline,
            checkpoint_interval: self.checkpoint_interval.0,
            audit_rate: self.audit,
        })
    }
}

fn check_deadline(interval: Duration, deadline: Duration) -> Result {
    let (interval, deadline) = (interval.as_secs_f64(), deadline.as_secs_f64());
    if deadline <= interval {
        let message = format!(
            "--heartbeat-deadline {deadline}: must be longer than the heartbeat interval of {interval} s (several \
             times as long, or one late heartbeat costs a worker)"
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
