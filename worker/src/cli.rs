//! The command line of `worker`.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use millefeuille_program::kernel::{self, Unusable, probe};
use millefeuille_program::machine::{Cores, Limits, address_space, needs};
use millefeuille_program::ops::{self, Listen};
use millefeuille_program::output::{self, LogFormat, OutputArgs};
use millefeuille_program::process::{self, exit};
use millefeuille_program::{doctor, usage, variables};
use millefeuille_proto::shared::InheritedMemory;

use crate::condition::Watched;
use crate::{Condition, End, WorkerConfig, failpoints, run};

/// Joins a Millefeuille cluster and computes until it is stopped.
#[derive(Clone, Debug, Parser)]
#[command(name = "worker", version, after_help = EXAMPLES, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// How much it says, and in which colours
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do instead of working
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The coordinator's address
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_COORDINATOR", required = true, value_parser = process::address)]
    pub coordinator: Option<String>,
    /// The directory of its certificate: ca.crt, tls.crt, tls.key [default: no encryption]
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_TLS")]
    pub tls: Option<PathBuf>,
    /// Pieces computed at once [default: the available cores]
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_SLOTS", value_parser = clap::value_parser!(u32).range(1..=process::MAX_SLOTS), allow_negative_numbers = true)]
    pub slots: Option<u32>,
    /// Time limit for one attempt to connect, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = process::CONNECT_TIMEOUT, value_parser = process::seconds, allow_negative_numbers = true)]
    pub connect_timeout: Duration,
    /// How long to look for a coordinator before giving up, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_JOIN_TIMEOUT", default_value = "60", value_parser = process::seconds, allow_negative_numbers = true)]
    pub join_timeout: Duration,
    /// Bytes of memory that a job may take [default: three quarters of what this process may use]
    #[arg(long, value_name = "BYTES", env = "MILLEFEUILLE_MEMORY", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    pub memory: Option<u64>,
    /// Bytes of samples to keep at most, and no more than half of --memory
    #[arg(long, value_name = "BYTES", env = "MILLEFEUILLE_CACHE_BYTES", default_value_t = 1 << 30, allow_negative_numbers = true)]
    pub cache_bytes: u64,
    /// Time limit for finishing the assigned work when it is stopped, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_DRAIN_TIMEOUT", default_value = "30", value_parser = process::seconds, allow_negative_numbers = true)]
    pub drain_timeout: Duration,
    /// The address of the ops port (/livez, /readyz, /metrics), or `off`
    #[arg(long, value_name = "HOST:PORT|off", env = "MILLEFEUILLE_OPS_LISTEN", default_value = "off")]
    pub ops_listen: Listen,
    /// Format of the log
    #[arg(long, value_enum, env = "MILLEFEUILLE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The token of a cluster that asks for one
    #[arg(long, hide = true, env = "MILLEFEUILLE_TOKEN", default_value = "", hide_env_values = true)]
    pub token: String,
    /// The memory that it shares with the coordinator that has started it
    #[arg(long, hide = true, env = "MILLEFEUILLE_SHARED_MEMORY")]
    pub shared_memory: Option<String>,
    /// Ends when standard input is closed
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// What a worker's binary does beside working.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Show what this machine is and what to expect of it
    Doctor(doctor::Args),
}

const EXAMPLES: &str = "Examples:
  worker --coordinator 127.0.0.1:7070
  worker --coordinator coordinator:7070 --tls certs/worker --slots 2

On SIGTERM or Ctrl-C it drains: it finishes its assigned work and leaves. A second
signal ends it at once.

Exit codes:
    0  stopped, or the cluster has shut down
    1  unexpected
    2  usage
    4  no coordinator in time, or rejected, or the ops port is in use
    8  its BLAS kernel computes wrong numbers, or not at all, or the job needs more memory than it may use
    9  evicted from the cluster, because its results were wrong
  130  stopped by a second signal";

/// Runs the worker. The first argument is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = process::exit_on_signal(exit::DONE) {
        return process::fail(exit::UNEXPECTED, &format!("signals cannot be handled: {error}"));
    }
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    process::choose_format(arguments.iter().cloned());
    if let Err(message) = variables::check() {
        return process::fail(exit::USAGE, &message);
    }
    if let Some(code) = probe::answer() {
        return code;
    }
    let args = match usage::parse::<Args>(arguments) {
        Ok((args, _)) => args,
        Err(code) => return code,
    };
    args.output.apply();
    match args.command {
        Some(Command::Doctor(args)) => examine(args),
        None => work(args),
    }
}

