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
    /// The kernel exists, but must not be used.
    #[error(
        "the kernel {kernel} of OpenBLAS {version} {what}. \
         Set blas_kernel to \"native\" or to another kernel, or install another version of OpenBLAS"
    )]
    NoGood {
        /// The kernel's name.
        kernel: String,
        /// The version of OpenBLAS.
        version: String,
        /// What the kernel does wrong: a verb, and what follows it.
        what: String,
    },
    /// None of the candidates for `native` can be used.
    #[error("no kernel of OpenBLAS can be used on this CPU: {}. Install another version of OpenBLAS", in_a_row(.0))]
    None(Vec<Unusable>),
    /// An unexpected error.
    #[error("{0}")]
    Unexpected(String),
}

impl Unusable {
    /// The error for a list of kernels none of which can be used. For a single kernel, its own reason.
    pub(crate) fn of_all(mut reasons: Vec<Self>) -> Self {
        match reasons.pop() {
            Some(only) if reasons.is_empty() => only,
            last => Self::None(reasons.into_iter().chain(last).collect()),
        }
    }

    /// The problem, without a remedy.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::NoGood { kernel, what, .. } => format!("{kernel} {what}"),
            Self::Missing(KernelError::FellBack { wanted, .. }) => format!("{wanted} is missing"),
            other => other.to_string(),
        }
    }

    /// The exit code for this error.
    pub fn code(&self) -> u8 {
        match self {
            Self::Missing(_) => exit::USAGE,
            Self::NoGood { .. } | Self::None(_) => exit::CANNOT_COMPUTE,
            Self::Unexpected(_) => exit::UNEXPECTED,
        }
    }
}

/// The problem of each kernel, without a remedy that is the same for all.
fn in_a_row(reasons: &[Unusable]) -> String {
    reasons.iter().map(Unusable::in_short).collect::<Vec<_>>().join("; ")
}
