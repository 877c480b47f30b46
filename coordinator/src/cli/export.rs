//! `coordinator export`: a trained model as a file that other programs read.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::failure::FailureKind;

use super::output_file::OutputFile;
use super::{Failed, Result, print, saved};
use crate::export::{ExportFormat, Exported};
use crate::runs::receipt::weights_sha256;
use crate::runs::{SavedRun, TrainedModel};

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
    let output = OutputFile::new(output, overwrite)?;
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
    output.write(&bytes)?;
    print(&format!("{output}: the model of {}, {} bytes\n", run.display(), bytes.len()));
    Ok(())
}
