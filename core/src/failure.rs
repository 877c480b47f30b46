//! What went wrong, as a value.
//!
//! A [`Failure`] is made where something goes wrong and reaches people unchanged: through the control machine, the
//! files of a run, gRPC and JSON. Its [`FailureKind`] decides what to do about it and how a command exits. Code
//! must not depend on its text, which is for people. It may quote what others
//! wrote, so it is cleaned here ([`text`]).

use std::error::Error;
use std::fmt;
use std::io;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::text::{self, SENTENCE};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something that should not happen.
    Unexpected,
    /// A flag, a job file or a request that makes no sense.
    Usage,
    /// There is no such job.
    NotFound,
    /// The validation split takes all samples.
    NoTrainingSamples,
    /// Data, or a run directory, that cannot be used.
    Data,
    /// A file whose content is not what was written.
    Damaged,
    /// The system does not allow access to a file.
    PermissionDenied,
    /// The disk, or a quota, is full.
    NoSpace,
    /// The file system is read-only.
    ReadOnly,
    /// Another process uses the run directory.
    InUse,
    /// No server at the address, or it rejected the request.
    NotAllowed,
    /// The queue of jobs is full.
    QueueFull,
    /// Not enough workers in time.
    TooFewWorkers,
    /// Worker processes that this program starts die again and again.
    WorkersDied,
    /// A process is alive, but not ready.
    NotReady,
    /// The loss is not finite.
    Diverged,
    /// A run's files contradict each other, or what they should be.
    Differs,
    /// This machine cannot compute what was asked for with the right bits.
    CannotCompute,
    /// It was cancelled or interrupted.
    Interrupted,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Unexpected,
        Self::Usage,
        Self::NotFound,
        Self::NoTrainingSamples,
        Self::Data,
        Self::Damaged,
        Self::PermissionDenied,
        Self::NoSpace,
        Self::ReadOnly,
        Self::InUse,
        Self::NotAllowed,
        Self::QueueFull,
        Self::TooFewWorkers,
        Self::WorkersDied,
        Self::NotReady,
        Self::Diverged,
        Self::Differs,
        Self::CannotCompute,
        Self::Interrupted,
    ];

    /// How a command exits for it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage | Self::NotFound | Self::NoTrainingSamples => 2,
            Self::Data
            | Self::Damaged
            | Self::PermissionDenied
            | Self::NoSpace
            | Self::ReadOnly
            | Self::InUse => 3,
            Self::NotAllowed | Self::QueueFull => 4,
            Self::TooFewWorkers | Self::WorkersDied | Self::NotReady => 5,
            Self::Diverged => 6,
            Self::Differs => 7,
            Self::CannotCompute => 8,
            Self::Interrupted => 130,
        }
    }

    /// What to do about it, where the kind alone says that. Of other kinds, what is wrong says it.
    pub const fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::NoTrainingSamples => "lower it, or give more data",
            Self::Damaged => "restore the file, or train again",
            Self::PermissionDenied => "change its permissions, or name another place",
            Self::NoSpace => {
                "free space, then try again (coordinator train --run-dir RUN --resume continues a run)"
            }
            Self::ReadOnly => "name a place that can be written",
            Self::InUse => "end that process, or name another directory",
            Self::TooFewWorkers => "start workers, or lower --min-workers",
            Self::Diverged => "try a smaller --learning-rate, or scaled input",
            Self::Unexpected
            | Self::Usage
            | Self::NotFound
            | Self::Data
            | Self::NotAllowed
            | Self::QueueFull
            | Self::WorkersDied
            | Self::NotReady
            | Self::Differs
            | Self::CannotCompute
            | Self::Interrupted => return None,
        })
    }

    /// The kind of a file's error.
    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Data,
        }
    }
}

/// Something that went wrong. Shown, it is one line: `<place>: <what>: <source>; <remedy>`, without what is not there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Failure {
    /// What kind of thing it is.
    pub kind: FailureKind,
    /// Where it is: a file, a flag with its value, a line of a job file, an address.
    pub place: Option<String>,
    /// What is wrong.
    pub what: String,
    /// The cause, in the words of the system or library that reported it.
    pub source: Option<String>,
}

