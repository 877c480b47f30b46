//! The batch plan: each sample once per epoch, for any sizes.

use std::collections::BTreeSet;

use millefeuille_core::data::plan::{self, Plan};
use proptest::prelude::*;

/// The split's indices of step `t`, put back into the order of their positions.
fn step(plan: &Plan, orders: &[Vec<u32>], t: u32) -> Vec<u64> {
    let mut found = Vec::new();
    for (s, order) in (0..).zip(orders) {
        for (k, index) in plan.piece(t, s).zip(plan.indices(order, t, s)) {
            found.push((u64::from(k) * orders.len() as u64 + u64::from(s), index));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, index)| index).collect()
}

fn orders(plan: &Plan, shards: u32, shuffle: bool) -> Vec<Vec<u32>> {
    (0..shards).map(|s| plan.order(7, 3, s, shuffle)).collect()
}

#[test]
fn the_article_has_96_steps_of_500() {
    let plan = Plan::new(48_000, 500, 8);
    assert_eq!((plan.steps(), plan.step_len(95), plan.step_len(96)), (96, 500, 0));
    // 500 = 8 · 62 + 4: the first four positions past 62 · 8 go to shards 0 to 3, and in step 1 to 4 to 7.
    assert_eq!((plan.piece(0, 0), plan.piece(0, 4)), (0..63, 0..62));
    assert_eq!((plan.piece(1, 0), plan.piece(1, 4)), (63..125, 62..125));
    assert_eq!(plan.locate(17), (1, 2));
}

#[test]
fn a_small_step_leaves_shards_out() {
    let plan = Plan::new(13, 5, 8);
    let present: Vec<Vec<u32>> = (0..4).map(|t| plan.present(t).into_iter().collect()).collect();
    assert_eq!(present, [vec![0, 1, 2, 3, 4], vec![0, 1, 5, 6, 7], vec![2, 3, 4], vec![]]);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let plan = Plan::new(u32::MAX, u32::MAX, u32::MAX);
    assert_eq!((plan.steps(), plan.step_len(0), plan.step_len(u32::MAX)), (1, u32::MAX, 0));
    assert_eq!(plan.piece(0, u32::MAX - 1), 0..1);
    assert!(plan.piece(u32::MAX, 0).is_empty());
    assert_eq!(Plan::new(0, 1, 3).steps(), 0);
}

#[test]
fn each_shard_and_epoch_has_its_own_order() {
    let plan = Plan::new(4_000, 500, 8);
    let orders: BTreeSet<Vec<u32>> =
        (0..3).flat_map(|epoch| (0..8).map(move |s| plan.order(1, epoch, s, true))).collect();
    assert_eq!(orders.len(), 24);
    assert_eq!(plan.order(1, 0, 0, false), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_digest_is_over_little_endian_indices() {
    // printf '\x01\0\0\0\0\0\0\0\x00\x01\0\0\0\0\0\0' | sha256sum
    let digest: String = plan::digest([1, 256]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "89063da2926620b0bcd927a7ef76480cb4772b71306d614f79e016c826e8a0e8");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_sample_is_used_exactly_once(n in 1_u32..5000, b in 1_u32..700, shards in 1_u32..40) {
        let plan = Plan::new(n, b, shards);
        let orders = orders(&plan, shards, true);
        let mut used: Vec<u64> = (0..plan.steps()).flat_map(|t| step(&plan, &orders, t)).collect();
        used.sort_unstable();
        prop_assert_eq!(used, (0..u64::from(n)).collect::<Vec<_>>());
    }

    #[test]
    fn each_step_takes_evenly_from_the_shards(n in 1_u32..5000, b in 1_u32..700, shards in 1_u32..40) {
        let plan = Plan::new(n, b, shards);
        for t in 0..plan.steps() {
            let lens: Vec<u32> = (0..shards).map(|s| plan.piece(t, s).len() as u32).collect();
            prop_assert_eq!(plan.step_len(t), b.min(n - t * b));
            prop_assert_eq!(lens.iter().sum::<u32>(), plan.step_len(t));
            let (least, most) = (plan.step_len(t) / shards, plan.step_len(t).div_ceil(shards));
            prop_assert!(lens.iter().all(|&len| len == least || len == most));
            let present: BTreeSet<u32> = (0..shards).filter(|&s| lens[s as usize] > 0).collect();
            prop_assert_eq!(plan.present(t), present);
        }
        let all: u32 = (0..shards).map(|s| plan.shard_len(s)).sum();
        prop_assert_eq!(all, n);
    }

    #[test]
    fn without_a_shuffle_positions_are_file_order(n in 1_u32..5000, b in 1_u32..700, shards in 1_u32..40) {
        let plan = Plan::new(n, b, shards);
        let orders = orders(&plan, shards, false);
        let used: Vec<u64> = (0..plan.steps()).flat_map(|t| step(&plan, &orders, t)).collect();
        prop_assert_eq!(used, (0..u64::from(n)).collect::<Vec<_>>());
    }

    #[test]
    fn positions_and_pieces_agree(n in 1_u32..5000, b in 1_u32..700, shards in 1_u32..40) {
        let plan = Plan::new(n, b, shards);
        for position in 0..n {
            let (s, k) = plan.locate(position);
            prop_assert!(plan.piece(position / b, s).contains(&k));
        }
    }
}
