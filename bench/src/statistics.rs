//! Summaries of several measurements.

use serde::Serialize;

/// Median and extremes of some measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// # Panics
    /// If there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        let median = (sorted[low] + sorted[high]) / 2.0;
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

/// The distribution of repeated measurements: median, 99th percentile and extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ranks {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Ranks {
    /// Percentiles are computed by nearest rank: each is one of the values.
    ///
    /// # Panics
    /// If there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).max(1) - 1];
        Self { p50: at(0.5), p99: at(0.99), min: at(0.0), max: at(1.0) }
    }
}

/// The median of ratios, with a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct RatioSummary {
    pub(crate) median: f64,
    /// The bootstrap interval: 95 % of the medians of resampled ratios lie between these.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Number of resamples for [`RatioSummary`].
const RESAMPLES: usize = 10_000;

impl RatioSummary {
    /// # Panics
    /// If there are no ratios.
    pub(crate) fn of(ratios: impl IntoIterator<Item = f64>) -> Self {
        let ratios: Vec<f64> = ratios.into_iter().collect();
        let Summary { median, min, max } = Summary::of(ratios.iter().copied());
        // A fixed seed, so that the same ratios always give the same interval.
        let mut random = SplitMix(1);
        let resample = |_| Summary::of((0..ratios.len()).map(|_| ratios[random.below(ratios.len())])).median;
        let mut medians: Vec<f64> = (0..RESAMPLES).map(resample).collect();
        medians.sort_by(f64::total_cmp);
        let [low, high] = [RESAMPLES / 40, RESAMPLES - RESAMPLES / 40 - 1].map(|rank| medians[rank]);
        Self { median, low, high, min, max }
    }
}

/// A random number generator that is good enough for resampling: SplitMix64 by Steele, Lea and Flood.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(bits ^ bits >> 31) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_values() {
        let ranks = Ranks::of((1..=100).map(f64::from));
        assert_eq!(ranks, Ranks { p50: 50.0, p99: 99.0, min: 1.0, max: 100.0 });
        assert_eq!(Ranks::of([7.0]), Ranks { p50: 7.0, p99: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn resampling_encloses_the_median() {
        let summary = RatioSummary::of((0..20).map(|i| 1.0 + f64::from(i) / 100.0));
        assert!(summary.min < summary.low && summary.low < summary.median, "{summary:?}");
        assert!(summary.median < summary.high && summary.high < summary.max, "{summary:?}");
        let one = RatioSummary::of([1.5]);
        assert_eq!((one.low, one.median, one.high), (1.5, 1.5, 1.5));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 9.0]), Summary { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Summary::of([7.0]), Summary { median: 7.0, min: 7.0, max: 7.0 });
    }
}
