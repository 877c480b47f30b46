//! Decides whether a process has the BLAS kernel that it has to compute with.
//!
//! OpenBLAS reads its variables once, when it is loaded, so a process with the wrong variables has to restart.
//! This module makes the decision, without side effects. The caller reads the environment, calls
//! [`super::kernel`], and replaces the process by `exec`.
//!
//! A job wants `native`, a named kernel, or `environment`. The process that starts first determines which kernel
//! `native` is ([`Native`]), and passes it on in [`NATIVE`]. Except for `environment`, a process has no
//! `OPENBLAS_*` variable other than the one that names its kernel: even the size of a cache changes how sums are
//! split. A restart keeps the user's own variables in [`SAVED`], which local workers inherit, so that a later job
//! can still use them. The number of threads is not handled here: it is always one.

use std::collections::BTreeMap;

use thiserror::Error;

use super::choice::{self, Instructions, known_names};

/// The variable that keeps the user's own `OPENBLAS_*` variables over restarts: `NAME=value`, separated by
/// [`SEPARATOR`].
pub const SAVED: &str = "MILLEFEUILLE_OPENBLAS_ENV";

/// ASCII's unit separator, which occurs in no value of OpenBLAS' variables.
const SEPARATOR: char = '\u{1f}';

/// The variable that passes on which kernel `native` is: `own kernel`.
pub const NATIVE: &str = "MILLEFEUILLE_NATIVE";

const PREFIX: &str = "OPENBLAS_";
/// The variable that names the kernel for OpenBLAS to load.
const KERNEL: &str = "OPENBLAS_CORETYPE";

const THREADS: &str = "OPENBLAS_NUM_THREADS";

/// The kernel that a process has to load, after the job's `blas_kernel` was resolved on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The kernel that OpenBLAS picks by itself.
    OpenBlas,
    /// The kernel that the user's own `OPENBLAS_*` variables select.
    Environment,
    /// The kernel of this name.
    Named(String),
}

/// The kernel that `native` stands for on a machine: see [`super::choice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// The kernel that OpenBLAS picks by itself.
    pub own: String,
    /// The kernel that is used.
    pub kernel: String,
}

impl Native {
    /// The result that an ancestor of the process passed on in these variables, so that it is determined only
    /// once.
    pub fn handed_down(variables: &BTreeMap<String, String>) -> Option<Self> {
        let (own, kernel) = variables.get(NATIVE)?.split_once(' ')?;
        Some(Self { own: own.to_owned(), kernel: kernel.to_owned() })
    }

    /// The value of [`NATIVE`] for other processes.
    pub fn to_value(&self) -> String {
        format!("{} {}", self.own, self.kernel)
    }

    /// Whether the kernel is not the one that OpenBLAS picks.
    pub fn differs(&self) -> bool {
        self.own != self.kernel
    }

    /// How a process gets this kernel.
    pub fn choice(&self) -> Choice {
        if self.differs() { Choice::Named(self.kernel.clone()) } else { Choice::OpenBlas }
    }
}

/// What a process has to do before it can compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the loaded kernel is the right one.
    Satisfied,
    /// Restart with a changed environment.
    Restart(Change),
}

/// Changes to an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Variables to set, with their values.
    pub set: BTreeMap<String, String>,
    /// Variables to remove.
    pub remove: Vec<String>,
}

/// Why a kernel can't be used here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// OpenBLAS does not know the name and silently loaded another kernel.
    #[error(
        "OpenBLAS has no kernel {wanted:?} here: it loaded {loaded} instead. \
         Set blas_kernel to {loaded:?}, to \"native\", or to another of its names, such as {}",
        known_names()
    )]
    FellBack {
        /// The kernel that the job names.
        wanted: String,
        /// The kernel that OpenBLAS loaded.
        loaded: String,
    },
    /// The CPU lacks instructions that the kernel needs; the first product would kill the process.
    #[error(
        "the kernel {wanted:?} needs {instructions}, which this CPU does not have. \
         Set blas_kernel to \"native\", or run where the CPU has {instructions}"
    )]
    CpuLacks {
        /// The kernel that the job names.
        wanted: String,
        /// The instructions that the kernel needs.
        instructions: Instructions,
    },
}

