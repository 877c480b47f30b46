//! Worker processes of a cluster's own: those of `coordinator train`.
//!
//! A local worker is this very binary, started with a hidden subcommand, so that nothing need be found on a path.
//! It knows the cluster's token, and ends when the pipe that is its standard input closes: however this process
//! ends, none is left behind. One that dies is started again, with a back-off; five deaths within a minute are
//! too many.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use millefeuille_core::job::BlasKernel;
use millefeuille_worker::process;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tracing::warn;

use super::Handle;
use super::messages::Input;

/// The hidden subcommand.
pub const WORKER: &str = "__worker";

const DEATHS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How local workers are started.
#[derive(Clone, Debug)]
pub struct Local {
    /// The coordinator's address.
    pub coordinator: SocketAddr,
    /// The cluster's token.
    pub token: String,
    /// How many processes.
    pub workers: u32,
    /// Slots of each.
    pub slots: u32,
    /// The kernel of the job that they are started for.
    pub kernel: BlasKernel,
    /// Whether their log is JSON.
    pub json_log: bool,
}

/// Keeps local workers alive for as long as this value lives.
#[derive(Debug)]
pub struct Workers {
    keepers: JoinSet<()>,
}

impl Local {
    /// Starts the workers.
    pub fn start(self, cluster: Handle) -> Workers {
        let mut keepers = JoinSet::new();
        for _ in 0..self.workers {
            keepers.spawn(keep(self.clone(), cluster.clone()));
        }
        Workers { keepers }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(process::program());
        command.arg(WORKER).args(["--coordinator", &self.coordinator.to_string()]);
        command.args(["--slots", &self.slots.to_string(), "--exit-with-parent"]);
        command.args(["--log-format", if self.json_log { "json" } else { "text" }]);
        command.env("MILLEFEUILLE_TOKEN", &self.token).env(process::STARTED_FOR, self.kernel.to_string());
        if std::env::var_os("MILLEFEUILLE_LOG").is_none() {
            command.env("MILLEFEUILLE_LOG", "warn");
        }
        // Ctrl-C in a terminal reaches the whole process group: a group of its own leaves the worker to its parent.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
    }
}

impl Workers {
    /// Ends the workers: their pipes close, and then they are killed.
    pub async fn stop(mut self) {
        self.keepers.shutdown().await;
    }
}

/// Keeps one worker alive.
async fn keep(local: Local, cluster: Handle) {
    let mut deaths: Vec<Instant> = Vec::new();
    let mut wait = FIRST_WAIT;
    loop {
        let how = match local.spawn() {
            Ok(mut child) => {
                // Waiting for a child closes its input, and that would end it: the pipe is held beside it.
                let _pipe = child.stdin.take();
                match child.wait().await {
                    Ok(status) if status.success() => return,
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => format!("it cannot be started: {error}"),
        };
        deaths.retain(|death| death.elapsed() < WITHIN);
        deaths.push(Instant::now());
        if deaths.len() >= DEATHS {
            let message =
                format!("a worker process died {DEATHS} times within a minute ({how}); see its log above");
            return cluster.send(Input::NoLocalWorkers(message)).await;
        }
        warn!("a worker process died ({how}); starting it again in {} ms", wait.as_millis());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
