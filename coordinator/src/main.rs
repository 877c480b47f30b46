//! The binary `coordinator`: see the library of this package.

use std::process::ExitCode;

millefeuille_program::before_main!();

fn main() -> ExitCode {
    millefeuille_coordinator::cli::main()
}
