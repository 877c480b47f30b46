//! The hidden subcommand that says how a process with a certain BLAS kernel computes.

use std::io::Read as _;

use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::spec::Spec;
use millefeuille_proto::v1;
use millefeuille_worker::process::{self, exit};
use prost::Message as _;

use super::{Failed, Result, print};
use crate::cluster::load::Probed;

/// Reads a job's spec from standard input, and prints what computing its shapes gives.
pub(super) fn run() -> Result {
    let unusable = |error: &dyn std::fmt::Display| Failed::new(exit::USAGE, error.to_string());
    let kernel = process::started_for().parse().unwrap_or(BlasKernel::Native);
    process::own_kernel(&kernel).map_err(|message| unusable(&message))?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| unusable(&error))?;
    let spec = v1::Spec::decode(bytes.as_slice()).map_err(|error| unusable(&error))?;
    let spec = Spec::try_from(spec).map_err(|error| unusable(&error))?;
    let probed = serde_json::to_string(&Probed::here(&spec)).map_err(|error| unusable(&error))?;
    print(&probed);
    Ok(())
}
