//! Turns a drawn or photographed digit into an image like those that a model was trained with.
//!
//! MNIST's digits were scaled to fit 20×20 pixels with their proportions kept, and then placed in 28×28 so
//! that their centre of mass is in the middle, white ink on black (LeCun, Bottou, Bengio, Haffner 1998,
//! "Gradient-based learning applied to document recognition", III A). A network that has seen only such
//! images needs its input prepared in the same way: [`read()`] decodes a PNG or a JPEG, [`fitted`] prepares it for a model's
//! size of images in the same proportions, and [`raw`] takes an image of that size as it is.
//!
//! [`fitted`] goes through three steps, each in a module: `paper` tells ink from paper, also in shadow; `digit` finds the
//! digit among lines (`rules`), frames and specks; and here it is cropped, scaled and centred. Slant is not
//! corrected, and an image is expected to show one digit.

mod digit;
mod paper;
mod plane;
mod read;
mod rules;

pub use read::{MAX_FILE_BYTES, read};

use digit::Digit;
use plane::{Bounds, Plane};

/// The box that a digit is scaled to fit, as a share of the image: 20 of 28 pixels.
const BOX: (usize, usize) = (20, 28);

/// Why an image cannot be used. The caller names the file.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The bytes are neither a PNG nor a JPEG.
    #[error("neither a PNG nor a JPEG file (give one of these, or an IDX file of images)")]
    Unknown,
    /// The bytes end before the image does.
    #[error("the {0} file is truncated (the image ends too early; save or copy it again)")]
    Truncated(&'static str),
    /// The decoder found an inconsistency.
    #[error("the {0} file is damaged ({1})")]
    Damaged(&'static str, String),
    /// The image has too many pixels.
    #[error("an image of {width}×{height} pixels is too large (at most {} megapixels)", read::MAX_PIXELS / 1_000_000)]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Everything is alike.
    #[error("the image is empty: no ink stands out from its background")]
    NoInk,
    /// There are only dots, lines and frames.
    #[error("the image is empty but for dots and lines: nothing in it could be a digit")]
    NoFigure,
    /// There is more than one digit, perhaps.
    #[error("{0} separate figures, where one digit is needed (give each an image of its own)")]
    Figures(usize),
    /// [`raw`] accepts images of one size only.
    #[error(
        "an image of {}×{} pixels where {}×{} is needed (without --raw it is scaled to fit)",
        found.columns, found.rows, needed.columns, needed.rows
    )]
    OtherSize {
        /// The image's size.
        found: Size,
        /// The model's size.
        needed: Size,
    },
}

/// The size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a column.
    pub rows: usize,
    /// Pixels in a row.
    pub columns: usize,
}

impl Size {
    /// The size of MNIST's images.
    pub const MNIST: Self = Self { rows: 28, columns: 28 };

    /// The number of pixels.
    pub fn pixels(self) -> usize {
        self.rows * self.columns
    }
}

/// A grey image that has as many pixels as its size says, and at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grey {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Grey {
    /// Creates an image from its rows of pixels, 0 black to 255 white; `None` if their number does not match the
    /// size.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Option<Grey> {
        let fits = width.checked_mul(height) == Some(pixels.len()) && !pixels.is_empty();
        fits.then_some(Grey { width, height, pixels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Row by row, 0 black to 255 white.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Returns the pixels unchanged.
///
/// # Errors
/// [`PictureError::OtherSize`] unless the image has this size.
pub fn raw(image: Grey, needed: Size) -> Result<Vec<u8>, PictureError> {
    let found = Size { rows: image.height, columns: image.width };
    if found == needed { Ok(image.pixels) } else { Err(PictureError::OtherSize { found, needed }) }
}

/// Prepares the image like MNIST's, but of this size: light ink on dark, cropped to the digit, scaled to fit, centred by
/// mass.
///
/// # Errors
/// [`PictureError::NoInk`], [`NoFigure`](PictureError::NoFigure) or [`Figures`](PictureError::Figures) unless the image
/// shows one figure.
pub fn fitted(image: &Grey, size: Size) -> Result<Vec<u8>, PictureError> {
    let Digit { ink, bounds } = digit::of(paper::ink(image))?;
    let (columns, rows) = fit(bounds, size);
    Ok(centred(&ink.scaled(bounds, columns, rows), size))
}

/// The columns and rows of the digit within an image of this size.
fn fit(digit: Bounds, size: Size) -> (usize, usize) {
    let room = |length: usize| length as f64 * BOX.0 as f64 / BOX.1 as f64;
    let (width, height) = (digit.width() as f64, digit.height() as f64);
    let scale = (room(size.columns) / width).min(room(size.rows) / height);
    let fit = |length: f64, most: usize| ((length * scale).round() as usize).clamp(1, most);
    (fit(width, size.columns), fit(height, size.rows))
}

/// Places a digit in an image of this size, with its centre of mass as near the middle as whole pixels and the edges
/// allow.
fn centred(digit: &Plane<f32>, size: Size) -> Vec<u8> {
    let mass: f64 = digit.values().iter().map(|&ink| f64::from(ink)).sum();
    let centre = |place: fn((usize, usize, f32)) -> usize| {
        digit.places().map(|at| f64::from(at.2) * place(at) as f64).sum::<f64>() / mass
    };
    let offset = |centre: f64, length: usize, whole: usize| {
        ((whole / 2) as f64 - centre).round().clamp(0.0, (whole - length) as f64) as usize
    };
    let left = offset(centre(|at| at.0), digit.width(), size.columns);
    let top = offset(centre(|at| at.1), digit.height(), size.rows);
    let mut image = vec![0; size.pixels()];
    for (x, y, ink) in digit.places() {
        image[(top + y) * size.columns + left + x] = (255.0 * ink).round() as u8;
    }
    image
}
