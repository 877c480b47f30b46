//! Areas under the curves of two classes, from counts of samples by their score.
//!
//! The curves need the samples in the order of their scores, which no piece knows. So the scores are counted by *bin*, and
//! counts add up exactly over pieces. A score is the probability of class 1. Its bins are as fine near 1 as near 0,
//! where a good model has most of its scores: with `m` the smaller of the probabilities of the two classes, at least 2⁻³²,
//! the bin is `m`'s exponent and the first 9 bits of its mantissa, below one half or mirrored above it. So there are 512
//! bins for each power of two, and scores that share a bin differ in their `m` by less than one part in 512; equal scores
//! always share one.
//!
//! Within a bin the order is not known. The exact area therefore lies between the areas of the two orders that have the
//! positive samples of every bin first, and last. For the ROC curve, where a pair in one bin counts one half, the error is
//! thus at most `Σ p n / (2 P N)`, with `p` and `n` the positive and the negative samples of a bin, `P` and `N` all of
//! them. It is zero if no bin has both.
//!
//! Training steps count in *coarse* bins, 32 for each power of two, so that a step's counts are few.

/// Bins for each power of two.
const PER_POWER: u32 = 512;
/// The smallest probability that has a bin of its own is 2 to the power of minus this.
const POWERS: u32 = 32;
/// The bin of one half.
const MIDDLE: u32 = (POWERS - 1) * PER_POWER;
/// How many bins there are.
pub(crate) const BINS: usize = 2 * MIDDLE as usize + 1;

/// Bins that are one coarse bin.
const IN_COARSE: u32 = 16;
/// The coarse bin of one half.
const COARSE_MIDDLE: u32 = MIDDLE / IN_COARSE;
/// How many coarse bins there are.
pub(crate) const COARSE_BINS: usize = 2 * COARSE_MIDDLE as usize + 1;

/// The bits of a mantissa that a bin does not have.
const DROPPED: u32 = f32::MANTISSA_DIGITS - 1 - PER_POWER.ilog2();

/// The bin of a row of outputs: the probabilities of both classes, or that of class 1. Larger scores have larger bins.
pub(crate) fn bin(row: &[f32]) -> usize {
    let (zero, one) = match *row {
        [one] => (1.0 - one, one),
        [zero, one] => (zero, one),
        _ => unreachable!("two classes have one output or two"),
    };
    let lowest = (-(POWERS as f32)).exp2();
    let smaller = zero.min(one);
    // What is no number has some bin too: its loss ends the training.
    let smaller = if smaller > lowest { smaller.min(0.5) } else { lowest };
    let place = (smaller.to_bits() - lowest.to_bits()) >> DROPPED;
    if one <= zero { place as usize } else { (2 * MIDDLE - place) as usize }
}

/// The coarse bin of a row of outputs: as many bins are one on either side of one half.
pub(crate) fn coarse_bin(row: &[f32]) -> usize {
    let bin = bin(row);
    let from_the_end = |bin: usize| bin / IN_COARSE as usize;
    if bin <= MIDDLE as usize { from_the_end(bin) } else { COARSE_BINS - 1 - from_the_end(BINS - 1 - bin) }
}

/// The area under the ROC curve: the share of the pairs of a positive and a negative sample in which the positive one has
/// the larger score; a pair in one bin counts one half. `None` if there are no pairs.
pub(crate) fn of_roc(counts: &[u64]) -> Option<f64> {
    let (negative, positive) = counts.split_at(counts.len() / 2);
    // Twice the pairs, so that halves are whole.
    let (mut below, mut twice) = (0u128, 0u128);
    for (&negative, &positive) in negative.iter().zip(positive) {
        let (negative, positive) = (u128::from(negative), u128::from(positive));
        twice += positive * (2 * below + negative);
        below += negative;
    }
    let positives: u128 = positive.iter().map(|&count| u128::from(count)).sum();
    let pairs = below * positives;
    (pairs > 0).then(|| twice as f64 / (2 * pairs) as f64)
}

/// The area under the precision-recall curve, in steps: `Σ (R_i - R_(i-1)) P_i` over the bins from the largest score down,
/// with the recall `R` and the precision `P` of predicting class 1 from that bin on. scikit-learn calls it
/// `average_precision_score`. `None` without positive samples.
pub(crate) fn of_precision_and_recall(counts: &[u64]) -> Option<f64> {
    let (negative, positive) = counts.split_at(counts.len() / 2);
    let positives: u64 = positive.iter().sum();
    let (mut correct, mut predicted, mut area) = (0, 0, 0.0);
    for (&negative, &positive) in negative.iter().zip(positive).rev() {
        correct += positive;
        predicted += positive + negative;
        if positive > 0 {
            area += positive as f64 / positives as f64 * (correct as f64 / predicted as f64);
        }
    }
    (positives > 0).then_some(area)
}

