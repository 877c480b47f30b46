//! A progress bar for training, drawn like Keras'.
//!
//! ```text
//! Epoch 1/5
//! 96/96 ━━━━━━━━━━━━━━━━━━━━ 1s 4ms/step - accuracy: 0.4407 - loss: 1.7161 - val_accuracy: 0.8277 - val_loss: 1.0014
//! ```
//!
//! On a terminal the second line is redrawn as steps finish, at most ten times per second of the caller's time; until
//! the epoch ends, it shows the time left in place of the time taken. It fits into the terminal's columns: the bar gets
//! shorter first, then figures are left out. When the epoch ends, all figures are shown, on a further line if need be.
//! Elsewhere each epoch is one line, printed when it ends.
//!
//! Epochs are to be shown in their order, and each to its end before the next begins.
//!
//! Progress is optional: if it cannot be written, the training continues without an error.

use std::io::{self, Write};
use std::time::Duration;

use millefeuille_core::view::{EpochMetric, EpochRow};

use super::{Ink, WIDTH, clock, width};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A bar that moves.
    Terminal(Ink),
    /// One line per epoch.
    Plain,
    /// No progress: JSON logs are for machines.
    Silent,
}

/// Characters in the bar, as in Keras.
const BAR: usize = 20;

/// Characters in the bar where the terminal is narrow.
const SHORTEST_BAR: usize = 5;

/// Minimum time between two drawings of the bar.
const REDRAW: Duration = Duration::from_millis(100);

/// Moves to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// The progress of one fit.
#[derive(Debug)]
pub struct Progress<W: Write = io::Stderr> {
    out: W,
    style: Style,
    epochs: u64,
    steps: u64,
    /// The terminal's width.
    columns: usize,
    /// The epoch whose header is on the terminal.
    epoch: Option<u64>,
    /// The time in the epoch at which the bar was last drawn.
    drawn: Option<Duration>,
    /// The bar on the last line of the terminal, which has no line feed yet.
    bar: Option<String>,
}

impl Progress {
    /// Shows progress on standard error, for `epochs` epochs of `steps` mini-batches.
    pub fn new(style: Style, epochs: u64, steps: u64) -> Progress {
        Progress::to_writer(io::stderr(), style, epochs, steps)
    }
}

impl<W: Write> Progress<W> {
    /// Like [`Progress::new`], but writes to `out`.
    pub fn to_writer(out: W, style: Style, epochs: u64, steps: u64) -> Progress<W> {
        Progress { out, style, epochs, steps, columns: WIDTH, epoch: None, drawn: None, bar: None }
    }

    /// Fits what is drawn from now on into this many columns.
    pub fn fit(&mut self, columns: usize) {
        self.columns = columns;
    }

    /// Shows that `step` mini-batches of `epoch` (from 1) are finished, `elapsed` after the epoch began. Loss and
    /// metrics are those over these mini-batches; they are not shown before the first step.
    pub fn step(&mut self, epoch: u64, step: u64, loss: f64, measured: &[(&str, f64)], elapsed: Duration) {
        let Style::Terminal(ink) = self.style else { return };
        let header = self.header(epoch);
        if !self.is_due(step, elapsed) {
            return self.write(&header);
        }
        self.drawn = Some(elapsed);
        let mut figures = vec![time_left(step, self.steps, elapsed)];
        if step > 0 {
            figures.extend(measured.iter().copied().chain([("loss", loss)]).map(shown));
        }
        let bar = one_line(step, self.steps, ink, &figures, self.columns);
        let text = header + &unwrapped(&bar);
        self.bar = Some(bar);
        self.write(&text);
    }

    /// Shows the figures of a finished epoch.
    pub fn epoch(&mut self, row: &EpochRow) {
        let mut figures = vec![time_taken(row.seconds, self.steps)];
        let metrics: Vec<EpochMetric> = row.all_metrics().collect();
        let training = metrics.iter().filter_map(|metric| Some((metric.name.clone(), metric.train?)));
        let held_out =
            metrics.iter().filter_map(|metric| Some((format!("val_{}", metric.name), metric.validation?)));
        let val_loss = row.val_loss.map(|loss| ("val_loss".to_owned(), loss));
        let all = training.chain([("loss".to_owned(), row.loss)]).chain(held_out).chain(val_loss);
        figures.extend(all.map(|(name, value)| shown((&name, value))));
        let text = match self.style {
            Style::Silent => return,
            Style::Plain => format!("{} -{}\n", self.title(row.epoch), figures.concat()),
            Style::Terminal(ink) => {
                let (header, steps) = (self.header(row.epoch), self.steps);
                format!("{header}{CLEAR}{}\n", in_full(steps, ink, &figures, self.columns))
            }
        };
        self.bar = None;
        self.write(&text);
    }

    /// Prints a line above the bar: `waiting for workers …`.
    pub fn note(&mut self, text: &str) {
        let text = match (self.style, &self.bar) {
            (Style::Silent, _) => return,
            (_, None) => format!("{text}\n"),
            (_, Some(bar)) => format!("{CLEAR}{text}\n{}", unwrapped(bar)),
        };
        self.write(&text);
    }

