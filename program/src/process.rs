//! Common code of every process: exit codes, the log, signals.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use clap::ValueEnum;
use millefeuille_core::text::{self, SENTENCE};
use tokio::signal::unix::{SignalKind, signal};

use crate::{before_main, variables};

/// Exit codes of the commands.
pub mod exit {
    /// Success.
    pub const DONE: u8 = 0;
    /// An unexpected error.
    pub const UNEXPECTED: u8 = 1;
    /// An error in the usage or the job file.
    pub const USAGE: u8 = 2;
    /// An error in the data or run directory, or output that cannot be written.
    pub const DATA: u8 = 3;
    /// A peer cannot be reached, or an operation is not allowed.
    pub const NOT_ALLOWED: u8 = 4;
    /// Not enough workers in time.
    pub const TOO_FEW_WORKERS: u8 = 5;
    /// Training diverged.
    pub const DIVERGED: u8 = 6;
    /// Verification found a difference.
    pub const DIFFERS: u8 = 7;
    /// This machine cannot verify, or its kernel must not be used.
    pub const CANNOT_COMPUTE: u8 = 8;
    /// A worker was evicted from the cluster because its results were wrong.
    pub const EVICTED: u8 = 9;
    /// Interrupted, with the state saved. For a worker: stopped by a second signal.
    pub const INTERRUPTED: u8 = 130;
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether errors are JSON, as the log is.
static JSON: AtomicBool = AtomicBool::new(false);

/// Takes the format of the log from a command line, before it is parsed: an error in it has the format too.
pub fn choose_format(arguments: impl IntoIterator<Item = OsString>) {
    let flag = format!("--{LOG_FORMAT}");
    let mut typed = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.to_str().and_then(|text| text.strip_prefix(&flag)) else { continue };
        typed = match rest.strip_prefix('=') {
            Some(value) => Some(value.into()),
            None if rest.is_empty() => arguments.next(),
            None => typed,
        };
    }
    if typed.or_else(|| std::env::var_os("MILLEFEUILLE_LOG_FORMAT")).is_some_and(|format| format == "json") {
        JSON.store(true, Ordering::Relaxed);
        std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
    }
}

/// The flag for the format of the log.
const LOG_FORMAT: &str = "log-format";

/// Writes the reason for the exit to standard error.
pub fn fail(code: u8, message: &str) -> ExitCode {
    error(message);
    ExitCode::from(code)
}

/// Writes an error to standard error: one line, in the format of the log.
pub fn error(message: &str) {
    let message = text::cleaned(message, SENTENCE);
    match JSON.load(Ordering::Relaxed) {
        true => logged(|| tracing::error!("{message}")),
        false => say(&format!("error: {message}")),
    }
}

/// Writes a warning to standard error, where the log may not be set up yet.
pub fn warning(message: &str) {
    let message = text::cleaned(message, SENTENCE);
    match JSON.load(Ordering::Relaxed) {
        true => logged(|| tracing::warn!("{message}")),
        false => say(&format!("warning: {message}")),
    }
}

/// Logs in JSON, whatever is filtered, and whether or not the log is set up.
fn logged(event: impl FnOnce()) {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).json().finish();
    tracing::subscriber::with_default(log, event);
}

/// Writes a line to standard error; ignores errors.
pub fn say(line: &str) {
    // There is nowhere left to report an error.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints to standard output. If that fails, ends the process as [`printed`] does.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Handles the result of writing to standard output. If the reader has gone (`| head`), the process just ends without
/// an error. Any other failure is an error, since output would be lost.
pub fn printed(written: io::Result<()>) {
    let Err(error) = written else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        leave(exit::DONE);
    }
    self::error(&format!("standard output cannot be written: {error} (free space, or send it elsewhere)"));
    leave(exit::DATA);
}

/// The path of this program, even if its file has been replaced since the start.
pub fn program() -> PathBuf {
    let link = Path::new("/proc/self/exe");
    let elsewhere = || std::env::current_exe().unwrap_or_else(|_| link.to_path_buf());
    if link.exists() { link.to_path_buf() } else { elsewhere() }
}

/// A random id of this process, kept when the process restarts itself.
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

