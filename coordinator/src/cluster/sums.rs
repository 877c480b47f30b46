//! The sums that workers send, and the checks on their bits that the control machine needs.

use millefeuille_core::control::Digest;
use millefeuille_core::learn::elementwise;
use millefeuille_core::learn::sum::{self, Figures};
use millefeuille_proto::buffer::Buffer;
use sha2::{Digest as _, Sha256};

/// The sum over the pieces of a node.
pub(super) type Sum = sum::Sum<Buffer>;

/// Whether every number in the sum is finite.
pub(super) fn is_finite(sum: &Sum) -> bool {
    let figures = &sum.figures;
    let are_finite = figures.loss_sum.is_finite() && figures.sums.iter().all(|sum| sum.is_finite());
    are_finite && sum.terms().iter().all(|term| elementwise::all_finite(term))
}

/// SHA-256 of the sum's bits, sample count included. The sum must be settled: it has at most one term.
pub(super) fn digest(sum: &Sum) -> Digest {
    debug_assert!(sum.terms().len() < 2, "a sum is settled before it is compared");
    let mut hash = Sha256::new();
    sum.terms().iter().for_each(|term| hash.update(bytemuck::cast_slice::<f32, u8>(term)));
    let Figures { loss_sum, correct, samples, counts, sums } = &sum.figures;
    hash.update(loss_sum.to_bits().to_le_bytes());
    hash.update(correct.to_le_bytes());
    hash.update(samples.to_le_bytes());
    counts.iter().for_each(|count| hash.update(count.to_le_bytes()));
    sums.iter().for_each(|sum| hash.update(sum.to_bits().to_le_bytes()));
    sum.sample_digests.iter().for_each(|digest| hash.update(digest));
    hash.finalize().into()
}
