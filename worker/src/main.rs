//! The binary `worker`: see the library of this package.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    millefeuille_worker::cli::main(millefeuille_worker::cli::Args::parse())
}
