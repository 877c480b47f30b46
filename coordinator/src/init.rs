//! A job's parameters before the first step: random, or those of a safetensors file, of all layers or of some.
//!
//! The file is one of the files that a job's hash covers. A run keeps a copy of it, from which it is resumed and verified,
//! so that the file itself may change or go once the run has begun.

use std::path::{Path, PathBuf};

use millefeuille_core::data::address::is_address;
use millefeuille_core::data::dataset::DataFile;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{Init, Job};
use millefeuille_core::learn::model::Model;

use crate::data::Reading;
use crate::input;
use crate::runs::{model, names};

/// The file that a job's parameters come from.
#[derive(Debug)]
pub struct InitFile {
    path: PathBuf,
    /// Its name in a receipt, and its hash.
    pub file: DataFile,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl InitFile {
    /// Reads the file of a job, or the copy that its run has `kept`; `None` if the job's parameters are all random.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn read(job: &Job, kept: Option<&Path>, reading: &Reading) -> Result<Option<Self>, Failure> {
        let Some(Init { from, .. }) = &job.init else { return Ok(None) };
        let kept = kept.filter(|path| path.is_file());
        let path = kept.map_or_else(|| in_run(from), Path::to_path_buf);
        let bytes = reading.read(&path, |_| model::MAX_FILE_BYTES)?;
        let DataFile { sha256, .. } = DataFile::of(&path, &bytes);
        Ok(Some(Self { path, file: DataFile { name: names::INIT.to_string(), sha256 }, bytes }))
    }
}

/// The file itself, if the path is that of a run.
fn in_run(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(names::MODEL) } else { path.to_path_buf() }
}

/// Checks that a job's file is there, before anything else is done; what is at an address shows when it is read.
///
/// # Errors
/// The path, and what to give.
pub fn check(job: &Job) -> Result<(), Failure> {
    let Some(Init { from, .. }) = &job.init else { return Ok(()) };
    if is_address(from) || input::exists(&in_run(from))? {
        return Ok(());
    }
    let what = "there is no such file (give a safetensors file, or the directory of a run that is done)";
    Err(Failure::at(FailureKind::Data, format_args!("init.from = {}", in_run(from).display()), what))
}

/// The parameters before the first step.
///
/// # Errors
/// The tensor of the file that is missing, or does not fit the model.
pub fn parameters(job: &Job, model: &Model, file: Option<&InitFile>) -> Result<Vec<f32>, Failure> {
    let mut parameters = model.initial_parameters(job.seed);
    if let (Some(InitFile { path, bytes, .. }), Some(Init { layers, .. })) = (file, &job.init) {
        let wrong = |what: String| Failure::at(FailureKind::Data, path.display(), what);
        model::decode_layers(bytes, model, layers, &mut parameters).map_err(wrong)?;
        model::not_finite(&parameters, model).map_or(Ok(()), |what| Err(wrong(what)))?;
    }
    Ok(parameters)
}
