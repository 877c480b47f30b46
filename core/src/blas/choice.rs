//! The choice of the `native` kernel.
//!
//! OpenBLAS picks its kernel from a table of the CPU families known when it was released. It may mistake a newer
//! CPU for one that is twenty years old: 0.3.21 takes an Emerald Rapids for a Pentium 4 (`Prescott`) and computes
//! at a fifth of its speed. So `native` is defined by a rule: OpenBLAS' own pick is kept if it uses all of the
//! CPU's instructions; otherwise the best kernel available for these instructions is used ([`candidates`]). The
//! rule involves no measurement, so that the same machine with the same library always gets the same kernel.
//!
//! This module can't know whether the library has a kernel, or whether the kernel computes correctly. The caller
//! tries the candidates in a process, and takes the first good one.

use std::fmt;

use serde::{Serialize, Serializer};

/// The SIMD instruction sets that a CPU has, or that a kernel needs. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// The instructions of every x86-64 CPU that OpenBLAS supports, or the CPU is not x86-64.
    Baseline,
    /// AVX.
    Avx,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
}

use Instructions::{Avx, Avx2, Avx512, Baseline};

/// OpenBLAS' kernel names for x86-64, and the instructions that each needs. Other architectures have other names.
const KERNELS: [(&str, Instructions); 21] = [
    ("Opteron", Baseline),
    ("Opteron_SSE3", Baseline),
    ("Barcelona", Baseline),
    ("Bobcat", Baseline),
    ("Prescott", Baseline),
    ("Core2", Baseline),
    ("Penryn", Baseline),
    ("Dunnington", Baseline),
    ("Nehalem", Baseline),
    ("Atom", Baseline),
    ("Nano", Baseline),
    ("Sandybridge", Avx),
    ("Bulldozer", Avx),
    ("Piledriver", Avx),
    ("Steamroller", Avx),
    ("Excavator", Avx2),
    ("Haswell", Avx2),
    ("Zen", Avx2),
    ("SkylakeX", Avx512),
    ("Cooperlake", Avx512),
    ("SapphireRapids", Avx512),
];

/// The kernels used in place of OpenBLAS' own pick, best first.
///
/// The list is the same for all CPU vendors. On a Zen 4 the products of the default job ran at 87 GFLOP/s with
/// `SkylakeX` and with `Haswell`, and at 80 with `Zen`, which has the instructions of `Haswell` and other block
/// sizes.
const SUBSTITUTES: [&str; 5] = ["SkylakeX", "Haswell", "Zen", "Sandybridge", "Prescott"];

/// The kernel names that errors propose.
const PROPOSED: [&str; 9] = [
    "Prescott",
    "Nehalem",
    "Sandybridge",
    "Haswell",
    "Zen",
    "Excavator",
    "SkylakeX",
    "Cooperlake",
    "SapphireRapids",
];

impl Instructions {
    /// The instructions of this machine's CPU that its operating system lets programs use.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            match (is_x86_feature_detected!("avx"), avx2, avx512) {
                (_, true, true) => Avx512,
                (_, true, false) => Avx2,
                (true, false, _) => Avx,
                (false, false, _) => Baseline,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Baseline
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Baseline => "SSE3",
            Avx => "AVX",
            Avx2 => "AVX2 and FMA",
            Avx512 => "AVX-512",
        })
    }
}

impl Serialize for Instructions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The instructions that a kernel needs; `None` if its name is unknown.
pub fn needs(kernel: &str) -> Option<Instructions> {
    let known = KERNELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(kernel));
    known.map(|&(_, needs)| needs)
}

/// The candidates for `native`, best first, if OpenBLAS picks `own` on a CPU with the instructions `cpu`. They
/// include `own`.
///
/// `own` is first if it uses all of the CPU's instructions, and if its name is unknown: a library newer than this
/// program knows better. The other candidates are for a library that lacks the first one or computes wrong
/// numbers with it.
pub fn candidates(own: &str, cpu: Instructions) -> Vec<&str> {
    let own_needs = needs(own).unwrap_or(Avx512).min(cpu);
    let mut candidates: Vec<_> = SUBSTITUTES.into_iter().filter(|name| needs(name) <= Some(cpu)).collect();
    candidates.retain(|name| !name.eq_ignore_ascii_case(own));
    let place = candidates.iter().position(|name| needs(name) <= Some(own_needs));
    candidates.insert(place.unwrap_or(candidates.len()), own);
    candidates
}

/// The kernel names for an error to propose.
pub(super) fn known_names() -> String {
    PROPOSED.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kernel_that_uses_the_widest_instructions_is_kept() {
        for (own, cpu) in [
            ("SkylakeX", Avx512),
            ("Cooperlake", Avx512),
            ("SapphireRapids", Avx512),
            ("Zen", Avx2),
            ("Haswell", Avx2),
            ("Excavator", Avx2),
            ("Piledriver", Avx),
            ("Nehalem", Baseline),
            // A kernel newer than this program, and kernels of other architectures.
            ("GraniteRapids", Avx512),
            ("NEOVERSEN1", Baseline),
        ] {
            assert_eq!(candidates(own, cpu)[0], own, "{own} on {cpu}");
        }
    }

    #[test]
    fn a_kernel_that_uses_narrower_instructions_is_replaced_by_the_best() {
        for (own, cpu, all) in [
            ("Prescott", Avx512, &["SkylakeX", "Haswell", "Zen", "Sandybridge", "Prescott"][..]),
            ("Core2", Avx512, &["SkylakeX", "Haswell", "Zen", "Sandybridge", "Core2", "Prescott"]),
            ("Zen", Avx512, &["SkylakeX", "Zen", "Haswell", "Sandybridge", "Prescott"]),
            ("Nehalem", Avx2, &["Haswell", "Zen", "Sandybridge", "Nehalem", "Prescott"]),
            ("Barcelona", Avx, &["Sandybridge", "Barcelona", "Prescott"]),
            ("Cooperlake", Avx512, &["Cooperlake", "SkylakeX", "Haswell", "Zen", "Sandybridge", "Prescott"]),
        ] {
            assert_eq!(candidates(own, cpu), all, "{own} on {cpu}");
        }
    }

    proptest! {
        #[test]
        fn candidates_run_on_the_cpu_and_are_distinct(
            own in prop::sample::select(KERNELS.map(|(name, _)| name).to_vec()),
            cpu in prop::sample::select(vec![Baseline, Avx, Avx2, Avx512]),
        ) {
            let all = candidates(own, cpu);
            prop_assert!(all.contains(&own));
            prop_assert!(all.iter().all(|name| *name == own || needs(name) <= Some(cpu)));
            prop_assert!(all.iter().enumerate().all(|(i, name)| !all[..i].contains(name)));
            prop_assert!(needs(all[0]) >= Some(cpu));
        }
    }
}
