//! The command line of `coordinator`, one file per subcommand.
//!
//! Standard output has the report, standard error the log and the progress. A subcommand returns [`Failed`], a
//! message and an exit code, for every failure that its user can act on.

mod cancel;
mod certs;
mod client;
mod completions;
mod errors;
mod evaluate;
mod export;
mod fetch;
mod given;
mod health;
mod job;
mod jobs;
mod man;
mod metrics;
mod names;
mod output_file;
mod predict;
mod saved;
mod serve;
mod settings;
mod show;
mod train;
mod verify;
mod watch;
mod watch_job;
mod workers;

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory as _, Parser, Subcommand};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::JobError;
use millefeuille_program::doctor;
use millefeuille_program::kernel::Unusable;
use millefeuille_program::kernel::probe;
use millefeuille_program::machine::{Cores, needs};
use millefeuille_program::output::{self, OutputArgs};
use millefeuille_program::process::{self, exit};
use millefeuille_program::{usage, variables};

use self::given::Given;
use crate::cluster::load;
use crate::cluster::local::WORKER;
use crate::see::{Ink, WIDTH};

/// Trains neural networks data-parallel across worker processes: the same model, bit for bit, on any cluster.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "Examples:
  coordinator train --epochs 5                          train on this machine
  coordinator serve --listen 127.0.0.1:7070             a long-running cluster
  worker --coordinator 127.0.0.1:7070                   … a worker of it
  coordinator train --cluster 127.0.0.1:7070            … a job for it
  coordinator show run runs/article-1                   look at a result

Exit codes:
    0  done
    1  unexpected
    2  usage or job file
    3  data or run directory, or output that cannot be written
    4  cannot reach, or not allowed
    5  not enough workers in time
    6  training diverged
    7  verification differs
    8  cannot verify here, or the BLAS kernel computes wrong numbers
  130  interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<train::Args>),
    Serve(serve::Args),
    Jobs(jobs::Args),
    Workers(workers::Args),
    Metrics(metrics::Args),
    Cancel(cancel::Args),
    Show(show::Args),
    Job(job::Args),
    Evaluate(evaluate::Args),
    Errors(errors::Args),
    Predict(predict::Args),
    Export(export::Args),
    Fetch(fetch::Args),
    Verify(verify::Args),
    Doctor(doctor::Args),
    Health(health::Args),
    Certs(certs::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The exit code.
    code: u8,
    /// The failure to print; `None` if everything has been printed already.
    failure: Option<Failure>,
}

type Result<T = (), E = Failed> = std::result::Result<T, E>;

impl Failed {
    fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Failure::new(kind, what).into()
    }

    /// Exits with this code and prints nothing more.
    fn silently(code: u8) -> Self {
        Self { code, failure: None }
    }

    /// Exits with the code of this kind, for a failure with an unusual meaning: an unreadable certificate counts as a
    /// question of who may connect.
    fn exits_as(self, kind: FailureKind) -> Self {
        Self { code: kind.exit_code(), ..self }
    }

    fn is(&self, kind: FailureKind) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind == kind)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { code: failure.exit_code(), failure: Some(failure) }
    }
}

impl From<JobError> for Failed {
    fn from(error: JobError) -> Self {
        Failure::from(error).into()
    }
}

impl From<Unusable> for Failed {
    fn from(error: Unusable) -> Self {
        load::unusable(error).into()
    }
}

/// The definition of the command line, for tools that only read it.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs `coordinator`: the command given by the arguments.
pub fn main() -> ExitCode {
    main_of(Args::command())
}

/// Runs `millefeuille`, which is both programs: it is the worker where its first argument says so, or the name by which
/// it is called, and otherwise the coordinator.
pub fn both() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    if name == names::WORKER {
        return millefeuille_worker::cli::main(arguments);
    }
    if name == names::COORDINATOR {
        return main();
    }
    if arguments.get(1).is_some_and(|first| first == names::WORKER) {
        arguments.remove(0);
        arguments[0] = format!("{} {}", names::BOTH, names::WORKER).into();
        return millefeuille_worker::cli::main(arguments);
    }
    main_of(names::definition(names::BOTH))
}

fn main_of(definition: clap::Command) -> ExitCode {
    // First, so that Ctrl-C always gives the documented exit code.
    if let Err(error) = process::exit_on_signal(exit::INTERRUPTED) {
        return process::fail(exit::UNEXPECTED, &format!("signals cannot be handled: {error}"));
    }
    process::choose_format(std::env::args_os());
    if let Err(message) = variables::check() {
        return process::fail(exit::USAGE, &message);
    }
    if let Some(code) = probe::answer() {
        return code;
    }
    // The hidden subcommands are not part of the command line's definition, or completions would offer them.
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|name| name == WORKER) {
        return millefeuille_worker::cli::main(arguments);
    }
    millefeuille_program::failpoints::set_up();
    needs::raise();
    let done = match usage::parse_as::<Args>(definition.clone(), std::env::args_os()) {
        Ok((args, matches)) => {
            args.output.apply();
            run(args.command, &Given::of(&definition, &matches))
        }
        Err(code) => return code,
    };
    match done {
        Ok(()) => process::leave(exit::DONE),
        Err(Failed { code, failure }) => {
            failure.iter().for_each(say);
            // Exit at once: threads may still be reading, or computing a product.
            process::leave(code)
        }
    }
}

