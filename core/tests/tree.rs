//! The reduction tree: the same sum, whichever worker adds which part and in whatever order.

use std::collections::BTreeSet;

use millefeuille_core::learn::tree::{Inserted, Node, Reduction, Tree};
use proptest::prelude::*;
use proptest::sample::Index;

fn node(first: u32, end: u32) -> Node {
    Node { first, end }
}

fn set(shards: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    shards.into_iter().collect()
}

fn add(left: &mut f32, right: f32) {
    *left += right;
}

fn join(left: &mut String, right: String) {
    *left = format!("({left}+{right})");
}

/// Something for shard `shard` whose sums depend on the order of the additions.
fn term(shard: u32) -> f32 {
    let magnitude = 10_f32.powi((shard as i32 * 7) % 13 - 6);
    (shard as f32 + 1.0) * magnitude * if shard.is_multiple_of(3) { -1.0 } else { 1.0 }
}

/// The sum by the definition in the module's header.
fn reference<T>(
    tree: Tree,
    at: Node,
    present: &BTreeSet<u32>,
    leaf: &impl Fn(u32) -> T,
    add: &impl Fn(&mut T, T),
) -> Option<T> {
    let Some((left, right)) = tree.children(at) else {
        return present.contains(&at.first).then(|| leaf(at.first));
    };
    let left = reference(tree, left, present, leaf, add);
    let right = reference(tree, right, present, leaf, add);
    match (left, right) {
        (Some(mut left), Some(right)) => {
            add(&mut left, right);
            Some(left)
        }
        (left, right) => left.or(right),
    }
}

#[test]
fn the_tree_splits_as_merkle_trees_do() {
    let tree = Tree::new(7);
    assert_eq!(tree.root(), node(0, 7));
    assert_eq!(tree.children(node(0, 7)), Some((node(0, 4), node(4, 7))));
    assert_eq!(tree.children(node(4, 7)), Some((node(4, 6), node(6, 7))));
    assert_eq!(tree.children(node(6, 7)), None);
    assert_eq!(Tree::new(8).children(node(0, 8)), Some((node(0, 4), node(4, 8))));
    assert_eq!(Tree::new(1).children(node(0, 1)), None);
    assert_eq!(node(0, 4).to_string(), "[0,4)");
}

#[test]
fn only_nodes_are_nodes() {
    let tree = Tree::new(5);
    let mut nodes = Vec::new();
    for first in 0..8 {
        nodes.extend((0..8).filter(|&end| tree.is_node(first, end)).map(|end| (first, end)));
    }
    assert_eq!(nodes, [(0, 1), (0, 2), (0, 4), (0, 5), (1, 2), (2, 3), (2, 4), (3, 4), (4, 5)]);
    assert!(!tree.is_node(u32::MAX, u32::MAX) && !tree.is_node(3, 0) && !tree.is_node(0, u32::MAX));
    assert!(Tree::new(u32::MAX).is_node(u32::MAX - 1, u32::MAX));
}

#[test]
fn a_cover_has_the_fewest_nodes() {
    let tree = Tree::new(8);
    assert_eq!(tree.cover(&set(0..8)), [node(0, 8)]);
    assert_eq!(tree.cover(&set(1..7)), [node(1, 2), node(2, 4), node(4, 6), node(6, 7)]);
    assert_eq!(tree.cover(&set([0, 2, 9])), [node(0, 1), node(2, 3)]);
    assert_eq!(tree.cover(&set([])), []);
    // With shards 1 and 3 absent, 0 and 2 are all there is to [0,4).
    assert_eq!(tree.cover_present(&[0, 2], &[0, 2, 4]), [node(0, 4)]);
}

#[test]
fn the_last_pair_can_be_taken_before_its_addition() {
    let mut sum = Reduction::new(Tree::new(3), &set(0..3));
    for shard in [2, 0, 1] {
        assert!(!sum.is_closed());
        sum.insert(Node::leaf(shard), shard.to_string(), join);
    }
    assert!(sum.is_closed());
    assert_eq!(sum.take_last_pair(), Some(("(0+1)".to_owned(), Some("2".to_owned()))));
    assert_eq!(sum.take_last_pair(), None);
    assert!(sum.is_closed());
}

#[test]
fn a_closed_sum_stays_as_it_is_even_before_its_last_pair_is_added() {
    let mut sum = Reduction::new(Tree::new(2), &set(0..2));
    sum.insert(Node::leaf(0), "0".to_owned(), join);
    sum.insert(Node::leaf(1), "1".to_owned(), join);
    assert_eq!(sum.insert(node(0, 2), "late".to_owned(), join), Inserted::Superfluous("late".to_owned()));
    assert_eq!(sum.take_root(join), Some("(0+1)".to_owned()));
}

