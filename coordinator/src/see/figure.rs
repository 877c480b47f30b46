//! The content of a history chart: two curves and their axes.
//!
//! Metrics and loss over the epochs, each for training and for validation, as in the article. Both renderers
//! ([`chart`](super::chart) for the terminal, [`plots`](super::plots) for SVG) take their points, limits and ticks
//! from here, so that they agree. Values that are not finite are left out: they leave a gap in the curve and do not
//! stretch the axis.

use millefeuille_core::view::EpochRow;

/// Values larger than this are treated as infinite, so that axis arithmetic cannot overflow.
const LARGEST: f64 = 1e100;

/// A point of a curve: the epoch and the value.
pub type Point = (f64, f64);

/// One chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What is measured: `loss`, or the name of a metric.
    pub title: String,
    /// The curve of the training batches, in segments without a gap.
    pub training: Vec<Vec<Point>>,
    /// The curve of the validation samples; empty if there are none.
    pub validation: Vec<Vec<Point>>,
    /// The epochs.
    pub x: Axis,
    /// The values.
    pub y: Axis,
}

impl Figure {
    /// All charts of a history: the metrics that the job asks for, the accuracy first, and the loss.
    pub fn all(rows: &[EpochRow]) -> Vec<Figure> {
        let metrics = metric_names(rows).into_iter().map(|name| Figure::metric(&name, rows));
        metrics.chain([Figure::loss(rows)]).collect()
    }

    /// A metric over the epochs.
    pub fn metric(name: &str, rows: &[EpochRow]) -> Figure {
        let of = |row: &EpochRow| row.metric(name);
        let training = |row: &EpochRow| of(row).and_then(|metric| metric.train);
        Figure::new(name, rows, training, |row| of(row).and_then(|metric| metric.validation))
    }

    /// Loss over the epochs.
    pub fn loss(rows: &[EpochRow]) -> Figure {
        Figure::new("loss", rows, |row| Some(row.loss), |row| row.val_loss)
    }

    fn new(
        title: &str,
        rows: &[EpochRow],
        training: impl Fn(&EpochRow) -> Option<f64>,
        validation: impl Fn(&EpochRow) -> Option<f64>,
    ) -> Figure {
        let training = stretches(rows, training);
        let validation = stretches(rows, validation);
        let values = || training.iter().chain(&validation).flatten().map(|point| point.1);
        let epochs = || rows.iter().map(|row| row.epoch as f64);
        let x = Axis::of_epochs(epochs().fold(f64::INFINITY, f64::min), epochs().fold(0.0, f64::max));
        let y =
            Axis::around(values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        Figure { title: title.to_owned(), training, validation, x, y }
    }

    /// Whether there is no point to draw.
    pub fn is_empty(&self) -> bool {
        self.training.is_empty() && self.validation.is_empty()
    }
}

/// The metrics of a history, the accuracy first.
pub fn metric_names(rows: &[EpochRow]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for metric in rows.iter().flat_map(EpochRow::all_metrics) {
        if !names.contains(&metric.name) {
            names.push(metric.name);
        }
    }
    names
}

/// The finite values, as segments of consecutive rows.
fn stretches(rows: &[EpochRow], value: impl Fn(&EpochRow) -> Option<f64>) -> Vec<Vec<Point>> {
    let point = |row: &EpochRow| Some((row.epoch as f64, value(row).filter(|value| value.abs() < LARGEST)?));
    let points: Vec<Option<Point>> = rows.iter().map(point).collect();
    let runs = points.split(Option::is_none).map(|run| run.iter().flatten().copied().collect());
    runs.filter(|run: &Vec<Point>| !run.is_empty()).collect()
}

/// An axis: its limits, and the round values at which it is labelled.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The lower limit.
    pub low: f64,
    /// The upper limit, above the lower one.
    pub high: f64,
    /// Ascending, within the limits.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// About how many ticks there are.
    const TICKS: f64 = 5.0;

    /// An axis for values from `min` to `max` that begins and ends at a tick.
    fn around(min: f64, max: f64) -> Axis {
        if min > max {
            return Axis::around(0.0, 1.0);
        }
        let size = min.abs().max(max.abs());
        // A constant curve is centred on an axis that shows its value.
        if max - min <= 1e-9 * size || max == min {
            let room = if size > 0.0 { 0.1 * size } else { 1.0 };
            return Axis::around(min - room, max + room);
        }
        let step = round_step((max - min) / Axis::TICKS);
        let (first, last) = ((min / step + 1e-6).floor(), (max / step - 1e-6).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Axis { low: first * step, high: last * step, ticks }
    }

    /// An axis for epochs, with a margin at both ends and whole numbers as ticks.
    fn of_epochs(first: f64, last: f64) -> Axis {
        let (first, last) = if first > last { (1.0, 1.0) } else { (first, last) };
        let step = round_step((last - first) / 8.0).max(1.0);
        let air = (0.03 * (last - first)).max(0.3);
        let begin = if step == 1.0 { first } else { (first / step).ceil() * step };
        let count = ((last - begin) / step).floor() as usize;
        let ticks = (0..=count).map(|i| begin + i as f64 * step).collect();
        Axis { low: first - air, high: last + air, ticks }
    }

    /// The position of `value` between the limits: 0 at the lower limit, 1 at the upper one.
    pub fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The label of a tick, with just enough decimals to tell neighbours apart.
    pub fn label(&self, tick: f64) -> String {
        let step = self.ticks.get(1).map_or(1.0, |second| second - self.ticks[0]);
        let decimals = (-(step.log10() + 1e-6).floor()).max(0.0);
        // Adding zero turns -0 into 0.
        let tick = if tick.abs() < step * 1e-6 { 0.0 } else { tick };
        if decimals > 5.0 || tick.abs() >= 1e6 {
            format!("{tick:.2e}")
        } else {
            format!("{tick:.*}", decimals as usize)
        }
    }
}

/// The smallest number of the form 1, 2 or 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    if step <= 0.0 {
        return 0.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let digit = step / power;
    power
        * if digit <= 1.0 + 1e-9 {
            1.0
        } else if digit <= 2.0 {
            2.0
        } else if digit <= 5.0 {
            5.0
        } else {
            10.0
        }
}
