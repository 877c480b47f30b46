//! The binary `worker`: see the library of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    millefeuille_worker::cli::main(std::env::args_os())
}