/// The area under the ROC curve of these scores, the probabilities of class 1, as the metric `auc` computes it. `None` if
/// there is one class only.
pub fn binned_roc_area(scores: &[f32], is_positive: &[bool]) -> Option<f64> {
    let mut counts = vec![0; 2 * BINS];
    for (score, &positive) in scores.iter().zip(is_positive) {
        counts[usize::from(positive) * BINS + bin(std::slice::from_ref(score))] += 1;
    }
    of_roc(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::DropoutWords;

    /// Counts of pairs (class, score).
    fn counts(samples: &[(usize, f32)]) -> Vec<u64> {
        let mut counts = vec![0; 2 * BINS];
        samples.iter().for_each(|&(class, score)| counts[class * BINS + bin(&[score])] += 1);
        counts
    }

    #[test]
    fn bins_are_in_the_order_of_the_scores() {
        let scores =
            [0.0, 1e-12, 1e-9, 0.01, 0.0101, 0.25, 0.4999, 0.5, 0.5001, 0.75, 0.99, 0.999, 0.999_999_9, 1.0];
        let bins = scores.map(|score| bin(&[score]));
        assert!(bins.is_sorted() && bins[0] == bins[1], "{bins:?}");
        assert!(bins[1..13].windows(2).all(|pair| pair[0] < pair[1]), "{bins:?}");
        assert_eq!((bins[0], bins[7], bins[13]), (0, MIDDLE as usize, BINS - 1));
        // Two outputs are as good as one, and finer where the probability of class 1 is near 1.
        assert_eq!(bin(&[0.75, 0.25]), bin(&[0.25]));
        assert!(bin(&[1e-9, 1.0]) < bin(&[1e-10, 1.0]));
        // Coarse bins are fewer, in the same order, and alike on both sides.
        let coarse: Vec<_> = scores.iter().map(|&score| coarse_bin(&[score])).collect();
        assert!(coarse.windows(2).all(|pair| pair[0] <= pair[1]), "{coarse:?}");
        assert_eq!((coarse[0], coarse[7], coarse[13]), (0, COARSE_MIDDLE as usize, COARSE_BINS - 1));
        assert_eq!(coarse_bin(&[0.25]) + coarse_bin(&[0.75]), COARSE_BINS - 1);
        // What is not finite has some bin.
        assert!([f32::NAN, f32::INFINITY, -1.0].iter().all(|&score| bin(&[score]) < BINS));
    }

    #[test]
    fn areas_are_those_of_scikit_learn() {
        // The example of scikit-learn's `roc_auc_score` and `average_precision_score`: y = 0, 0, 1, 1 with the scores 0.1,
        // 0.4, 0.35, 0.8. Of the four pairs, (0.35, 0.4) alone is in the wrong order: 3/4. From the top: precision 1 at
        // recall 1/2, then 2/3 at recall 1: 1/2 + 1/3 = 0.8333…, as its documentation says.
        let example = counts(&[(0, 0.1), (0, 0.4), (1, 0.35), (1, 0.8)]);
        assert_eq!(of_roc(&example), Some(0.75));
        assert_eq!(of_precision_and_recall(&example), Some(0.5 + 0.5 * (2.0 / 3.0)));
        // Equal scores count one half, and are one step.
        let ties = counts(&[(0, 0.5), (1, 0.5), (1, 0.5), (0, 0.2)]);
        assert_eq!(of_roc(&ties), Some((2.0 * 0.5 + 2.0) / 4.0));
        assert_eq!(of_precision_and_recall(&ties), Some(2.0 / 3.0));
    }

    #[test]
    fn one_class_alone_has_no_area() {
        assert_eq!(of_roc(&counts(&[(1, 0.5)])), None);
        assert_eq!(of_roc(&counts(&[(0, 0.5)])), None);
        assert_eq!(of_precision_and_recall(&counts(&[(0, 0.5)])), None);
        assert_eq!(of_precision_and_recall(&counts(&[(1, 0.5)])), Some(1.0));
    }

    #[test]
    fn the_area_is_within_its_bound_of_the_exact_one() {
        let mut words = vec![0; 4000];
        DropoutWords::new(7, 0, 0).fill(0, &mut words);
        let unit = |word: u32| (word >> 8) as f32 / (1 << 24) as f32;
        // Positive samples tend to larger scores.
        let samples: Vec<(usize, f32)> = words
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&[class, score]| {
                let class = (class >> 31) as usize;
                (class, if class == 1 { unit(score).sqrt() } else { unit(score) })
            })
            .collect();
        let of_class =
            |wanted| samples.iter().filter(move |(class, _)| *class == wanted).map(|(_, score)| *score);
        let (mut wins, mut pairs) = (0.0, 0.0);
        for positive in of_class(1) {
            for negative in of_class(0) {
                wins += f64::from(u8::from(positive > negative))
                    + 0.5 * f64::from(u8::from(positive == negative));
                pairs += 1.0;
            }
        }
        let counts = counts(&samples);
        let (negative, positive) = counts.split_at(BINS);
        let in_one_bin: u64 = negative.iter().zip(positive).map(|(n, p)| n * p).sum();
        let (area, bound) = (of_roc(&counts).unwrap(), in_one_bin as f64 / (2.0 * pairs));
        assert!(
            (area - wins / pairs).abs() <= bound + 1e-15,
            "{area}, not {}: more than {bound}",
            wins / pairs
        );
        assert!(bound < 1e-3 && (area - 2.0 / 3.0).abs() < 0.05, "{area} {bound}");
    }
}
