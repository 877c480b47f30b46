//! The schema of a sample: its features and its target.
//!
//! Each data format provides the schema of its data. Shards are laid out, checked and computed by the schema, and
//! nothing else knows the number of classes, the width of a sample, or the type of its values.

use std::fmt;

/// The layout of every sample of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The model's inputs.
    pub features: Features,
    /// What the model learns to predict.
    pub target: Target,
    /// Whether each sample has a weight, stored as a 32-bit float, little-endian.
    pub weighted: bool,
}

impl Schema {
    /// The layout of samples without weights.
    pub const fn new(features: Features, target: Target) -> Self {
        Self { features, target, weighted: false }
    }

    /// The bytes of a sample in a shard, target and weight included.
    pub fn sample_bytes(&self) -> usize {
        self.features.bytes().saturating_add(self.target.bytes()).saturating_add(self.weight_bytes())
    }

    /// The bytes of a sample's weight: 0 if it has none.
    pub const fn weight_bytes(&self) -> usize {
        if self.weighted { size_of::<f32>() } else { 0 }
    }
}

/// The numbers that the model takes as inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The stored type of each value.
    pub element: Element,
    /// The shape: `[28, 28]` for an image, `[13]` for a row of a table.
    pub shape: Vec<u32>,
}

impl Features {
    /// An image: bytes in rows and columns.
    pub fn image(rows: usize, columns: usize) -> Self {
        Self { element: Element::U8, shape: vec![rows as u32, columns as u32] }
    }

    /// The number of values of a sample.
    pub fn width(&self) -> usize {
        width(&self.shape)
    }

    /// The bytes of a sample's features.
    pub fn bytes(&self) -> usize {
        self.width().saturating_mul(self.element.bytes())
    }

    /// Rows and columns; `None` if the features are not an image.
    pub fn rows_and_columns(&self) -> Option<(usize, usize)> {
        match (self.element, &self.shape[..]) {
            (Element::U8, &[rows, columns]) => Some((rows as usize, columns as usize)),
            _ => None,
        }
    }
}

/// The number of values in this shape.
pub fn width(shape: &[u32]) -> usize {
    shape.iter().fold(1, |width, &side| usize::saturating_mul(width, side as usize))
}

/// A shape in words: `28 × 28`.
pub(super) fn sides(shape: &[u32]) -> String {
    shape.iter().map(u32::to_string).collect::<Vec<_>>().join(" × ")
}

/// The type of a feature's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// An unsigned byte.
    U8,
    /// A 32-bit float, little-endian.
    F32,
}

impl Element {
    /// The bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// Writes NumPy's names.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::U8 => "uint8",
            Self::F32 => "float32",
        })
    }
}

/// What a model learns to predict for each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A class, from 0: stored in as few bytes as the largest class needs, little-endian.
    Class {
        /// The number of classes.
        classes: u32,
    },
    /// Numbers, stored as 32-bit floats, little-endian.
    Reals {
        /// How many numbers each sample has.
        width: u32,
    },
}

impl Target {
    /// The bytes of a sample's target.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Class { classes: 0..=0x100 } => 1,
            Self::Class { classes: 0x101..=0x1_0000 } => 2,
            Self::Class { .. } => 4,
            Self::Reals { width } => 4 * width as usize,
        }
    }

    /// The class encoded by the bytes of one target; 0 for numbers.
    pub fn class(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Class { .. } => bytes.iter().rev().fold(0, |class, &byte| class << 8 | u32::from(byte)),
            Self::Reals { .. } => 0,
        }
    }

    /// The index and the value of the first target that is not a valid class.
    pub fn first_unknown(self, targets: &[u8]) -> Option<(usize, u32)> {
        let Self::Class { classes } = self else { return None };
        let all = targets.chunks_exact(self.bytes()).map(|target| self.class(target)).enumerate();
        all.into_iter().find(|&(_, class)| class >= classes)
    }
}

/// Writes the target for errors: "labels of 10 classes".
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class { classes } => write!(f, "labels of {classes} classes"),
            Self::Reals { width: 1 } => write!(f, "a number to learn"),
            Self::Reals { width } => write!(f, "{width} numbers to learn"),
        }
    }
}

