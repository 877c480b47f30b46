//! The BLAS kernel of this process: chooses it, checks it, and loads it.
//!
//! OpenBLAS reads its variables only when it is loaded. So a process that starts with the wrong kernel restarts
//! itself, once ([`own_kernel`]). Before that, another process tests the kernel ([`probe`]): a kernel that is
//! missing, computes wrong numbers or crashes its process becomes a one-line error, and `native` falls back to the
//! next best kernel. The findings are passed to the processes that this one starts ([`handed_down`]), so they do not
//! test again.

pub mod probe;
mod start;
mod unusable;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::blas;
use millefeuille_core::blas::choice::{self, Instructions};
use millefeuille_core::blas::environment::{self, Choice, Decision, NATIVE, Native};
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::spec::Spec;

pub use self::probe::{NodeTask, Speed, compute_elsewhere};
use self::probe::{Probe, own_pick};
use self::start::{again, changed, replaced_by};
pub use self::unusable::Unusable;
use crate::machine::address_space;
use crate::output;
use crate::process::instance_id;
use crate::variables::{self, INSTANCE, RESTARTS, STARTED_FOR};

/// The kernel, as a job names it, that another process has tested and found good.
const TESTED: &str = "MILLEFEUILLE_TRIED";

/// The kernel that this process has settled on, by its own tests or its parent's.
static SETTLED: OnceLock<Settled> = OnceLock::new();

/// The arithmetic of a process with a job's kernel.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The arithmetic on fixed shapes.
    pub arithmetic: Arithmetic,
    /// Hex SHA-256 of the results on the job's own shapes.
    pub shapes_fingerprint: String,
    /// The kernel that OpenBLAS picks by itself.
    pub openblas_picks: String,
}

/// A kernel that a process can compute with.
#[derive(Clone, Debug)]
struct Settled {
    wanted: BlasKernel,
    choice: Choice,
    native: Option<Native>,
}

impl Settled {
    /// The variables that tell other processes about this kernel.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let native = self.native.as_ref().map(|native| (NATIVE, native.to_value()));
        native.into_iter().chain([(TESTED, self.wanted.to_string())]).collect()
    }
}

/// Makes sure that this process has loaded the kernel that it needs, that the kernel is good, that `threads` threads
/// of the process have enough address space to multiply, and that BLAS itself uses one thread.
///
/// Restarts the process, once, if the environment selects another kernel. Call this before any thread is started.
///
/// # Errors
/// If the kernel is missing or must not be used, or the process can't be restarted.
pub fn own_kernel(wanted: &BlasKernel, threads: u32) -> Result<(), Unusable> {
    address_space::enough_for(threads).map_err(Unusable::Unexpected)?;
    blas::single_threaded();
    let variables = variables::openblas();
    let settled = settle(wanted, &variables)?;
    let decision =
        environment::decide(&variables, &settled.choice, &blas::kernel(), Instructions::of_this_machine())?;
    match decision {
        Decision::Satisfied => {
            SETTLED.get_or_init(|| settled);
            Ok(())
        }
        Decision::Restart(change) => {
            let mut command = changed(again(), &change);
            command.envs(settled.variables());
            Err(Unusable::Unexpected(replaced_by(command)))
        }
    }
}

/// The kernel that `native` resolves to on this machine.
///
/// # Errors
/// If no kernel is good.
pub fn native() -> Result<Native, Unusable> {
    match SETTLED.get().and_then(|settled| settled.native.clone()) {
        Some(native) => Ok(native),
        None => find_native(&variables::openblas()),
    }
}

/// The variables that pass the findings to a process that this one starts, so that it does not test again.
pub fn handed_down() -> Vec<(&'static str, String)> {
    SETTLED.get().map(Settled::variables).unwrap_or_default()
}

/// Logs it if `native` is not the kernel that OpenBLAS picks. Call this once the log is set up.
pub fn say_native() {
    let Some(Native { own, kernel }) = SETTLED.get().and_then(|settled| settled.native.as_ref()) else {
        return;
    };
    if own != kernel {
        let version = blas::version();
        tracing::info!(target: LOG, "computing with the BLAS kernel {kernel}: OpenBLAS {version} takes {own} here, which uses less than this CPU has");
    }
}

