//! The BLAS kernel of this process: which one it is to have, whether that is any good, and how it comes to have it.
//!
//! A process that begins with another kernel than it needs starts itself again, once ([`own_kernel`]): OpenBLAS reads
//! its variables when it is loaded, and never again. Before that, another process tries the kernel ([`probe`]), so that
//! one which is missing, computes wrong numbers or kills whoever calls it is an error in one line; of `native`, the next
//! best is taken then. What has been found out is handed down to the processes that this one starts
//! ([`handed_down`]), and they do not ask again.

pub mod probe;
mod start;
mod unusable;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::sync::OnceLock;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::blas;
use millefeuille_core::blas::choice::{self, Instructions};
use millefeuille_core::blas::environment::{self, Change, Choice, Decision, NATIVE, Native};
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::spec::Spec;

pub use self::probe::Speed;
use self::probe::{Probe, own_pick};
use self::start::{again, changed};
pub use self::unusable::Unusable;
use crate::machine::address_space;
use crate::process::{self, instance_id};
use crate::variables::{self, INSTANCE, STARTED_FOR};

/// Which kernel, as a job names it, has been tried by another process and found good.
const TESTED: &str = "MILLEFEUILLE_TRIED";

/// What this process has found out, or has been told.
static SETTLED: OnceLock<Settled> = OnceLock::new();

/// How a process with a job's kernel computes.
#[derive(Clone, Debug)]
pub struct Probed {
    /// On fixed shapes.
    pub arithmetic: Arithmetic,
    /// Hex SHA-256 of the results on the job's own shapes.
    pub shapes_fingerprint: String,
    /// What OpenBLAS picks by itself.
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
    /// The variables that tell others of it.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let native = self.native.as_ref().map(|native| (NATIVE, native.to_value()));
        native.into_iter().chain([(TESTED, self.wanted.to_string())]).collect()
    }
}

/// Makes sure that this process has the kernel loaded that it needs, that the kernel is good, that there is room for so
/// many of the process's threads to multiply, and that BLAS itself computes with one.
///
/// Starts the process again, once, where the environment selects another kernel. To be called before any thread
/// is started.
///
/// # Errors
/// If the kernel can't be had, or is not to be used, or the process can't be started again.
pub fn own_kernel(wanted: &BlasKernel, threads: u32) -> Result<(), Unusable> {
    address_space::enough_for(threads).map_err(Unusable::Unexpected)?;
    blas::single_threaded();
    let variables = variables::openblas();
    let settled = settle(wanted, &variables)?;
    let decision =
        environment::decide(&variables, &settled.choice, &blas::kernel(), Instructions::of_this_machine())?;
    match sparingly(decision, &variables, address_space::sparing()) {
        Decision::Satisfied => {
            SETTLED.get_or_init(|| settled);
            Ok(())
        }
        Decision::Restart(change) => {
            let error = changed(again(), &change).envs(settled.variables()).exec();
            Err(Unusable::Unexpected(format!("cannot start again: {error}")))
        }
    }
}

