//! The arithmetic of a run, as checkpoints store it and as people read it.

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::text;
use serde::{Deserialize, Serialize};

/// The form of an [`Arithmetic`] in a manifest.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Arithmetic")]
pub(super) struct Form {
    kernel: String,
    version: String,
    fingerprint: String,
}

/// An arithmetic in words.
pub fn described(arithmetic: &Arithmetic) -> String {
    let Arithmetic { kernel, version, fingerprint } = arithmetic;
    format!("kernel {kernel}, OpenBLAS {version}, fingerprint {}", short(fingerprint))
}

/// An arithmetic's results over a job's own shapes, in words.
pub fn described_shapes(fingerprint: &str) -> String {
    format!("fingerprint {} over the job's shapes", short(fingerprint))
}

/// The prefix of a fingerprint that people compare.
fn short(fingerprint: &str) -> &str {
    text::beginning(fingerprint, 12)
}
