//! What the doctor finds out about this machine.

use std::collections::BTreeMap;

use millefeuille_core::arithmetic::check;
use millefeuille_core::blas;
use millefeuille_core::blas::environment::{self, KernelError};
use serde::Serialize;

use crate::kernel::{self, Search, Speed, Unusable};
use crate::machine::{Cores, Cpu, Limits, address_space};
use crate::variables;

/// The findings about this machine.
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
    /// The kernel that OpenBLAS picks by itself.
    pub(super) picks: String,
    /// The kernel that `native` resolves to; `None` if no kernel is usable.
    pub(super) native: Option<String>,
    /// Kernels that were preferred to it, and why each was rejected.
    pub(super) not_taken: Vec<String>,
    /// Number of product shapes that the self-check compared.
    pub(super) checked: usize,
    pub(super) gflops: Option<Speed>,
    /// Variables that jobs ignore, unless they set `blas_kernel = "environment"`.
    pub(super) ignored: BTreeMap<String, String>,
    /// If a variable names a kernel that OpenBLAS does not have: that name, and the kernel that OpenBLAS loads
    /// instead.
    pub(super) unused_kernel_name: Option<(String, String)>,
}

impl Findings {
    /// The findings and, if no kernel can be used, the reason.
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
            unused_kernel_name: unused_kernel_name()?,
        };
        let failure = native.is_none().then(|| Unusable::of_all(reasons));
        Ok((found, failure))
    }
}

/// Variables for OpenBLAS, or libraries like it, that have no effect here.
fn ignored(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = variables.iter().filter(|(name, _)| name.starts_with("OMP_"));
    let others = others.map(|(name, value)| (name.clone(), value.clone()));
    environment::users_own(variables).into_iter().chain(others).collect()
}

/// The kernel that the user's variables name and the one that OpenBLAS loads instead, if this library lacks the
/// former.
fn unused_kernel_name() -> Result<Option<(String, String)>, Unusable> {
    match kernel::has_users() {
        Ok(()) => Ok(None),
        Err(Unusable::Missing(KernelError::FellBack { wanted, loaded })) => Ok(Some((wanted, loaded))),
        Err(error) => Err(error),
    }
}
