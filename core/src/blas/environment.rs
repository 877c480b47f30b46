//! Whether a process has the BLAS kernel that it is to compute with.
//!
//! OpenBLAS reads its variables once, when it is loaded: a process with the wrong ones can only start itself
//! again. Here is the decision, without effects. Who acts on it reads the environment, asks
//! [`super::kernel`], and replaces itself by `exec`.
//!
//! A job that wants `native` or a named kernel gets an environment without any other `OPENBLAS_*` variable:
//! even the size of a cache changes how sums are split. So that a later job can still ask for the user's own
//! variables, a restart keeps them in [`SAVED`], which local workers inherit. The number of threads is no
//! part of this: it is always one.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::job::BlasKernel;

/// Where the user's own `OPENBLAS_*` variables are kept over restarts: `NAME=value`, with [`SEPARATOR`]
/// between.
pub const SAVED: &str = "MILLEFEUILLE_OPENBLAS_ENV";

/// ASCII's unit separator, which no value of OpenBLAS' has.
const SEPARATOR: char = '\u{1f}';

const PREFIX: &str = "OPENBLAS_";
const KERNEL: &str = "OPENBLAS_CORETYPE";
const THREADS: &str = "OPENBLAS_NUM_THREADS";

/// The names of OpenBLAS 0.3 for today's x86-64, and what a CPU must have for them.
const KERNELS: [(&str, Needs); 9] = [
    ("Prescott", Needs::Nothing),
    ("Nehalem", Needs::Nothing),
    ("Sandybridge", Needs::Nothing),
    ("Haswell", Needs::Avx2),
    ("Zen", Needs::Avx2),
    ("Excavator", Needs::Avx2),
    ("SkylakeX", Needs::Avx512),
    ("Cooperlake", Needs::Avx512),
    ("SapphireRapids", Needs::Avx512),
];

#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Avx2,
    Avx512,
}

/// Which of the instructions that kernels need a CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// AVX2 and FMA.
    pub avx2: bool,
    /// AVX-512 F, VL, BW and DQ.
    pub avx512: bool,
}

impl Cpu {
    /// The CPU of this machine.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self {
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            avx512: is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        Self { avx2: false, avx512: false }
    }
}

/// What a process has to do before it computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the loaded kernel is the right one.
    Satisfied,
    /// Start itself again with a changed environment.
    Restart {
        /// Variables to set, with their values.
        set: BTreeMap<String, String>,
        /// Variables to remove.
        remove: Vec<String>,
    },
}

/// A kernel that cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// OpenBLAS does not know the name and took another kernel, without saying so.
    #[error(
        "OpenBLAS has no kernel {wanted:?} here: it loaded {loaded} instead. \
         Set blas_kernel to {loaded:?}, to \"native\", or to another of its names, such as {}",
        known_names()
    )]
    FellBack {
        /// What the job asks for.
        wanted: String,
        /// What OpenBLAS loaded.
        loaded: String,
    },
    /// The CPU lacks what the kernel is written with; the process would be killed by its first product.
    #[error(
        "the kernel {wanted:?} needs {instructions}, which this CPU does not have. \
         Set blas_kernel to \"native\", or run where the CPU has {instructions}"
    )]
    CpuLacks {
        /// What the job asks for.
        wanted: String,
        /// What is missing.
        instructions: &'static str,
    },
}

/// What to do in a process with these `variables` (others than OpenBLAS' and ours don't matter) and this
/// `loaded` kernel to compute with the `wanted` one on this `cpu`.
///
/// Obeying a restart leads to [`Decision::Satisfied`] or to an error, never to another restart.
pub fn decide(
    variables: &BTreeMap<String, String>,
    wanted: &BlasKernel,
    loaded: &str,
    cpu: Cpu,
) -> Result<Decision, KernelError> {
    let target = match wanted {
        BlasKernel::Native => BTreeMap::new(),
        BlasKernel::Environment => originals(variables),
        BlasKernel::Named(name) => {
            check_cpu(name, cpu)?;
            if settled_on(name, loaded, variables)? {
                return Ok(Decision::Satisfied);
            }
            BTreeMap::from([(KERNEL.to_owned(), name.clone())])
        }
    };
    if current(variables) == target { Ok(Decision::Satisfied) } else { Ok(restart(variables, target)) }
}

/// Whether nothing but `name` can have chosen the loaded kernel; an error if `name` was asked for in vain.
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

fn check_cpu(name: &str, cpu: Cpu) -> Result<(), KernelError> {
    let known = KERNELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let instructions = match known.map(|(_, needs)| *needs) {
        Some(Needs::Avx2) if !cpu.avx2 => "AVX2",
        Some(Needs::Avx512) if !cpu.avx512 => "AVX-512",
        _ => return Ok(()),
    };
    Err(KernelError::CpuLacks { wanted: name.to_owned(), instructions })
}

fn known_names() -> String {
    KERNELS.map(|(name, _)| name).join(", ")
}

