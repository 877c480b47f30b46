//! `coordinator doctor` and `worker doctor`: what this machine is, and what to expect of it.
//!
//! The findings ([`findings`]) are separate from their presentation ([`page`]). Other processes test and measure the
//! kernel, as always, so any problem with it is a line on the page. A warning is about a property that is far from
//! what it could be, and comes with a remedy; a warning is not a failure.

mod findings;
mod page;

use clap::Args as ClapArgs;

use self::findings::Findings;
use crate::machine::address_space;
use crate::process::{self, exit};

/// Say what this machine is for training, and what to do about it where it could be better
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator doctor
  worker doctor --json | jq .warnings

Exit codes:
    0  done, with or without warnings
    1  too little address space
    8  no BLAS kernel can be computed with")]
pub struct Args {
    /// Print an object in JSON
    #[arg(long)]
    json: bool,
}

/// Examines this machine and prints the findings.
///
/// # Errors
/// The exit code, and the reason in one line.
pub fn run(args: Args) -> Result<(), (u8, String)> {
    address_space::enough_for(1).map_err(|message| (exit::UNEXPECTED, message))?;
    let (findings, failure) =
        Findings::of_this_machine().map_err(|error| (error.code(), error.to_string()))?;
    process::print(&if args.json { page::json(&findings) } else { page::text(&findings) });
    failure.map_or(Ok(()), |error| Err((error.code(), error.to_string())))
}
