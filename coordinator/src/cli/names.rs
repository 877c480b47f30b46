//! The names by which the programs are called, and the definition of each one's command line.
//!
//! `millefeuille` is both programs in one: the commands of `coordinator`, and `worker` as a further one. Its help names
//! it where theirs name them.

use clap::{Command, CommandFactory as _};

pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const WORKER: &str = "worker";
pub(super) const BOTH: &str = "millefeuille";
pub(super) const ALL: [&str; 3] = [COORDINATOR, WORKER, BOTH];

/// The definition of a program's command line.
pub(super) fn definition(program: &str) -> Command {
    match program {
        WORKER => millefeuille_worker::cli::Args::command(),
        BOTH => {
            renamed(super::Args::command().subcommand(millefeuille_worker::cli::Args::command())).name(BOTH)
        }
        _ => super::Args::command(),
    }
}

/// A command whose examples, and those of its subcommands, are typed with the name of both.
fn renamed(command: Command) -> Command {
    let examples = command.get_after_help().map(|text| {
        let text = text.to_string();
        text.replace("  coordinator ", "  millefeuille ").replace("  worker ", "  millefeuille worker ")
    });
    let command = command.mut_subcommands(renamed);
    examples.into_iter().fold(command, Command::after_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_has_the_commands_of_the_coordinator_and_the_worker() {
        let both = definition(BOTH);
        both.clone().debug_assert();
        let has = |name: &str| both.get_subcommands().any(|command| command.get_name() == name);
        assert!(
            definition(COORDINATOR).get_subcommands().all(|command| has(command.get_name())) && has(WORKER)
        );
        let examples = both.find_subcommand(WORKER).unwrap().get_after_help().unwrap().to_string();
        assert!(examples.contains("  millefeuille worker --coordinator 127.0.0.1:7070"), "{examples}");
    }
}
