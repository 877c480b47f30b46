//! A rectangle of values, and what is done to all of them alike: windows, medians, scaling, connected parts.
//!
//! A window at the edge is cut there: what lies outside is neither light nor dark.

/// Values in rows.
#[derive(Clone, Debug)]
pub(super) struct Plane<T> {
    width: usize,
    values: Vec<T>,
}

/// A rectangle of a plane, all four sides included in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
}

impl<T: Copy> Plane<T> {
    /// Rows of `width` values.
    pub(super) fn new(width: usize, values: Vec<T>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "a plane has whole rows");
        Self { width, values }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// Its longer side.
    pub(super) fn longest(&self) -> usize {
        self.width().max(self.height())
    }

    pub(super) fn at(&self, x: usize, y: usize) -> T {
        self.values[y * self.width + x]
    }

    pub(super) fn set(&mut self, x: usize, y: usize, value: T) {
        self.values[y * self.width + x] = value;
    }

    pub(super) fn values(&self) -> &[T] {
        &self.values
    }

    /// Every place with its value.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize, T)> + '_ {
        let width = self.width;
        self.values.iter().enumerate().map(move |(index, &value)| (index % width, index / width, value))
    }

    pub(super) fn map<U: Copy>(&self, change: impl FnMut(T) -> U) -> Plane<U> {
        Plane::new(self.width, self.values.iter().copied().map(change).collect())
    }

    /// Combines two planes of one size.
    pub(super) fn with<U: Copy, V: Copy>(&self, other: &Plane<U>, combine: impl Fn(T, U) -> V) -> Plane<V> {
        let pairs = self.values.iter().zip(&other.values);
        Plane::new(self.width, pairs.map(|(&left, &right)| combine(left, right)).collect())
    }

    /// Rows as columns.
    pub(super) fn transposed(&self) -> Self {
        let (width, height) = (self.width, self.height());
        let values = (0..width).flat_map(|x| (0..height).map(move |y| (x, y)));
        Self::new(height, values.map(|(x, y)| self.at(x, y)).collect())
    }

    /// For each place, what `pick` leaves of the values within `radius` of it, in a square.
    ///
    /// `pick` is a maximum or a minimum. The time does not depend on the radius (van Herk 1992, "A fast algorithm for
    /// local minimum and maximum filters on rectangular and octagonal kernels").
    pub(super) fn window(&self, radius: usize, pick: fn(T, T) -> T) -> Self {
        let rows = |plane: &Self| {
            let rows = plane.values.chunks_exact(plane.width);
            Self::new(plane.width, rows.flat_map(|row| window_of_row(row, radius, pick)).collect())
        };
        rows(&rows(self).transposed()).transposed()
    }
}

fn window_of_row<T: Copy>(row: &[T], radius: usize, pick: fn(T, T) -> T) -> Vec<T> {
    let (length, last) = (2 * radius + 1, row.len() - 1);
    // What is picked from the start of a block of `length` values, and to its end.
    let (mut from_start, mut to_end) = (row.to_vec(), row.to_vec());
    for place in (1..row.len()).filter(|place| place % length != 0) {
        from_start[place] = pick(from_start[place - 1], row[place]);
    }
    for place in (0..last).rev().filter(|place| (place + 1) % length != 0) {
        to_end[place] = pick(row[place], to_end[place + 1]);
    }
    let at = |place: usize| {
        let (first, end) = (place.saturating_sub(radius), (place + radius).min(last));
        match (first, first / length == end / length) {
            (0, _) => from_start[end],
            (_, true) => to_end[first],
            (_, false) => pick(to_end[first], from_start[end]),
        }
    };
    (0..row.len()).map(at).collect()
}

impl Plane<f32> {
    /// The largest value.
    pub(super) fn strongest(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The median of each 3×3 values: without single ones that are unlike all around them.
    pub(super) fn calmed(&self) -> Self {
        let (width, height) = (self.width, self.height());
        let median = |x: usize, y: usize| {
            let (mut near, mut count) = ([0.0; 9], 0);
            for y in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    near[count] = self.at(x, y);
                    count += 1;
                }
            }
            quantile(&mut near[..count], 0.5)
        };
        Self::new(width, self.places().map(|(x, y, _)| median(x, y)).collect())
    }

    /// A part of the plane as `columns` × `rows` means over equal areas.
    pub(super) fn scaled(&self, part: Bounds, columns: usize, rows: usize) -> Self {
        let mean = |x: usize, y: usize| -> f64 {
            let across = |y: usize| {
                let covered = covered(x, part.width(), columns);
                covered.map(|(x, share)| share * f64::from(self.at(part.left + x, part.top + y))).sum::<f64>()
            };
            covered(y, part.height(), rows).map(|(y, share)| share * across(y)).sum()
        };
        let places = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
        Self::new(columns, places.map(|(x, y)| mean(x, y) as f32).collect())
    }
}

