//! Result validation: compares the results of several sources for the same node.
//!
//! Equal work gives equal bits, so results can be compared by digest. A node is validated when a result for it is
//! not finite (either training diverged or the worker is faulty) and when an audit picks it. A result under
//! validation is set aside until a second source has computed the same node. Two results that agree are correct.
//! If they differ, the node is assigned to a third worker, and in the end to the coordinator, whose own result
//! decides. Every source that differs from the verdict is faulty. If the coordinator can't compute the job, the
//! node is assigned again to a worker that is the only source; if two results differ and there is no third
//! source, neither is trusted.
//!
//! The threat model is a faulty worker, not a malicious one: two workers that return the same wrong result are
//! believed.

use std::collections::BTreeSet;

use super::ids::{ResultId, WorkerId};

/// SHA-256 of a result's bits.
pub type Digest = [u8; 32];

/// The process that computed a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A worker.
    Worker(WorkerId),
    /// The coordinator itself.
    Coordinator,
}

/// A result and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcedResult {
    pub(super) source: Source,
    pub(super) result: ResultId,
}

/// The result of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opinion {
    of: SourcedResult,
    finite: bool,
    digest: Digest,
}

/// The validation of a node: the results received so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Validation {
    opinions: Vec<Opinion>,
    /// The workers with which the node is pending.
    pub(super) asked: Vec<WorkerId>,
    /// Whether the coordinator is computing this node.
    pub(super) arbitrating: bool,
    /// Whether the coordinator can't compute this job. Then a node may be assigned to the same source twice.
    pub(super) no_arbiter: bool,
}

/// The outcome of a validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The correct result; `None` if it can't be determined.
    pub(super) right: Option<SourcedResult>,
    /// Whether the correct result is finite.
    pub(super) finite: bool,
    /// Workers whose results were wrong.
    pub(super) faulty: Vec<WorkerId>,
}

impl Validation {
    /// The validation of a node that is pending with these workers.
    pub(super) fn asked_of(asked: Vec<WorkerId>) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Adds a result.
    pub(super) fn add_result(&mut self, of: SourcedResult, finite: bool, digest: Digest) {
        if of.source == Source::Coordinator {
            self.arbitrating = false;
        }
        self.opinions.push(Opinion { of, finite, digest });
    }

    /// Whether this worker has sent a result.
    pub(super) fn has_heard(&self, worker: WorkerId) -> bool {
        self.opinions.iter().any(|opinion| opinion.of.source == Source::Worker(worker))
    }

    /// Whether there is a result yet.
    pub(super) fn is_open(&self) -> bool {
        !self.opinions.is_empty()
    }

    /// Whether all results are from one source. The node may be assigned to it again: a source that contradicts
    /// itself is faulty.
    pub(super) fn has_single_source(&self) -> bool {
        self.opinions.iter().all(|opinion| opinion.of.source == self.opinions[0].of.source)
    }

    /// How many more results are needed, not counting pending ones.
    pub(super) fn needs(&self) -> usize {
        if self.opinions.len() < 2 { 2 - self.opinions.len() } else { 1 }
    }

    /// The verdict; `None` while there is none. A single result gives no verdict, because an audit compares two.
    /// A source that contradicts itself is faulty.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self.decisive().filter(|_| self.opinions.len() > 1) {
            Some(right) => self.by(right),
            None if self.opinions.len() > 1 && self.has_single_source() => Some(self.final_verdict()),
            None => None,
        }
    }

    /// The verdict when no source is left. If results differ and the coordinator has none, all their sources are
    /// faulty. A single result proves nothing, not even against its source.
    pub(super) fn final_verdict(&self) -> Verdict {
        let settled = self.decisive().and_then(|right| self.by(right));
        let differ = self.opinions.iter().any(|opinion| opinion.digest != self.opinions[0].digest);
        let faulty = distinct(self.opinions.iter().filter(|_| differ));
        settled.unwrap_or(Verdict { right: None, finite: false, faulty })
    }

    fn by(&self, right: &Opinion) -> Option<Verdict> {
        let faulty = distinct(self.opinions.iter().filter(|opinion| opinion.digest != right.digest));
        Some(Verdict { right: Some(right.of), finite: right.finite, faulty })
    }

    /// The coordinator's opinion; else an opinion that two sources share; else an opinion that the only source
    /// repeated.
    fn decisive(&self) -> Option<&Opinion> {
        let own = self.opinions.iter().find(|opinion| opinion.of.source == Source::Coordinator);
        let lone = self.has_single_source();
        let shares = |one: &Opinion, other: &Opinion| {
            other.digest == one.digest && (lone || other.of.source != one.of.source)
        };
        own.or_else(|| {
            self.opinions
                .iter()
                .enumerate()
                .find_map(|(index, one)| self.opinions[..index].iter().find(|other| shares(one, other)))
        })
    }
}

