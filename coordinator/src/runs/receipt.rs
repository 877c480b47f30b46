//! `receipt.json`: what went in, how it was computed, what came out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The receipt of a job that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this format.
    pub format: u32,
    /// Hex SHA-256 of what determines the numbers: configuration, seed, data.
    pub job_sha256: String,
    /// Hex SHA-256 of each data file's uncompressed content.
    pub data_sha256: BTreeMap<String, String>,
    /// The OpenBLAS kernel that computed it.
    pub blas_kernel: String,
    /// The OpenBLAS version.
    pub blas_version: String,
    /// Hex SHA-256 of the arithmetic's results on a fixed set of computations.
    pub fingerprint: String,
    /// Version of Millefeuille.
    pub version: String,
    /// Of each epoch, from the first: hex SHA-256 of the parameters after it.
    pub epoch_weights_sha256: Vec<String>,
    /// Hex SHA-256 of the trained parameters: little-endian f32 in layer order.
    pub weights_sha256: String,
}

/// The version of the format that this program writes.
pub const FORMAT: u32 = 1;

/// Hex SHA-256 over parameters as they travel.
pub fn weights_sha256(parameters: &[u8]) -> String {
    hex::encode(Sha256::digest(parameters))
}
