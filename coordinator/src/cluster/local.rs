//! The cluster's own worker processes, as `coordinator train` starts them.
//!
//! A local worker is this same binary, started with a hidden subcommand, so that no other program has to be found on
//! the `PATH`. It knows the cluster's token, and ends when its standard input, a pipe, closes: however this process
//! ends, no worker is left behind. A worker that dies, or is evicted for wrong results, is restarted with a back-off,
//! as a new instance; five deaths within a minute are too many. A worker that exits successfully was shut down.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::BlasKernel;
use millefeuille_program::backoff::Backoff;
use millefeuille_program::output::OutputArgs;
use millefeuille_program::{kernel, process, variables};
use millefeuille_proto::shared::{self, SharedMemory};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tracing::warn;

use super::messages::DriverMessage;
use super::messages::Handle;

/// The environment variable that describes the shared memory to a worker.
const SHARED_MEMORY: &str = "MILLEFEUILLE_SHARED_MEMORY";

/// The hidden subcommand.
pub const WORKER: &str = "__worker";

const DEATHS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// A worker that lived this long was healthy: its death counts as the first.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// How local workers are started.
#[derive(Clone, Debug)]
pub struct Local {
    /// The coordinator's address.
    pub coordinator: SocketAddr,
    /// The cluster's token.
    pub token: String,
    /// Number of worker processes.
    pub workers: u32,
    /// Slots of each worker.
    pub slots: u32,
    /// The kernel of the job for which they are started.
    pub kernel: BlasKernel,
    /// Whether their log is JSON.
    pub json_log: bool,
    /// The memory that they share with this process, if available.
    pub shared_memory: Option<Arc<SharedMemory>>,
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

    fn spawn(&self, shared: Option<&shared::InheritedFiles>) -> std::io::Result<Child> {
        let mut command = Command::new(process::program());
        command.arg(WORKER).args(["--coordinator", &self.coordinator.to_string()]);
        command.args(["--slots", &self.slots.to_string(), "--exit-with-parent"]);
        // An ops port named in the environment belongs to the parent.
        command.args(["--ops-listen", "off"]);
        command.args(["--log-format", if self.json_log { "json" } else { "text" }]);
        command.args(OutputArgs::of_this_process());
        command.env("MILLEFEUILLE_TOKEN", &self.token);
        command.env(variables::STARTED_FOR, self.kernel.to_string()).envs(kernel::handed_down());
        // The connection stays on this machine: it is never encrypted, even if this process was started with TLS.
        command.env_remove(variables::INSTANCE).env_remove("MILLEFEUILLE_TLS");
        match shared {
            Some(shared) => inherit(&mut command, shared),
            None => _ = command.env_remove(SHARED_MEMORY),
        }
        if std::env::var_os(variables::LOG).is_none() {
            command.env(variables::LOG, "warn");
        }
        // Ctrl-C in a terminal signals the whole process group. In a group of its own, the worker is left to its
        // parent.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
    }
}

/// Passes shared memory to the process that is about to be started.
#[allow(unsafe_code)] // What runs between fork and exec.
fn inherit(command: &mut Command, shared: &shared::InheritedFiles) {
    let files = shared.files();
    command.env(SHARED_MEMORY, shared.to_inherit());
    // SAFETY: the closure makes system calls; it takes no lock and allocates nothing. The files are open when it
    // runs, since the code that spawns the process holds the child's memory until it has ended.
    unsafe { command.pre_exec(move || shared::keep_over_exec(files)) };
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
    let mut backoff = Backoff::new();
    loop {
        let born = Instant::now();
        let Some(how) = live(&local).await else { return };
        deaths.retain(|death| death.elapsed() < WITHIN);
        deaths.push(Instant::now());
        if deaths.len() >= DEATHS {
            let what =
                format!("a worker process died {DEATHS} times within a minute ({how}); see its log above");
            let failure = Failure::new(FailureKind::WorkersDied, what);
            return cluster.send(DriverMessage::NoLocalWorkers(failure)).await;
        }
        if born.elapsed() >= GOOD_LIFE {
            backoff = Backoff::new();
        }
        let wait = backoff.next_wait();
        warn!("a worker process died ({how}); starting it again in {} ms", wait.as_millis());
        tokio::time::sleep(wait).await;
    }
}

/// Runs one worker process from start to end. Returns how it died, or `None` if it ended well.
async fn live(local: &Local) -> Option<String> {
    // Held until the process has ended. Without shared memory, bulk data travels over gRPC.
    let shared = local.shared_memory.as_ref().and_then(|host| host.child().ok());
    let mut child = match local.spawn(shared.as_ref()) {
        Ok(child) => child,
        Err(error) => return Some(format!("it cannot be started: {error}")),
    };
    // Waiting for a child closes its standard input, which would end it: keep the pipe open.
    let _pipe = child.stdin.take();
    match child.wait().await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(error.to_string()),
    }
}
