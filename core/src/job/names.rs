//! The names that a job's choices have: in TOML, on the command line, in summaries and on the wire.
//!
//! They are Keras' names. `Display` writes them and `FromStr` reads exactly these (no aliases, no other case), so
//! that a job has one spelling.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::check::problem_of_whole;
use super::{BlasKernel, Source};
pub use crate::registry::ParseNameError;

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

    /// Takes any plausible name; whether OpenBLAS knows it shows when a process loads it.
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
    /// A name must be able to stand in an environment variable, and must not read back as something else.
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
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = ParseNameError;

    /// `mnist`, or else the path of a directory, kept as written (`./mnist` is a directory of that name).
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let source = match text {
            "mnist" => Self::Mnist,
            path => Self::Directory(PathBuf::from(path)),
        };
        source.check()?;
        Ok(source)
    }
}

impl Source {
    /// A path must be text, since a job is, and must not read back as something else.
    pub(super) fn check(&self) -> Result<(), ParseNameError> {
        let Self::Directory(path) = self else { return Ok(()) };
        let problem = match path.to_str() {
            None => "the path is not UTF-8; rename the directory or link to it",
            Some("") => "empty; give \"mnist\" or the path of a directory with the four IDX files",
            Some("mnist") => "this means the built-in data; for a directory of that name give ./mnist",
            Some(_) => return Ok(()),
        };
        Err(ParseNameError(problem.to_owned()))
    }
}

/// Reads a scale: a number (`0.5`) or a fraction (`1/255`).
///
/// # Errors
///
/// If it is neither. Whether it is a scale that a job can have is checked with the job.
pub fn parse_scale(text: &str) -> Result<f32, ParseNameError> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let scale = match text.split_once('/') {
        // For numbers that f32 can hold, the quotient in f64 and then rounded is the quotient in f32.
        Some((above, below)) => number(above).zip(number(below)).map(|(above, below)| (above / below) as f32),
        None => text.trim().parse().ok(),
    };
    scale.ok_or_else(|| {
        ParseNameError("not a number; give one such as 0.5, or a fraction such as 1/255".to_owned())
    })
}

/// Reads a whole number from a flag. One that its type can hold is taken, in `range` or not, since that is checked with
/// the job.
///
/// # Errors
///
/// If it is none, or one that no number of this type can be; says what `range` asks for.
pub fn parse_whole<T>(text: &str, range: RangeInclusive<T>) -> Result<T, ParseNameError>
where
    T: Copy + TryFrom<i128>,
    i128: From<T>,
{
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseNameError("not a whole number; give one without a fraction, such as 5".to_owned()));
    }
    // Digits beyond 128 bits are out of any range all the same.
    let beyond = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    let value = text.parse().unwrap_or(beyond);
    let (min, max) = (i128::from(*range.start()), i128::from(*range.end()));
    T::try_from(value).map_err(|_| ParseNameError(problem_of_whole(value, min, max).unwrap_or_default()))
}

/// Reads a number from a flag. Whether it is one that a job can have is checked with the job.
///
/// # Errors
///
/// If it is none.
pub fn parse_number<T: FromStr>(text: &str) -> Result<T, ParseNameError> {
    text.parse().map_err(|_| ParseNameError("not a number; give one such as 0.5".to_owned()))
}
