//! Parses command lines. Like all errors, a usage error is one line. It quotes the value as typed, and names the
//! variable if the value came from the environment.

use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Error, Parser};
use millefeuille_core::text;

use crate::process::{self, exit};
use crate::variables;

/// Parses the arguments of a program, including its own name.
///
/// # Errors
/// The exit code. The error, or the requested help, has been printed already.
pub fn parse<T: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<(T, ArgMatches), ExitCode> {
    parse_as(T::command(), arguments)
}

/// The same, with a definition that differs from the parser's in names and texts.
///
/// # Errors
/// As of [`parse`].
pub fn parse_as<T: Parser>(
    definition: Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(T, ArgMatches), ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = without_empty_variables(definition);
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Ok((T::from_arg_matches(&matches)?, matches)));
    parsed.map_err(|error| answer(&command, &arguments, &error))
}

/// Ignores variables that are set to the empty string, such as those that compose and Kubernetes pass on.
fn without_empty_variables(command: Command) -> Command {
    let says_nothing = |argument: &Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let minded = |argument: Arg| if says_nothing(&argument) { argument.env(None::<&str>) } else { argument };
    command.mut_args(minded).mut_subcommands(without_empty_variables)
}

fn answer(command: &Command, arguments: &[OsString], error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            process::printed(error.print());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // An error here means that standard error is closed.
            let _ = error.print();
            ExitCode::from(exit::USAGE)
        }
        ErrorKind::InvalidUtf8 => process::fail(exit::USAGE, &no_text(command, arguments)),
        _ => process::fail(exit::USAGE, &line(command, arguments, error)),
    }
}

/// The error for a value that must be text and is not: clap does not name the value.
fn no_text(command: &Command, arguments: &[OsString]) -> String {
    let texts = named(command, arguments)
        .into_iter()
        .flat_map(Command::get_arguments)
        .filter(|argument| !may_be_any_bytes(argument) && !is_typed(argument, arguments));
    let mut set = texts.filter_map(|text| Some((text.get_env()?, std::env::var_os(text.get_env()?)?)));
    if let Some((name, value)) = set.find(|(_, value)| value.to_str().is_none()) {
        return variables::no_text(&name.to_string_lossy(), &value);
    }
    match typed_no_text(&named(command, arguments), arguments) {
        Some((flag, value)) => format!("{flag} {value:?}: not text in UTF-8"),
        None => "an argument is not text in UTF-8".to_string(),
    }
}

/// The first argument that must be text and is not: its flag, or the name of its place, and its value.
fn typed_no_text(commands: &[&Command], arguments: &[OsString]) -> Option<(String, OsString)> {
    let known = |flag: &str| {
        let all = commands.iter().flat_map(|command| command.get_arguments());
        all.into_iter().find(|argument| spellings(argument).iter().any(|spelling| spelling == flag))
    };
    let before =
        |place: usize| arguments[place - 1].to_str().filter(|flag| known(flag).is_some_and(takes_value));
    // The words that are for places, in order; those of commands come first.
    let words = (1..arguments.len())
        .filter(|&place| !arguments[place].as_bytes().starts_with(b"-") && before(place).is_none());
    let words: Vec<usize> = words.skip(commands.len() - 1).collect();
    let positionals: Vec<&Arg> =
        commands.last().into_iter().flat_map(|inner| inner.get_positionals()).collect();
    let positional = |place: usize| {
        let index = words.iter().position(|&word| word == place)?;
        // The last place may take several.
        positionals.get(index).or(positionals.last()).copied()
    };
    let wrong = (1..arguments.len()).filter(|&place| arguments[place].to_str().is_none());
    wrong.into_iter().find_map(|place| {
        let typed = arguments[place].as_os_str();
        let (name, argument, value) = match (flag_and_value(typed), before(place)) {
            (Some((flag, value)), _) => (flag, known(flag), value),
            (None, Some(flag)) => (flag, known(flag), typed),
            (None, None) => ("argument", positional(place), typed),
        };
        let is_path = argument.is_some_and(may_be_any_bytes);
        (!is_path).then(|| (name.to_string(), value.to_os_string()))
    })
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

/// How a flag may be typed.
fn spellings(argument: &Arg) -> Vec<String> {
    let long = argument.get_long().map(|long| format!("--{long}"));
    long.into_iter().chain(argument.get_short().map(|short| format!("-{short}"))).collect()
}

/// The two halves of `--flag=value`.
fn flag_and_value(typed: &OsStr) -> Option<(&str, &OsStr)> {
    let bytes = typed.as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=').filter(|_| bytes.starts_with(b"--"))?;
    Some((str::from_utf8(&bytes[..equals]).ok()?, OsStr::from_bytes(&bytes[equals + 1..])))
}

/// The commands that the arguments name, from this one down to the innermost, which is last. Flags of the outer
/// commands are accepted too.
fn named<'a>(command: &'a Command, arguments: &[OsString]) -> Vec<&'a Command> {
    let mut commands = vec![command];
    for word in arguments.iter().skip(1) {
        commands.extend(commands[commands.len() - 1].find_subcommand(word));
    }
    commands
}

