//! Samples as their files have them: what every format decodes to, before anything is fitted to them.
//!
//! A [`Part`] is a training set, or a validation or test set of its own. [`prepare`](super::prepare) makes a data set of
//! the parts.

/// Samples in the order of their file.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The file or directory, for errors.
    pub name: String,
    /// The number of samples.
    pub len: usize,
    /// What the model takes.
    pub features: RawFeatures,
    /// What the model learns; `None` in a file to predict for.
    pub targets: Option<RawTargets>,
    /// `[len]` weights, if the job names them and the file has them.
    pub weights: Option<Vec<f32>>,
}

/// The features of samples, as a file has them.
#[derive(Clone, Debug, PartialEq)]
pub enum RawFeatures {
    /// `[len]` samples of this shape, bytes.
    Bytes {
        /// The shape of a sample.
        shape: Vec<u32>,
        /// `[len, …shape]` values.
        values: Vec<u8>,
    },
    /// `[len]` samples of this shape, numbers.
    Numbers {
        /// The shape of a sample.
        shape: Vec<u32>,
        /// `[len, …shape]` values.
        values: Vec<f32>,
    },
    /// A table's columns, each with `len` cells.
    Columns(Vec<TableColumn>),
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// Its name in the header, or its number from 0.
    pub name: String,
    /// Its values.
    pub cells: Cells,
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Numbers; NaN where one is missing.
    Numbers(Vec<f32>),
    /// Texts.
    Texts(Texts),
}

/// Texts, each different one stored once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// For each cell, the place of its text in `different`; [`MISSING`](Self::MISSING) where it is missing.
    pub codes: Vec<u32>,
    /// The different texts, in the order in which they came.
    pub different: Vec<String>,
}

impl Texts {
    /// The code of a missing text.
    pub const MISSING: u32 = u32::MAX;
}

/// The targets of samples, as a file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTargets {
    /// The file that has them, for errors.
    pub file: String,
    /// The columns that have them, if the file is a table.
    pub columns: Vec<String>,
    /// Their values.
    pub values: TargetValues,
}

/// The values of targets.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetValues {
    /// `[len]` whole numbers that stand for classes.
    Labels(Vec<i64>),
    /// `[len]` names of classes.
    Names(Texts),
    /// `[len, width]` numbers.
    Numbers {
        /// How many numbers each sample has.
        width: u32,
        /// The numbers.
        values: Vec<f32>,
    },
}

impl RawFeatures {
    /// The same values as samples of another shape with as many; a table stays as it is.
    pub fn in_shape(self, shape: Vec<u32>) -> Self {
        match self {
            Self::Bytes { values, .. } => Self::Bytes { shape, values },
            Self::Numbers { values, .. } => Self::Numbers { shape, values },
            Self::Columns(columns) => Self::Columns(columns),
        }
    }
}

impl Cells {
    /// The number of cells.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Texts(texts) => texts.codes.len(),
        }
    }

    /// Whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
