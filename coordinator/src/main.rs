//! The binary `coordinator`: see the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    millefeuille_coordinator::cli::main()
}