/// Whether this process computes with this kernel (named as in a resolved job), and nothing else selects it.
pub fn has(kernel: &BlasKernel) -> bool {
    let Ok(choice) = choice_of(kernel) else { return false };
    let loaded = blas::kernel();
    environment::decide(&variables::openblas(), &choice, &loaded, Instructions::of_this_machine())
        == Ok(Decision::Satisfied)
}

/// What selects a kernel that is named as in a resolved job.
fn choice_of(kernel: &BlasKernel) -> Result<Choice, Unusable> {
    Ok(match kernel {
        BlasKernel::Named(name) => Choice::Named(name.clone()),
        BlasKernel::Environment => Choice::Environment,
        BlasKernel::Native => native()?.choice(),
    })
}

/// Restarts this process with another kernel, for the `restarts`th time in a row. Returns only if that fails, with the
/// reason.
pub fn restart_for(kernel: &str, restarts: u32) -> String {
    tracing::info!("starting again with the BLAS kernel {kernel}");
    let mut command = again();
    command.env(STARTED_FOR, kernel).env(INSTANCE, instance_id()).env(RESTARTS, restarts.to_string());
    replaced_by(command)
}

/// How often this process has restarted in a row for another kernel.
pub fn restarts() -> u32 {
    variables::text(RESTARTS).and_then(|restarts| restarts.parse().ok()).unwrap_or(0)
}

/// The kernel that this process was started for.
pub fn started_for() -> BlasKernel {
    let wanted = variables::text(STARTED_FOR);
    wanted.and_then(|kernel| kernel.parse().ok()).unwrap_or(BlasKernel::Native)
}

/// Processes that test kernels for a job, started before the job's data is read.
pub struct JobProbe {
    /// The kernels that the job may have, best first.
    choices: Vec<Choice>,
    /// The process that tests the first of them.
    first: Probe,
    pick: Pick,
}

/// The kernel that OpenBLAS picks by itself: known, or being found out by a process.
enum Pick {
    Known(String),
    Asked(Probe),
}

impl JobProbe {
    /// Starts to test the kernel that a job wants.
    ///
    /// # Errors
    /// If the CPU can't run the kernel, or no process can be started.
    pub fn begin(wanted: &BlasKernel) -> Result<Self, Unusable> {
        let variables = variables::openblas();
        let pick = Pick::begin(&variables)?;
        let choices = choices_of(wanted)?;
        Ok(Self { first: Probe::for_job(&variables, &choices[0])?, choices, pick })
    }

    /// Sends the job's spec to the process and waits for its findings. For `native`, they are about the first good
    /// kernel.
    ///
    /// # Errors
    /// If the kernel is missing, or must not be used.
    pub fn end(self, spec: &Spec) -> Result<Probed, Unusable> {
        let openblas_picks = self.pick.end()?;
        let mut reasons = Vec::new();
        let mut probe = Ok(self.first);
        for next in self.choices.iter().skip(1).map(Some).chain([None]) {
            match probe.and_then(|probe| probe.end_with(spec)) {
                Ok((arithmetic, shapes_fingerprint)) => {
                    return Ok(Probed { arithmetic, shapes_fingerprint, openblas_picks });
                }
                Err(reason) => reasons.push(reason),
            }
            let Some(next) = next else { break };
            tracing::warn!(
                "trying another BLAS kernel for this job: {}",
                reasons[reasons.len() - 1].in_short()
            );
            probe = Probe::for_job(&variables::openblas(), next);
        }
        Err(Unusable::of_all(reasons))
    }
}

impl Pick {
    fn begin(variables: &BTreeMap<String, String>) -> Result<Self, Unusable> {
        let known =
            SETTLED.get().and_then(|settled| settled.native.as_ref()).map(|native| native.own.clone());
        match known.or_else(|| own_pick(variables)) {
            Some(name) => Ok(Self::Known(name)),
            None => Ok(Self::Asked(Probe::named(variables, &Choice::OpenBlas)?)),
        }
    }

    fn end(self) -> Result<String, Unusable> {
        match self {
            Self::Known(name) => Ok(name),
            Self::Asked(probe) => probe.name(),
        }
    }
}

