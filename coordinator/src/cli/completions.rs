//! `coordinator completions` and `coordinator man`: shell completions and man pages, generated from the command
//! line's definition.

use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;

use millefeuille_core::failure::Failure;

use super::{Result, print};

/// Print a shell's completions, for coordinator or for worker
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator completions bash > /etc/bash_completion.d/coordinator")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
    /// For which program
    #[arg(long, value_name = "PROGRAM", default_value = "coordinator", value_parser = ["coordinator", "worker"])]
    program: String,
}

/// Write the man pages into a directory
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator man --out-dir man")]
pub(super) struct ManArgs {
    /// The directory
    #[arg(long, value_name = "DIR", default_value = "man")]
    out_dir: PathBuf,
}

fn command(program: &str) -> clap::Command {
    if program == "worker" { millefeuille_worker::cli::Args::command() } else { super::Args::command() }
}

pub(super) fn run(args: Args) -> Result {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(&args.program), &args.program, &mut text);
    print(&String::from_utf8_lossy(&text));
    Ok(())
}

pub(super) fn man(args: ManArgs) -> Result {
    let out = &args.out_dir;
    let failed = |error: std::io::Error| Failure::of_file(out.display(), "cannot be written", &error);
    crate::input::check_directory(out)?;
    std::fs::create_dir_all(out).map_err(failed)?;
    for program in ["coordinator", "worker"] {
        clap_mangen::generate_to(command(program), out).map_err(failed)?;
    }
    print(&format!("the man pages are in {}\n", out.display()));
    Ok(())
}
