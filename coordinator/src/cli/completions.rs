//! `coordinator completions`: shell completions, generated from the command line's definition.

use clap::Args as ClapArgs;
use clap_complete::Shell;

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

pub(super) fn run(args: Args) -> Result {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut names::definition(&args.program), &args.program, &mut text);
    print(&String::from_utf8_lossy(&text));
    Ok(())
}