/// The decoded targets of some samples.
#[derive(Clone, Copy, Debug)]
pub enum Truth<'a> {
    /// The class of each sample.
    Classes(&'a [u32]),
    /// `[samples, width]` numbers.
    Reals(&'a [f32]),
}

impl<'a> Truth<'a> {
    /// The numbers.
    ///
    /// # Panics
    /// If the targets are classes, which a loss of numbers refuses beforehand.
    pub(crate) fn reals(self) -> &'a [f32] {
        match self {
            Self::Reals(reals) => reals,
            Self::Classes(_) => unreachable!("a loss of numbers does not take classes for targets"),
        }
    }

    /// The classes.
    ///
    /// # Panics
    /// If the targets are numbers, which a loss of classes refuses beforehand.
    pub(crate) fn classes(self) -> &'a [u32] {
        match self {
            Self::Classes(classes) => classes,
            Self::Reals(_) => unreachable!("a loss of classes does not take numbers for targets"),
        }
    }
}

/// Buffers for the targets of some samples, reused from one piece to the next.
#[derive(Debug, Default)]
pub(crate) struct Truths {
    classes: Vec<u32>,
    reals: Vec<f32>,
}

impl Truths {
    pub(crate) fn clear(&mut self) {
        self.classes.clear();
        self.reals.clear();
    }

    /// Adds stored targets.
    pub(crate) fn extend(&mut self, target: Target, bytes: &[u8]) {
        match target {
            Target::Class { .. } => {
                self.classes.extend(bytes.chunks_exact(target.bytes()).map(|bytes| target.class(bytes)));
            }
            Target::Reals { .. } => {
                let words = bytes.as_chunks::<4>().0;
                self.reals.extend(words.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
        }
    }

    /// Adds decoded targets.
    pub(crate) fn add(&mut self, truth: Truth<'_>) {
        match truth {
            Truth::Classes(classes) => self.classes.extend_from_slice(classes),
            Truth::Reals(reals) => self.reals.extend_from_slice(reals),
        }
    }

    pub(crate) fn get(&self, target: Target) -> Truth<'_> {
        match target {
            Target::Class { .. } => Truth::Classes(&self.classes),
            Target::Reals { .. } => Truth::Reals(&self.reals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_stored_in_the_fewest_bytes() {
        for (classes, bytes) in [(2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4), (u32::MAX, 4)] {
            let target = Target::Class { classes };
            assert_eq!(target.bytes(), bytes);
            let largest = classes - 1;
            assert_eq!(target.class(&largest.to_le_bytes()[..bytes]), largest);
        }
    }

    #[test]
    fn the_first_invalid_class_is_found() {
        let target = Target::Class { classes: 300 };
        let targets: Vec<u8> = [0u16, 299, 300, 7].iter().flat_map(|class| class.to_le_bytes()).collect();
        assert_eq!(target.first_unknown(&targets), Some((2, 300)));
        assert_eq!(target.first_unknown(&targets[..4]), None);
        assert_eq!(Target::Reals { width: 1 }.first_unknown(&targets), None);
    }

    #[test]
    fn stored_targets_are_read_by_their_type() {
        let mut truths = Truths::default();
        let reals = Target::Reals { width: 2 };
        truths.extend(reals, &[1.5f32, -2.0].map(f32::to_le_bytes).concat());
        assert!(matches!(truths.get(reals), Truth::Reals([1.5, -2.0])));
        truths.clear();
        truths.extend(Target::Class { classes: 1000 }, &[1, 2, 0, 0]);
        assert_eq!(truths.get(Target::Class { classes: 1000 }).classes(), [513, 0]);
    }

    #[test]
    fn sizes_follow_from_the_schema() {
        let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
        assert_eq!((schema.features.width(), schema.sample_bytes()), (784, 785));
        let table = Features { element: Element::F32, shape: vec![13] };
        assert_eq!((table.width(), table.bytes(), table.rows_and_columns()), (13, 52, None));
    }
}
