//! Failures, and the gRPC statuses that carry them.
//!
//! The status of a refused call carries the whole [`Failure`] in its metadata, so that the caller can act on its
//! kind. A status from another source (a proxy, an older program, the connection itself) has only a code.

use millefeuille_core::failure::{Failure, FailureKind};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::sentence;
use crate::v1;

/// The metadata key of the encoded `Failure`.
const METADATA: &str = "failure-bin";

/// Headers are limited in size, and a failure may name a long path: a longer failure is sent as code and message
/// only.
const LONGEST_BYTES: usize = 4096;

impl From<FailureKind> for v1::FailureKind {
    fn from(from: FailureKind) -> Self {
        match from {
            FailureKind::Unexpected => Self::Unexpected,
            FailureKind::Usage => Self::Usage,
            FailureKind::NotFound => Self::NotFound,
            FailureKind::NoTrainingSamples => Self::NoTrainingSamples,
            FailureKind::Data => Self::Data,
            FailureKind::Damaged => Self::Damaged,
            FailureKind::PermissionDenied => Self::PermissionDenied,
            FailureKind::NoSpace => Self::NoSpace,
            FailureKind::ReadOnly => Self::ReadOnly,
            FailureKind::InUse => Self::InUse,
            FailureKind::NotAllowed => Self::NotAllowed,
            FailureKind::QueueFull => Self::QueueFull,
            FailureKind::TooFewWorkers => Self::TooFewWorkers,
            FailureKind::WorkersDied => Self::WorkersDied,
            FailureKind::NotReady => Self::NotReady,
            FailureKind::Diverged => Self::Diverged,
            FailureKind::Differs => Self::Differs,
            FailureKind::CannotCompute => Self::CannotCompute,
            FailureKind::Interrupted => Self::Interrupted,
        }
    }
}

/// The kind; an unknown kind, from a later version, becomes `Unexpected`.
fn kind(from: v1::FailureKind) -> FailureKind {
    let same = |kind: &FailureKind| v1::FailureKind::from(*kind) == from;
    FailureKind::ALL.into_iter().find(same).unwrap_or(FailureKind::Unexpected)
}

impl From<&Failure> for v1::Failure {
    fn from(from: &Failure) -> Self {
        Self {
            kind: v1::FailureKind::from(from.kind).into(),
            place: from.place.clone().unwrap_or_default(),
            what: from.what.clone(),
            source: from.source.clone().unwrap_or_default(),
            remedy: from.remedy().unwrap_or_default().into(),
        }
    }
}

impl From<v1::Failure> for Failure {
    fn from(from: v1::Failure) -> Self {
        let some = |text: String| Some(sentence(&text)).filter(|text| !text.is_empty());
        let kind = kind(from.kind());
        Self { kind, place: some(from.place), what: sentence(&from.what), source: some(from.source) }
    }
}

/// The status that refuses a call because of this failure.
pub fn refusal(failure: &Failure) -> Status {
    let mut metadata = MetadataMap::new();
    let encoded = v1::Failure::from(failure).encode_to_vec();
    if encoded.len() <= LONGEST_BYTES {
        metadata.insert_bin(METADATA, MetadataValue::from_bytes(&encoded));
    }
    Status::with_metadata(code(failure.kind), failure.to_string(), metadata)
}

const fn code(kind: FailureKind) -> Code {
    match kind {
        // Not `Internal`, which a broken connection also produces.
        FailureKind::Unexpected => Code::Aborted,
        FailureKind::Usage | FailureKind::NoTrainingSamples => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Data
        | FailureKind::Damaged
        | FailureKind::PermissionDenied
        | FailureKind::NoSpace
        | FailureKind::ReadOnly
        | FailureKind::InUse
        | FailureKind::Diverged
        | FailureKind::Differs
        | FailureKind::CannotCompute => Code::FailedPrecondition,
        FailureKind::QueueFull => Code::ResourceExhausted,
        FailureKind::NotAllowed
        | FailureKind::TooFewWorkers
        | FailureKind::WorkersDied
        | FailureKind::NotReady => Code::Unavailable,
        FailureKind::Interrupted => Code::Cancelled,
    }
}

/// The failure behind a refused call.
pub fn failure_of(status: &Status) -> Failure {
    let sent = status.metadata().get_bin(METADATA).and_then(|value| value.to_bytes().ok());
    let sent = sent.and_then(|bytes| v1::Failure::decode(bytes).ok());
    sent.map_or_else(|| failure_by_code(status), Failure::from)
}

fn failure_by_code(status: &Status) -> Failure {
    let kind = match status.code() {
        Code::InvalidArgument => FailureKind::Usage,
        Code::NotFound => FailureKind::NotFound,
        Code::FailedPrecondition => FailureKind::Data,
        _ => FailureKind::NotAllowed,
    };
    let what =
        if status.message().is_empty() { status.code().to_string() } else { status.message().to_string() };
    Failure::new(kind, what)
}

/// Why a call failed: the other side's message, or what happened to the connection.
pub fn reason(status: &Status) -> String {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    causes.last().map_or_else(|| failure_by_code(status).what, |cause| sentence(&cause.to_string()))
}

/// Whether the other side is gone and may come back. Any other status comes from a peer that responds.
pub fn is_gone(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Whether the other side rejects this caller: trying again would not help.
pub fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_any_kind_goes_to_the_wire_and_back() {
        for kind in FailureKind::ALL {
            let failure = Failure::at(kind, "run/ledger", "cannot be written");
            let failure = Failure { source: Some("it is full".into()), ..failure };
            let status = refusal(&failure);
            assert_eq!(status.message(), failure.to_string());
            assert_eq!(failure_of(&status), failure);
        }
    }

    #[test]
    fn a_status_of_others_is_known_by_its_code() {
        let failure = failure_of(&Status::not_found("there is no job x-1"));
        assert_eq!(failure, Failure::new(FailureKind::NotFound, "there is no job x-1"));
        assert_eq!(failure_of(&Status::permission_denied("")).kind, FailureKind::NotAllowed);
    }

    #[test]
    fn a_kind_of_a_later_version_is_unexpected() {
        let later = v1::Failure { kind: 99, what: "new".into(), ..Default::default() };
        assert_eq!(Failure::from(later), Failure::new(FailureKind::Unexpected, "new"));
    }
}