/// A random number in `[0, 1)`, for back-off. Training does not depend on it.
pub fn random_share() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / (f64::from(u32::MAX) + 1.0)
}

/// A name of this process for people: `host:process`.
pub fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    format!("{host}:{}", std::process::id())
}

/// Whether no task has waited for [`shutdown_signal`] yet.
static NO_TASK_WAITS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Whether SIGTERM or Ctrl-C has come.
static TOLD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on, SIGTERM or Ctrl-C ends this process at once with this code, even if it is blocked. Once a caller
/// waits for [`shutdown_signal`], that future handles the first signal, and a later one ends the process at once with
/// 130. Call this first: [before](mod@before_main) it, signals wait.
///
/// # Errors
/// If the signal handlers cannot be registered.
pub fn exit_on_signal(code: u8) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::flag::{register, register_conditional_shutdown};
    // A write beyond the file size limit should fail with an error, not end the process silently.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, code.into(), Arc::clone(&NO_TASK_WAITS))?;
        register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(&TOLD))?;
        // Handlers run in this order, so the first signal only sets the flag.
        register(signal, Arc::clone(&TOLD))?;
    }
    before_main::hold_signals(false);
    Ok(())
}

/// Ends this process if SIGTERM or Ctrl-C has come, and nobody waits for it any more.
pub fn leave_if_told() {
    if TOLD.load(Ordering::SeqCst) {
        leave(exit::DONE);
    }
}

/// A future that resolves when a program should stop, such as [`shutdown_signal`].
pub trait Shutdown: Future<Output = ()> + Send {}
impl<T: Future<Output = ()> + Send> Shutdown for T {}

/// Resolves on SIGTERM or Ctrl-C, including one that came after an earlier caller began to wait. A later signal ends
/// the process ([`exit_on_signal`]).
pub async fn shutdown_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    NO_TASK_WAITS.store(false, Ordering::SeqCst);
    if TOLD.load(Ordering::SeqCst) {
        return;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ends this process at once, whatever its threads are doing.
///
/// An ordinary exit runs the libraries' destructors, and OpenBLAS' destructor frees memory that other threads may
/// still be computing in.
#[allow(unsafe_code)]
pub fn leave(code: u8) -> ! {
    // SAFETY: `_exit` takes a number, touches no memory of ours and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Ends this process when its standard input, a pipe, closes: when its parent is gone.
///
/// # Errors
/// If no thread can be started.
pub fn exit_with_parent() -> io::Result<()> {
    let ends = || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        leave(exit::DONE);
    };
    std::thread::Builder::new().name("parent".into()).spawn(ends).map(drop)
}

/// Parses an address from the command line: `host:port`.
///
/// # Errors
/// If the text is not an address.
pub fn address(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match parts {
        Some((host, _)) if !host.contains(odd) => Ok(text.to_string()),
        _ => Err("expected host:port, such as 127.0.0.1:7070".to_string()),
    }
}

/// The error for an address, named by a flag, that can't be listened on, with a remedy. If another process uses the
/// address, `otherwise` names an alternative to ending that process.
pub fn cannot_listen(flag: &str, address: &str, error: &io::Error, otherwise: &str) -> String {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => {
            &format!("another process listens there: end it, or {otherwise}; 0 takes a free one")
        }
        ErrorKind::AddrNotAvailable => "this machine does not have the address: name one that it has",
        ErrorKind::PermissionDenied => "ports below 1024 need privileges: name a higher one",
        _ => "expected host:port, such as 127.0.0.1:7070",
    };
    format!("{flag} {address}: cannot listen: {error} ({remedy})")
}

/// Parses a duration in seconds from the command line: positive, with or without a fraction.
///
/// # Errors
/// If the text is not a positive number.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a positive number of seconds".to_string()),
    }
}

/// The default of `--connect-timeout`, in seconds.
pub const CONNECT_TIMEOUT: &str = "10";
/// The maximum number of pieces that a worker computes at once.
pub const MAX_SLOTS: i64 = 1024;

/// A duration as the command line takes and shows it: a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        seconds(text).map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}

/// The innermost cause of an error, which the reader can act on.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
