//! How much a program says on standard error, and in which colours: the flags that every command has, and the log.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use clap::{ArgAction, Args, ColorChoice};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub use crate::process::LogFormat;
use crate::{kernel, process, variables};

/// The flags about output that every command has.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Say nothing but errors: no progress, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Log this program's details; -vv: those of its libraries, too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, env = "MILLEFEUILLE_COLOR", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// The flags of this process.
static CHOSEN: OnceLock<OutputArgs> = OnceLock::new();

impl OutputArgs {
    /// Applies to everything that this process says from now on.
    pub fn apply(self) {
        // The command line is parsed once.
        let _ = CHOSEN.set(self);
    }

    /// The same flags, for the processes that this one starts.
    pub fn of_this_process() -> Vec<&'static str> {
        let Some(Self { quiet, verbose, color }) = CHOSEN.get() else { return Vec::new() };
        let color = match color {
            ColorChoice::Auto => None,
            ColorChoice::Always => Some("--color=always"),
            ColorChoice::Never => Some("--color=never"),
        };
        let loudness = [(*quiet, "-q"), (*verbose > 0, "-v"), (*verbose > 1, "-v")];
        loudness.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).chain(color).collect()
    }
}

/// Whether nothing but errors is to be said.
pub fn is_quiet() -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen.quiet)
}

/// What was chosen about colours.
pub fn colours() -> ColorChoice {
    CHOSEN.get().map_or(ColorChoice::Auto, |chosen| chosen.color)
}

/// Writes a warning to standard error, unless only errors are to be said.
pub fn warn(message: &str) {
    if !is_quiet() {
        process::warning(message);
    }
}

/// Starts the log on standard error. What is logged is decided by the flags, or else by `MILLEFEUILLE_LOG`, or else by
/// `default`, both in the syntax of `RUST_LOG`.
pub fn start_log(format: LogFormat, default: &str) {
    let asked = variables::text(variables::LOG).map(|asked| directives(&asked));
    let flags = CHOSEN.get().and_then(|chosen| of_flags(chosen.quiet, chosen.verbose));
    let filter = flags.or_else(|| asked.and_then(|asked| EnvFilter::try_new(asked).ok()));
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(has_colours()).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn has_colours() -> bool {
    match colours() {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            io::stderr().is_terminal() && !refused
        }
    }
}

fn of_flags(quiet: bool, verbose: u8) -> Option<EnvFilter> {
    match (quiet, verbose) {
        (true, _) => Some(EnvFilter::new("error")),
        (false, 0) => None,
        (false, 1) => Some(EnvFilter::new(of_ours(LevelFilter::DEBUG))),
        (false, _) => Some(EnvFilter::new("debug")),
    }
}

/// A level alone is meant for this program: its libraries would drown it. `RUST_LOG`'s other forms say what they mean.
fn directives(asked: &str) -> String {
    asked.trim().parse().map_or_else(|_| asked.to_string(), of_ours)
}

/// This program's own log from this level on, and its libraries' warnings at most.
fn of_ours(level: LevelFilter) -> String {
    format!("{},millefeuille={level},{}={level}", level.min(LevelFilter::WARN), kernel::LOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_for_this_program() {
        assert_eq!(directives("debug"), "warn,millefeuille=debug,kernel=debug");
        assert_eq!(directives("ERROR"), "error,millefeuille=error,kernel=error");
        assert_eq!(directives("off"), "off,millefeuille=off,kernel=off");
        assert_eq!(directives("h2=trace,warn"), "h2=trace,warn");
    }
}
