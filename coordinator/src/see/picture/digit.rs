//! Finds the digit among the ink: the one figure that could be it, without what lies around it.
//!
//! The ink is separated into connected parts, and those that cannot be a digit are recognized by their shape: lines across the
//! image ([`rules`]), frames (around another part, and empty there), what the border cuts off, specks. Of the rest, parts
//! that are close to each other are a figure; small ones beside it are its parts, as the bar of a 5 is. A second figure of
//! similar height is an error, because nobody can say which of the two was meant.
//!
//! What is left out may be darker than the digit, such as a printed frame around pencil. So if no figure is found,
//! all that was seen is erased, and weaker ink looked at.

use std::collections::BTreeMap;

use super::PictureError;
use super::plane::{Bounds, Plane, quantile};
use super::rules;

/// Somewhere, ink must differ from the paper by at least this much of 255, or there is no ink.
const FAINTEST_INK: f32 = 24.0;

/// Ink of at least this share of the strongest makes up the parts.
const MARKED: f32 = 0.3;

/// Ink of at least this share of the strongest may be a line's, and is in the figure's bounds. Fainter pixels are noise or
/// shadow.
const FAINT: f32 = 0.12;

/// This share of a figure's ink is weaker than what becomes white: not all, because of noise.
const WHITE: f32 = 0.98;

/// A figure is at least this long, in pixels and as a share of the image.
const SHORTEST: (usize, f32) = (5, 0.02);

/// A part that fills this share of its bounds, and is about as wide as high, is a dot.
const DOT: f32 = 0.72;

/// Parts closer than this share of the largest one's length are one figure.
const CLOSE: f32 = 0.08;

/// A part of less than this share of the largest one's length is a speck.
const SMALLEST: f32 = 0.1;

/// What is further from a figure than this share of its length is no part of it.
const BESIDE: f32 = 0.25;

/// A figure of at least this share of the largest one's height is another figure.
const ANOTHER: f32 = 0.5;

/// How far around its marks a figure's weaker ink reaches, as a share of its length: two pixels of MNIST.
const FRINGE: f32 = 0.1;

/// A digit's ink, 0 to 1, and its bounds.
pub(super) struct Digit {
    pub(super) ink: Plane<f32>,
    pub(super) bounds: Bounds,
}

/// Finds the digit.
///
/// # Errors
/// If there is no figure that could be one, or more than one.
pub(super) fn of(ink: Plane<f32>) -> Result<Digit, PictureError> {
    let faint = FAINT * ink.strongest();
    let mut ink = without(&ink, &rules::of(&ink.map(|ink| ink >= faint)), 1);
    let mut nothing = PictureError::NoInk;
    loop {
        let strongest = ink.strongest();
        if strongest < FAINTEST_INK {
            return Err(nothing);
        }
        let marks = ink.map(|ink| ink >= MARKED * strongest);
        let parts = Parts::of(&marks);
        match parts.figure()? {
            Some(figure) => return Ok(parts.cut_out(&ink, &figure)),
            None => ink = without(&ink, &marks, 1 + marks.longest() / 100),
        }
        nothing = PictureError::NoFigure;
    }
}

/// The ink that is left once these marks are erased, with as much of their blurred sides.
fn without(ink: &Plane<f32>, marks: &Plane<bool>, sides: usize) -> Plane<f32> {
    ink.with(&marks.grown(sides), |ink, erased| if erased { 0.0 } else { ink })
}

/// Connected marks.
#[derive(Clone, Copy)]
struct Part {
    number: u32,
    /// One of its pixels.
    first: (usize, usize),
    bounds: Bounds,
    marks: usize,
    /// How many of the marks are at the image's border.
    at_border: usize,
}

struct Parts {
    /// Which part each pixel belongs to; 0 for none.
    numbers: Plane<u32>,
    /// The parts that may be of a digit.
    parts: Vec<Part>,
}

impl Parts {
    fn of(marks: &Plane<bool>) -> Self {
        let (numbers, _) = marks.numbered();
        let parts = counted(&numbers);
        let mut parts = Self { numbers, parts };
        parts.drop_frames();
        parts.drop_cut_off();
        parts.drop_specks();
        parts
    }

    /// Drops every part that is around another, and empty there. A 0 is around nothing that is as large.
    fn drop_frames(&mut self) {
        let is_frame = |frame: &Part| {
            self.parts.iter().any(|part| {
                frame.bounds.surrounds(part.bounds)
                    && 4 * part.bounds.longest() >= frame.bounds.longest()
                    && !self.is_in(frame.number, part.bounds)
            })
        };
        self.parts = self.parts.iter().copied().filter(|part| !is_frame(part)).collect();
    }

    /// Whether the part has a pixel within these bounds.
    fn is_in(&self, number: u32, bounds: Bounds) -> bool {
        let mut columns = bounds.left..=bounds.right;
        columns.any(|x| (bounds.top..=bounds.bottom).any(|y| self.numbers.at(x, y) == number))
    }

    /// Drops what the border cuts off, such as a table's edge or a neighbouring digit, if there is ink that it does not.
    fn drop_cut_off(&mut self) {
        let whole = self.parts.iter().filter(|part| part.at_border == 0 && self.is_long(part.bounds));
        let Some(whole) = whole.map(|part| part.marks).max() else { return };
        let side = self.numbers.width().min(self.numbers.height());
        self.parts.retain(|part| part.at_border == 0 || (part.marks > whole && 2 * part.at_border < side));
    }

