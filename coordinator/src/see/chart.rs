//! Metrics and loss over the epochs, drawn with characters.
//!
//! Curves are drawn with the dots of braille characters, two across and four down per cell. Each epoch has a mark if
//! there is room for marks: `●` for training, `○` for validation, `◉` if both are in the same cell. Validation's line
//! is dashed, so that the curves can be told apart without colour and without marks.

use super::figure::{Figure, Point};
use super::{Ink, centred, width};
use millefeuille_core::view::EpochRow;

/// Lines between a chart's title and its lower axis: one more than a multiple of 2, 3, 4 and 6, so that most ticks
/// fall on a line.
const HEIGHT: usize = 13;

/// Columns left of the axis, for a value and a space.
const LABELS: usize = 7;

/// Minimum width of a chart: its legend.
const NARROWEST: usize = 35;

/// The charts of the metrics and of the loss, two side by side if `columns` allow it, otherwise one above the other, with a line
/// feed after each line.
pub fn chart(rows: &[EpochRow], columns: usize, ink: Ink) -> String {
    const GAP: usize = 2;
    const WIDEST: usize = 60;
    let figures = Figure::all(rows);
    let half = columns.saturating_sub(GAP) / 2;
    let lines: Vec<String> = match &figures[..] {
        [left, right] if half >= NARROWEST => {
            let [left, right] = [left, right].map(|figure| panel(figure, half.min(WIDEST), ink));
            left.iter().zip(&right).map(|(left, right)| format!("{left}{}{right}", " ".repeat(GAP))).collect()
        }
        all => all.iter().flat_map(|figure| panel(figure, columns.clamp(NARROWEST, WIDEST), ink)).collect(),
    };
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// One of the two curves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    Training,
    Validation,
}

impl Curve {
    fn sgr(self) -> &'static str {
        match self {
            Curve::Training => "36",
            Curve::Validation => "33",
        }
    }

    fn mark(self) -> char {
        match self {
            Curve::Training => '●',
            Curve::Validation => '○',
        }
    }

    /// Whether the line has a dot at this distance from its beginning, in dots.
    fn has_dot(self, distance: usize) -> bool {
        self == Curve::Training || distance % 6 < 3
    }
}

/// A character cell of the plot.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// The braille dots, as the bits of the code point.
    dots: u8,
    mark: Option<char>,
    owner: Option<Curve>,
}

impl Cell {
    fn text(self, ink: Ink) -> String {
        let character = match (self.mark, self.dots) {
            (Some(mark), _) => mark,
            (None, 0) => ' ',
            (None, dots) => char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
        };
        match self.owner {
            Some(curve) => ink.paint(curve.sgr(), &character.to_string()),
            None => character.to_string(),
        }
    }
}

/// The area between the axes.
struct Canvas<'a> {
    figure: &'a Figure,
    columns: usize,
    cells: Vec<Cell>,
}

impl<'a> Canvas<'a> {
    fn new(figure: &'a Figure, columns: usize) -> Canvas<'a> {
        let mut canvas = Canvas { figure, columns, cells: vec![Cell::default(); columns * HEIGHT] };
        // Training is drawn last: where the lines cross, its line stays whole.
        for (curve, stretches) in
            [(Curve::Validation, &figure.validation), (Curve::Training, &figure.training)]
        {
            stretches.iter().for_each(|points| canvas.line(curve, points));
        }
        for (curve, stretches) in
            [(Curve::Validation, &figure.validation), (Curve::Training, &figure.training)]
        {
            stretches.iter().flatten().for_each(|&point| canvas.mark(curve, point));
        }
        canvas
    }

    /// The position of a point, in dots from the upper left.
    fn dot(&self, (epoch, value): Point) -> (usize, usize) {
        let place = |share: f64, dots: usize| (share * (dots - 1) as f64).round() as usize;
        (
            place(self.figure.x.share(epoch), 2 * self.columns),
            place(1.0 - self.figure.y.share(value), 4 * HEIGHT),
        )
    }

    fn cell(&mut self, (x, y): (usize, usize)) -> &mut Cell {
        &mut self.cells[y / 4 * self.columns + x / 2]
    }

    fn line(&mut self, curve: Curve, points: &[Point]) {
        let mut distance = 0;
        for pair in points.windows(2) {
            let (from, to) = (self.dot(pair[0]), self.dot(pair[1]));
            let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1));
            for step in 0..=steps {
                if curve.has_dot(distance + step) {
                    self.set(curve, between(from, to, step as f64 / steps.max(1) as f64));
                }
            }
            distance += steps;
        }
    }

    fn set(&mut self, curve: Curve, (x, y): (usize, usize)) {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let cell = self.cell((x, y));
        cell.dots |= BITS[y % 4][x % 2];
        cell.owner = Some(curve);
    }

    fn mark(&mut self, curve: Curve, point: Point) {
        if !has_room_for_marks(self.figure, self.columns) {
            return;
        }
        let cell = self.cell(self.dot(point));
        let shared = cell.mark.is_some_and(|mark| mark != curve.mark());
        cell.mark = Some(if shared { '◉' } else { curve.mark() });
        cell.owner = Some(curve);
    }

    fn rows(&self, ink: Ink) -> Vec<String> {
        self.cells
            .chunks_exact(self.columns)
            .map(|row| row.iter().map(|cell| cell.text(ink)).collect())
            .collect()
    }
}