/// The source pixels that pixel `index` covers when `from` pixels are scaled to `to`, and the fraction that each
/// fills.
fn covered(index: usize, from: usize, to: usize) -> impl Iterator<Item = (usize, f64)> {
    let ratio = from as f64 / to as f64;
    let (start, end) = (index as f64 * ratio, (index + 1) as f64 * ratio);
    let last = (end.ceil() as usize).min(from);
    (start as usize..last).map(move |x| (x, (((x + 1) as f64).min(end) - (x as f64).max(start)) / ratio))
}

/// The value below which this share of the values lies. Reorders them; there must be one.
pub(super) fn quantile(values: &mut [f32], share: f32) -> f32 {
    let place = ((values.len() - 1) as f32 * share).round() as usize;
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

impl Plane<bool> {
    /// Also what is within `radius` of what is marked.
    pub(super) fn grown(&self, radius: usize) -> Self {
        self.window(radius, |left, right| left | right)
    }

    /// Numbers the connected parts from 1, neighbours over a corner included; 0 is what is not marked.
    pub(super) fn numbered(&self) -> (Plane<u32>, u32) {
        let mut numbers = self.map(|_| 0);
        let (mut count, mut pending) = (0, Vec::new());
        for (x, y, marked) in self.places() {
            if !marked || numbers.at(x, y) > 0 {
                continue;
            }
            count += 1;
            numbers.set(x, y, count);
            pending.push((x, y));
            while let Some((x, y)) = pending.pop() {
                for y in y.saturating_sub(1)..=(y + 1).min(self.height() - 1) {
                    for x in x.saturating_sub(1)..=(x + 1).min(self.width() - 1) {
                        if self.at(x, y) && numbers.at(x, y) == 0 {
                            numbers.set(x, y, count);
                            pending.push((x, y));
                        }
                    }
                }
            }
        }
        (numbers, count)
    }
}

impl Bounds {
    /// A whole plane.
    pub(super) fn of<T: Copy>(plane: &Plane<T>) -> Self {
        Self { left: 0, top: 0, right: plane.width() - 1, bottom: plane.height() - 1 }
    }

    /// One place.
    pub(super) fn at(x: usize, y: usize) -> Self {
        Self { left: x, top: y, right: x, bottom: y }
    }

    /// The smallest rectangle around both.
    pub(super) fn around(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    pub(super) fn width(self) -> usize {
        self.right - self.left + 1
    }

    pub(super) fn height(self) -> usize {
        self.bottom - self.top + 1
    }

    pub(super) fn longest(self) -> usize {
        self.width().max(self.height())
    }

    /// Whether the other lies inside, apart from the sides.
    pub(super) fn surrounds(self, other: Self) -> bool {
        self.left < other.left
            && self.top < other.top
            && self.right > other.right
            && self.bottom > other.bottom
    }

    /// How far the two are apart, across or down; 0 if they overlap.
    pub(super) fn gap(self, other: Self) -> usize {
        let across = other.left.saturating_sub(self.right).max(self.left.saturating_sub(other.right));
        across.max(other.top.saturating_sub(self.bottom)).max(self.top.saturating_sub(other.bottom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_picks_what_a_search_of_it_finds() {
        for width in [1, 2, 5, 7, 16] {
            for radius in [0, 1, 2, 3, 9] {
                let values = (0..width * 6).map(|index| (index * 37 + 11) % 23).collect();
                let plane = Plane::new(width, values);
                let window = plane.window(radius, usize::max);
                for (x, y, picked) in window.places() {
                    let near = plane
                        .places()
                        .filter(|place| place.0.abs_diff(x) <= radius && place.1.abs_diff(y) <= radius);
                    assert_eq!(Some(picked), near.map(|place| place.2).max(), "{width} {radius} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn parts_are_connected_over_corners_and_numbered_in_reading_order() {
        let text = "##..#  .##..  .....  ##.##";
        let marks: Vec<bool> = text.chars().filter(|&c| c != ' ').map(|c| c == '#').collect();
        let (numbers, count) = Plane::new(5, marks).numbered();
        assert_eq!(count, 4);
        assert_eq!(numbers.values(), [1, 1, 0, 0, 2, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 3, 3, 0, 4, 4]);
    }

    #[test]
    fn scaling_keeps_the_mean() {
        let plane = Plane::new(6, (0..36).map(|value| value as f32).collect());
        for (columns, rows) in [(1, 1), (4, 4), (5, 3), (9, 12)] {
            let scaled = plane.scaled(Bounds::of(&plane), columns, rows);
            let mean = scaled.values().iter().sum::<f32>() / (columns * rows) as f32;
            assert!((mean - 17.5).abs() < 1e-3, "{columns} × {rows}: {mean}");
        }
    }
}
