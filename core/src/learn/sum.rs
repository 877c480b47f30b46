//! Sums over pieces: which gradients are added, in which order, section by section.
//!
//! The reduction tree fixes the order of additions ([`tree`](super::tree)). Adding two gradients as soon as both
//! are present would pass over memory once for each pair, on one thread. A [`Sum`] therefore only records its
//! *terms*, which are whole gradients, and their [`AdditionOrder`]. Once all terms are present, all available threads add
//! them section by section. Within a section they are added block by block, so that intermediate sums stay in a
//! core's L1 cache. The last addition of a block can be fused with the next computation, such as the optimizer's
//! step. The order is always that of the tree, so the bits equal those of adding pair by pair.
//!
//! Figures (losses, counts) are added at once, because they are cheap.

use std::collections::BTreeSet;
use std::ops::{AddAssign, Deref, Range};

use super::elementwise;
use super::piece::PieceOutcome;
use super::tree::{Node, Reduction};

/// The number of values that one thread adds at a time. Gradients are cut into sections of this length, for
/// threads and for the wire.
pub const SECTION: usize = 32 * 1024;

/// The number of values added at once: a few blocks fit into a core's L1 cache.
const BLOCK: usize = 2048;

/// The maximum number of gradients kept until they are added together, and their maximum bytes. Small gradients
/// fit into a core's caches; many large ones would not fit into memory.
pub const TERMS: usize = 8;
const TERMS_BYTES: usize = 64 << 20;

/// How many gradients with `values` values are kept until they are added together.
pub fn terms_at_once(values: usize) -> usize {
    (TERMS_BYTES / (values * size_of::<f32>()).max(1)).clamp(2, TERMS)
}

/// The order in which terms are added: a tree over the terms, in postfix notation.
///
/// Terms are taken one after another. `(0 + 1) + 2` is take, take, add, take, add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionOrder(Vec<Instruction>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Take,
    Add,
}

impl AdditionOrder {
    /// A single term.
    pub fn one() -> Self {
        Self(vec![Instruction::Take])
    }

    /// The order of the reduction tree over the `present` shards under `node`; `None` if there are none.
    pub fn over(node: Node, present: &BTreeSet<u32>) -> Option<Self> {
        let mut reduction = Reduction::over(node, present);
        for &shard in present.range(node.first..node.end) {
            reduction.insert(Node::leaf(shard), Self::one(), Self::join);
        }
        reduction.take_root(Self::join)
    }

    /// The order over `nodes`, ascending nodes of the tree under `node` that together cover all of its `present`
    /// shards.
    fn over_nodes(node: Node, nodes: &[Node], present: &BTreeSet<u32>) -> Self {
        let mut reduction = Reduction::over(node, present);
        for &node in nodes {
            reduction.insert(node, Self::one(), Self::join);
        }
        reduction.take_root(Self::join).expect("the nodes are all there is")
    }

    /// `self + right`.
    pub fn join(&mut self, right: Self) {
        self.0.extend(right.0);
        self.0.push(Instruction::Add);
    }

    /// The number of terms.
    pub fn terms(&self) -> usize {
        self.0.iter().filter(|step| **step == Instruction::Take).count()
    }

    /// Adds up `values`, one for each term. `stack` is scratch space for intermediate sums.
    pub fn fold<T>(
        &self,
        values: impl IntoIterator<Item = T>,
        stack: &mut Vec<T>,
        mut add: impl FnMut(&mut T, T),
    ) -> Option<T> {
        let mut values = values.into_iter();
        stack.clear();
        for step in &self.0 {
            match step {
                Instruction::Take => stack.push(values.next()?),
                Instruction::Add => {
                    let right = stack.pop()?;
                    add(stack.last_mut()?, right);
                }
            }
        }
        stack.pop()
    }

