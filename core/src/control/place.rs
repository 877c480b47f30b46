//! Placement: the shards that each worker computes.
//!
//! Each worker gets a run of neighbouring shards, so that its sums join into few nodes of the reduction tree. The
//! length of a run is proportional to the worker's weight (slots times measured speed). A cut between two runs
//! then moves to a place that needs fewer nodes, if the cost below says that this does not lengthen the step.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::ids::WorkerId;
use crate::learn::tree::Tree;

/// The run of shards that each worker computes. Workers that are not in it are on standby.
pub type Placement = BTreeMap<WorkerId, Range<u32>>;

/// The cost of sending a node, in units of one computed piece.
const NODE_COST: f64 = 0.2;
/// A worker is left out only if that shortens the step to at most this fraction.
const WORTH_IT: f64 = 0.9;

/// Places `shards` on `workers`. `workers` are in order, each with its weight, which is positive.
///
/// If there are more workers than shards, the heaviest get one shard each; of equal workers, the earlier. A
/// worker so slow that a single shard would delay every other worker gets none.
pub fn place(shards: u32, workers: &[(WorkerId, f64)]) -> Placement {
    let mut workers = heaviest(workers, shards as usize);
    let mut placement = place_on(shards, &workers);
    while workers.len() > 1 {
        let fewer = heaviest(&workers, workers.len() - 1);
        let placed = place_on(shards, &fewer);
        if longest(&placed, &fewer) > WORTH_IT * longest(&placement, &workers) {
            break;
        }
        (workers, placement) = (fewer, placed);
    }
    placement
}

/// The time of the slowest worker.
fn longest(placement: &Placement, workers: &[(WorkerId, f64)]) -> f64 {
    let time = |&(worker, weight): &(WorkerId, f64)| {
        placement.get(&worker).map_or(0.0, |run| run.len() as f64 / weight)
    };
    workers.iter().map(time).fold(0.0, f64::max)
}

fn place_on(shards: u32, workers: &[(WorkerId, f64)]) -> Placement {
    let weights: Vec<f64> = workers.iter().map(|&(_, weight)| weight).collect();
    if weights.is_empty() {
        return Placement::new();
    }
    let tree = Tree::new(shards);
    let mut cuts = proportional(shards, &weights);
    align(&tree, &weights, &mut cuts);
    workers.iter().zip(cuts.windows(2)).map(|(&(worker, _), cut)| (worker, cut[0]..cut[1])).collect()
}

fn heaviest(workers: &[(WorkerId, f64)], count: usize) -> Vec<(WorkerId, f64)> {
    let mut by_weight: Vec<usize> = (0..workers.len()).collect();
    by_weight.sort_by(|&a, &b| workers[b].1.total_cmp(&workers[a].1));
    let chosen: BTreeSet<usize> = by_weight.into_iter().take(count).collect();
    chosen.into_iter().map(|index| workers[index]).collect()
}

/// The cuts 0 = c₀ < c₁ < … = `shards` nearest to the weights' shares. Each run has at least one shard.
fn proportional(shards: u32, weights: &[f64]) -> Vec<u32> {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let mut cuts = vec![0];
    for (index, weight) in weights.iter().enumerate() {
        sum += weight;
        let ideal = (f64::from(shards) * sum / total).round() as u32;
        let runs_after = (weights.len() - 1 - index) as u32;
        cuts.push(ideal.clamp(cuts[index] + 1, shards - runs_after));
    }
    cuts
}

/// Moves each inner cut by up to two places where that reduces the cost of the slower of its two neighbours, or
/// else their total cost.
fn align(tree: &Tree, weights: &[f64], cuts: &mut [u32]) {
    for index in 1..weights.len() {
        let around = |cut: u32| {
            let runs = [cuts[index - 1]..cut, cut..cuts[index + 1]];
            let costs = [0, 1].map(|side| cost(tree, runs[side].clone(), weights[index - 1 + side]));
            (costs[0].max(costs[1]), costs[0] + costs[1])
        };
        let candidates = cuts[index].saturating_sub(2)..=cuts[index] + 2;
        let candidates = candidates.filter(|&cut| cuts[index - 1] < cut && cut < cuts[index + 1]);
        let best = candidates
            .map(|cut| (cut, around(cut)))
            .min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        if let Some((cut, _)) = best {
            cuts[index] = cut;
        }
    }
}

fn cost(tree: &Tree, run: Range<u32>, weight: f64) -> f64 {
    let pieces = f64::from(run.end - run.start);
    (pieces + NODE_COST * f64::from(tree.nodes_of(&run))) / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(shards: u32, weights: &[f64]) -> Vec<(u64, Range<u32>)> {
        let workers: Vec<_> = weights.iter().zip(1..).map(|(&weight, id)| (WorkerId(id), weight)).collect();
        place(shards, &workers).into_iter().map(|(worker, run)| (worker.0, run)).collect()
    }

    #[test]
    fn equal_workers_get_equal_runs() {
        assert_eq!(runs(8, &[1.0]), [(1, 0..8)]);
        assert_eq!(runs(8, &[1.0; 2]), [(1, 0..4), (2, 4..8)]);
        assert_eq!(runs(8, &[1.0; 4]), [(1, 0..2), (2, 2..4), (3, 4..6), (4, 6..8)]);
        assert_eq!(runs(8, &[1.0; 8]).len(), 8);
    }

    #[test]
    fn runs_are_aligned_if_that_keeps_the_balance() {
        // 2, 3, 3 costs the slowest worker as much as 3, 3, 2 and has fewer nodes than 3, 2, 3.
        let placed = runs(8, &[1.0; 3]);
        assert_eq!(placed.iter().map(|(_, run)| run.len()).max(), Some(3), "{placed:?}");
        assert_eq!(runs(7, &[1.0; 2]), [(1, 0..4), (2, 4..7)]);
    }

    #[test]
    fn faster_workers_get_longer_runs() {
        assert_eq!(runs(8, &[3.0, 1.0]), [(1, 0..6), (2, 6..8)]);
    }

    #[test]
    fn a_worker_that_would_slow_down_the_step_gets_no_shards() {
        assert_eq!(runs(8, &[1.0, 0.1]), [(1, 0..8)]);
        assert_eq!(runs(8, &[1.0, 1.0, 0.1]), [(1, 0..4), (2, 4..8)]);
        assert_eq!(runs(8, &[1.0, 0.5]).len(), 2);
    }

    #[test]
    fn workers_beyond_the_number_of_shards_get_none() {
        assert_eq!(runs(2, &[1.0, 1.0, 1.0]), [(1, 0..1), (2, 1..2)]);
        assert_eq!(runs(2, &[1.0, 1.0, 2.0]), [(1, 0..1), (3, 1..2)]);
        assert_eq!(runs(2, &[]), []);
    }

    proptest::proptest! {
        #[test]
        fn every_shard_is_placed_once(shards in 1u32..200, weights in proptest::collection::vec(0.1f64..8.0, 1..40)) {
            let mut next = 0;
            for (_, run) in runs(shards, &weights) {
                assert_eq!(run.start, next);
                assert!(run.end > run.start);
                next = run.end;
            }
            assert_eq!(next, shards);
        }
    }
}
