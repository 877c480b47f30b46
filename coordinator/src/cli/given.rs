//! Where the values of a command came from, so that errors can name the place: a flag with its value as typed, or an
//! environment variable.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use millefeuille_program::usage::shown;

/// The arguments given to a command.
#[derive(Debug)]
pub(super) struct Given {
    values: BTreeMap<String, Value>,
}

#[derive(Debug)]
struct Value {
    flag: String,
    /// The environment variable that it came from; `None` if it was typed.
    variable: Option<String>,
    raw: String,
    heading: Option<String>,
}

impl Given {
    /// The arguments given to the innermost subcommand.
    pub(super) fn of(command: &Command, matches: &ArgMatches) -> Self {
        if let Some((name, inner)) = matches.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            return Self::of(command, inner);
        }
        let value = |argument: &clap::Arg| {
            let id = argument.get_id().as_str();
            let source = matches.value_source(id).filter(|&source| source != ValueSource::DefaultValue)?;
            let raw = matches.get_raw(id)?.next().unwrap_or_default().to_string_lossy().into_owned();
            let variable = argument.get_env().filter(|_| source == ValueSource::EnvVariable);
            let value = Value {
                flag: format!("--{}", argument.get_long()?),
                variable: variable.map(|name| name.to_string_lossy().into_owned()),
                raw,
                heading: argument.get_help_heading().map(str::to_owned),
            };
            Some((id.to_owned(), value))
        };
        Self { values: command.get_arguments().filter_map(value).collect() }
    }

    /// The flag or the variable that gave this argument's value.
    pub(super) fn name(&self, id: &str) -> Option<&str> {
        self.values.get(id).map(|value| value.variable.as_ref().unwrap_or(&value.flag).as_str())
    }

    /// The flag of this argument, if it was typed.
    pub(super) fn typed(&self, id: &str) -> Option<&str> {
        self.values.get(id).and_then(Value::typed)
    }

    /// The first typed flag under this heading.
    pub(super) fn typed_under(&self, heading: &str) -> Option<&str> {
        let under = |value: &&Value| value.heading.as_deref() == Some(heading);
        self.values.values().filter(under).find_map(Value::typed)
    }

    /// The place of each value, by flag: `--epochs 5`, or `MILLEFEUILLE_EPOCHS=5`.
    pub(super) fn places(&self) -> BTreeMap<String, String> {
        self.values.values().map(|value| (value.flag.clone(), value.place())).collect()
    }
}

impl Value {
    fn typed(&self) -> Option<&str> {
        self.variable.is_none().then_some(&self.flag)
    }

    fn place(&self) -> String {
        match &self.variable {
            Some(variable) => format!("{variable}={}", shown(&self.raw)),
            None => format!("{} {}", self.flag, shown(&self.raw)),
        }
    }
}