#[test]
fn additions_are_bracketed_as_the_tree_is() {
    for shards in 1..40 {
        let (tree, present) = (Tree::new(shards), set((0..shards).filter(|shard| shard % 5 != 2)));
        let mut sum = Reduction::new(tree, &present);
        for &shard in present.iter().rev() {
            sum.insert(Node::leaf(shard), shard.to_string(), join);
        }
        let expected = reference(
            tree,
            tree.root(),
            &present,
            &|shard| shard.to_string(),
            &|left: &mut String, right| {
                join(left, right);
            },
        );
        assert_eq!(sum.take_root(join), expected);
    }
}

#[test]
fn a_complete_sum_has_no_right_part() {
    let mut sum = Reduction::new(Tree::new(3), &set(0..3));
    sum.insert(node(0, 3), "all".to_owned(), join);
    assert_eq!(sum.take_last_pair(), Some(("all".to_owned(), None)));
}

#[test]
fn a_complete_node_replaces_its_descendants() {
    let mut sum = Reduction::new(Tree::new(8), &set(0..8));
    for shard in [0, 1, 3] {
        sum.insert(Node::leaf(shard), shard.to_string(), join);
    }
    let kept = sum.insert(node(0, 4), "early".to_owned(), join);
    assert_eq!(kept, Inserted::Kept { superseded: vec!["(0+1)".to_owned(), "3".to_owned()] });
    for late in [node(0, 4), node(2, 4), node(2, 3)] {
        let text = late.to_string();
        assert_eq!(sum.insert(late, text.clone(), join), Inserted::Superfluous(text));
    }
    assert_eq!(sum.missing(), [node(4, 8)]);
    sum.insert(node(4, 8), "right".to_owned(), join);
    assert_eq!(sum.take_root(join), Some("(early+right)".to_owned()));
    let late = sum.insert(node(0, 8), "late".to_owned(), join);
    assert_eq!(late, Inserted::Superfluous("late".to_owned()));
}

#[test]
fn absent_shards_are_skipped() {
    let mut sum = Reduction::new(Tree::new(8), &set([1, 6]));
    assert_eq!(sum.missing(), [node(0, 8)]);
    assert_eq!(sum.insert(node(2, 4), "none".to_owned(), join), Inserted::Superfluous("none".to_owned()));
    assert_eq!(sum.insert(node(1, 3), "none".to_owned(), join), Inserted::Superfluous("none".to_owned()));
    // [4,8) and shard 6 have the same sum.
    sum.insert(node(4, 8), "6".to_owned(), join);
    assert_eq!(sum.insert(Node::leaf(6), "6".to_owned(), join), Inserted::Superfluous("6".to_owned()));
    assert_eq!(sum.missing(), [Node::leaf(1)]);
    sum.insert(node(0, 2), "1".to_owned(), join);
    assert_eq!(sum.take_root(join), Some("(1+6)".to_owned()));
}

#[test]
fn without_present_shards_nothing_is_added() {
    let mut sum: Reduction<f32> = Reduction::new(Tree::new(8), &set([]));
    assert!(sum.is_closed() && sum.missing().is_empty());
    assert_eq!(sum.take_root(add), None);

    let mut sum = Reduction::new(Tree::new(8), &set([5]));
    sum.insert(Node::leaf(5), -0.0, add);
    assert_eq!(sum.take_root(add).map(f32::to_bits), Some((-0.0_f32).to_bits()));
}

#[test]
fn missing_shards_are_named_as_the_largest_nodes() {
    let mut sum = Reduction::new(Tree::new(8), &set(0..8));
    sum.insert(Node::leaf(2), 0.0, add);
    assert_eq!(sum.missing(), [node(0, 2), node(3, 4), node(4, 8)]);
}

#[derive(Clone, Debug)]
struct Scene {
    shards: u32,
    present: BTreeSet<u32>,
    /// Which worker has which shard.
    owners: Vec<u8>,
    /// In which order the workers' nodes arrive.
    arrivals: Vec<Index>,
    /// Which nodes arrive again, or from a second worker with other shards, at which time.
    duplicates: Vec<(Index, Index)>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    (1_u32..40).prop_flat_map(|shards| {
        let each = shards as usize;
        let indices = || proptest::collection::vec(any::<Index>(), 2 * each);
        let again = proptest::collection::vec(any::<(Index, Index)>(), 0..2 * each);
        let present = proptest::collection::vec(proptest::bool::weighted(0.8), each);
        let owners = proptest::collection::vec(0_u8..6, each);
        (present, owners, indices(), again).prop_map(move |(present, owners, arrivals, duplicates)| {
            let present = (0..shards).filter(|&s| present[s as usize]).collect();
            Scene { shards, present, owners, arrivals, duplicates }
        })
    })
}