    /// Adds up slices of equal length, except for the last addition: `finish` gets its two operands, or the only
    /// term.
    ///
    /// The slices are at most [`BLOCK`] long.
    fn add_block<'a>(
        &self,
        term: impl Fn(usize) -> &'a [f32],
        scratch: &mut AdditionScratch,
        finish: impl FnOnce(&[f32], Option<&[f32]>),
    ) {
        let (last, additions) = self.0.split_last().expect("an order has a term");
        let mut next = 0;
        scratch.stack.clear();
        for step in additions {
            match step {
                Instruction::Take => {
                    scratch.stack.push(Operand::Term(next));
                    next += 1;
                }
                Instruction::Add => scratch.add(&term),
            }
        }
        if *last == Instruction::Take {
            return finish(term(next), None);
        }
        let (left, right) = scratch.pop_pair();
        finish(scratch.values(left, &term), Some(scratch.values(right, &term)));
    }
}

/// Scratch space for intermediate sums, reused from one block to the next.
#[derive(Debug, Default)]
pub struct AdditionScratch {
    stack: Vec<Operand>,
    sums: Vec<Vec<f32>>,
    /// The length of the current block.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Operand {
    Term(usize),
    /// An intermediate sum. The stack holds the first ones, in order.
    Sum(usize),
}

impl AdditionScratch {
    fn add<'a>(&mut self, term: &impl Fn(usize) -> &'a [f32]) {
        let (left, right) = self.pop_pair();
        let len = self.len;
        // Addition is commutative, so the operands may be swapped. (With two NaNs the result could depend on the
        // order; here all NaNs are equal.)
        let sum = match (left, right) {
            (Operand::Term(left), Operand::Term(right)) => {
                let sum = self.stack.iter().filter(|operand| matches!(operand, Operand::Sum(_))).count();
                if sum == self.sums.len() {
                    self.sums.push(vec![0.0; BLOCK]);
                }
                elementwise::sum(term(left), term(right), &mut self.sums[sum][..len]);
                sum
            }
            (Operand::Sum(sum), Operand::Term(other)) | (Operand::Term(other), Operand::Sum(sum)) => {
                elementwise::add_assign(&mut self.sums[sum][..len], term(other));
                sum
            }
            (Operand::Sum(left), Operand::Sum(right)) => {
                let (lower, upper) = self.sums.split_at_mut(right);
                elementwise::add_assign(&mut lower[left][..len], &upper[0][..len]);
                left
            }
        };
        self.stack.push(Operand::Sum(sum));
    }

    fn pop_pair(&mut self) -> (Operand, Operand) {
        let (right, left) = (self.stack.pop(), self.stack.pop());
        left.zip(right).expect("an addition comes after what it adds")
    }

    fn values<'r, 'a: 'r>(&'r self, operand: Operand, term: &impl Fn(usize) -> &'a [f32]) -> &'r [f32] {
        match operand {
            Operand::Term(index) => term(index),
            Operand::Sum(index) => &self.sums[index][..self.len],
        }
    }
}

/// A part of a sum over many shards. A part adds a bounded number of terms, so that not all gradients have to be
/// kept until the last one is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSum {
    /// The terms.
    pub inputs: Vec<Term>,
    /// The order in which the terms are added.
    pub order: AdditionOrder,
    /// The part that this part is an input of, and its index among that part's inputs; `None` for the whole sum.
    pub parent: Option<(usize, usize)>,
}

/// A term of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// The piece of a shard.
    Shard(u32),
    /// The sum of another part.
    PartialSum(usize),
}

/// The sum over the `present` shards under `node`, in parts of at most `most` inputs. The first part is the whole
/// sum. Empty if no shard is present.
pub fn parts(node: Node, present: &BTreeSet<u32>, most: usize) -> Vec<PartialSum> {
    let mut parts = Vec::new();
    if present.range(node.first..node.end).next().is_some() {
        add_part(node, None, present, most, &mut parts);
    }
    parts
}

fn add_part(
    node: Node,
    parent: Option<(usize, usize)>,
    present: &BTreeSet<u32>,
    most: usize,
    parts: &mut Vec<PartialSum>,
) {
    let nodes = cut(node, present, most);
    let (index, order) = (parts.len(), AdditionOrder::over_nodes(node, &nodes, present));
    parts.push(PartialSum { inputs: Vec::with_capacity(nodes.len()), order, parent });
    for (place, node) in nodes.into_iter().enumerate() {
        let mut shards = present.range(node.first..node.end);
        let input = match (shards.next(), shards.next()) {
            (Some(&shard), None) => Term::Shard(shard),
            _ => {
                let part = parts.len();
                add_part(node, Some((index, place)), present, most, parts);
                Term::PartialSum(part)
            }
        };
        parts[index].inputs.push(input);
    }
}