/// Whether the argument is a path, which may be any bytes.
fn may_be_any_bytes(argument: &Arg) -> bool {
    argument.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

fn is_typed(argument: &Arg, arguments: &[OsString]) -> bool {
    let flag = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    arguments.iter().any(|typed| begins_with_flag(typed, &flag))
}

/// Whether this argument is the flag, with or without its value.
fn begins_with_flag(typed: &OsString, flag: &str) -> bool {
    let rest = typed.as_bytes().strip_prefix(flag.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

fn line(command: &Command, arguments: &[OsString], error: &Error) -> String {
    let argument = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue).filter(|value| !value.is_empty());
    let (Some(argument), Some(value)) = (argument, value) else { return in_one_line(error) };
    let problem = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(known))) => format!("expected one of {}", known.join(", ")),
        _ => return in_one_line(error),
    };
    format!("{}: {problem}", place(command, arguments, argument, value))
}

fn text(error: &Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

/// A flag with its value as typed, or the variable that the value came from. `argument` is a flag with its value's
/// name.
fn place(command: &Command, arguments: &[OsString], argument: &str, value: &str) -> String {
    let flag = argument.split([' ', '=']).next().unwrap_or(argument);
    let variable = flag.strip_prefix("--").and_then(|long| variable(command, long));
    match variable {
        Some(variable) if !arguments.iter().any(|typed| begins_with_flag(typed, flag)) => {
            format!("{variable}={}", shown(value))
        }
        _ => format!("{flag} {}", shown(value)),
    }
}

/// The environment variable for a flag of this command or of one of its subcommands.
fn variable(command: &Command, long: &str) -> Option<String> {
    let own = command.get_arguments().find(|argument| argument.get_long() == Some(long));
    let own = own.and_then(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    own.or_else(|| command.get_subcommands().find_map(|below| variable(below, long)))
}

/// A value as it is shown in an error: quoted if it would be invisible or break the line.
pub fn shown(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || text::is_hidden(c));
    if plain { value.to_string() } else { format!("{value:?}") }
}

/// clap's message, cut to the error and one tip.
fn in_one_line(error: &Error) -> String {
    let said = error.render().to_string();
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = said.split("\n\n").map(joined);
    let what = parts.next().unwrap_or_default();
    let what = what.trim_start_matches("error: ").to_string();
    let wanted = if error.kind() == ErrorKind::MissingRequiredArgument { "Usage: " } else { "tip: " };
    let wanted = |part: &String| part.starts_with(wanted) && !part.contains("as a value, use '-- ");
    match parts.find(wanted) {
        Some(part) => format!("{what} ({})", part.replacen("Usage: ", "usage: ", 1)),
        None => what,
    }
}
