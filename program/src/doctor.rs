//! `coordinator doctor` and `worker doctor`: what this machine is, and what to expect of it.
//!
//! What is found out ([`Findings`]) and what is said of it ([`page`]) are apart. The kernel is tried and measured by other
//! processes, as always, so that whatever is wrong with it is a line on the page. Warnings are for what is far from
//! what it could be; each comes with what to do about it, and none of them is a failure.

mod page;

use std::collections::BTreeMap;

use clap::Args as ClapArgs;
use millefeuille_core::blas::environment::{self, KernelError};
use millefeuille_core::blas::{self, check};
use serde::Serialize;

use crate::kernel::{self, Search, Speed, Unusable};
use crate::machine::{Cores, Cpu, Limits, address_space};
use crate::process::{self, exit};
use crate::variables;

/// Say what this machine is for training, and what to do about it where it could be better
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator doctor
  worker doctor --json | jq .warnings

Exit codes:
    0  done, with or without warnings
    1  too little address space
    8  no BLAS kernel can be computed with")]
pub struct Args {
    /// Print an object in JSON
    #[arg(long)]
    json: bool,
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
struct Findings {
    cpu: Cpu,
    cores: Cores,
    limits: Limits,
    openblas: OpenBlas,
}

/// OpenBLAS on this machine.
#[derive(Clone, Debug, Serialize)]
struct OpenBlas {
    version: String,
    /// The kernel that it picks by itself.
    picks: String,
    /// What `native` comes to; nothing if no kernel is good.
    native: Option<String>,
    /// Kernels that come before it, and why they are not taken.
    not_taken: Vec<String>,
    /// What the self-check has compared: products of so many shapes.
    checked: usize,
    gflops: Option<Speed>,
    /// Variables that no job sees, unless it wants `blas_kernel = "environment"`.
    ignored: BTreeMap<String, String>,
    /// What OpenBLAS loads where it is asked for a kernel that it has not: the name that was asked for, and what is loaded.
    asked_in_vain: Option<(String, String)>,
}

/// Examines this machine, and prints what it finds.
///
/// # Errors
/// The exit code, and a line that says why.
pub fn run(args: Args) -> Result<(), (u8, String)> {
    address_space::enough_for(1).map_err(|message| (exit::UNEXPECTED, message))?;
    let (findings, failure) =
        Findings::of_this_machine().map_err(|error| (error.code(), error.to_string()))?;
    process::print(&if args.json { page::json(&findings) } else { page::text(&findings) });
    failure.map_or(Ok(()), |error| Err((error.code(), error.to_string())))
}

impl Findings {
    /// The findings; and, if no kernel can be used, why.
    fn of_this_machine() -> Result<(Self, Option<Unusable>), Unusable> {
        let cores = Cores::of_this_process();
        let (openblas, failure) =
            OpenBlas::of_this_machine(address_space::threads_with_room(cores.usable()))?;
        let (cpu, limits) = (Cpu::of_this_machine(), Limits::of_this_process());
        Ok((Self { cpu, cores, limits, openblas }, failure))
    }
}

impl OpenBlas {
    fn of_this_machine(threads: u32) -> Result<(Self, Option<Unusable>), Unusable> {
        let variables = variables::openblas();
        let Search { own, native, reasons } = Search::of(&variables)?;
        let found = Self {
            version: blas::version(),
            picks: own,
            native: native.as_ref().map(|native| native.kernel.clone()),
            not_taken: reasons.iter().map(Unusable::in_short).collect(),
            checked: check::general().len(),
            gflops: native.as_ref().map(|native| kernel::speed(native, threads)).transpose()?,
            ignored: ignored(&variables),
            asked_in_vain: asked_in_vain()?,
        };
        let failure = native.is_none().then(|| Unusable::of_all(reasons));
        Ok((found, failure))
    }
}

/// Variables that speak to OpenBLAS, or to libraries like it, and that nobody listens to here.
fn ignored(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    // How many threads OpenBLAS has is no job's choice.
    let others =
        variables.iter().filter(|(name, _)| name.starts_with("OMP_") || *name == "OPENBLAS_NUM_THREADS");
    let others = others.map(|(name, value)| (name.clone(), value.clone()));
    environment::users_own(variables).into_iter().chain(others).collect()
}

/// The kernel that the user's variables name, and what is loaded instead, if this library does not have it.
fn asked_in_vain() -> Result<Option<(String, String)>, Unusable> {
    match kernel::has_users() {
        Ok(()) => Ok(None),
        Err(Unusable::Missing(KernelError::FellBack { wanted, loaded })) => Ok(Some((wanted, loaded))),
        Err(error) => Err(error),
    }
}
