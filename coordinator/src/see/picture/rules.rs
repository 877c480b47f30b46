//! Finds straight lines that cross the whole image: ruled or squared paper, and the sides of a frame.
//!
//! A line is thin, straight, and goes from one border to the other; a photograph may have turned it by a few degrees.
//! For each slope, ink is counted along rows of that slope (a Hough transform of nearly horizontal lines; vertical ones are those of
//! the transposed image). Where a stroke crosses a line, the stroke stays.

use super::plane::Plane;

/// The steepest slope of a line: about three degrees.
const SLOPE: f32 = 0.05;

/// A line has ink along this share of its length.
const INKED: f32 = 0.7;

/// A line begins and ends within this share of the length from the border.
const ENDS: f32 = 0.05;

/// A line is at most this share of the height thick.
const THICKEST: f32 = 0.04;

/// A single line is none if what remains is higher than this share of the image: then it may be the bar of a cropped 7.
const REST: f32 = 0.7;

/// The marks that belong to lines.
pub(super) fn of(marks: &Plane<bool>) -> Plane<bool> {
    let across = nearly_horizontal(marks);
    let without = marks.with(&across, |mark, line| mark && !line);
    let down = nearly_horizontal(&without.transposed()).transposed();
    across.with(&down, |across, down| across || down)
}

fn nearly_horizontal(marks: &Plane<bool>) -> Plane<bool> {
    let none = marks.map(|_| false);
    let image = Image::of(marks);
    let Some(slope) = image.best_slope() else { return none };
    let bands = image.bands(slope);
    let mut lines = none.clone();
    bands.iter().for_each(|band| erase(marks, slope, band, &mut lines));
    let rest = marks.with(&lines, |mark, line| mark && !line);
    if bands.len() > 1 || (extent(&rest) as f32) < REST * image.height as f32 { lines } else { none }
}

/// The marked places of an image.
struct Image {
    places: Vec<(usize, usize)>,
    width: usize,
    height: usize,
}

/// Neighbouring rows of a slope that make up a line.
struct Band {
    /// The first row and the last, at the left border.
    rows: (isize, isize),
    marks: usize,
}

/// The ink along a row of a slope.
#[derive(Clone, Copy, Default)]
struct Row {
    marks: usize,
    at_left: bool,
    at_right: bool,
}

impl Image {
    fn of(marks: &Plane<bool>) -> Self {
        let places = marks.places().filter(|place| place.2).map(|(x, y, _)| (x, y)).collect();
        Self { places, width: marks.width(), height: marks.height() }
    }

    /// The slope, in rows per column, along which most ink is in lines; `None` if there is no line.
    fn best_slope(&self) -> Option<f32> {
        let steps = (SLOPE * self.width as f32).ceil() as i32;
        let slopes = (-steps..=steps).map(|step| step as f32 / self.width as f32);
        let in_lines = |slope: f32| -> usize { self.bands(slope).iter().map(|band| band.marks).sum() };
        let scored = slopes.map(|slope| (in_lines(slope), slope)).filter(|(marks, _)| *marks > 0);
        // Of equals, the flattest.
        let best = scored.max_by(|(left, slope), (right, other)| {
            left.cmp(right).then(other.abs().total_cmp(&slope.abs()))
        });
        best.map(|(_, slope)| slope)
    }

    /// The lines of this slope.
    fn bands(&self, slope: f32) -> Vec<Band> {
        let (first, rows) = self.rows(slope);
        let thickest = (THICKEST * self.height as f32).max(1.0) as isize;
        let mut bands: Vec<Band> = Vec::new();
        let inked = (first..).zip(rows).filter(|(_, row)| self.is_inked(row));
        for (place, row) in inked {
            match bands.last_mut() {
                Some(band) if band.rows.1 + 1 == place => {
                    *band = Band { rows: (band.rows.0, place), marks: band.marks + row.marks };
                }
                _ => bands.push(Band { rows: (place, place), marks: row.marks }),
            }
        }
        bands.retain(|band| band.rows.1 - band.rows.0 < thickest);
        bands
    }

    /// The rows of this slope, and the number of the first.
    fn rows(&self, slope: f32) -> (isize, Vec<Row>) {
        let margin = (SLOPE * self.width as f32).ceil() as isize + 1;
        let ends = (ENDS * self.width as f32).max(1.0) as usize;
        let mut rows = vec![Row::default(); self.height + 2 * margin as usize];
        for &(x, y) in &self.places {
            let row = &mut rows[(row_at(slope, x, y) + margin) as usize];
            row.marks += 1;
            row.at_left |= x < ends;
            row.at_right |= x + ends >= self.width;
        }
        (-margin, rows)
    }

    fn is_inked(&self, row: &Row) -> bool {
        row.marks as f32 >= INKED * self.width as f32 && row.at_left && row.at_right
    }
}

/// The row of a place, at the left border.
fn row_at(slope: f32, x: usize, y: usize) -> isize {
    y as isize - (slope * x as f32).round() as isize
}

/// Marks the line's pixels, and those of its blurred sides, except where a stroke crosses it.
fn erase(marks: &Plane<bool>, slope: f32, band: &Band, lines: &mut Plane<bool>) {
    let height = marks.height() as isize;
    for x in 0..marks.width() {
        let shift = row_at(slope, x, 0);
        let is_ink = |y: isize| (0..height).contains(&y) && marks.at(x, y as usize);
        let (mut top, mut bottom) = (band.rows.0 - shift, band.rows.1 - shift);
        // A line is not drawn to the pixel.
        top -= isize::from(is_ink(top - 1) && !is_ink(top - 2));
        bottom += isize::from(is_ink(bottom + 1) && !is_ink(bottom + 2));
        if is_ink(top - 1) || is_ink(bottom + 1) {
            continue;
        }
        for y in (top..=bottom).filter(|&y| is_ink(y)) {
            lines.set(x, y as usize, true);
        }
    }
}

/// From the first row with marks to the last, but for a twentieth of the marks at each end, which may be noise.
fn extent(marks: &Plane<bool>) -> usize {
    // Places come row by row.
    let rows: Vec<usize> = marks.places().filter(|place| place.2).map(|(_, y, _)| y).collect();
    let noise = rows.len() / 20;
    match &rows[noise..rows.len() - noise] {
        [first, .., last] => last - first + 1,
        rest => rest.len(),
    }
}
