//! The reduction tree: the order in which the shards' sums are added.
//!
//! Float addition is not associative, so another order gives other bits. The job alone fixes the order: a binary
//! tree over the shard indices `0..S`, split at the largest power of two strictly below the count, like the
//! Merkle trees of RFC 6962. With five shards:
//!
//! ```text
//!             [0,5)
//!         ┌─────┴────┐
//!       [0,4)      [4,5)
//!     ┌───┴───┐
//!   [0,2)   [2,4)
//!   ┌─┴─┐   ┌─┴─┐
//!   0   1   2   3
//! ```
//!
//! Any process that holds both children of a node may add them: `left += right`, always with these operands. A
//! worker adds the complete subtrees among its shards and sends only those; the coordinator adds the rest. The
//! bits are always the same, however shards are placed and in whatever order results arrive.
//!
//! A shard without samples in a step is *absent*. The plan determines which shards are absent; it is never
//! inferred from the results. A node with one absent child equals its other child: nothing is added, not even
//! zeros (`-0.0 + 0.0` is `0.0`).
//!
//! A node completes once, and then its descendants are superfluous: they could only repeat bits that it contains.
//! So duplicates, retries and the results of backup tasks are harmless.
//!
//! Not decided here: how values are added (the caller passes a closure), and which worker computes which shard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// A subtree, given by the range of its shards: `[first, end)`.
///
/// Not every range is a node of a tree; see [`Tree::node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The first shard.
    pub first: u32,
    /// One past the last shard.
    pub end: u32,
}

impl Node {
    /// The node of a single shard.
    pub fn leaf(shard: u32) -> Self {
        Self { first: shard, end: shard + 1 }
    }

    /// The number of shards under the node, including absent ones.
    pub fn len(self) -> u32 {
        self.end - self.first
    }

    /// Always `false`: a node has at least one shard.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether the node is `other` or an ancestor of it.
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    pub(super) fn children(self) -> Option<(Self, Self)> {
        let last = self.len() - 1;
        let middle = self.first + (1 << last.checked_ilog2()?);
        Some((Self { end: middle, ..self }, Self { first: middle, ..self }))
    }

    /// How many nodes it takes to cover exactly those shards of a run that are under this node.
    fn nodes_of(self, run: &Range<u32>) -> u32 {
        if run.start <= self.first && self.end <= run.end {
            return 1;
        }
        let meets = self.first < run.end && run.start < self.end;
        let children = self.children().filter(|_| meets);
        children.map_or(0, |(left, right)| left.nodes_of(run) + right.nodes_of(run))
    }

    /// The keys under which the node and everything below it are in a map.
    fn range(self) -> Range<Self> {
        Self { end: 0, ..self }..Self { first: self.end, end: 0 }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{},{})", self.first, self.end)
    }
}

/// The tree over a number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    shards: u32,
}

impl Tree {
    /// # Panics
    ///
    /// If `shards` is 0, which no job allows.
    pub fn new(shards: u32) -> Self {
        assert!(shards > 0, "a tree has at least one shard");
        Self { shards }
    }

    /// The node over all shards.
    pub fn root(self) -> Node {
        Node { first: 0, end: self.shards }
    }

    /// The two nodes that add up to `node`; `None` for a single shard.
    pub fn children(self, node: Node) -> Option<(Node, Node)> {
        node.children()
    }

    /// Whether `[first, end)` is a node of this tree. Accepts any numbers, for input from the wire.
    pub fn is_node(self, first: u32, end: u32) -> bool {
        self.node(first, end).is_some()
    }

    /// `[first, end)` as a node, if this tree has it. Accepts any numbers, for input from the wire.
    pub fn node(self, first: u32, end: u32) -> Option<Node> {
        self.path(Node { first, end })?.last().copied()
    }

    /// The smallest set of nodes that cover exactly `shards`, ascending. Indices outside the tree are ignored.
    pub fn cover(self, shards: &BTreeSet<u32>) -> Vec<Node> {
        let all: Vec<u32> = (0..self.shards).collect();
        let shards: Vec<u32> = shards.range(..self.shards).copied().collect();
        self.cover_present(&shards, &all)
    }

