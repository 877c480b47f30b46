//! `coordinator job`: job files by themselves: checks one, prints their schema.

mod check;
pub(super) mod flags;
mod new;

use clap::{Args as ClapArgs, Subcommand};

use super::given::Given;
use super::{Result, print};

/// Check a job file, or print the schema of job files
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator job check houses.toml --set fit.batch_size=64
  coordinator job schema > job.schema.json")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Check(Box<check::Args>),
    New(new::Args),
    /// Print the JSON Schema of job files, for editors
    #[command(after_help = "Examples:
  coordinator job schema > job.schema.json

With Taplo, or Even Better TOML, the first line of a job file names it:
#:schema job.schema.json")]
    Schema,
}

/// The schema of job files; a test of `core` writes it.
const SCHEMA: &str = include_str!("../../../docs/job.schema.json");

pub(super) fn run(args: Args, given: &Given) -> Result {
    match args.what {
        What::Check(args) => check::run(*args, given),
        What::New(args) => new::run(args),
        What::Schema => {
            print(SCHEMA);
            Ok(())
        }
    }
}