fn between(from: (usize, usize), to: (usize, usize), share: f64) -> (usize, usize) {
    let mix = |from: usize, to: usize| (from as f64 + (to as f64 - from as f64) * share).round() as usize;
    (mix(from.0, to.0), mix(from.1, to.1))
}

/// Marks need a column each and one between them, or they hide the curve.
fn has_room_for_marks(figure: &Figure, columns: usize) -> bool {
    figure.x.high - figure.x.low <= columns as f64 / 2.0
}

/// A figure as lines exactly `columns` wide.
fn panel(figure: &Figure, columns: usize, ink: Ink) -> Vec<String> {
    let inner = columns - LABELS - 1;
    let canvas = Canvas::new(figure, inner);
    let mut plot = canvas.rows(ink);
    if figure.is_empty() {
        plot[HEIGHT / 2] = centred("no finite values", inner);
    }
    let scale = value_labels(figure);
    let indent = " ".repeat(LABELS + 1);
    let mut lines = vec![format!("{indent}{}", centred(&format!("{} by epoch", figure.title), inner))];
    lines.extend(scale.iter().zip(&plot).map(|(label, row)| format!("{label}{row}")));
    lines.extend(epoch_labels(figure, inner).map(|line| format!("{}{line}", " ".repeat(LABELS))));
    lines.push(format!("{indent}{}", legend(figure, inner, ink)));
    lines
}

/// The axis at the left of each line of the plot, labelled at its ticks.
fn value_labels(figure: &Figure) -> Vec<String> {
    let mut lines = vec![format!("{:LABELS$}│", ""); HEIGHT];
    for &tick in &figure.y.ticks {
        let line = ((1.0 - figure.y.share(tick)) * (HEIGHT - 1) as f64).round() as usize;
        lines[line] = format!("{:>wide$} ┤", figure.y.label(tick), wide = LABELS - 1);
    }
    lines
}

/// The axis below the plot, and the epochs below the axis; a label that would touch its neighbour is left
/// out.
fn epoch_labels(figure: &Figure, inner: usize) -> [String; 2] {
    let mut axis: Vec<char> = std::iter::once('└').chain(std::iter::repeat_n('─', inner)).collect();
    let mut labels = vec![' '; inner + 1];
    let mut free = 0;
    for &tick in &figure.x.ticks {
        let column = 1 + (figure.x.share(tick) * (2 * inner - 1) as f64).round() as usize / 2;
        let label = figure.x.label(tick);
        let start = column.saturating_sub(width(&label) / 2).min((inner + 1).saturating_sub(width(&label)));
        if start >= free && start + width(&label) <= labels.len() {
            axis[column] = '┴';
            labels.splice(start..start + width(&label), label.chars());
            free = start + width(&label) + 1;
        }
    }
    [axis, labels].map(|line| line.into_iter().collect())
}

fn legend(figure: &Figure, inner: usize, ink: Ink) -> String {
    let marks = has_room_for_marks(figure, inner);
    let entry = |curve: Curve, line: &str, name: &str| {
        let sample = if marks { curve.mark().to_string() } else { line.to_owned() };
        (width(&sample) + 1 + name.len(), format!("{} {name}", ink.paint(curve.sgr(), &sample)))
    };
    let mut entries = vec![entry(Curve::Training, "⠤⠤", "training")];
    if !figure.validation.is_empty() {
        entries.push(entry(Curve::Validation, "⠤ ⠤", "validation"));
    }
    let wide = entries.iter().map(|entry| entry.0).sum::<usize>() + 2 * (entries.len() - 1);
    let text = entries.iter().map(|entry| entry.1.as_str()).collect::<Vec<_>>().join("  ");
    let left = inner.saturating_sub(wide) / 2;
    format!("{}{text}{}", " ".repeat(left), " ".repeat(inner.saturating_sub(wide + left)))
}