/// OpenBLAS' variables, but for the number of threads.
fn current(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_openblas = variables.iter().filter(|(name, _)| name.starts_with(PREFIX) && *name != THREADS);
    of_openblas.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The same as the user had set them, before any restart.
fn originals(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(saved) = variables.get(SAVED) else {
        return current(variables);
    };
    let pairs = saved.split(SEPARATOR).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn restart(variables: &BTreeMap<String, String>, target: BTreeMap<String, String>) -> Decision {
    let remove = current(variables).into_keys().filter(|name| !target.contains_key(name)).collect();
    let saved: Vec<_> = originals(variables).iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut set = target;
    set.insert(SAVED.to_owned(), saved.join(&SEPARATOR.to_string()));
    set.insert(THREADS.to_owned(), "1".to_owned());
    Decision::Restart { set, remove }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Cpu = Cpu { avx2: true, avx512: true };

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn named(name: &str) -> BlasKernel {
        BlasKernel::Named(name.to_owned())
    }

    /// The environment after obeying a restart; OpenBLAS' variables in it.
    fn obey(variables: &BTreeMap<String, String>, decision: Decision) -> BTreeMap<String, String> {
        let Decision::Restart { set, remove } = decision else { panic!("no restart") };
        let mut variables = variables.clone();
        variables.retain(|name, _| !remove.contains(name));
        variables.extend(set);
        variables
    }

    #[test]
    fn who_has_the_right_kernel_stays() {
        for (variables, wanted, loaded) in [
            (environment(&[]), BlasKernel::Native, "Zen"),
            (
                environment(&[(THREADS, "4"), ("PATH", "/bin"), ("OMP_NUM_THREADS", "2")]),
                BlasKernel::Native,
                "Zen",
            ),
            (environment(&[]), named("Zen"), "Zen"),
            (environment(&[(KERNEL, "haswell"), (THREADS, "1")]), named("Haswell"), "Haswell"),
            (environment(&[]), BlasKernel::Environment, "Zen"),
            (
                environment(&[(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1")]),
                BlasKernel::Environment,
                "Haswell",
            ),
            (environment(&[(SAVED, "")]), BlasKernel::Environment, "Zen"),
        ] {
            assert_eq!(
                decide(&variables, &wanted, loaded, CPU),
                Ok(Decision::Satisfied),
                "{variables:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn others_start_again_with_exactly_these_variables() {
        let user = [(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1024"), (THREADS, "4")];
        let saved = "OPENBLAS_CORETYPE=Haswell\u{1f}OPENBLAS_L2_SIZE=1024";
        for (variables, wanted, loaded, after) in [
            (&user[..], BlasKernel::Native, "Haswell", &[(SAVED, saved), (THREADS, "1")][..]),
            (&user, named("SkylakeX"), "Haswell", &[(KERNEL, "SkylakeX"), (SAVED, saved), (THREADS, "1")]),
            (&user, named("Haswell"), "Haswell", &[(KERNEL, "Haswell"), (SAVED, saved), (THREADS, "1")]),
            (&[], named("Haswell"), "Zen", &[(KERNEL, "Haswell"), (SAVED, ""), (THREADS, "1")]),
            (
                &[(KERNEL, "")],
                BlasKernel::Native,
                "Haswell",
                &[(SAVED, "OPENBLAS_CORETYPE="), (THREADS, "1")],
            ),
            (
                &[(KERNEL, "Zen"), (SAVED, saved), (THREADS, "1")],
                BlasKernel::Environment,
                "Zen",
                &[(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1024"), (SAVED, saved), (THREADS, "1")],
            ),
            (
                &[(KERNEL, "Zen"), (SAVED, saved), (THREADS, "1")],
                BlasKernel::Native,
                "Zen",
                &[(SAVED, saved), (THREADS, "1")],
            ),
            (
                &[(KERNEL, "Zen"), (SAVED, ""), (THREADS, "1")],
                BlasKernel::Environment,
                "Zen",
                &[(SAVED, ""), (THREADS, "1")],
            ),
        ] {
            let variables = environment(variables);
            let decision = decide(&variables, &wanted, loaded, CPU).unwrap();
            assert_eq!(obey(&variables, decision), environment(after), "{variables:?} {wanted:?}");
        }
    }

    #[test]
    fn a_restart_is_never_followed_by_another() {
        let starts = [
            environment(&[]),
            environment(&[(KERNEL, "Haswell"), ("OPENBLAS_L2_SIZE", "1024")]),
            environment(&[(KERNEL, "Zen"), (SAVED, "OPENBLAS_VERBOSE=2")]),
        ];
        for variables in starts {
            for wanted in [BlasKernel::Native, BlasKernel::Environment, named("Haswell"), named("Nonsense")] {
                for loaded in ["Haswell", "Zen"] {
                    if let Ok(decision @ Decision::Restart { .. }) = decide(&variables, &wanted, loaded, CPU)
                    {
                        let after = obey(&variables, decision);
                        let again = decide(&after, &wanted, loaded, CPU);
                        assert!(
                            !matches!(again, Ok(Decision::Restart { .. })),
                            "{variables:?} {wanted:?} {loaded}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_that_fell_back_is_an_error_that_names_both() {
        let variables = environment(&[(KERNEL, "Nonsense"), (SAVED, ""), (THREADS, "1")]);
        let error = decide(&variables, &named("Nonsense"), "Haswell", CPU).unwrap_err();
        assert_eq!(error, KernelError::FellBack { wanted: "Nonsense".into(), loaded: "Haswell".into() });
        let text = error.to_string();
        assert!(
            ["\"Nonsense\"", "\"Haswell\"", "\"native\"", "SkylakeX"].iter().all(|part| text.contains(part))
        );
    }

    #[test]
    fn a_kernel_that_the_cpu_cannot_run_is_refused_before_it_kills_the_process() {
        let cpu = Cpu { avx2: true, avx512: false };
        let error = decide(&environment(&[]), &named("skylakex"), "Zen", cpu).unwrap_err();
        assert_eq!(error, KernelError::CpuLacks { wanted: "skylakex".into(), instructions: "AVX-512" });
        assert!(decide(&environment(&[]), &named("Haswell"), "Zen", cpu).is_ok());
    }
}