/// The nodes that all workers send, each with its sum as its worker adds it.
fn sent(scene: &Scene) -> Vec<(Node, f32)> {
    let tree = Tree::new(scene.shards);
    let present: Vec<u32> = scene.present.iter().copied().collect();
    let held = |worker| -> Vec<u32> {
        present.iter().copied().filter(|&shard| scene.owners[shard as usize] == worker).collect()
    };
    let nodes = (0..6).flat_map(|worker| tree.cover_present(&held(worker), &present));
    nodes.map(|node| (node, added_by_a_worker(node, scene))).collect()
}

fn added_by_a_worker(node: Node, scene: &Scene) -> f32 {
    let mut sum = Reduction::over(node, &scene.present);
    // Slots finish in any order, here backwards.
    for &shard in scene.present.range(node.first..node.end).rev() {
        sum.insert(Node::leaf(shard), term(shard), add);
    }
    assert!(sum.missing().is_empty());
    sum.take_root(add).expect("nothing is missing")
}

fn every_node(tree: Tree) -> Vec<Node> {
    let mut nodes = vec![tree.root()];
    let mut next = 0;
    while let Some(&node) = nodes.get(next) {
        nodes.extend(tree.children(node).into_iter().flat_map(|(left, right)| [left, right]));
        next += 1;
    }
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_partition_in_any_order_gives_one_sum(scene in scenes()) {
        let tree = Tree::new(scene.shards);
        let expected = reference(tree, tree.root(), &scene.present, &term, &|l, r| *l += r);

        let mut messages = Vec::new();
        for (message, place) in sent(&scene).into_iter().zip(&scene.arrivals) {
            messages.insert(place.index(messages.len() + 1), message);
        }
        let nodes = every_node(tree);
        for (which, place) in &scene.duplicates {
            let node = nodes[which.index(nodes.len())];
            let sum = reference(tree, node, &scene.present, &term, &|l, r| *l += r);
            // An absent node has no sum; any sum for it must be refused.
            messages.insert(place.index(messages.len() + 1), (node, sum.unwrap_or(f32::NAN)));
        }

        let mut sum = Reduction::new(tree, &scene.present);
        for (node, value) in messages {
            let needed = sum.missing();
            let inserted = sum.insert(node, value, add);
            let overlaps = needed.iter().any(|n| n.covers(node) || node.covers(*n));
            prop_assert_eq!(overlaps && !value.is_nan(), matches!(inserted, Inserted::Kept { .. }));
        }
        prop_assert!(sum.is_closed() && sum.missing().is_empty());
        prop_assert_eq!(sum.take_root(add).map(f32::to_bits), expected.map(f32::to_bits));
    }

    #[test]
    fn missing_and_what_came_are_a_partition(scene in scenes(), count in 0_usize..40) {
        let mut sum = Reduction::new(Tree::new(scene.shards), &scene.present);
        let mut left = scene.present.clone();
        for (node, value) in sent(&scene).into_iter().take(count) {
            sum.insert(node, value, add);
            left.retain(|&shard| !(node.first..node.end).contains(&shard));
        }
        let missing: Vec<u32> = sum.missing().iter().flat_map(|node| node.first..node.end).collect();
        let missing_present: Vec<u32> =
            missing.into_iter().filter(|shard| scene.present.contains(shard)).collect();
        prop_assert_eq!(missing_present, left.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(sum.is_closed(), left.is_empty());
    }

    #[test]
    fn the_nodes_of_a_run_are_those_that_cover_it(shards in 1_u32..80, first in 0_u32..80, last in 0_u32..80) {
        let (tree, run) = (Tree::new(shards), first.min(shards)..last.min(shards));
        prop_assert_eq!(tree.nodes_of(&run) as usize, tree.cover(&run.collect()).len());
    }

    #[test]
    fn covers_are_exact_and_smallest(shards in 1_u32..40, mask in any::<u64>()) {
        let tree = Tree::new(shards);
        let held = set((0..shards).filter(|shard| mask >> shard & 1 == 1));
        let cover = tree.cover(&held);
        let covered: Vec<u32> = cover.iter().flat_map(|node| node.first..node.end).collect();
        prop_assert_eq!(covered, held.iter().copied().collect::<Vec<_>>());
        for node in cover {
            prop_assert!(tree.is_node(node.first, node.end));
            let parent = every_node(tree).into_iter().filter(|above| *above != node && above.covers(node));
            if let Some(parent) = parent.min_by_key(|above| above.end - above.first) {
                prop_assert!(!(parent.first..parent.end).all(|shard| held.contains(&shard)));
            }
        }
    }
}
