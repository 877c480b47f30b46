//! `coordinator man`: manual pages, generated from the command line's definition.
//!
//! `clap_mangen` renders what it knows: options, descriptions, subcommands. The synopsis is written here, because its own
//! leaves out the values of options, and so are examples and exit codes, whose lines it would fill into a paragraph.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, Args as ClapArgs, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use millefeuille_core::failure::Failure;

use super::{Result, names, print};

/// Write the man pages into a directory
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator man --out-dir man")]
pub(super) struct Args {
    /// The directory
    #[arg(long, value_name = "DIR", default_value = "man")]
    out_dir: PathBuf,
}

pub(super) fn run(args: Args) -> Result {
    let out = &args.out_dir;
    let failed = |error: io::Error| Failure::of_file(out.display(), "cannot be written", &error);
    crate::input::check_directory(out)?;
    std::fs::create_dir_all(out).map_err(failed)?;
    for program in names::ALL {
        let mut program = names::definition(program).disable_help_subcommand(true);
        program.build();
        write_pages(&program, out).map_err(failed)?;
    }
    print(&format!("the man pages are in {}\n", out.display()));
    Ok(())
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, out: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand, out)?;
    }
    let man = Man::new(command.clone().override_usage(synopsis(command)));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    page.write_all(after_help(command).as_bytes())?;
    std::fs::write(out.join(man.get_filename()), page)
}

/// `coordinator jobs [--watch] --cluster <HOST:PORT>`: every argument with its value.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_string();
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) = shown.partition(|argument| argument.is_positional());
    let arguments = options.into_iter().chain(positional).map(|argument| {
        let text = argument.to_string();
        let is_bracketed = text.starts_with('[');
        if argument.is_required_set() || is_bracketed { text } else { format!("[{text}]") }
    });
    let subcommand = command.has_subcommands().then(|| "<COMMAND>".to_string());
    std::iter::once(name).chain(arguments).chain(subcommand).collect::<Vec<_>>().join(" ")
}

/// What the help ends with, a section for each of its headings, line by line.
fn after_help(command: &Command) -> String {
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return String::new() };
    let mut page = Roff::new();
    for paragraph in text.split("\n\n") {
        let (heading, lines) = match paragraph.split_once('\n') {
            Some((heading, lines)) if heading.ends_with(':') => (heading.trim_end_matches(':'), lines),
            _ => ("Notes", paragraph),
        };
        page.control("SH", [heading.to_uppercase().as_str()]);
        page.control("nf", []);
        lines.lines().for_each(|line| _ = page.text([roman(line)]));
        page.control("fi", []);
    }
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synopsis_has_the_values_of_its_options() {
        let mut command = names::definition(names::COORDINATOR);
        command.build();
        let cancel = command.find_subcommand("cancel").expect("there is such a command");
        let text = synopsis(cancel);
        assert!(text.starts_with("coordinator cancel [--running] [--all]"), "{text}");
        assert!(text.contains("--cluster <HOST:PORT>") && text.ends_with("[JOB]..."), "{text}");
    }

    #[test]
    fn examples_keep_their_lines() {
        let text = after_help(
            &Command::new("x").after_help("Examples:\n  x --a\n  x --b\n\nExit codes:\n    0  done"),
        );
        let examples = ".SH EXAMPLES\n.nf\n  x \\-\\-a\n  x \\-\\-b\n.fi\n";
        assert!(
            text.contains(examples) && text.contains(".SH \"EXIT CODES\"\n.nf\n    0  done\n.fi"),
            "{text}"
        );
    }
}
