//! `coordinator job new`: a job file for data.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::job::{ColumnName, ParseNameError, Source};

use crate::cli::output_file::OutputFile;
use crate::cli::{Result, print};
use crate::draft::Draft;

/// Write a job file for your data
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator job new --from houses.csv --target price
  coordinator job new --from mnist --output digits.toml

Looks at the data, and writes a job file that trains as it stands, with the reason
for each choice. Columns from which nothing can be learned are left out: numbers of
rows, names, constants. Without --output the file goes to standard output.")]
pub(super) struct Args {
    /// The data, of any kind that training takes
    #[arg(long, value_name = "DATA")]
    from: Source,
    /// The column to learn, by name or by number from 0; of arrays the name of one; may be repeated
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    target: Vec<ColumnName>,
    /// A test set of its own
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// The name of the job [default: that of the data]
    #[arg(long)]
    name: Option<String>,
    /// The file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file, if there is one
    #[arg(long, requires = "output")]
    overwrite: bool,
}

fn column(text: &str) -> Result<ColumnName, ParseNameError> {
    Ok(text.parse().map_or_else(|_| ColumnName::Name(text.to_string()), ColumnName::Number))
}

pub(super) fn run(args: Args) -> Result {
    let Args { from: source, target, test, name, output, overwrite } = args;
    let output = output.map(|path| OutputFile::new(path, overwrite)).transpose()?;
    let name = name.unwrap_or_else(|| name_of(&source));
    let text = Draft { name, source, target, test }.write()?;
    match output {
        None => print(&text),
        Some(output) => {
            output.write(text.as_bytes())?;
            print(&format!("{output}: a job to begin with; train it with `coordinator train {output}`\n"));
        }
    }
    Ok(())
}

/// The name of data, without directories and endings.
fn name_of(source: &Source) -> String {
    let name = match source {
        Source::Mnist => return "mnist".to_string(),
        Source::Path(path) => path.file_name().unwrap_or_default().to_string_lossy(),
    };
    let stem = name.split('.').next().unwrap_or_default();
    if stem.is_empty() { "job".to_string() } else { stem.chars().take(40).collect() }
}
