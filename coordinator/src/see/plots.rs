//! Accuracy and loss over the epochs, as SVG.
//!
//! Training is a solid line with discs, validation a dashed line with open squares, so that they can be told apart in
//! print and by colour-blind readers. Text stays text: the viewer supplies the font, and no font needs to be
//! installed here.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::figure::{Axis, Figure};
use millefeuille_core::view::EpochRow;

const WIDTH: u32 = 560;
const HEIGHT: u32 = 380;

/// Okabe and Ito's blue and vermilion, which are distinguishable with every kind of colour vision.
const TRAINING: RGBColor = RGBColor(0, 114, 178);
const VALIDATION: RGBColor = RGBColor(213, 94, 0);

const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// The radius of a disc, and half the side of a square, in the legend and if there is room.
const MARK: i32 = 4;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'c, 'a> = ChartContext<'c, SVGBackend<'a>, Cartesian2d<Scale<'c>, Scale<'c>>>;

/// The files of the run's `plots/`, by name: one for each metric of the job (`accuracy.svg`), `loss.svg`, and all side by side in
/// `history.svg`.
///
/// # Errors
/// No error is expected: the drawing goes to memory.
pub fn plots(rows: &[EpochRow]) -> Result<Vec<(String, String)>> {
    let figures = Figure::all(rows);
    let each = figures.iter().map(|figure| Ok((format!("{}.svg", figure.title), draw(&[figure])?)));
    let all = ("history.svg".to_string(), draw(&figures.iter().collect::<Vec<_>>())?);
    each.chain([Ok(all)]).collect()
}

/// The figures side by side as one SVG document.
fn draw(figures: &[&Figure]) -> Result<String> {
    let mut svg = String::new();
    {
        let across = figures.len();
        let root = SVGBackend::with_string(&mut svg, (WIDTH * across as u32, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, figure) in root.split_evenly((1, across)).iter().zip(figures) {
            draw_figure(area, figure)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn draw_figure(area: &Area, figure: &Figure) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(&figure.title, ("sans-serif", 22, FontStyle::Bold, &TEXT))
        .margin(12)
        .margin_right(20)
        .x_label_area_size(46)
        .y_label_area_size(66)
        .build_cartesian_2d(Scale(&figure.x), Scale(&figure.y))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .x_desc("epoch")
        .y_desc(&figure.title)
        .axis_desc_style(("sans-serif", 18, &TEXT))
        .label_style(("sans-serif", 17, &TEXT))
        .draw()?;
    draw_training(&mut chart, figure)?;
    draw_validation(&mut chart, figure)?;
    chart
        .configure_series_labels()
        .position(legend_position(figure))
        .margin(12)
        .legend_area_size(40)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(("sans-serif", 17, &TEXT))
        .draw()?;
    Ok(())
}

fn draw_training<'c, 'a: 'c>(chart: &mut Chart<'c, 'a>, figure: &Figure) -> Result<()> {
    let line = TRAINING.stroke_width(2);
    for points in &figure.training {
        chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
    }
    let disc = |x: i32, size: i32| Circle::new((x, 0), size, TRAINING.filled());
    let size = mark_size(figure);
    chart
        .draw_series(figure.training.iter().flatten().map(|&point| EmptyElement::at(point) + disc(0, size)))?
        .label("training")
        .legend(move |at| EmptyElement::at(at) + PathElement::new([(0, 0), (34, 0)], line) + disc(17, MARK));
    Ok(())
}

fn draw_validation<'c, 'a: 'c>(chart: &mut Chart<'c, 'a>, figure: &Figure) -> Result<()> {
    if figure.validation.is_empty() {
        return Ok(());
    }
    let line = VALIDATION.stroke_width(2);
    for points in &figure.validation {
        chart.draw_series(DashedLineSeries::new(points.iter().copied(), 7, 5, line))?;
    }
    let square =
        |x: i32, size: i32, style: ShapeStyle| Rectangle::new([(x - size, -size), (x + size, size)], style);
    // Filled white, so that the line does not run through the square.
    let white = WHITE.filled();
    let size = mark_size(figure);
    let mark = |&point| EmptyElement::at(point) + square(0, size, white) + square(0, size, line);
    chart.draw_series(figure.validation.iter().flatten().map(mark))?.label("validation").legend(move |at| {
        EmptyElement::at(at)
            + DashedPathElement::new([(0, 0), (34, 0)], 7, 5, line)
            + square(17, MARK, white)
            + square(17, MARK, line)
    });
    Ok(())
}

/// The size of marks: smaller for many epochs, so that they do not overlap.
fn mark_size(figure: &Figure) -> i32 {
    if figure.x.high - figure.x.low > 40.0 { MARK / 2 } else { MARK }
}

/// The right-hand corner that the training curve avoids.
fn legend_position(figure: &Figure) -> SeriesLabelPosition {
    let last = figure.training.last().and_then(|points| points.last());
    match last {
        Some(&(_, value)) if figure.y.share(value) > 0.5 => SeriesLabelPosition::LowerRight,
        _ => SeriesLabelPosition::UpperRight,
    }
}

/// Adapts our axis to plotters, so that its labels are at the same ticks as in the terminal.
struct Scale<'a>(&'a Axis);

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (begin, end): (i32, i32)) -> i32 {
        begin + (f64::from(end - begin) * self.0.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.0.low..self.0.high
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, tick: &f64) -> String {
        self.0.label(*tick)
    }
}