    /// Ends the bar's line, if there is one. May be called repeatedly, and in the middle of an epoch, whose bar then
    /// stays as it is.
    pub fn finish(&mut self) {
        if self.bar.take().is_some() {
            self.write("\n");
        }
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// The header of a new epoch, or an empty string if it was already shown.
    fn header(&mut self, epoch: u64) -> String {
        if self.epoch == Some(epoch) {
            return String::new();
        }
        self.epoch = Some(epoch);
        self.drawn = None;
        let unfinished = if self.bar.take().is_some() { "\n" } else { "" };
        format!("{unfinished}{}\n", self.title(epoch))
    }

    fn title(&self, epoch: u64) -> String {
        format!("Epoch {epoch}/{}", self.epochs)
    }

    /// Whether to draw the bar. The first and the last drawing of an epoch are always due. If `elapsed` went back, a
    /// step is being recomputed.
    fn is_due(&self, step: u64, elapsed: Duration) -> bool {
        let since = |drawn: Duration| elapsed.checked_sub(drawn).is_none_or(|time| time >= REDRAW);
        step >= self.steps || self.drawn.is_none_or(since)
    }

    fn write(&mut self, text: &str) {
        if !text.is_empty() {
            let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        }
    }
}

/// Replaces the last line of the terminal by `bar`, with wrapping off: the terminal may have become narrower since its width
/// was read.
fn unwrapped(bar: &str) -> String {
    format!("{CLEAR}\x1b[?7l{bar}\x1b[?7h")
}

/// The count, the bar and as many of the figures as one line has room for.
fn one_line(step: u64, steps: u64, ink: Ink, figures: &[String], columns: usize) -> String {
    let needed = count_width(steps) + figures.iter().map(|figure| width(figure)).sum::<usize>();
    let length = columns.saturating_sub(needed).clamp(SHORTEST_BAR, BAR);
    let mut used = count_width(steps) + length;
    let fits = |figure: &&String| {
        used += width(figure);
        used <= columns
    };
    let shown: Vec<&str> = figures.iter().take_while(fits).map(String::as_str).collect();
    bar(step, steps, length, ink) + &shown.concat()
}

/// The bar of a finished epoch and all figures, on as many lines as they need.
fn in_full(steps: u64, ink: Ink, figures: &[String], columns: usize) -> String {
    let indent = count_width(steps);
    let (mut text, mut used) = (bar(steps, steps, BAR, ink), indent + BAR);
    for figure in figures {
        used += width(figure);
        if used > columns {
            text += &format!("\n{:indent$}{}", "", figure.trim_start());
            used = indent + width(figure.trim_start());
        } else {
            text += figure;
        }
    }
    text
}

/// The width of `12/96 `.
fn count_width(steps: u64) -> usize {
    2 * steps.to_string().len() + 2
}

/// `12/96 ━━──────────────────`: the finished part is heavy and green.
fn bar(step: u64, steps: u64, length: usize, ink: Ink) -> String {
    let done = (length as u64 * step.min(steps)).checked_div(steps).unwrap_or(length as u64) as usize;
    let count = format!("{step:>digits$}/{steps}", digits = steps.to_string().len());
    let heavy = if done > 0 { ink.paint("32", &"━".repeat(done)) } else { String::new() };
    format!("{} {heavy}{}", ink.paint("1", &count), "─".repeat(length - done))
}

/// ` 3s 40ms/step`: seconds left, at the rate so far.
fn time_left(step: u64, steps: u64, elapsed: Duration) -> String {
    if step == 0 {
        return String::new();
    }
    let a_step = elapsed.as_secs_f64() / step as f64;
    let left = a_step * steps.saturating_sub(step) as f64;
    let shown = if step < steps { left } else { elapsed.as_secs_f64() };
    format!(" {}{}", clock(shown), rate(a_step))
}

/// ` 1s 4ms/step` of a finished epoch.
fn time_taken(seconds: f64, steps: u64) -> String {
    format!(" {}{}", clock(seconds), rate(seconds / steps.max(1) as f64))
}

fn rate(seconds_a_step: f64) -> String {
    match seconds_a_step {
        s if s >= 1.0 || s == 0.0 => format!(" {s:.0}s/step"),
        s if s >= 1e-3 => format!(" {:.0}ms/step", s * 1e3),
        s => format!(" {:.0}us/step", s * 1e6),
    }
}

/// ` - accuracy: 0.4407`.
fn shown((name, value): (&str, f64)) -> String {
    format!(" - {name}: {}", figure(value))
}

/// Four decimals, or four digits and an exponent if four decimals would show almost nothing, as in Keras.
fn figure(value: f64) -> String {
    let vanishes = value != 0.0 && value.abs() <= 1e-3;
    if vanishes { format!("{value:.4e}") } else { format!("{value:.4}") }
}
