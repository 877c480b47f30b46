//! What every process of this project needs: exit codes, the log, signals.

use std::future::Future;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::variables;

/// How the commands exit.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Something that should not happen.
    pub const UNEXPECTED: u8 = 1;
    /// Usage or job file.
    pub const USAGE: u8 = 2;
    /// Data or run directory, or output that cannot be written.
    pub const DATA: u8 = 3;
    /// Cannot reach, or not allowed.
    pub const NOT_ALLOWED: u8 = 4;
    /// Not enough workers in time.
    pub const TOO_FEW_WORKERS: u8 = 5;
    /// Training diverged.
    pub const DIVERGED: u8 = 6;
    /// Verification found a difference.
    pub const DIFFERS: u8 = 7;
    /// This machine cannot verify, or its kernel is not to be computed with.
    pub const CANNOT_COMPUTE: u8 = 8;
    /// Evicted from the cluster, because of wrong answers (a worker).
    pub const EVICTED: u8 = 9;
    /// Interrupted; state saved (a worker: told to stop twice).
    pub const INTERRUPTED: u8 = 130;
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Says on standard error why the process ends.
pub fn fail(code: u8, message: &str) -> ExitCode {
    say(&format!("error: {message}"));
    ExitCode::from(code)
}

/// Writes a line to standard error, if somebody still reads it.
pub fn say(line: &str) {
    // There is nowhere left to complain.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints to standard output; ends the process if that can't be written, as [`printed`] does.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Takes the result of writing to standard output. A reader that has gone away (`| head`) is no error: the process just
/// ends. Whatever else hinders is one, since a report would be lost that somebody counts on.
pub fn printed(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        leave(exit::DONE);
    }
    say(&format!("error: standard output cannot be written: {error} (free space, or send it elsewhere)"));
    leave(exit::DATA);
}

/// Starts the log on standard error. `MILLEFEUILLE_LOG` filters it, as `RUST_LOG` does elsewhere.
pub fn start_log(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env(variables::LOG).unwrap_or_else(|_| EnvFilter::new(default));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// This very program, also when its file was replaced by a newer one since.
pub fn program() -> PathBuf {
    let link = Path::new("/proc/self/exe");
    let elsewhere = || std::env::current_exe().unwrap_or_else(|_| link.to_path_buf());
    if link.exists() { link.to_path_buf() } else { elsewhere() }
}

/// A random id of this process, the same after it has started itself again.
pub fn instance_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| variables::text(variables::INSTANCE).unwrap_or_else(random_hex)).clone()
}

/// 128 random bits in hex.
pub fn random_hex() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    hex::encode(bytes)
}

/// A random number in `[0, 1)`, for back-off: nothing that is trained depends on it.
pub fn random_share() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / (f64::from(u32::MAX) + 1.0)
}

/// Lets this process have as many files and connections open as it is allowed to.
///
/// A coordinator has two connections a worker, and a lock file a queued job; what is usual at first is 1,024 in all.
pub fn open_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the number of open files stays as it was: {error}");
    }
}

/// A name for people: `host:process`.
pub fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    format!("{host}:{}", std::process::id())
}

/// Whether nobody has waited for [`shutdown_signal`] yet.
static NOBODY_WAITS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Whether SIGTERM or Ctrl-C has come.
static TOLD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGTERM or Ctrl-C ends this process at once, with this code, whatever it is blocked in. Once somebody
/// waits for [`shutdown_signal`], the first is left to them, and only one that comes after it ends the process at once,
/// with 130. To be called first thing.
///
/// # Errors
/// If the system takes no handlers.
pub fn exit_on_signal(code: u8) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::flag::{register, register_conditional_shutdown};
    // A file that is too large for its limit is a write that fails, and no end without a word.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, code.into(), Arc::clone(&NOBODY_WAITS))?;
        register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(&TOLD))?;
        // Actions are taken in this order, so that the first signal only says that there was one.
        register(signal, Arc::clone(&TOLD))?;
    }
    Ok(())
}

/// Something that resolves when a program shall stop, such as [`shutdown_signal`].
pub trait Shutdown: Future<Output = ()> + Send {}
impl<T: Future<Output = ()> + Send> Shutdown for T {}

/// Resolves on SIGTERM or Ctrl-C, also if that came since somebody else waited for it. What comes after it ends the
/// process ([`exit_on_signal`]).
pub async fn shutdown_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    NOBODY_WAITS.store(false, Ordering::SeqCst);
    if TOLD.load(Ordering::SeqCst) {
        return;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ends this process at once, whatever its threads do.
///
/// An ordinary exit runs the libraries' destructors, and OpenBLAS' gives memory back that other threads may be
/// computing in.
#[allow(unsafe_code)]
pub fn leave(code: u8) -> ! {
    // SAFETY: it takes a number, touches no memory of ours and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Ends this process when the pipe that is its standard input closes: when whoever started it is gone.
pub fn exit_with_parent() {
    std::thread::spawn(|| {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        leave(exit::DONE);
    });
}

/// An address, from the command line: `host:port`.
///
/// # Errors
/// If it is none.
pub fn address(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match parts {
        Some((host, _)) if !host.contains(odd) => Ok(text.to_string()),
        _ => Err("expected host:port, such as 127.0.0.1:7070".to_string()),
    }
}

/// Why this address, which a flag names, can't be listened on, and what to do about it. Where another process has it,
/// `otherwise` says what else there is to do but to end that process.
pub fn cannot_listen(flag: &str, address: &str, error: &io::Error, otherwise: &str) -> String {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => {
            &format!("another process listens there: end it, or {otherwise}; 0 takes a free one")
        }
        ErrorKind::AddrNotAvailable => "this machine does not have the address: name one that it has",
        ErrorKind::PermissionDenied => "ports below 1024 are not for everybody: name a higher one",
        _ => "expected host:port, such as 127.0.0.1:7070",
    };
    format!("{flag} {address}: cannot listen: {error} ({remedy})")
}

/// A duration in seconds, from the command line: positive, with or without a fraction.
///
/// # Errors
/// If it is not a positive number.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a positive number of seconds".to_string()),
    }
}

/// The innermost reason of an error, which is what its reader can act on.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