/// Cuts a node into nodes with present shards, ascending: splits the largest node until there are `most`.
fn cut(node: Node, present: &BTreeSet<u32>, most: usize) -> Vec<Node> {
    let shards = |node: &Node| present.range(node.first..node.end).count();
    let mut nodes = vec![node];
    while nodes.len() < most.max(2) {
        let places = (0..nodes.len()).rev();
        let Some(largest) = places.max_by_key(|&place| shards(&nodes[place])) else { break };
        let Some((left, right)) = nodes[largest].children().filter(|_| shards(&nodes[largest]) > 1) else {
            break;
        };
        nodes.splice(largest..=largest, [left, right].into_iter().filter(|node| shards(node) > 0));
    }
    nodes
}

/// Adds up the `section` of `terms`, block by block. `finish` gets the range of each block and the operands of
/// its last addition, or the only term.
pub fn add_section<B: Deref<Target = [f32]>>(
    order: &AdditionOrder,
    terms: &[B],
    section: Range<usize>,
    scratch: &mut AdditionScratch,
    mut finish: impl FnMut(Range<usize>, &[f32], Option<&[f32]>),
) {
    let end = section.end;
    for start in section.step_by(BLOCK) {
        let block = start..end.min(start + BLOCK);
        scratch.len = block.len();
        let term = |index: usize| &terms[index][block.clone()];
        order.add_block(term, scratch, |left, right| finish(block.clone(), left, right));
    }
}

/// [`add_section`] into `out`, which is as long as the section.
pub fn add_section_into<B: Deref<Target = [f32]>>(
    order: &AdditionOrder,
    terms: &[B],
    section: Range<usize>,
    scratch: &mut AdditionScratch,
    out: &mut [f32],
) {
    let first = section.start;
    add_section(order, terms, section, scratch, |block, left, right| {
        let out = &mut out[block.start - first..block.end - first];
        match right {
            Some(right) => elementwise::sum(left, right, out),
            None => out.copy_from_slice(left),
        }
    });
}

/// The sections of a gradient of `len` values.
pub fn sections(len: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    (0..len.div_ceil(SECTION)).map(move |index| index * SECTION..len.min((index + 1) * SECTION))
}

/// The section with this index; `None` if the gradient has fewer.
pub fn section(len: usize, index: usize) -> Option<Range<usize>> {
    let start = index.checked_mul(SECTION).filter(|start| *start < len)?;
    Some(start..len.min(start + SECTION))
}

/// Loss and metrics over some samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The sum of the samples' losses, added in row order.
    pub loss_sum: f64,
    /// How many samples were classified correctly; 0 if the job does not list the accuracy as a metric.
    pub correct: u64,
    /// The number of samples.
    pub samples: u64,
    /// The counts of the other metrics, as their [`Layout`](super::metrics::Layout) has them.
    pub counts: Vec<u64>,
    /// Their sums.
    pub sums: Vec<f64>,
}

impl Figures {
    /// The mean loss; 0 without samples.
    pub fn loss(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.loss_sum / self.samples as f64 }
    }

    /// The share of correct classifications; 0 without samples.
    pub fn accuracy(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.correct as f64 / self.samples as f64 }
    }
}

/// Both sides are figures of one split, or the left one is of no samples.
impl AddAssign for Figures {
    fn add_assign(&mut self, right: Self) {
        self.loss_sum += right.loss_sum;
        self.correct += right.correct;
        self.samples += right.samples;
        join(&mut self.counts, right.counts);
        join(&mut self.sums, right.sums);
    }
}

/// Adds numbers to those at the same places.
fn join<T: AddAssign>(left: &mut Vec<T>, right: Vec<T>) {
    if left.is_empty() {
        *left = right;
    } else {
        left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
    }
}

/// The sum over the pieces of one node of the reduction tree, or of several joined nodes.
///
/// `B` is a buffer that holds a gradient.
#[derive(Clone, Debug)]
pub struct Sum<B> {
    /// The gradients still to be added; empty in evaluation.
    terms: Vec<B>,
    order: AdditionOrder,
    /// The figures, already added.
    pub figures: Figures,
    /// For each piece, in shard order, SHA-256 over the indices of its samples.
    pub sample_digests: Vec<[u8; 32]>,
}

