//! What a job wants to know of a source: the keys of `[data]` that formats read, and what the loss can learn.

use std::fmt;

/// A column of a table, as a job names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnName {
    /// By its name in the header.
    Name(String),
    /// By its number, from 0.
    Number(u32),
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// The keys of a table's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLayout {
    /// The columns that the model learns to predict; empty where it is not said.
    pub target: Vec<ColumnName>,
    /// Columns that are left out.
    pub drop: Vec<ColumnName>,
    /// The column that has the weights of the samples; `None` if each counts as one.
    pub sample_weight: Option<ColumnName>,
    /// Whether the first line has the names of the columns.
    pub header: bool,
    /// What separates two fields; `None` for the usual one of the file's ending.
    pub separator: Option<char>,
    /// What is done about missing values.
    pub missing: Missing,
}

impl Default for TableLayout {
    fn default() -> Self {
        Self {
            target: Vec::new(),
            drop: Vec::new(),
            sample_weight: None,
            header: true,
            separator: None,
            missing: Missing::Refuse,
        }
    }
}

/// What is done about missing values of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// They are an error.
    #[default]
    Refuse,
    /// The mean of the column's training values takes their place; a missing text is none of the categories.
    Mean,
}

/// Which targets a loss can learn, with the outputs of the job's model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether it learns classes.
    pub classes: bool,
    /// Whether it learns numbers.
    pub numbers: bool,
    /// How many classes the model tells apart; `None` if there is no model yet.
    pub class_count: Option<u32>,
}

impl Missing {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Mean];

    /// Its name in a job file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Mean => "mean",
        }
    }
}