    /// Drops what is too small to be a part of the largest.
    fn drop_specks(&mut self) {
        let Some(largest) = self.largest() else { return };
        self.parts.retain(|part| part.bounds.longest() as f32 >= SMALLEST * largest as f32);
    }

    /// The length of the part with most ink.
    fn largest(&self) -> Option<usize> {
        self.parts.iter().max_by_key(|part| part.marks).map(|part| part.bounds.longest())
    }

    fn is_long(&self, bounds: Bounds) -> bool {
        let (pixels, share) = SHORTEST;
        bounds.longest() >= pixels.max((share * self.numbers.longest() as f32) as usize)
    }

    /// The figure, as the numbers of its parts; `None` if nothing could be a digit.
    fn figure(&self) -> Result<Option<Vec<u32>>, PictureError> {
        let Some(largest) = self.largest() else { return Ok(None) };
        let groups = self.groups((largest as f32 * CLOSE / 2.0) as usize);
        let Some(main) = groups.iter().max_by_key(|group| group.marks) else { return Ok(None) };
        if !self.is_long(main.bounds) || main.is_dot() {
            return Ok(None);
        }
        let height = main.bounds.height() as f32;
        let others = || groups.iter().filter(|group| !std::ptr::eq(*group, main));
        let is_another = |group: &&Group| {
            group.bounds.height() as f32 >= ANOTHER * height
                && 10 * group.marks >= main.marks
                && !group.is_dot()
        };
        let figures = 1 + others().filter(is_another).count();
        if figures > 1 {
            return Err(PictureError::Figures(figures));
        }
        let beside = BESIDE * main.bounds.longest() as f32;
        let is_part = |group: &&Group| main.bounds.gap(group.bounds) as f32 <= beside;
        Ok(Some(others().filter(is_part).chain([main]).flat_map(|group| group.parts.clone()).collect()))
    }

    /// The parts, those together that are closer than twice the radius.
    fn groups(&self, radius: usize) -> Vec<Group> {
        let kept: Vec<u32> = self.parts.iter().map(|part| part.number).collect();
        let (near, _) =
            self.numbers.map(|number| kept.binary_search(&number).is_ok()).grown(radius).numbered();
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for part in &self.parts {
            let (x, y) = part.first;
            let empty = Group { parts: Vec::new(), bounds: part.bounds, marks: 0 };
            groups.entry(near.at(x, y)).or_insert(empty).add(part);
        }
        groups.into_values().collect()
    }

    /// The ink of these parts alone, with its blurred sides.
    fn cut_out(&self, ink: &Plane<f32>, figure: &[u32]) -> Digit {
        let own = self.numbers.map(|number| figure.contains(&number));
        let mut strengths: Vec<f32> = own.with(ink, |own, ink| if own { ink } else { 0.0 }).values().to_vec();
        strengths.retain(|&ink| ink > 0.0);
        let white = quantile(&mut strengths, WHITE);
        let others = self.numbers.with(&own, |number, own| number > 0 && !own).grown(1);
        let reach = (FRINGE * bounds(&own).map_or(0, Bounds::longest) as f32).ceil() as usize;
        let allowed = own.grown(reach).with(&others, |near, other| near && !other);
        let allowed = allowed.with(&own, |allowed, own| allowed || own);
        let ink = ink.with(&allowed, |ink, allowed| if allowed { (ink / white).min(1.0) } else { 0.0 });
        let bounds = bounds(&ink.map(|ink| ink >= FAINT)).expect("a figure has ink");
        Digit { ink, bounds }
    }
}

/// Parts that are close to each other.
struct Group {
    /// Their numbers.
    parts: Vec<u32>,
    bounds: Bounds,
    marks: usize,
}

impl Group {
    fn add(&mut self, part: &Part) {
        self.bounds = self.bounds.around(part.bounds);
        self.parts.push(part.number);
        self.marks += part.marks;
    }

    fn is_dot(&self) -> bool {
        let (width, height) = (self.bounds.width(), self.bounds.height());
        let is_square = 2 * width.max(height) <= 3 * width.min(height);
        is_square && self.marks as f32 >= DOT * (width * height) as f32
    }
}

/// The parts, in the order of their numbers.
fn counted(numbers: &Plane<u32>) -> Vec<Part> {
    let Bounds { right, bottom, .. } = Bounds::of(numbers);
    let mut parts: Vec<Part> = Vec::new();
    for (x, y, number) in numbers.places().filter(|place| place.2 > 0) {
        let at_border = usize::from(x == 0 || y == 0 || x == right || y == bottom);
        match parts.get_mut(number as usize - 1) {
            Some(part) => {
                part.bounds = part.bounds.around(Bounds::at(x, y));
                part.marks += 1;
                part.at_border += at_border;
            }
            // They are numbered in the order in which they are met.
            None => parts.push(Part { number, first: (x, y), bounds: Bounds::at(x, y), marks: 1, at_border }),
        }
    }
    parts
}

/// The bounds of the marks; `None` if there are none.
fn bounds(marks: &Plane<bool>) -> Option<Bounds> {
    marks.places().filter(|place| place.2).map(|(x, y, _)| Bounds::at(x, y)).reduce(Bounds::around)
}
