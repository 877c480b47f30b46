//! What several measurements say together.

use serde::Serialize;

/// Middle and ends of some measurements.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 9.0]), Summary { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Summary::of([7.0]), Summary { median: 7.0, min: 7.0, max: 7.0 });
    }
}