impl Failure {
    /// A failure without a place, or with a text that names it.
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Self { kind, place: None, what: text::cleaned(&what.into(), SENTENCE), source: None }
    }

    /// A failure at this place.
    pub fn at(kind: FailureKind, place: impl fmt::Display, what: impl fmt::Display) -> Self {
        let place = text::cleaned(&place.to_string(), SENTENCE);
        Self { place: Some(place), ..Self::new(kind, what.to_string()) }
    }

    /// The system's error at this file: `what` is "cannot be read", "cannot be written" and the like.
    pub fn of_file(place: impl fmt::Display, what: &str, error: &io::Error) -> Self {
        let source = Some(text::cleaned(&system_error(error), SENTENCE));
        Self { source, ..Self::at(FailureKind::of_io(error), place, what) }
    }

    /// The same failure, of another kind: where a file's error means something else than usual.
    pub fn of_kind(self, kind: FailureKind) -> Self {
        Self { kind, ..self }
    }

    /// The same failure, with a hint for its reader behind what is wrong.
    pub fn with_hint(self, hint: &str) -> Self {
        Self { what: format!("{} ({hint})", self.what), ..self }
    }

    /// What to do about it, where its kind says that.
    pub fn remedy(&self) -> Option<&'static str> {
        self.kind.remedy()
    }

    /// How a command exits for it.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// What is wrong, and where, without a remedy.
    pub fn problem(&self) -> String {
        let Self { place, what, source, .. } = self;
        let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let source = source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{place}{what}{source}")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem())?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl Error for Failure {}

/// As programs read it: with the exit code and the remedy that follow from the kind.
impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Failure", 6)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("place", &self.place)?;
        fields.serialize_field("what", &self.what)?;
        fields.serialize_field("source", &self.source)?;
        fields.serialize_field("remedy", &self.remedy())?;
        fields.serialize_field("exit_code", &self.exit_code())?;
        fields.end()
    }
}

/// The operating system's own message: a library may have wrapped it to name a temporary file, which the user does
/// not know.
fn system_error(error: &io::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(next) = cause {
        match next.downcast_ref::<io::Error>() {
            Some(of_system) if of_system.raw_os_error().is_some() => return of_system.to_string(),
            _ => cause = next.source(),
        }
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{inner} at path \"/tmp/.x\"")]
    struct Wrapped {
        #[source]
        inner: io::Error,
    }

    #[test]
    fn a_full_disk_is_reported_with_the_file_and_the_remedy() {
        let inner = io::Error::from_raw_os_error(28);
        let failure = Failure::of_file("run/ledger", "cannot be written", &inner);

        assert_eq!((failure.kind, failure.exit_code()), (FailureKind::NoSpace, 3));
        assert_eq!(
            failure.to_string(),
            "run/ledger: cannot be written: No space left on device (os error 28); \
             free space, then try again (coordinator train --run-dir RUN --resume continues a run)"
        );
        // A temporary file is left out, and the kind stays.
        let kind = inner.kind();
        let wrapped = io::Error::new(kind, Wrapped { inner });
        assert_eq!(Failure::of_file("run/ledger", "cannot be written", &wrapped), failure);
    }

    #[test]
    fn errors_of_the_operating_system_map_to_kinds() {
        let kind = |code| Failure::of_file("x", "cannot be read", &io::Error::from_raw_os_error(code)).kind;
        assert_eq!(
            [13, 28, 122, 30, 5].map(kind),
            [
                FailureKind::PermissionDenied,
                FailureKind::NoSpace,
                FailureKind::NoSpace,
                FailureKind::ReadOnly,
                FailureKind::Data
            ]
        );
    }

    #[test]
    fn whatever_it_quotes_it_is_one_line_that_moves_no_cursor() {
        let failure = Failure::at(FailureKind::Data, "a\n\u{1b}[2J", "no job x\u{202e}y");
        assert_eq!(failure.to_string(), "a [2J: no job x y");
        let long = Failure::new(FailureKind::Usage, "é".repeat(150_000)).to_string();
        assert_eq!(long.chars().count(), SENTENCE);
    }

    #[test]
    fn the_json_of_a_failure_has_exit_code_and_remedy_and_reads_back() {
        for kind in FailureKind::ALL {
            let failure = Failure::at(kind, "job.toml:3", "is wrong");
            let json = serde_json::to_value(&failure).unwrap();
            assert_eq!(json["exit_code"], kind.exit_code());
            assert_eq!(json["remedy"].as_str(), kind.remedy());
            assert_eq!(serde_json::from_value::<Failure>(json).unwrap(), failure);
        }
    }
}
