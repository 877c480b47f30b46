//! `coordinator completions` and `coordinator man`: shell completions and man pages, generated from the command
//! line's definition.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap_complete::Shell;

use millefeuille_core::failure::Failure;

use super::{Result, names, print};

/// Print a shell's completions, for coordinator, worker or millefeuille
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator completions bash > /etc/bash_completion.d/coordinator")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
    /// For which program
    #[arg(long, value_name = "PROGRAM", default_value = names::COORDINATOR, value_parser = names::ALL)]
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

pub(super) fn run(args: Args) -> Result {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut names::definition(&args.program), &args.program, &mut text);
    print(&String::from_utf8_lossy(&text));
    Ok(())
}

pub(super) fn man(args: ManArgs) -> Result {
    let out = &args.out_dir;
    let failed = |error: std::io::Error| Failure::of_file(out.display(), "cannot be written", &error);
    crate::input::check_directory(out)?;
    std::fs::create_dir_all(out).map_err(failed)?;
    for program in names::ALL {
        clap_mangen::generate_to(names::definition(program), out).map_err(failed)?;
    }
    print(&format!("the man pages are in {}\n", out.display()));
    Ok(())
}
