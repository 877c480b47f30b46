//! What is found out of this machine.

use std::collections::BTreeMap;

use millefeuille_core::arithmetic::check;
use millefeuille_core::blas;
use millefeuille_core::blas::environment::{self, KernelError};
use serde::Serialize;

use crate::kernel::{self, Search, Speed, Unusable};
use crate::machine::{Cores, Cpu, Limits, address_space};
use crate::variables;

/// What was found out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Findings {
    pub(super) cpu: Cpu,
    pub(super) cores: Cores,
    pub(super) limits: Limits,
    pub(super) openblas: OpenBlas,
}

/// OpenBLAS on this machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OpenBlas {
    pub(super) version: String,
    /// The kernel that it picks by itself.
    pub(super) picks: String,
    /// What `native` comes to; nothing if no kernel is good.
    pub(super) native: Option<String>,
    /// Kernels that come before it, and why they are not taken.
    pub(super) not_taken: Vec<String>,
    /// What the self-check has compared: products of so many shapes.
    pub(super) checked: usize,
    pub(super) gflops: Option<Speed>,
    /// Variables that no job sees, unless it wants `blas_kernel = "environment"`.
    pub(super) ignored: BTreeMap<String, String>,
    /// What OpenBLAS loads where it is asked for a kernel that it has not: the name that was asked for, and what is loaded.
    pub(super) asked_in_vain: Option<(String, String)>,
}

impl Findings {
    /// The findings; and, if no kernel can be used, why.
    pub(super) fn of_this_machine() -> Result<(Self, Option<Unusable>), Unusable> {
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
