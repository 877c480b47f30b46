//! The command line of `coordinator`, one file a subcommand.
//!
//! Standard output is the report, standard error the log and the progress. A subcommand returns [`Failed`], a line
//! and an exit code, for whatever its user can do something about.

mod cancel;
mod client;
mod completions;
mod evaluate;
mod follow;
mod health;
mod jobs;
mod metrics;
mod predict;
mod probe;
mod saved;
mod serve;
mod settings;
mod show;
mod train;
mod verify;
mod watch;
mod workers;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millefeuille_core::job::JobError;
use millefeuille_worker::process::{self, exit};

use crate::cluster::{load::PROBE, local::WORKER};
use crate::runs::RunError;
use crate::see::{Ink, WIDTH};

/// Trains neural networks data-parallel across worker processes: the same model, bit for bit, on any cluster.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  coordinator train --epochs 5                          train on this machine
  coordinator serve --listen 127.0.0.1:7070             a cluster that lives on
  worker --coordinator 127.0.0.1:7070                   … a worker of it
  coordinator train --cluster 127.0.0.1:7070            … a job for it
  coordinator show run runs/article-1                   look at a result

Exit codes: 0 done · 1 unexpected · 2 usage or job file · 3 data or run directory · 4 cannot reach or not allowed ·
5 not enough workers in time · 6 training diverged · 7 verification differs · 8 cannot verify here · 130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Serve(serve::Args),
    Jobs(jobs::Args),
    Workers(workers::Args),
    Metrics(metrics::Args),
    Cancel(cancel::Args),
    Show(show::Args),
    Evaluate(evaluate::Args),
    Predict(predict::Args),
    Verify(verify::Args),
    Health(health::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failed {
    code: u8,
    message: String,
}

type Result<T = (), E = Failed> = std::result::Result<T, E>;

impl Failed {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Ends with this code; everything has been said already.
    fn silently(code: u8) -> Self {
        Self::new(code, "")
    }
}

impl From<JobError> for Failed {
    fn from(error: JobError) -> Self {
        Self::new(exit::USAGE, error.to_string())
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self::new(exit::DATA, error.to_string())
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // What this program starts of itself is no part of the command line: completions would offer it.
    let mut arguments = std::env::args_os().skip(1).peekable();
    let hidden = arguments.peek().and_then(|name| name.to_str()).map(str::to_owned);
    let done = match hidden.as_deref() {
        Some(WORKER) => {
            return millefeuille_worker::cli::main(millefeuille_worker::cli::Args::parse_from(arguments));
        }
        Some(PROBE) => probe::run(),
        _ => {
            #[cfg(feature = "failpoints")]
            let _failing = fail::FailScenario::setup();
            run(Args::parse().command)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { code, message }) if message.is_empty() => ExitCode::from(code),
        Err(Failed { code, message }) => process::fail(code, &message),
    }
}

fn run(command: Command) -> Result {
    match command {
        Command::Train(args) => train::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Jobs(args) => jobs::run(args),
        Command::Workers(args) => workers::run(args),
        Command::Metrics(args) => metrics::run(args),
        Command::Cancel(args) => cancel::run(args),
        Command::Show(args) => show::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Health(args) => health::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::man(args),
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no error: the program just ends.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(exit::DONE.into());
    }
}

/// Whether standard output takes colours, and how wide it is.
fn ink() -> Ink {
    Ink::of(&std::io::stdout())
}

/// The columns of the terminal, or what is usual.
fn columns() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked.filter(|&columns| columns >= 20 && std::io::stdout().is_terminal()).unwrap_or(WIDTH)
}

/// The runtime of commands that talk to a cluster.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failed::new(exit::UNEXPECTED, format!("cannot start: {error}")))
}