/// Decides what a process with these `variables` (only those of OpenBLAS and of this program matter) and this
/// `loaded` kernel has to do to compute with the `wanted` kernel on this `cpu`.
///
/// After a restart as decided, the decision is [`Decision::Satisfied`] or an error, never another restart.
pub fn decide(
    variables: &BTreeMap<String, String>,
    wanted: &Choice,
    loaded: &str,
    cpu: Instructions,
) -> Result<Decision, KernelError> {
    if let Choice::Named(name) = wanted {
        check_cpu(name, cpu)?;
        if settled_on(name, loaded, variables)? {
            return Ok(Decision::Satisfied);
        }
    }
    if current(variables) == target(variables, wanted) {
        Ok(Decision::Satisfied)
    } else {
        Ok(Decision::Restart(change(variables, wanted)))
    }
}

/// The changes to `variables` for a process that has to load the `wanted` kernel.
pub fn change(variables: &BTreeMap<String, String>, wanted: &Choice) -> Change {
    let mut set = target(variables, wanted);
    let remove = current(variables).into_keys().filter(|name| !set.contains_key(name)).collect();
    let saved: Vec<_> = originals(variables).iter().map(|(name, value)| format!("{name}={value}")).collect();
    set.insert(SAVED.to_owned(), saved.join(&SEPARATOR.to_string()));
    set.insert(THREADS.to_owned(), "1".to_owned());
    Change { set, remove }
}

/// Whether OpenBLAS picked the loaded kernel by itself, without any variable.
pub fn is_own_pick(variables: &BTreeMap<String, String>) -> bool {
    current(variables).is_empty()
}

/// The user's own `OPENBLAS_*` variables, from before any restart.
pub fn users_own(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    originals(variables)
}

/// The kernel that the user's own variables name, if any. Names that are not ASCII are left to OpenBLAS, like
/// everything that it does not understand.
pub fn kernel_of_user(variables: &BTreeMap<String, String>) -> Option<String> {
    originals(variables).remove(KERNEL).filter(|name| !name.is_empty() && name.is_ascii())
}

/// Checks that this `cpu` can compute with the kernel.
///
/// # Errors
/// If it lacks instructions that the kernel needs.
pub fn check_cpu(name: &str, cpu: Instructions) -> Result<(), KernelError> {
    match choice::needs(name) {
        Some(instructions) if instructions > cpu => {
            Err(KernelError::CpuLacks { wanted: name.to_owned(), instructions })
        }
        _ => Ok(()),
    }
}

/// OpenBLAS' variables for a process with the wanted kernel, except for the number of threads.
fn target(variables: &BTreeMap<String, String>, wanted: &Choice) -> BTreeMap<String, String> {
    match wanted {
        Choice::OpenBlas => BTreeMap::new(),
        Choice::Environment => originals(variables),
        Choice::Named(name) => BTreeMap::from([(KERNEL.to_owned(), name.clone())]),
    }
}

/// Whether `name` alone determined the loaded kernel; an error if OpenBLAS did not load `name` on request.
fn settled_on(name: &str, loaded: &str, variables: &BTreeMap<String, String>) -> Result<bool, KernelError> {
    let mut others = current(variables);
    let asked_for = others.remove(KERNEL);
    let found = loaded.eq_ignore_ascii_case(name);
    match asked_for {
        _ if !others.is_empty() => Ok(false),
        None => Ok(found),
        Some(asked_for) if !asked_for.eq_ignore_ascii_case(name) => Ok(false),
        Some(_) if found => Ok(true),
        Some(_) => Err(KernelError::FellBack { wanted: name.to_owned(), loaded: loaded.to_owned() }),
    }
}

