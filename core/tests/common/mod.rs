//! What the tests of all readers of data share: files in memory, and how they become a data set.

#![allow(dead_code)] // Each test program uses its own part of this.
#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use std::path::Path;

use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::formats::{DataFormat, Files, Request};
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::table::Known;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::{ColumnName, Data, Wanted};

/// What a loss of classes learns.
pub(crate) const CLASSES: Wanted = Wanted { classes: true, numbers: false, class_count: None };
/// What a loss of numbers learns.
pub(crate) const NUMBERS: Wanted = Wanted { classes: false, numbers: true, class_count: None };

/// A file in memory, under any name.
pub(crate) struct Content(pub(crate) Vec<u8>);

impl Files for Content {
    fn exists(&self, _: &Path) -> Result<bool, Failure> {
        Ok(true)
    }

    fn is_directory(&self, _: &Path) -> bool {
        false
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    fn read(&self, _: &Path, worth: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        let len = worth(&self.0).min(self.0.len() as u64) as usize;
        Ok(self.0[..len].to_vec())
    }
}

/// `[data]` with nothing for validation.
pub(crate) fn data() -> Data {
    Data { validation_split: 0.0, ..Data::default() }
}

/// The same, with a column to learn.
pub(crate) fn to_learn(target: &str) -> Data {
    let mut data = data();
    data.table.target = vec![ColumnName::Name(target.into())];
    data
}

/// The data set of a file with this name and content.
pub(crate) fn read(
    name: &str,
    bytes: impl AsRef<[u8]>,
    data: &Data,
    wanted: Wanted,
) -> Result<Dataset, Failure> {
    read_from(&Content(bytes.as_ref().to_vec()), name, data, wanted)
}

/// The data set at a path.
pub(crate) fn read_from(
    files: &dyn Files,
    path: &str,
    data: &Data,
    wanted: Wanted,
) -> Result<Dataset, Failure> {
    let path = Path::new(path);
    let request = Request { layout: &data.table, wanted, known: Known::Nothing };
    let content = data.format.unwrap_or_else(|| DataFormat::of(path)).read(path, &request, files)?;
    Parts::from(content).prepare(data.recipe(wanted))
}

/// The numbers that these bytes store.
pub(crate) fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The bytes that store these numbers.
pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