impl Command {
    /// The threads that this process needs for it, and the processes that it starts to test a kernel.
    fn threads(&self) -> usize {
        match self {
            Self::Completions(_) | Self::Man(_) | Self::Certs(_) | Self::Export(_) => 0,
            Self::Jobs(_) | Self::Workers(_) | Self::Metrics(_) | Self::Cancel(_) | Self::Health(_) => 4,
            _ => OWN_THREADS + 2 * Cores::of_this_process().usable() as usize,
        }
    }
}

/// Threads of a cluster, apart from those that compute.
const OWN_THREADS: usize = 8;

/// Asks the system for so many threads.
fn ask_for_threads(count: usize, otherwise: Option<&str>) -> Result {
    needs::threads(count, otherwise).map_err(|message| Failed::new(FailureKind::Unexpected, message))
}

/// Asks the system for the files and connections of a cluster: so many for each worker.
fn ask_for_files(workers: u32, each: u64, otherwise: &str) -> Result {
    let needed = OWN_FILES + each * u64::from(workers);
    needs::files(needed, otherwise).map_err(|message| Failed::new(FailureKind::Unexpected, message))
}

/// Open files of a cluster, apart from those for its workers.
const OWN_FILES: u64 = 128;

fn run(command: Command, given: &Given) -> Result {
    ask_for_threads(command.threads(), None)?;
    match command {
        Command::Train(args) => train::run(*args, given),
        Command::Serve(args) => serve::run(args),
        Command::Jobs(args) => jobs::run(args),
        Command::Workers(args) => workers::run(args),
        Command::Metrics(args) => metrics::run(args),
        Command::Cancel(args) => cancel::run(args),
        Command::Show(args) => show::run(args, given),
        Command::Job(args) => job::run(args, given),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Errors(args) => errors::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Export(args) => export::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Doctor(args) => doctor::run(args).map_err(|(code, message)| {
            process::error(&message);
            Failed::silently(code)
        }),
        Command::Health(args) => health::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// Prints a failure to standard error.
fn say(failure: &Failure) {
    process::error(&failure.to_string());
}

/// Prints to standard output.
fn print(text: &str) {
    process::print(text);
}

/// Whether standard output has colours.
fn ink() -> Ink {
    ink_of(&std::io::stdout())
}

/// Whether this stream has colours.
fn ink_of(stream: &impl IsTerminal) -> Ink {
    match output::colours() {
        ColorChoice::Auto => Ink::of(stream),
        ColorChoice::Always => Ink::Colour,
        ColorChoice::Never => Ink::Plain,
    }
}

/// The width of pictures and text on standard output: from `COLUMNS`, or else of the terminal, or else the default.
fn columns() -> usize {
    columns_of(std::io::stdout()).unwrap_or(WIDTH)
}

/// The width of tables on standard output. In a file or a pipe they keep their rows whole: programs read them there.
fn table_columns() -> usize {
    columns_of(std::io::stdout()).unwrap_or(usize::MAX)
}

/// The width from `COLUMNS`, or else of the terminal.
fn columns_of(stream: impl AsFd) -> Option<usize> {
    let asked = variables::text("COLUMNS").and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(stream).map(|(width, _)| width.0.into());
    asked.or_else(terminal).filter(|&columns| columns >= NARROWEST)
}

/// A smaller width is taken for a mistake.
const NARROWEST: usize = 20;

/// The runtime of commands that talk to a cluster.
fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime =
        runtime.map_err(|error| Failed::new(FailureKind::Unexpected, format!("cannot start: {error}")))?;
    Ok(Runtime(runtime))
}

/// A runtime that waits at most [`LAST_WAIT`] for leftover threads when it ends.
struct Runtime(tokio::runtime::Runtime);

/// Time limit for leftover threads. A thread that reads a job's data ends in time, unless its disk hangs.
const LAST_WAIT: Duration = Duration::from_secs(1);

impl Runtime {
    fn block_on<T>(self, future: impl Future<Output = T>) -> T {
        let result = self.0.block_on(future);
        self.0.shutdown_timeout(LAST_WAIT);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_exit_as_the_help_says() {
        let documented = [
            (FailureKind::Unexpected, exit::UNEXPECTED),
            (FailureKind::Usage, exit::USAGE),
            (FailureKind::Data, exit::DATA),
            (FailureKind::NotAllowed, exit::NOT_ALLOWED),
            (FailureKind::TooFewWorkers, exit::TOO_FEW_WORKERS),
            (FailureKind::Diverged, exit::DIVERGED),
            (FailureKind::Differs, exit::DIFFERS),
            (FailureKind::CannotCompute, exit::CANNOT_COMPUTE),
            (FailureKind::Interrupted, exit::INTERRUPTED),
        ];
        assert!(documented.iter().all(|(kind, code)| kind.exit_code() == *code));
        let known = |kind: FailureKind| documented.iter().any(|(_, code)| kind.exit_code() == *code);
        assert!(FailureKind::ALL.into_iter().all(known), "no other code is used");
    }
}