/// OpenBLAS' variables, except for the number of threads.
fn current(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_openblas = variables.iter().filter(|(name, _)| name.starts_with(PREFIX) && *name != THREADS);
    of_openblas.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// OpenBLAS' variables as the user set them, before any restart.
fn originals(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(saved) = variables.get(SAVED) else {
        return current(variables);
    };
    let pairs = saved.split(SEPARATOR).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CPU: Instructions = Instructions::Avx512;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn named(name: &str) -> Choice {
        Choice::Named(name.to_owned())
    }

    /// The environment after a change.
    fn after(
        variables: &BTreeMap<String, String>,
        Change { set, remove }: Change,
    ) -> BTreeMap<String, String> {
        let mut variables = variables.clone();
        variables.retain(|name, _| !remove.contains(name));
        variables.extend(set);
        variables
    }

    #[test]
    fn a_process_with_the_right_kernel_does_not_restart() {
        for (variables, wanted, loaded) in [
            (environment(&[]), Choice::OpenBlas, "Zen"),
            (
                environment(&[(THREADS, "4"), ("PATH", "/bin"), ("OMP_NUM_THREADS", "2")]),
                Choice::OpenBlas,
                "Zen",
            ),
            (environment(&[]), named("Zen"), "Zen"),
            (environment(&[(KERNEL, "haswell"), (THREADS, "1")]), named("Haswell"), "Haswell"),
            (environment(&[]), Choice::Environment, "Zen"),
            (environment(&[(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1")]), Choice::Environment, "Haswell"),
            (environment(&[(SAVED, "")]), Choice::Environment, "Zen"),
        ] {
            assert_eq!(
                decide(&variables, &wanted, loaded, CPU),
                Ok(Decision::Satisfied),
                "{variables:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn other_processes_restart_with_exactly_these_variables() {
        let user = [(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1024"), (THREADS, "4")];
        let saved = "OPENBLAS_CORETYPE=Haswell\u{1f}OPENBLAS_L2_SIZE=1024";
        for (variables, wanted, loaded, expected) in [
            (&user[..], Choice::OpenBlas, "Haswell", &[(SAVED, saved), (THREADS, "1")][..]),
            (&user, named("SkylakeX"), "Haswell", &[(KERNEL, "SkylakeX"), (SAVED, saved), (THREADS, "1")]),
            (&user, named("Haswell"), "Haswell", &[(KERNEL, "Haswell"), (SAVED, saved), (THREADS, "1")]),
            (&[], named("Haswell"), "Zen", &[(KERNEL, "Haswell"), (SAVED, ""), (THREADS, "1")]),
            (&[(KERNEL, "")], Choice::OpenBlas, "Haswell", &[(SAVED, "OPENBLAS_CORETYPE="), (THREADS, "1")]),
            (
                &[(KERNEL, "Zen"), (SAVED, saved), (THREADS, "1")],
                Choice::Environment,
                "Zen",
                &[(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1024"), (SAVED, saved), (THREADS, "1")],
            ),
            (
                &[(KERNEL, "Zen"), (SAVED, saved), (THREADS, "1")],
                Choice::OpenBlas,
                "Zen",
                &[(SAVED, saved), (THREADS, "1")],
            ),
            (
                &[(KERNEL, "Zen"), (SAVED, ""), (THREADS, "1")],
                Choice::Environment,
                "Zen",
                &[(SAVED, ""), (THREADS, "1")],
            ),
        ] {
            let variables = environment(variables);
            let Ok(Decision::Restart(change)) = decide(&variables, &wanted, loaded, CPU) else {
                panic!("no restart")
            };
            assert_eq!(after(&variables, change), environment(expected), "{variables:?} {wanted:?}");
        }
    }

    /// A model of OpenBLAS that has some kernels, and loads its own pick if it lacks the requested one.
    #[derive(Debug)]
    struct Library {
        own: String,
        has: Vec<String>,
        /// The kernels that compute correctly.
        good: Vec<String>,
    }

    impl Library {
        fn loads(&self, variables: &BTreeMap<String, String>) -> &str {
            let asked_for = variables.get(KERNEL);
            let found =
                |asked_for: &String| self.has.iter().find(|name| name.eq_ignore_ascii_case(asked_for));
            asked_for.and_then(found).unwrap_or(&self.own)
        }

        /// The kernel for `native`, as the process that starts first determines it: by trying.
        fn native(&self, variables: &BTreeMap<String, String>, cpu: Instructions) -> Option<Native> {
            let tried = |kernel: &str| {
                let native = Native { own: self.own.clone(), kernel: kernel.to_owned() };
                let there = after(variables, change(variables, &native.choice()));
                let loaded = self.loads(&there);
                (loaded == kernel && self.good.iter().any(|good| good == kernel)).then_some(native)
            };
            choice::candidates(&self.own, cpu).into_iter().find_map(tried)
        }
    }

    fn kernel_name() -> impl Strategy<Value = String> {
        let names = ["Prescott", "Haswell", "Zen", "SkylakeX", "Cooperlake", "haswell", "Nonsense", ""];
        prop::sample::select(names.map(str::to_owned).to_vec())
    }

    fn user() -> impl Strategy<Value = BTreeMap<String, String>> {
        let names = [KERNEL, "OPENBLAS_L2_SIZE", THREADS, SAVED, "PATH"].map(str::to_owned);
        prop::collection::btree_map(prop::sample::select(names.to_vec()), kernel_name(), 0..4)
    }

    fn library() -> impl Strategy<Value = Library> {
        let kernels = || prop::sample::subsequence(vec!["Prescott", "Haswell", "Zen", "SkylakeX"], 0..=4);
        (prop::sample::select(vec!["Prescott", "Haswell", "Cooperlake"]), kernels(), kernels()).prop_map(
            |(own, has, good)| {
                let text = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
                Library { own: own.to_owned(), has: text(has), good: text(good) }
            },
        )
    }

    proptest! {
        #[test]
        fn a_restart_leads_to_the_kernel_or_to_an_error_and_never_to_another_restart(
            variables in user(),
            library in library(),
            wanted in prop::option::of(kernel_name()),
            environment: bool,
            cpu in prop::sample::select(vec![Instructions::Baseline, Instructions::Avx2, Instructions::Avx512]),
        ) {
            let native = library.native(&variables, cpu);
            let choice = match (wanted, &native) {
                _ if environment => Choice::Environment,
                (Some(name), _) => Choice::Named(name),
                (None, Some(native)) => native.choice(),
                // No kernel computes correctly: this is an error before any decision.
                (None, None) => return Ok(()),
            };
            let decision = decide(&variables, &choice, library.loads(&variables), cpu);
            if let Ok(Decision::Restart(change)) = decision {
                let there = after(&variables, change);
                let again = decide(&there, &choice, library.loads(&there), cpu);
                prop_assert!(!matches!(again, Ok(Decision::Restart(_))), "{:?}", there);
            }
        }

        #[test]
        fn native_does_not_depend_on_the_users_variables(
            one in user(),
            other in user(),
            library in library(),
        ) {
            let [one, other] = [one, other].map(|variables| library.native(&variables, CPU));
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn the_native_kernel_is_handed_down_to_child_processes() {
        let native = Native { own: "Prescott".to_owned(), kernel: "SkylakeX".to_owned() };
        let variables = environment(&[(NATIVE, &native.to_value())]);
        assert_eq!(Native::handed_down(&variables), Some(native));
        assert_eq!(Native::handed_down(&environment(&[(NATIVE, "")])), None);
    }

    #[test]
    fn a_fallback_is_an_error_that_names_both_kernels() {
        let variables = environment(&[(KERNEL, "Nonsense"), (SAVED, ""), (THREADS, "1")]);
        let error = decide(&variables, &named("Nonsense"), "Haswell", CPU).unwrap_err();
        assert_eq!(error, KernelError::FellBack { wanted: "Nonsense".into(), loaded: "Haswell".into() });
        let text = error.to_string();
        assert!(
            ["\"Nonsense\"", "\"Haswell\"", "\"native\"", "SkylakeX"].iter().all(|part| text.contains(part))
        );
    }

    #[test]
    fn a_kernel_that_the_cpu_cannot_run_is_refused() {
        let cpu = Instructions::Avx2;
        let error = decide(&environment(&[]), &named("skylakex"), "Zen", cpu).unwrap_err();
        assert_eq!(
            error,
            KernelError::CpuLacks { wanted: "skylakex".into(), instructions: Instructions::Avx512 }
        );
        assert!(decide(&environment(&[]), &named("Haswell"), "Zen", cpu).is_ok());
    }
}