    /// The smallest set of nodes that cover exactly `shards`, which are among those `present`; both ascend, and so
    /// do the nodes. The nodes may include absent shards, which cost nothing.
    pub fn cover_present(self, shards: &[u32], present: &[u32]) -> Vec<Node> {
        let mut nodes = Vec::new();
        cover_below(self.root(), shards, present, &mut nodes);
        nodes
    }

    /// How many nodes it takes to cover exactly this run of shards.
    pub fn nodes_of(self, run: &Range<u32>) -> u32 {
        self.root().nodes_of(run)
    }

    fn path(self, node: Node) -> Option<Vec<Node>> {
        descend(self.root(), node)
    }
}

/// The path from `root` to `node`; `None` if `node` is not in the tree.
fn descend(root: Node, node: Node) -> Option<Vec<Node>> {
    let mut at = root;
    let mut path = vec![at];
    while at != node {
        let (left, right) = at.children()?;
        at = if node.first < right.first { left } else { right };
        path.push(at);
    }
    Some(path)
}

/// Covers `shards`, of those `present` under this node.
fn cover_below(node: Node, shards: &[u32], present: &[u32], nodes: &mut Vec<Node>) {
    if shards.is_empty() {
        return;
    }
    match node.children() {
        Some((left, right)) if shards.len() < present.len() => {
            let halves = |all: &[u32]| all.partition_point(|&shard| shard < right.first);
            let ((ours, others), (here, there)) =
                (shards.split_at(halves(shards)), present.split_at(halves(present)));
            cover_below(left, ours, here, nodes);
            cover_below(right, others, there, nodes);
        }
        _ => nodes.push(node),
    }
}

/// What became of a value given to [`Reduction::insert`].
#[derive(Debug, PartialEq, Eq)]
pub enum Inserted<T> {
    /// The value is part of the sum.
    Kept {
        /// The values of descendants that are now superfluous, returned for reuse.
        superseded: Vec<T>,
    },
    /// The sum does not need the value, which is returned: the node or an ancestor is already complete, or the
    /// reduction has no such node, because it is not in the tree or all its shards are absent.
    Superfluous(T),
}

/// A sum in progress.
///
/// Each value is added as soon as its sibling is present, except for the last pair:
/// [`take_root`](Self::take_root) adds it, and [`take_last_pair`](Self::take_last_pair) returns it, so that the
/// last addition and the computation after it can share one pass over memory.
#[derive(Clone, Debug)]
pub struct Reduction<T> {
    root: Node,
    /// The root, [`settled`](Self::settled); `None` when every shard is absent.
    top: Option<Node>,
    present: BTreeSet<u32>,
    /// Complete nodes without a complete sibling, and the last pair. All are settled, and none contains another.
    sums: BTreeMap<Node, T>,
    taken: bool,
}

impl<T> Reduction<T> {
    /// A sum over the `present` shards of `tree`.
    pub fn new(tree: Tree, present: &BTreeSet<u32>) -> Self {
        Self::over(tree.root(), present)
    }

    /// A sum over the `present` shards under `root`, a node of some tree. A worker makes one for each node that
    /// it [covers](Tree::cover_present).
    pub fn over(root: Node, present: &BTreeSet<u32>) -> Self {
        let present = present.range(root.first..root.end).copied().collect();
        let mut reduction = Self { root, top: None, present, sums: BTreeMap::new(), taken: false };
        reduction.top = reduction.settled(root);
        reduction
    }

    /// Inserts `value`, the complete sum of `node`. `add` is called as `left += right`.
    pub fn insert(&mut self, node: Node, value: T, mut add: impl FnMut(&mut T, T)) -> Inserted<T> {
        let Some(path) = self.path(node) else { return Inserted::Superfluous(value) };
        if self.is_closed() || path.iter().any(|node| self.sums.contains_key(node)) {
            return Inserted::Superfluous(value);
        }
        let superseded = self.remove_below(node);
        let mut value = value;
        let mut at = path.len() - 1;
        // The last pair, path[1] and its sibling, is not added here.
        while at > 1 {
            let Some((sibling, other)) = self.sums.remove_entry(&self.sibling(path[at - 1], path[at])) else {
                break;
            };
            value = in_order(path[at], value, sibling, other, &mut add);
            at -= 1;
        }
        self.sums.insert(path[at], value);
        Inserted::Kept { superseded }
    }

