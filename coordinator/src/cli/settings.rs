//! The settings of a cluster, for the commands that run one.

use std::time::Duration;

use clap::Args;
use millefeuille_worker::process::{self, exit};

use super::{Failed, Result};
use crate::cluster::Config;

/// How a cluster treats its workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct Settings {
    /// A job waits until so many workers are there
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_MIN_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) min_workers: u16,
    /// How often a worker says that it is alive, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_INTERVAL", default_value = "1", value_parser = process::seconds)]
    heartbeat_interval: Duration,
    /// Silence after which a worker is given up, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_HEARTBEAT_DEADLINE", default_value = "5", value_parser = process::seconds)]
    heartbeat_deadline: Duration,
}

impl Settings {
    /// Whether they make sense together.
    pub(super) fn check(&self) -> Result {
        let (interval, deadline) =
            (self.heartbeat_interval.as_secs_f64(), self.heartbeat_deadline.as_secs_f64());
        if deadline <= interval {
            let message = format!(
                "--heartbeat-deadline {deadline}: must be longer than the heartbeat interval of {interval} s \
                 (several times as long, or one late heartbeat costs a worker)"
            );
            return Err(Failed::new(exit::USAGE, message));
        }
        Ok(())
    }

    /// Puts them into a cluster's configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        config.control.min_workers = self.min_workers.into();
        config.control.heartbeat_deadline = self.heartbeat_deadline;
        config.heartbeat_interval = self.heartbeat_interval;
    }
}
