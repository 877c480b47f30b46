//! Restarts this program, or starts another process of it, with the environment that a kernel needs.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use millefeuille_core::blas::environment::Change;

use crate::{before_main, process, variables};

/// A command that runs this program with the same arguments.
pub(super) fn again() -> Command {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(process::program());
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

/// Applies a change of environment to a command.
pub(super) fn changed(mut command: Command, change: &Change) -> Command {
    change.remove.iter().for_each(|name| _ = command.env_remove(variables::bytes(name)));
    let set = change.set.iter().map(|(name, value)| (variables::bytes(name), variables::bytes(value)));
    command.envs(set);
    command
}

/// Replaces this process. Returns only if that fails, with the reason. A signal that comes meanwhile is held, and
/// reaches the new process.
pub(super) fn replaced_by(mut command: Command) -> String {
    before_main::hold_signals(true);
    process::leave_if_told();
    let error = command.exec();
    before_main::hold_signals(false);
    format!("cannot start again: {error}")
}