impl<B: Deref<Target = [f32]>> Sum<B> {
    /// A sum with its gradient already added; `None` in evaluation.
    pub fn new(gradient: Option<B>, figures: Figures, sample_digests: Vec<[u8; 32]>) -> Self {
        Self { terms: gradient.into_iter().collect(), order: AdditionOrder::one(), figures, sample_digests }
    }

    /// The sum of a single piece.
    pub fn of_piece(gradient: Option<B>, outcome: PieceOutcome) -> Self {
        Self::new(gradient, outcome.figures, vec![outcome.samples_sha256])
    }

    /// Appends `right`, the sum to the right of this one in the tree.
    pub fn join(&mut self, right: Self) {
        self.terms.extend(right.terms);
        self.order.join(right.order);
        self.figures += right.figures;
        self.sample_digests.extend(right.sample_digests);
    }

    /// [`join`](Self::join)s, and adds the terms up if there are too many to keep. The sum goes into a buffer
    /// that `out` provides for the given number of values.
    pub fn join_within_bounds(&mut self, right: Self, out: impl FnOnce(usize) -> B)
    where
        B: std::ops::DerefMut,
    {
        self.join(right);
        let values = self.len();
        if self.terms.len() > terms_at_once(values) {
            self.settle(|| out(values));
        }
    }

    /// The number of values of the gradient; 0 in evaluation.
    pub fn len(&self) -> usize {
        self.terms.first().map_or(0, |term| term.len())
    }

    /// Whether the sum has no gradient, as in evaluation.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The gradients still to be added.
    pub fn terms(&self) -> &[B] {
        &self.terms
    }

    /// The order in which the terms are added.
    pub fn order(&self) -> &AdditionOrder {
        &self.order
    }