impl Opinion {
    fn worker(&self) -> Option<WorkerId> {
        match self.of.source {
            Source::Worker(worker) => Some(worker),
            Source::Coordinator => None,
        }
    }
}

fn distinct<'a>(opinions: impl Iterator<Item = &'a Opinion>) -> Vec<WorkerId> {
    opinions.filter_map(Opinion::worker).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether an audit picks this node. Audits pick a share of `rate` of all assigned nodes, evenly spread.
///
/// Uses the mixing function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). The choice depends only on the
/// arguments.
pub(super) fn is_audited(rate: f64, incarnation: u64, tag: u64, first_shard: u32) -> bool {
    let mut z = incarnation ^ tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(first_shard) << 48);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 <= rate && rate > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Source = Source::Worker(WorkerId(1));
    const TWO: Source = Source::Worker(WorkerId(2));
    const THREE: Source = Source::Worker(WorkerId(3));

    fn validation(opinions: &[(Source, u8)]) -> Validation {
        let mut validation = Validation::default();
        for (&(source, bits), result) in opinions.iter().zip(0..) {
            validation.add_result(SourcedResult { source, result: ResultId(result) }, true, [bits; 32]);
        }
        validation
    }

    fn faulty(opinions: &[(Source, u8)]) -> Option<Vec<u64>> {
        let verdict = validation(opinions).verdict()?;
        Some(verdict.faulty.iter().map(|worker| worker.0).collect())
    }

    #[test]
    fn two_equal_results_are_right() {
        assert_eq!(faulty(&[(ONE, 7)]), None);
        assert_eq!(faulty(&[(ONE, 7), (TWO, 7)]), Some(vec![]));
    }

    #[test]
    fn a_third_result_decides_between_two_different_ones() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8)]), None);
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (THREE, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (THREE, 7)]), Some(vec![2]));
    }

    #[test]
    fn the_coordinators_own_result_decides() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (Source::Coordinator, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(ONE, 7), (Source::Coordinator, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(Source::Coordinator, 7)]), None, "an audit compares");
    }

    #[test]
    fn a_final_verdict_accepts_only_the_coordinators_result() {
        let word = validation(&[(Source::Coordinator, 7)]).final_verdict();
        assert_eq!((word.right.map(|right| right.source), word.faulty), (Some(Source::Coordinator), vec![]));
        let word = validation(&[(ONE, 7), (TWO, 8)]).final_verdict();
        assert_eq!((word.right, word.faulty), (None, vec![WorkerId(1), WorkerId(2)]));
        let word = validation(&[(ONE, 7)]).final_verdict();
        assert_eq!((word.right, word.faulty), (None, vec![]), "it has gone before another could answer");
    }

    #[test]
    fn a_single_worker_is_right_if_it_returns_the_same_result_twice_and_faulty_otherwise() {
        assert_eq!(faulty(&[(ONE, 7), (ONE, 7)]), Some(vec![]));
        assert_eq!(faulty(&[(ONE, 7), (ONE, 8)]), Some(vec![1]));
    }

    #[test]
    fn a_repeated_result_does_not_decide_against_another_worker() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (ONE, 7)]), None);
    }

    #[test]
    fn audits_select_the_configured_share() {
        let picked = |rate| (0..10_000).filter(|&tag| is_audited(rate, 99, tag, 0)).count();
        assert_eq!(picked(0.0), 0);
        assert_eq!(picked(1.0), 10_000);
        assert!((900..1100).contains(&picked(0.1)), "{}", picked(0.1));
    }
}