/// A process that is to need little of something starts with these variables, or again.
fn sparingly(decision: Decision, variables: &BTreeMap<String, String>, sparing: &[(&str, &str)]) -> Decision {
    let missing = sparing.iter().any(|(name, _)| !variables.contains_key(*name));
    let mut change = match decision {
        Decision::Satisfied if !missing => return Decision::Satisfied,
        Decision::Satisfied => Change { set: BTreeMap::new(), remove: Vec::new() },
        Decision::Restart(change) => change,
    };
    change.set.extend(sparing.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    Decision::Restart(change)
}

/// What `native` comes to on this machine.
///
/// # Errors
/// If no kernel is good.
pub fn native() -> Result<Native, Unusable> {
    match SETTLED.get().and_then(|settled| settled.native.clone()) {
        Some(native) => Ok(native),
        None => find_native(&variables::openblas()),
    }
}

/// The variables that tell a process which this one starts what it need not find out again.
pub fn handed_down() -> Vec<(&'static str, String)> {
    SETTLED.get().map(Settled::variables).unwrap_or_default()
}

/// Says so where `native` is another kernel than OpenBLAS picks. To be called once there is a log.
pub fn say_native() {
    let Some(Native { own, kernel }) = SETTLED.get().and_then(|settled| settled.native.as_ref()) else {
        return;
    };
    if own != kernel {
        let version = blas::version();
        tracing::info!(target: LOG, "computing with the BLAS kernel {kernel}: OpenBLAS {version} takes {own} here, which uses less than this CPU has");
    }
}

/// Whether this process computes with this kernel, as a job that was resolved names it, and nothing else selects it.
pub fn has(kernel: &BlasKernel) -> bool {
    let choice = match kernel {
        BlasKernel::Named(name) => Choice::Named(name.clone()),
        BlasKernel::Environment => Choice::Environment,
        BlasKernel::Native => match native() {
            Ok(native) => native.choice(),
            Err(_) => return false,
        },
    };
    let loaded = blas::kernel();
    environment::decide(&variables::openblas(), &choice, &loaded, Instructions::of_this_machine())
        == Ok(Decision::Satisfied)
}

/// Starts this process again for another kernel. Returns only if that fails, and says why.
pub fn restart_for(kernel: &str) -> String {
    tracing::info!("starting again with the BLAS kernel {kernel}");
    let error = again().env(STARTED_FOR, kernel).env(INSTANCE, instance_id()).exec();
    format!("cannot start again: {error}")
}

/// Which kernel this process was started for.
pub fn started_for() -> BlasKernel {
    let wanted = variables::text(STARTED_FOR);
    wanted.and_then(|kernel| kernel.parse().ok()).unwrap_or(BlasKernel::Native)
}

/// Processes that try kernels for a job, begun before the job's data is read.
pub struct JobProbe {
    /// The kernels that the job may have, best first.
    choices: Vec<Choice>,
    /// The process that tries the first of them.
    first: Probe,
    pick: Pick,
}

/// What OpenBLAS picks by itself: known, or being found out by a process.
enum Pick {
    Known(String),
    Asked(Probe),
}

impl JobProbe {
    /// Begins to try the kernel that a job wants.
    ///
    /// # Errors
    /// If the CPU can't run it, or no process can be started.
    pub fn begin(wanted: &BlasKernel) -> Result<Self, Unusable> {
        let variables = variables::openblas();
        let pick = Pick::begin(&variables)?;
        let choices = choices_of(wanted)?;
        Ok(Self { first: Probe::for_job(&variables, &choices[0])?, choices, pick })
    }

    /// Tells of the job, and waits for what is found out: of `native`, about the first that is good.
    ///
    /// # Errors
    /// If the kernel is missing, or no good.
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

/// Tries the kernel of this process for a job's own shapes, before the process computes them itself.
///
/// # Errors
/// If it is no good.
pub fn is_right_for(spec: &Spec) -> Result<(), Unusable> {
    let loaded = SETTLED.get().map_or(Choice::OpenBlas, |settled| settled.choice.clone());
    Probe::for_job(&variables::openblas(), &loaded)?.end_with(spec).map(drop)
}

/// The kernels that a job may have which wants this one, best first.
fn choices_of(wanted: &BlasKernel) -> Result<Vec<Choice>, Unusable> {
    match wanted {
        BlasKernel::Named(name) => Ok(vec![Choice::Named(name.clone())]),
        BlasKernel::Environment => Ok(vec![Choice::Environment]),
        BlasKernel::Native => {
            let Native { own, kernel } = native()?;
            let all = choice::candidates(&own, Instructions::of_this_machine()).into_iter();
            // Those before the one that was taken are no good.
            let rest = all.skip_while(|name| *name != kernel);
            Ok(rest.map(|kernel| Native { own: own.clone(), kernel: kernel.to_owned() }.choice()).collect())
        }
    }
}

/// What the wanted kernel comes to on this machine, tried.
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

/// The first of the kernels that `native` may be here which this library has, and which is good.
fn find_native(variables: &BTreeMap<String, String>) -> Result<Native, Unusable> {
    let Search { native, reasons, .. } = Search::of(variables)?;
    let Some(native) = native else { return Err(Unusable::of_all(reasons)) };
    // A library that lacks a kernel is as it is; one that has a bad one is worth a word. There may be no log yet.
    for reason in reasons.iter().filter(|reason| matches!(reason, Unusable::NoGood { .. })) {
        process::say(&format!("warning: the BLAS kernel {}: {} is taken", reason.in_short(), native.kernel));
    }
    Ok(native)
}

/// What was found on the way to `native`.
pub(crate) struct Search {
    /// What OpenBLAS picks by itself.
    pub(crate) own: String,
    /// What it comes to, if any kernel is good.
    pub(crate) native: Option<Native>,
    /// Why those before it are not taken.
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

/// How fast a kernel that is good computes with so many threads.
pub(crate) fn speed(kernel: &Native, threads: u32) -> Result<Speed, Unusable> {
    Probe::of_speed(&variables::openblas(), &kernel.choice(), threads)?.speed()
}

/// Checks that this library has the kernel which the user's own variables name, if they name one.
pub(crate) fn has_users() -> Result<(), Unusable> {
    let variables = variables::openblas();
    match environment::kernel_of_user(&variables) {
        Some(_) => Probe::named(&variables, &Choice::Environment)?.name().map(drop),
        None => Ok(()),
    }
}

/// The target of log lines about the kernel, which `train` shows too.
pub const LOG: &str = "kernel";
