//! The binary `worker`: see the library of this package.

use std::process::ExitCode;

millefeuille_program::before_main!();

fn main() -> ExitCode {
    millefeuille_worker::cli::main(std::env::args_os())
}
