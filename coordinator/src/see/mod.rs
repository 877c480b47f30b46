//! Shows a training to people: pictures, tables, curves and progress.
//!
//! Everything in this module turns plain values into text or SVG, or draws progress on standard error. It reads no
//! clock, opens no file and talks to no cluster: times are arguments and results are strings, so a test can compare
//! each piece with expected text. It does not depend on the rest of the project either; callers fill in the small
//! input types defined here.
//!
//! | module | what it shows |
//! | --- | --- |
//! | [`confusion`] | a confusion matrix, and the figures of each class |
//! | [`digits`] | images side by side with their labels or predictions, in the terminal and as SVG |
//! | [`data`] | shapes and one-hot rows of the preprocessing |
//! | [`summary`] | the layers of a model, as Keras prints them |
//! | [`progress`] | the progress bar of a training, as Keras draws it |
//! | [`history`] | a line, and a table, of the figures after each epoch |
//! | [`figure`], [`chart`], [`plots`] | curves of metrics and loss: what to draw, in the terminal, as SVG |
//! | [`mod@format`] | the formats of image files, for files that can't be read |
//! | [`picture`] | turns a drawn or photographed digit into an image like a model's |
//! | [`table`] | aligned columns for lists |
//!
//! Widths are counted in a terminal's cells (`unicode-width`): names and paths come from anywhere. Words are wrapped by
//! `textwrap`. Tables are laid out here, because those of the usual crates wrap within cells to become narrower, and a
//! broken number is read wrongly.

use std::ffi::OsStr;

use unicode_width::UnicodeWidthStr as _;

pub mod chart;
pub mod confusion;
pub mod data;
pub mod digits;
pub mod figure;
pub mod format;
pub mod history;
pub mod picture;
pub mod plots;
pub mod progress;
pub mod summary;
pub mod table;

/// The width to assume if the terminal's width is not known.
pub const WIDTH: usize = 80;

/// Whether terminal text may carry colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// ANSI escape sequences; greys in 24 bits.
    Colour,
    /// No escape sequences. No meaning is lost, since none is carried by colour alone.
    Plain,
}

impl Ink {
    /// The ink for a stream: colour on a terminal, unless `NO_COLOR` is set and not empty
    /// (<https://no-color.org>) or `TERM` is `dumb`. The two variables are arguments so that the rule can be
    /// tested.
    pub fn choose(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Ink {
        let refused = no_color.is_some_and(|value| !value.is_empty()) || term == Some(OsStr::new("dumb"));
        if is_terminal && !refused { Ink::Colour } else { Ink::Plain }
    }

    /// [`Ink::choose`] with this process's environment.
    pub fn of(stream: &impl std::io::IsTerminal) -> Ink {
        let variable = |name| std::env::var_os(name);
        Ink::choose(stream.is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
    }

    /// `text` between an SGR sequence (`"31"` is red) and its end, or as it is.
    fn paint(self, sgr: &str, text: &str) -> String {
        match self {
            Ink::Colour => format!("\x1b[{sgr}m{text}\x1b[0m"),
            Ink::Plain => text.to_owned(),
        }
    }
}

/// Seconds, with minutes and hours before them if needed.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}:{seconds:02}"),
        (_, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// An integer with commas between its thousands: `235,146`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Wraps a line at its spaces to fit into `columns`; all lines but the first are indented by `indent`. A word is
/// never broken.
pub(crate) fn folded(line: &str, columns: usize, indent: usize) -> String {
    let indent = " ".repeat(indent);
    let options = textwrap::Options::new(columns)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .subsequent_indent(&indent);
    textwrap::fill(line, options)
}

/// The number of a terminal's cells that `text` takes.
fn width(text: &str) -> usize {
    text.width()
}

/// `text` centred in `columns`, an odd space to its right.
fn centred(text: &str, columns: usize) -> String {
    format!("{text:^columns$}")
}