    /// Whether nothing is missing. This is also true if every shard is absent, and after the sum was taken.
    pub fn is_closed(&self) -> bool {
        let Some(top) = self.top else { return true };
        self.taken || self.sums.contains_key(&top) || self.last_pair(top).is_some()
    }

    /// Takes the complete sum; `None` before it is complete and after it was taken.
    pub fn take_root(&mut self, mut add: impl FnMut(&mut T, T)) -> Option<T> {
        let (mut left, right) = self.take_last_pair()?;
        if let Some(right) = right {
            add(&mut left, right);
        }
        Some(left)
    }

    /// Takes the operands of the last addition: `left += right` is still to be done, if there is a right operand.
    /// `None` before the sum is complete and after it was taken.
    pub fn take_last_pair(&mut self) -> Option<(T, Option<T>)> {
        let top = self.top?;
        let pair = match self.sums.remove(&top) {
            Some(whole) => (whole, None),
            None => {
                let (left, right) = self.last_pair(top)?;
                (self.sums.remove(&left)?, self.sums.remove(&right))
            }
        };
        self.taken = true;
        Some(pair)
    }

    /// The missing nodes: the largest nodes without any value under them, ascending.
    pub fn missing(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        if let Some(top) = self.top
            && !self.taken
        {
            self.missing_below(top, &mut nodes);
        }
        nodes
    }

    fn missing_below(&self, node: Node, nodes: &mut Vec<Node>) {
        if self.sums.contains_key(&node) {
            return;
        }
        if !self.sums.range(node.range()).any(|(&complete, _)| node.covers(complete)) {
            nodes.push(node);
        } else if let Some((left, right)) = self.branches(node) {
            self.missing_below(left, nodes);
            self.missing_below(right, nodes);
        }
    }

    /// The children of `top`, if both are complete.
    fn last_pair(&self, top: Node) -> Option<(Node, Node)> {
        let (left, right) = self.branches(top)?;
        (self.sums.contains_key(&left) && self.sums.contains_key(&right)).then_some((left, right))
    }

    /// The smallest node with the same present shards. Several nodes can have the same present shards, and so
    /// equal sums; all are stored under this one. `None` if no shard of `node` is present.
    fn settled(&self, node: Node) -> Option<Node> {
        let mut node = node;
        while let Some((left, right)) = node.children() {
            match (self.has_any(left), self.has_any(right)) {
                (true, true) => break,
                (true, false) => node = left,
                (false, true) => node = right,
                (false, false) => return None,
            }
        }
        self.has_any(node).then_some(node)
    }

    fn has_any(&self, node: Node) -> bool {
        self.present.range(node.first..node.end).next().is_some()
    }

    /// The settled children of a settled node; `None` for a single shard.
    fn branches(&self, node: Node) -> Option<(Node, Node)> {
        let (left, right) = node.children()?;
        Some((self.settled(left)?, self.settled(right)?))
    }

    fn sibling(&self, parent: Node, child: Node) -> Node {
        let (left, right) = self.branches(parent).expect("a node with a child has two");
        if child == left { right } else { left }
    }

    /// The path from the top to `node`, all settled; `None` if there is no such node or all its shards are
    /// absent.
    fn path(&self, node: Node) -> Option<Vec<Node>> {
        descend(self.root, node)?;
        let node = self.settled(node)?;
        let mut at = self.top?;
        let mut path = vec![at];
        while at != node {
            let (left, right) = self.branches(at)?;
            at = if left.covers(node) { left } else { right };
            path.push(at);
        }
        Some(path)
    }

    /// Removes the values under `node`, which are superfluous once `node` is complete.
    fn remove_below(&mut self, node: Node) -> Vec<T> {
        let below = self.sums.extract_if(node.range(), |&complete, _| node.covers(complete));
        below.map(|(_, value)| value).collect()
    }
}

/// Adds `value` of `node`, which arrived last, and its sibling `other`: always the right one to the left one.
fn in_order<T>(node: Node, value: T, sibling: Node, other: T, add: &mut impl FnMut(&mut T, T)) -> T {
    let (mut left, right) = if node < sibling { (value, other) } else { (other, value) };
    add(&mut left, right);
    left
}
