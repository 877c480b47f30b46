//! Command lines of containers, parsed by the programs' own parsers.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgMatches, Command, CommandFactory as _};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A container's command line, if it starts one of our programs.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The program and its subcommand, such as `coordinator serve`.
    pub what: String,
    /// The given values, by flag without dashes, or by argument id.
    pub values: BTreeMap<String, String>,
    /// Variables for other subcommands that are run in this container, by flag.
    pub elsewhere: BTreeMap<String, String>,
}

impl CommandLine {
    /// Parses it; `None` if the container starts another program.
    ///
    /// # Errors
    /// The program's error for this command line or its environment.
    pub fn read(container: &Container) -> Result<Option<Self>, String> {
        let mut words: Vec<String> =
            container.command.iter().chain(&container.args).flatten().cloned().collect();
        let program =
            words.first().map(|word| Path::new(word).file_name().unwrap_or_default().display().to_string());
        let command = match program.as_deref() {
            Some("coordinator") => millefeuille_coordinator::cli::command(),
            Some("worker") => millefeuille_worker::cli::Args::command(),
            Some(_) => return Ok(None),
            None => return Err("it has no command: what it starts is left to the image".into()),
        };
        let innermost = innermost(&command, &words);
        let mut elsewhere = BTreeMap::new();
        for variable in ours(container) {
            let value = value(variable, container)?;
            match (flag(innermost, &variable.name), find_flag(&command, &variable.name)) {
                (Some(flag), _) => words.push(format!("--{flag}={value}")),
                (None, Some(flag)) => _ = elsewhere.insert(flag, value),
                (None, None) => return Err(format!("{} is read by no command", variable.name)),
            }
        }
        let what = what(&command, &words);
        let matches = command.try_get_matches_from(&words).map_err(|error| one_line(&error))?;
        Ok(Some(Self { what, values: values(&matches), elsewhere }))
    }

    /// The value of a flag.
    pub fn value(&self, flag: &str) -> Option<&str> {
        self.values.get(flag).map(String::as_str)
    }
}

fn ours(container: &Container) -> impl Iterator<Item = &EnvVar> {
    container.env.iter().flatten().filter(|variable| variable.name.starts_with("MILLEFEUILLE_"))
}

/// The value that a kubelet gives a variable.
///
/// # Errors
/// If it does not follow from the container.
pub fn value(variable: &EnvVar, container: &Container) -> Result<String, String> {
    if let Some(value) = &variable.value {
        return Ok(value.clone());
    }
    let unknown = || format!("{} comes from where this test does not look", variable.name);
    let from = variable.value_from.as_ref().ok_or_else(unknown)?;
    let resource = from.resource_field_ref.as_ref().ok_or_else(unknown)?;
    if resource.container_name.as_ref().is_some_and(|name| *name != container.name) {
        return Err(format!("{} is about another container", variable.name));
    }
    let limit = resource.resource.strip_prefix("limits.").ok_or_else(unknown)?;
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let limit = limits.and_then(|limits| limits.get(limit));
    let limit = limit.ok_or_else(|| format!("{} is about a limit that is not set", variable.name))?;
    Ok(amount(limit).ceil().to_string())
}

/// The value of a quantity, in CPUs or bytes.
///
/// # Panics
/// If its notation is not supported here.
pub fn amount(quantity: &Quantity) -> f64 {
    const UNITS: [(&str, f64); 5] =
        [("m", 1e-3), ("Ki", 1024.0), ("Mi", 1048576.0), ("Gi", 1073741824.0), ("", 1.0)];
    let text = quantity.0.as_str();
    let read = |(unit, factor): (&str, f64)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor);
    UNITS.into_iter().find_map(read).unwrap_or_else(|| panic!("{text} is no quantity that is used here"))
}

/// The flag of a command with this variable.
fn flag(command: &Command, variable: &str) -> Option<String> {
    let reads = |argument: &&Arg| argument.get_env().is_some_and(|name| name == variable);
    command.get_arguments().find(reads).and_then(Arg::get_long).map(str::to_owned)
}

/// The same, of the command or any below it.
fn find_flag(command: &Command, variable: &str) -> Option<String> {
    flag(command, variable).or_else(|| command.get_subcommands().find_map(|below| find_flag(below, variable)))
}

/// The command that these words name.
fn innermost<'a>(command: &'a Command, words: &[String]) -> &'a Command {
    let below = words.get(1).and_then(|word| command.find_subcommand(word));
    below.map_or(command, |below| innermost(below, &words[1..]))
}

fn what(command: &Command, words: &[String]) -> String {
    let below = words.get(1).and_then(|word| command.find_subcommand(word));
    let rest = below.map(|below| what(below, &words[1..]));
    [Some(command.get_name().to_string()), rest].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn values(matches: &ArgMatches) -> BTreeMap<String, String> {
    if let Some((_, matches)) = matches.subcommand() {
        return values(matches);
    }
    let value = |id: &clap::Id| {
        let raw = matches.try_get_raw(id.as_str()).ok().flatten()?;
        let raw: Vec<_> = raw.map(|value| value.display().to_string()).collect();
        Some((id.as_str().replace('_', "-"), raw.join(",")))
    };
    matches.ids().filter_map(value).collect()
}

fn one_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
}