/// Tests this process's kernel on a job's own shapes, before the process computes them itself.
///
/// # Errors
/// If the kernel must not be used.
pub fn is_right_for(spec: &Spec) -> Result<(), Unusable> {
    let loaded = SETTLED.get().map_or(Choice::OpenBlas, |settled| settled.choice.clone());
    Probe::for_job(&variables::openblas(), &loaded)?.end_with(spec).map(drop)
}

/// The kernels that a job with this choice may use, best first.
fn choices_of(wanted: &BlasKernel) -> Result<Vec<Choice>, Unusable> {
    match wanted {
        BlasKernel::Named(name) => Ok(vec![Choice::Named(name.clone())]),
        BlasKernel::Environment => Ok(vec![Choice::Environment]),
        BlasKernel::Native => {
            let Native { own, kernel } = native()?;
            let all = choice::candidates(&own, Instructions::of_this_machine()).into_iter();
            // The kernels before the chosen one have already failed.
            let rest = all.skip_while(|name| *name != kernel);
            Ok(rest.map(|kernel| Native { own: own.clone(), kernel: kernel.to_owned() }.choice()).collect())
        }
    }
}

/// Resolves the wanted kernel on this machine and tests it.
fn settle(wanted: &BlasKernel, variables: &BTreeMap<String, String>) -> Result<Settled, Unusable> {
    let native = Native::handed_down(variables);
    let (choice, native) = match (wanted, native) {
        (BlasKernel::Native, Some(native)) => (native.choice(), Some(native)),
        (BlasKernel::Native, None) => {
            let native = find_native(variables)?;
            (native.choice(), Some(native))
        }
        (BlasKernel::Environment, native) => (Choice::Environment, native),
        (BlasKernel::Named(name), native) => (Choice::Named(name.clone()), native),
    };
    let tried = *wanted == BlasKernel::Native
        || variables.get(TESTED) == Some(&wanted.to_string())
        || native.as_ref().is_some_and(|native| *wanted == BlasKernel::Named(native.kernel.clone()));
    if !tried {
        Probe::general(variables, &choice)?.name()?;
    }
    Ok(Settled { wanted: wanted.clone(), choice, native })
}

/// Finds the first candidate for `native` that this library has and that is good.
fn find_native(variables: &BTreeMap<String, String>) -> Result<Native, Unusable> {
    let Search { native, reasons, .. } = Search::of(variables)?;
    let Some(native) = native else { return Err(Unusable::of_all(reasons)) };
    // A missing kernel is normal; a bad one is worth a line. The log may not be set up yet.
    for reason in reasons.iter().filter(|reason| matches!(reason, Unusable::NoGood { .. })) {
        output::warn(&format!("the BLAS kernel {}: {} is taken", reason.in_short(), native.kernel));
    }
    Ok(native)
}

/// The result of the search for `native`.
pub(crate) struct Search {
    /// The kernel that OpenBLAS picks by itself.
    pub(crate) own: String,
    /// The kernel that `native` resolves to, if any kernel is good.
    pub(crate) native: Option<Native>,
    /// The reasons why the kernels before it were rejected.
    pub(crate) reasons: Vec<Unusable>,
}

impl Search {
    pub(crate) fn of(variables: &BTreeMap<String, String>) -> Result<Self, Unusable> {
        let own = Pick::begin(variables)?.end()?;
        let mut reasons = Vec::new();
        for kernel in choice::candidates(&own, Instructions::of_this_machine()) {
            let native = Native { own: own.clone(), kernel: kernel.to_owned() };
            match Probe::general(variables, &native.choice()).and_then(Probe::name) {
                Ok(_) => return Ok(Self { own, native: Some(native), reasons }),
                Err(reason) => reasons.push(reason),
            }
        }
        Ok(Self { own, native: None, reasons })
    }
}

/// Measures a good kernel's speed with `threads` threads.
pub(crate) fn speed(kernel: &Native, threads: u32) -> Result<Speed, Unusable> {
    Probe::of_speed(&variables::openblas(), &kernel.choice(), threads)?.speed()
}

/// Checks that this library has the kernel that the user's own variables name, if they name one.
pub(crate) fn has_users() -> Result<(), Unusable> {
    let variables = variables::openblas();
    match environment::kernel_of_user(&variables) {
        Some(_) => Probe::named(&variables, &Choice::Environment)?.name().map(drop),
        None => Ok(()),
    }
}

/// The target of log lines about the kernel, which `train` shows too.
pub const LOG: &str = "kernel";
