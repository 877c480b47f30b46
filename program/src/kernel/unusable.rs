//! Why a kernel cannot be used.

use millefeuille_core::blas::environment::KernelError;
use thiserror::Error;

use crate::process::exit;

/// Why a process cannot have the kernel that it needs.
#[derive(Debug, Error)]
pub enum Unusable {
    /// This library or this CPU has no such kernel.
    #[error(transparent)]
    Missing(#[from] KernelError),
    /// It is there, and must not be used.
    #[error(
        "the kernel {kernel} of OpenBLAS {version} {what}. \
         Set blas_kernel to \"native\" or to another kernel, or install another version of OpenBLAS"
    )]
    NoGood {
        /// Its name.
        kernel: String,
        /// The version of OpenBLAS.
        version: String,
        /// What it does: a verb, and what follows it.
        what: String,
    },
    /// None of those that `native` may be can be used.
    #[error("no kernel of OpenBLAS can be used on this CPU: {}. Install another version of OpenBLAS", in_a_row(.0))]
    None(Vec<Unusable>),
    /// Something that should not happen.
    #[error("{0}")]
    Unexpected(String),
}

impl Unusable {
    /// The error for a list of kernels of which none can be used. With one kernel, its own reason.
    pub(crate) fn of_all(mut reasons: Vec<Self>) -> Self {
        match reasons.pop() {
            Some(only) if reasons.is_empty() => only,
            last => Self::None(reasons.into_iter().chain(last).collect()),
        }
    }

    /// What is the matter, without a remedy.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::NoGood { kernel, what, .. } => format!("{kernel} {what}"),
            Self::Missing(KernelError::FellBack { wanted, .. }) => format!("{wanted} is missing"),
            other => other.to_string(),
        }
    }

    /// How a command exits for it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Missing(_) => exit::USAGE,
            Self::NoGood { .. } | Self::None(_) => exit::CANNOT_COMPUTE,
            Self::Unexpected(_) => exit::UNEXPECTED,
        }
    }
}

/// What is the matter with each, without a remedy that is the same for all.
fn in_a_row(reasons: &[Unusable]) -> String {
    reasons.iter().map(Unusable::in_short).collect::<Vec<_>>().join("; ")
}
