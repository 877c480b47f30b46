//! Errors in a job: one line that names the place, the problem and the remedy.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::data::address::without_secrets;
use crate::failure::{Failure, FailureKind};
use crate::text::{self, SENTENCE};

/// An invalid job: `<place>: <what is wrong>; <what to do>`, on one line.
///
/// The place is a line of the file with the key and value as written there (``job.toml:12: batch_size = 0``),
/// a flag and its value (``--batch-size 0``), or, for a job that was built by hand, the dotted key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct JobError {
    place: String,
    problem: String,
}

impl JobError {
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        let [place, problem] = [without_secrets(&place.into()), problem.into()];
        let [place, problem] = [place, problem].map(|part| text::cleaned(&part, SENTENCE));
        Self { place, problem }
    }
}

impl From<JobError> for Failure {
    fn from(JobError { place, problem }: JobError) -> Self {
        Self::at(FailureKind::Usage, place, problem)
    }
}

/// The place of each value, by dotted key (`fit.epochs`, `layers[2].rate`). A key without a place has its
/// default.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<String, String>);

impl Places {
    /// Records that `key` was given at `place`. A later place replaces an earlier one, as its value does.
    pub(super) fn insert(&mut self, key: impl Into<String>, place: String) {
        self.0.insert(key.into(), place);
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Where the `value` of `key` was given.
    pub fn place(&self, key: &str, value: impl Display) -> String {
        self.0.get(key).cloned().unwrap_or_else(|| format!("{key} = {value}"))
    }

    /// The error that the `value` of `key` breaks a rule.
    pub(super) fn error(&self, key: &str, value: impl Display, problem: impl Into<String>) -> JobError {
        JobError::new(self.place(key, value), problem)
    }

    /// The error that the whole of `key` (a list, a layer) breaks a rule.
    pub(super) fn error_of_whole(&self, key: &str, problem: impl Into<String>) -> JobError {
        JobError::new(self.0.get(key).map_or(key, String::as_str), problem)
    }
}

/// A value as shown in an error: quoted if it would otherwise be invisible or break the line.
pub(super) fn shown(value: impl Display) -> String {
    let text = value.to_string();
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || text::is_hidden(c));
    if plain { text } else { format!("{text:?}") }
}