fn examine(args: doctor::Args) -> ExitCode {
    failpoints::set_up();
    match doctor::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => process::fail(code, &message),
    }
}

fn work(args: Args) -> ExitCode {
    failpoints::set_up();
    let slots = args
        .slots
        .unwrap_or_else(|| address_space::threads_with_room(Cores::of_this_process().usable()).max(1));
    if let Err(message) = ask_the_system(slots) {
        return process::fail(exit::UNEXPECTED, &message);
    }
    if let Err(error) = kernel::own_kernel(&kernel::started_for(), slots) {
        return process::fail(code(&error), &error.to_string());
    }
    output::start_log(args.log_format, "info");
    kernel::say_native();
    if args.exit_with_parent
        && let Err(error) = process::exit_with_parent()
    {
        return process::fail(exit::UNEXPECTED, &format!("cannot start a thread: {error}"));
    }
    let ops = match args.ops_listen.bind() {
        Ok(ops) => ops,
        Err(message) => return process::fail(exit::NOT_ALLOWED, &message),
    };
    let memory = args.memory.unwrap_or_else(|| Limits::of_this_process().share(slots));
    let config = WorkerConfig {
        coordinator: args.coordinator.unwrap_or_default(),
        tls: args.tls,
        slots,
        token: args.token,
        connect_timeout: args.connect_timeout,
        join_timeout: args.join_timeout,
        memory,
        cache_bytes: args.cache_bytes.min(memory / 2),
        drain_timeout: args.drain_timeout,
        shared_memory: args.shared_memory.as_deref().and_then(InheritedMemory::of).map(Arc::new),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::fail(exit::UNEXPECTED, &format!("cannot start: {error}")),
    };
    let end = runtime.block_on(watched(config, ops));
    process::leave(match end {
        Ok(end) => finish(end),
        Err(error) => finish(End::Failed(format!("cannot serve the ops port: {error}"))),
    })
}

/// Asks for the files and threads that a worker with so many slots needs.
fn ask_the_system(slots: u32) -> Result<(), String> {
    needs::raise();
    needs::files(FILES, "run fewer programs in this limit")?;
    needs::threads(slots as usize + THREADS, Some("use fewer --slots"))
}

/// Open files of a worker: connections, its log, the ops port.
const FILES: u64 = 48;
/// Threads of a worker beside its slots: the session, those for what blocks, the ops port, the process that tests the
/// kernel, and who reads what that says.
pub const THREADS: usize = 6;

/// The coordinator requires a kernel that is missing here, so this worker is rejected.
fn code(error: &Unusable) -> u8 {
    match error {
        Unusable::Missing(_) => exit::NOT_ALLOWED,
        error => error.code(),
    }
}

/// Runs the worker with the ops port open.
async fn watched(config: WorkerConfig, ops: Option<ops::Listener>) -> io::Result<End> {
    let condition = Condition::default();
    let watched = || Watched::new(condition.clone(), config.slots);
    let ops = ops.map(|ops| ops.serve(ops::probes(watched()))).transpose()?;
    let end = run(config, &condition, process::shutdown_signal()).await;
    if let Some(ops) = ops {
        ops.end();
    }
    Ok(end)
}

/// Logs why the worker ends, and returns the exit code.
fn finish(end: End) -> u8 {
    let (code, message) = match end {
        End::Stopped => return exit::DONE,
        End::SessionEnded(reason) => {
            tracing::info!("the coordinator ended the session: {reason}");
            return exit::DONE;
        }
        End::UseKernel { kernel, restarts } => (exit::UNEXPECTED, kernel::restart_for(&kernel, restarts)),
        End::TooLarge(reason) => (exit::CANNOT_COMPUTE, reason),
        End::Refused(message) => (exit::NOT_ALLOWED, message),
        End::Evicted(reason) => (exit::EVICTED, format!("evicted from the cluster: {reason}")),
        End::Failed(message) => (exit::UNEXPECTED, message),
    };
    process::error(&message);
    code
}
