//! A first job file for data: looks at the data ([`look`]), and writes what learns it well as it stands ([`mod@write`]).
//!
//! The choices are rules of thumb, each with its reason beside it in the file. None of them is computed from the training
//! itself: the same data gives the same file.

mod look;
mod write;

use std::path::PathBuf;

use millefeuille_core::failure::Failure;
use millefeuille_core::job::{ColumnName, Data, Job, Source};

use crate::cluster::load;
use crate::data::Reading;

/// What a job file is to be written for.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The name of the job.
    pub name: String,
    /// The data.
    pub source: Source,
    /// The columns to learn; empty where the format knows.
    pub target: Vec<ColumnName>,
    /// A test set of its own.
    pub test: Option<PathBuf>,
}

impl Draft {
    /// The text of a job file that can be trained with its data.
    ///
    /// # Errors
    /// What is wrong with the data.
    pub fn write(self) -> Result<String, Failure> {
        let Self { name, source, target, test } = self;
        let mut data = Data { source, test, validation_split: 0.0, ..Data::default() };
        data.table.target = target;
        let found = look::at(data)?;
        let text = write::job_file(&name, &found);
        let job = Job::parse(&name, &text)?;
        load::read_checked(&job, None, &Reading::default())?;
        Ok(text)
    }
}
