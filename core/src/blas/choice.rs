//! Which kernel `native` is.
//!
//! OpenBLAS finds its kernel in a table of the CPU families that were known when it was released. A CPU that came later
//! may be taken for one of twenty years ago: 0.3.21 takes an Emerald Rapids for a Pentium 4 (`Prescott`) and computes at
//! a fifth of its speed. So `native` is not what OpenBLAS picks, but a rule: what it picks by itself is kept where it
//! uses all that the CPU has, and otherwise the best kernel is taken that uses as much as can be had ([`candidates`]).
//! It is a rule and no measurement, so that the same machine with the same library always comes to the same kernel.
//!
//! Whether this library has a kernel, and whether what it computes is right, cannot be known here. Who acts on the rule
//! asks, by a process that tries the candidate, and takes the first that is good.

use std::fmt;

use serde::{Serialize, Serializer};

/// The instructions for numbers that a CPU has, or that a kernel needs. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What every x86-64 has that OpenBLAS knows, or the CPU is no x86-64.
    Baseline,
    /// AVX.
    Avx,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
}

use Instructions::{Avx, Avx2, Avx512, Baseline};

/// OpenBLAS' names for x86-64, and what a CPU must have for them. Other architectures have other names.
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

/// What is taken in place of OpenBLAS' own choice, best first.
///
/// Whose CPU it is makes no difference. On a Zen 4 the products of the default job ran at 87 GFLOP/s with `SkylakeX` and
/// with `Haswell`, and at 80 with `Zen`, which has the instructions of `Haswell` and other block sizes.
const SUBSTITUTES: [&str; 5] = ["SkylakeX", "Haswell", "Zen", "Sandybridge", "Prescott"];

/// Names that are worth proposing.
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
    /// Those of this machine's CPU, as far as its operating system lets programs use them.
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

/// What a kernel is written with; nothing where the name is not known.
pub fn needs(kernel: &str) -> Option<Instructions> {
    let known = KERNELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(kernel));
    known.map(|&(_, needs)| needs)
}

/// The kernels that `native` may be where OpenBLAS picks `own` by itself on a CPU that has `cpu`, best first. `own` is
/// among them.
///
/// `own` is first where it needs all that the CPU has, and where its name is not known: a library that is newer than
/// this program knows better. What comes behind the first is for a library that lacks it, or computes wrong numbers
/// with it.
pub fn candidates(own: &str, cpu: Instructions) -> Vec<&str> {
    let own_needs = needs(own).unwrap_or(Avx512).min(cpu);
    let mut candidates: Vec<_> = SUBSTITUTES.into_iter().filter(|name| needs(name) <= Some(cpu)).collect();
    candidates.retain(|name| !name.eq_ignore_ascii_case(own));
    let place = candidates.iter().position(|name| needs(name) <= Some(own_needs));
    candidates.insert(place.unwrap_or(candidates.len()), own);
    candidates
}

/// Names that an error can propose.
pub(super) fn known_names() -> String {
    PROPOSED.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_uses_all_that_the_cpu_has_is_kept() {
        for (own, cpu) in [
            ("SkylakeX", Avx512),
            ("Cooperlake", Avx512),
            ("SapphireRapids", Avx512),
            ("Zen", Avx2),
            ("Haswell", Avx2),
            ("Excavator", Avx2),
            ("Piledriver", Avx),
            ("Nehalem", Baseline),
            // A kernel that came after this program, and those of other architectures.
            ("GraniteRapids", Avx512),
            ("NEOVERSEN1", Baseline),
        ] {
            assert_eq!(candidates(own, cpu)[0], own, "{own} on {cpu}");
        }
    }

    #[test]
    fn what_needs_less_than_the_cpu_has_is_replaced_by_the_best() {
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
        fn no_candidate_needs_what_the_cpu_lacks_and_none_comes_twice(
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
