//! `coordinator export`: a trained model as a file that other programs read.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millefeuille_core::failure::{Failure, FailureKind};

use super::{Failed, Result, print, saved};
use crate::export::{ExportFormat, Exported};
use crate::input;
use crate::runs::receipt::weights_sha256;
use crate::runs::{self, SavedRun, TrainedModel, files};

/// Write a trained model as a file for ONNX Runtime, Keras, NumPy or other programs
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator export runs/article-1 --format onnx --output digits.onnx
  coordinator export runs/article-1 --format keras --output digits.keras

ONNX and Keras' files take raw inputs, as the data has them: what happens to them
before the first layer is inside. The other formats have the tensors alone, by
Keras' names, with the factor of the inputs beside them. The same model gives the
same bytes.")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The format of the file
    #[arg(long, value_name = "FORMAT")]
    format: ExportFormat,
    /// The file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file, if there is one
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: Args) -> Result {
    let Args { run, format, output, overwrite } = args;
    check_output(&output, overwrite)?;
    let saved = SavedRun::open(&run)?;
    let job = saved.job()?;
    let TrainedModel { described, shape: model, parameters, .. } = saved::trained(&saved, &job)?;
    let hash = weights_sha256(bytemuck::cast_slice(&parameters));
    let exported = Exported::new(&job, &model, &parameters, hash);
    let exported = match described {
        Some(inputs) => exported.described_by(inputs),
        None => exported,
    };
    let bytes = exported.encode(format).map_err(|error| {
        Failed::new(FailureKind::Unexpected, format!("{}: cannot be exported: {error}", run.display()))
    })?;
    write(&output, &bytes, overwrite)?;
    print(&format!("{}: the model of {}, {} bytes\n", output.display(), run.display(), bytes.len()));
    Ok(())
}

/// Checks before anything is computed that the file may be written.
fn check_output(output: &Path, overwrite: bool) -> Result<(), Failure> {
    let absolute = std::path::absolute(output)
        .map_err(|error| Failure::of_file(output.display(), "cannot be written", &error))?;
    // Pictures and checkpoints are a level below.
    if absolute.ancestors().skip(1).take(2).any(runs::holds_a_run) {
        let what = "is in a run directory, where only the run writes (name another --output)";
        return Err(Failure::at(FailureKind::Data, output.display(), what));
    }
    if !input::exists(output)? {
        return Ok(());
    }
    if !fs::metadata(output).is_ok_and(|there| there.is_file()) {
        return Err(Failure::at(
            FailureKind::Data,
            output.display(),
            "is no file to write to (name another --output)",
        ));
    }
    if overwrite { Ok(()) } else { Err(there_already(output)) }
}

fn write(output: &Path, bytes: &[u8], overwrite: bool) -> Result<(), Failure> {
    match files::write_output(output, bytes, overwrite) {
        Ok(true) => Ok(()),
        Ok(false) => Err(there_already(output)),
        Err(error) => Err(Failure::of_file(output.display(), "cannot be written", &error)),
    }
}

fn there_already(output: &Path) -> Failure {
    let what = "there is a file already (--overwrite replaces it, another --output leaves it alone)";
    Failure::at(FailureKind::Data, output.display(), what)
}
