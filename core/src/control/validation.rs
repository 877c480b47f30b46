//! Whether an answer can be believed: comparing several for the same node.
//!
//! Equal work has equal bits, so answers can be compared by digest. A node is tried when an answer to it is not
//! finite (has training diverged, or is the worker broken?) and when an audit picks it. An answer under validation is
//! put aside until a second source has computed the same node. Two that agree are right. Where they differ, a third is
//! asked, and in the end the coordinator, whose own answer settles it. Whoever differs from the verdict is faulty.
//! Where the coordinator can't compute the job, a worker alone with its answer is asked again; of two that differ, with
//! no third to ask, neither is trusted.
//!
//! The threat is a faulty worker, not a malicious one: two that lie alike are believed.

use std::collections::BTreeSet;

use super::ids::{ResultId, WorkerId};

/// SHA-256 of a result's bits.
pub type Digest = [u8; 32];

/// Who computed a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A worker.
    Worker(WorkerId),
    /// The coordinator itself.
    Coordinator,
}

/// A result, and who computed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcedResult {
    pub(super) source: Source,
    pub(super) result: ResultId,
}

/// What one source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opinion {
    of: SourcedResult,
    finite: bool,
    digest: Digest,
}

/// The validation of a node: what its sources say.
#[derive(Clone, Debug, Default)]
pub(super) struct Validation {
    opinions: Vec<Opinion>,
    /// Whether the coordinator computes it.
    pub(super) arbitrating: bool,
    /// The coordinator can't compute this job: then a node may be assigned to the same source twice.
    pub(super) no_arbiter: bool,
}

/// What a validation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Which answer is right; none if nobody's can be known to be.
    pub(super) right: Option<SourcedResult>,
    /// Whether the right answer is finite.
    pub(super) finite: bool,
    /// Whose answers were wrong.
    pub(super) faulty: Vec<WorkerId>,
}

impl Validation {
    /// Takes an opinion in.
    pub(super) fn hear(&mut self, of: SourcedResult, finite: bool, digest: Digest) {
        if of.source == Source::Coordinator {
            self.arbitrating = false;
        }
        self.opinions.push(Opinion { of, finite, digest });
    }

    /// Whether this worker has answered.
    pub(super) fn has_heard(&self, worker: WorkerId) -> bool {
        self.opinions.iter().any(|opinion| opinion.of.source == Source::Worker(worker))
    }

    /// Whether there is an answer yet.
    pub(super) fn is_open(&self) -> bool {
        !self.opinions.is_empty()
    }

    /// Whether all that was said was said by one source. The node may be assigned to it again: a source that
    /// contradicts itself is faulty.
    pub(super) fn is_of_one(&self) -> bool {
        self.opinions.iter().all(|opinion| opinion.of.source == self.opinions[0].of.source)
    }

    /// How many more answers are needed, were there no other on its way.
    pub(super) fn needs(&self) -> usize {
        if self.opinions.len() < 2 { 2 - self.opinions.len() } else { 1 }
    }

    /// The verdict, once there is one. A single result gives none, because an audit compares two. A source that contradicts
    /// itself is faulty.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self.decisive().filter(|_| self.opinions.len() > 1) {
            Some(right) => self.by(right),
            None if self.opinions.len() > 1 && self.is_of_one() => Some(self.last_word()),
            None => None,
        }
    }

    /// What it comes to when nobody is left to ask: without the coordinator's answer, all that differ are distrusted.
    /// One answer alone proves nothing, also against its source.
    pub(super) fn last_word(&self) -> Verdict {
        let settled = self.decisive().and_then(|right| self.by(right));
        let differ = self.opinions.iter().any(|opinion| opinion.digest != self.opinions[0].digest);
        let faulty = distinct(self.opinions.iter().filter(|_| differ));
        settled.unwrap_or(Verdict { right: None, finite: false, faulty })
    }

    fn by(&self, right: &Opinion) -> Option<Verdict> {
        let faulty = distinct(self.opinions.iter().filter(|opinion| opinion.digest != right.digest));
        Some(Verdict { right: Some(right.of), finite: right.finite, faulty })
    }

    /// The coordinator's opinion, or one that another source shares; or what the only source has said twice.
    fn decisive(&self) -> Option<&Opinion> {
        let own = self.opinions.iter().find(|opinion| opinion.of.source == Source::Coordinator);
        let lone = self.is_of_one();
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

/// Whether an audit picks this one of all nodes ever assigned: a share of `rate`, evenly spread.
///
/// The bits are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a function of the node's place alone.
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
            validation.hear(SourcedResult { source, result: ResultId(result) }, true, [bits; 32]);
        }
        validation
    }

    fn faulty(opinions: &[(Source, u8)]) -> Option<Vec<u64>> {
        let verdict = validation(opinions).verdict()?;
        Some(verdict.faulty.iter().map(|worker| worker.0).collect())
    }

    #[test]
    fn two_that_agree_are_right() {
        assert_eq!(faulty(&[(ONE, 7)]), None);
        assert_eq!(faulty(&[(ONE, 7), (TWO, 7)]), Some(vec![]));
    }

    #[test]
    fn a_third_settles_who_is_wrong() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8)]), None);
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (THREE, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (THREE, 7)]), Some(vec![2]));
    }

    #[test]
    fn the_coordinators_own_answer_settles_it_against_any_number() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (Source::Coordinator, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(ONE, 7), (Source::Coordinator, 8)]), Some(vec![1]));
        assert_eq!(faulty(&[(Source::Coordinator, 7)]), None, "an audit compares");
    }

    #[test]
    fn with_nobody_left_to_ask_only_the_coordinator_is_believed() {
        let word = validation(&[(Source::Coordinator, 7)]).last_word();
        assert_eq!((word.right.map(|right| right.source), word.faulty), (Some(Source::Coordinator), vec![]));
        let word = validation(&[(ONE, 7), (TWO, 8)]).last_word();
        assert_eq!((word.right, word.faulty), (None, vec![WorkerId(1), WorkerId(2)]));
        let word = validation(&[(ONE, 7)]).last_word();
        assert_eq!((word.right, word.faulty), (None, vec![]), "it has gone before another could answer");
    }

    #[test]
    fn the_only_author_is_believed_when_it_repeats_itself_and_faulty_when_it_does_not() {
        assert_eq!(faulty(&[(ONE, 7), (ONE, 7)]), Some(vec![]));
        assert_eq!(faulty(&[(ONE, 7), (ONE, 8)]), Some(vec![1]));
    }

    #[test]
    fn against_another_an_author_cannot_be_its_own_witness() {
        assert_eq!(faulty(&[(ONE, 7), (TWO, 8), (ONE, 7)]), None);
    }

    #[test]
    fn audits_pick_their_share() {
        let picked = |rate| (0..10_000).filter(|&tag| is_audited(rate, 99, tag, 0)).count();
        assert_eq!(picked(0.0), 0);
        assert_eq!(picked(1.0), 10_000);
        assert!((900..1100).contains(&picked(0.1)), "{}", picked(0.1));
    }
}
