//! The names of a job's choices: in TOML, on the command line, in summaries and on the wire.
//!
//! The names are those of Keras. `Display` writes them and `FromStr` reads exactly these (no aliases, no other
//! case), so that a job has one spelling.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::check::problem_of_whole;
use super::{BlasKernel, Missing, Normalize, Source};
use crate::data::address;
pub use crate::registry::ParseNameError;
use crate::text;

impl Display for BlasKernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Environment => "environment",
            Self::Named(name) => name,
        })
    }
}

impl FromStr for BlasKernel {
    type Err = ParseNameError;

    /// Accepts any plausible name; whether OpenBLAS knows it is found out when a process loads it.
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let kernel = match text {
            "native" => Self::Native,
            "environment" => Self::Environment,
            name => Self::Named(name.to_owned()),
        };
        kernel.check()?;
        Ok(kernel)
    }
}

impl BlasKernel {
    /// A name must be valid in an environment variable, and must not read back as something else.
    pub(super) fn check(&self) -> Result<(), ParseNameError> {
        let Self::Named(name) = self else { return Ok(()) };
        let plausible = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !["native", "environment"].contains(&name.as_str());
        if plausible {
            return Ok(());
        }
        Err(ParseNameError(
            "not a kernel; give native, environment or the name of an OpenBLAS core, such as Haswell"
                .to_owned(),
        ))
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnist => f.pad("mnist"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = ParseNameError;

    /// `mnist`, or else a path, kept as written (`./mnist` is a directory of that name).
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let source = match text {
            "mnist" => Self::Mnist,
            path => Self::Path(PathBuf::from(path)),
        };
        source.check()?;
        Ok(source)
    }
}

impl Source {
    /// A path must be text, since a job is, and must not read back as something else.
    pub(super) fn check(&self) -> Result<(), ParseNameError> {
        let Self::Path(path) = self else { return Ok(()) };
        let problem = match path.to_str() {
            Some("") => "empty; give \"mnist\" or the path of a file or directory",
            Some("mnist") => "this means the built-in data; for a directory of that name give ./mnist",
            _ => match problem_of_path(path) {
                Some(problem) => problem,
                None => return Ok(()),
            },
        };
        Err(ParseNameError(problem.to_owned()))
    }
}

/// The thing of this name, among these.
fn of_name<T: Copy>(text: &str, what: &str, all: &[(&'static str, T)]) -> Result<T, ParseNameError> {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let found = all.iter().find(|(name, _)| *name == text);
    found.map(|(_, thing)| *thing).ok_or_else(|| ParseNameError::unknown(what, text, "names", &names))
}

impl FromStr for Normalize {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        of_name(text, "normalization", &Self::ALL.map(|one| (one.name(), one)))
    }
}

impl FromStr for Missing {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        of_name(text, "treatment of missing values", &Self::ALL.map(|one| (one.name(), one)))
    }
}

/// Checks a path: it must be text, since a job is.
pub(super) fn problem_of_path(path: &Path) -> Option<&'static str> {
    match path.to_str() {
        None => Some("the path is not UTF-8; rename it or link to it"),
        Some("") => Some("empty; give the path of a file or a directory"),
        Some(path) if path.contains(text::is_hidden) => Some(
            "contains a character that is invisible or controls how others are shown; rename it or link to it",
        ),
        Some(_) => address::problem(path),
    }
}

/// Reads a scale: a number (`0.5`) or a fraction (`1/255`).
///
/// # Errors
///
/// If the text is neither. The job's own check decides whether the scale is valid.
pub fn parse_scale(text: &str) -> Result<f32, ParseNameError> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let scale = match text.split_once('/') {
        // For f32 operands, the quotient in f64, rounded to f32, equals the quotient in f32.
        Some((above, below)) => number(above).zip(number(below)).map(|(above, below)| (above / below) as f32),
        None => text.trim().parse().ok(),
    };
    scale.ok_or_else(|| {
        ParseNameError("not a number; give one such as 0.5, or a fraction such as 1/255".to_owned())
    })
}

/// Reads a whole number from a flag. Accepts every number that its type can hold, in `range` or not, because the
/// job's own check covers the range.
///
/// # Errors
///
/// If the text is not a whole number, or the type can't hold it. The error states `range`.
pub fn parse_whole<T>(text: &str, range: RangeInclusive<T>) -> Result<T, ParseNameError>
where
    T: Copy + TryFrom<i128>,
    i128: From<T>,
{
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseNameError("not a whole number; give one without a fraction, such as 5".to_owned()));
    }
    // Numbers beyond 128 bits are out of any range.
    let beyond = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    let value = text.parse().unwrap_or(beyond);
    let (min, max) = (i128::from(*range.start()), i128::from(*range.end()));
    T::try_from(value).map_err(|_| ParseNameError(problem_of_whole(value, min, max).unwrap_or_default()))
}

/// Reads a number from a flag. The job's own check decides whether the value is valid.
///
/// # Errors
///
/// If the text is not a number.
pub fn parse_number<T: FromStr>(text: &str) -> Result<T, ParseNameError> {
    text.parse().map_err(|_| ParseNameError("not a number; give one such as 0.5".to_owned()))
}