    /// Adds the terms up into `out`, if there are several, and keeps the sum as the only term.
    pub fn settle(&mut self, out: impl FnOnce() -> B)
    where
        B: std::ops::DerefMut,
    {
        if self.terms.len() < 2 {
            return;
        }
        let (mut out, mut scratch) = (out(), AdditionScratch::default());
        add_section_into(&self.order, &self.terms, 0..self.len(), &mut scratch, &mut out);
        self.terms = vec![out];
        self.order = AdditionOrder::one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::tree::Tree;

    fn term(shard: u32, len: usize) -> Vec<f32> {
        let scattered = (0..len as u32).map(|i| (i * 8 + shard).wrapping_mul(2_654_435_761) >> 8);
        scattered.map(|word| (word as f32 - 8_388_608.0) * 10f32.powi(shard as i32 % 7 - 3)).collect()
    }

    /// Pair by pair, over the whole length.
    fn added_in_pairs(present: &BTreeSet<u32>, tree: Tree, len: usize) -> Vec<f32> {
        let mut reduction = Reduction::new(tree, present);
        let add = |left: &mut Vec<f32>, right: Vec<f32>| elementwise::add_assign(left, &right);
        for &shard in present.iter().rev() {
            reduction.insert(Node::leaf(shard), term(shard, len), add);
        }
        reduction.take_root(add).unwrap()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn adding_by_sections_gives_the_same_bits_as_adding_pair_by_pair() {
        let len = 2 * BLOCK + 37;
        for shards in 1..20 {
            let present: BTreeSet<u32> = (0..shards).filter(|shard| shard % 5 != 2).collect();
            let tree = Tree::new(shards);
            let order = AdditionOrder::over(tree.root(), &present).unwrap();
            let terms: Vec<_> = present.iter().map(|&shard| term(shard, len)).collect();
            assert_eq!(order.terms(), terms.len());
            let (mut out, mut scratch) = (vec![f32::NAN; len], AdditionScratch::default());
            let cut = BLOCK + 11;
            add_section_into(&order, &terms, 0..cut, &mut scratch, &mut out[..cut]);
            add_section_into(&order, &terms, cut..len, &mut scratch, &mut out[cut..]);
            assert!(bits(&out) == bits(&added_in_pairs(&present, tree, len)), "{shards} shards");
        }
    }

    #[test]
    fn joined_sums_are_added_in_the_order_of_the_tree() {
        let (len, tree) = (100, Tree::new(6));
        let present: BTreeSet<u32> = (0..6).collect();
        let mut reduction = Reduction::new(tree, &present);
        for shard in [5, 0, 3, 1, 4, 2] {
            let (counts, sums) = (vec![u64::from(shard), 1], vec![0.5]);
            let figures = Figures { loss_sum: f64::from(shard), correct: 1, samples: 2, counts, sums };
            let sum = Sum::new(Some(term(shard, len)), figures, vec![[shard as u8; 32]]);
            reduction.insert(Node::leaf(shard), sum, Sum::join);
        }
        let mut sum = reduction.take_root(Sum::join).unwrap();
        let (counts, sums) = (vec![15, 6], vec![3.0]);
        assert_eq!(sum.figures, Figures { loss_sum: 15.0, correct: 6, samples: 12, counts, sums });
        assert_eq!(sum.sample_digests, [0, 1, 2, 3, 4, 5].map(|shard| [shard; 32]));
        sum.settle(|| vec![0.0; len]);
        assert!(bits(&sum.terms()[0]) == bits(&added_in_pairs(&present, tree, len)));
    }

    #[test]
    fn other_values_are_added_in_the_same_order() {
        let order = AdditionOrder::over(Tree::new(7).root(), &[0, 1, 3, 6].into()).unwrap();
        let names = ["0", "1", "3", "6"].map(String::from);
        let text = order.fold(names, &mut Vec::new(), |left, right| *left = format!("({left}+{right})"));
        assert_eq!(text.as_deref(), Some("(((0+1)+3)+6)"));
        assert_eq!(AdditionOrder::over(Tree::new(7).root(), &BTreeSet::new()), None);
    }

    fn bracketed(parts: &[PartialSum], part: usize) -> String {
        let part = &parts[part];
        let inputs = part.inputs.iter().map(|input| match *input {
            Term::Shard(shard) => shard.to_string(),
            Term::PartialSum(below) => bracketed(parts, below),
        });
        let add = |left: &mut String, right| *left = format!("({left}+{right})");
        part.order.fold(inputs, &mut Vec::new(), add).unwrap()
    }

    #[test]
    fn a_sum_in_parts_is_bracketed_like_the_tree() {
        for shards in 1..70 {
            let present: BTreeSet<u32> = (0..shards).filter(|shard| shard % 5 != 2 || shards == 3).collect();
            let root = Tree::new(shards).root();
            let whole = AdditionOrder::over(root, &present).unwrap();
            let names = present.iter().map(u32::to_string);
            let add = |left: &mut String, right| *left = format!("({left}+{right})");
            let wanted = whole.fold(names, &mut Vec::new(), add).unwrap();
            for most in [2, 3, 8] {
                let parts = parts(root, &present, most);
                assert_eq!(bracketed(&parts, 0), wanted);
                assert!(parts.iter().all(|part| part.inputs.len() <= most));
                for (index, part) in parts.iter().enumerate().skip(1) {
                    let (parent, place) = part.parent.unwrap();
                    assert_eq!(parts[parent].inputs[place], Term::PartialSum(index));
                }
            }
        }
        assert!(parts(Tree::new(4).root(), &BTreeSet::new(), 8).is_empty());
    }

    #[test]
    fn fewer_gradients_are_kept_at_once_if_they_are_large() {
        let gibibyte = (1 << 30) / size_of::<f32>();
        assert_eq!([0, 235_146, gibibyte].map(terms_at_once), [TERMS, TERMS, 2]);
    }

    #[test]
    fn sections_cover_a_gradient_once() {
        let lens: Vec<_> = sections(2 * SECTION + 5).map(|section| section.len()).collect();
        assert_eq!(lens, [SECTION, SECTION, 5]);
        let by_number: Vec<_> = (0..4).map_while(|index| section(2 * SECTION + 5, index)).collect();
        assert_eq!(by_number, sections(2 * SECTION + 5).collect::<Vec<_>>());
        assert_eq!(sections(0).len(), 0);
    }
}
