//! Turns a drawn or photographed digit into an image like those of MNIST.
//!
//! MNIST's digits were scaled to fit 20×20 pixels with their proportions kept, and then placed in 28×28 so
//! that their centre of mass is in the middle, white ink on black (LeCun, Bottou, Bengio, Haffner 1998,
//! "Gradient-based learning applied to document recognition", III A). A network that has seen only such
//! images needs its input prepared in the same way: [`read_png`] decodes, [`to_mnist`] prepares, and [`raw`]
//! takes an image that is 28×28 already as it is.
//!
//! The border tells paper from ink: if it is light, the image is inverted, and pixels within the noise of the
//! border's usual brightness count as paper. The code does not search for the digit in a scene, and does not correct
//! slant or strong shadows: it expects one digit, on paper or a canvas of roughly uniform brightness.

use std::io::Cursor;

/// The height and the width of an MNIST image.
pub const SIDE: usize = 28;

/// The pixels of an MNIST image, row by row, 0 black (paper) to 255 white (ink).
pub type Mnist = [u8; SIDE * SIDE];

/// The height and the width of the box that a digit is scaled to fit.
const BOX: usize = 20;

/// Maximum number of pixels, more than any camera's picture; limits the memory that a few bytes of PNG can request.
const MAX_PIXELS: u64 = 64_000_000;

/// Upper bound on the size of a PNG with that many pixels.
pub const MAX_FILE_BYTES: u64 = 8 * MAX_PIXELS + (1 << 20);

/// Somewhere, ink must differ from the paper by at least this much of 255, or there is no ink.
const FAINTEST_INK: f64 = 24.0;

/// A pixel belongs to the digit's bounding box if it has at least this fraction of the strongest ink. Fainter pixels
/// are noise or shadow.
const BOX_INK: f64 = 0.12;

/// Why an image cannot be used. The caller names the file.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The bytes do not start like a PNG.
    #[error("not a PNG file (give a PNG image, or an IDX file of images)")]
    NotPng,
    /// The bytes end before the image does.
    #[error("the PNG file is truncated (the image ends too early; save or copy it again)")]
    Truncated,
    /// The decoder found an inconsistency.
    #[error("the PNG file is damaged ({0})")]
    Damaged(String),
    /// The image has too many pixels.
    #[error("an image of {width}×{height} pixels is too large (at most {} megapixels)", MAX_PIXELS / 1_000_000)]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// No digit is visible.
    #[error("the image is empty: no ink stands out from its background")]
    NoInk,
    /// [`raw`] accepts images of one size only.
    #[error("an image of {width}×{height} pixels where 28×28 is needed (without --raw it is scaled to fit)")]
    NotMnistSize {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
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

    /// An MNIST image.
    pub fn mnist(pixels: &Mnist) -> Grey {
        Grey { width: SIDE, height: SIDE, pixels: pixels.to_vec() }
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

    /// The outermost pixels, each once.
    fn border(&self) -> impl Iterator<Item = u8> + '_ {
        let last = self.height - 1;
        self.pixels.chunks_exact(self.width).enumerate().flat_map(move |(y, row)| {
            let step = if y == 0 || y == last { 1 } else { (row.len() - 1).max(1) };
            row.iter().step_by(step).copied()
        })
    }
}

/// Decodes a PNG of any colour type and depth. Colours become grey by their luma; of an animation, only the first
/// image is used. Transparent pixels become white, or black if the drawing has light ink only.
///
/// # Errors
/// [`PictureError`] for anything but a whole PNG within the size limit.
pub fn read_png(bytes: &[u8]) -> Result<Grey, PictureError> {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    if !bytes.starts_with(SIGNATURE) {
        return Err(PictureError::NotPng);
    }
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(decoding)?;
    let (width, height) = (header.width, header.height);
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    let mut reader = decoder.read_info().map_err(decoding)?;
    let damaged = || PictureError::Damaged("its size makes no sense".to_owned());
    let mut buffer = vec![0; reader.output_buffer_size().ok_or_else(damaged)?];
    let frame = reader.next_frame(&mut buffer).map_err(decoding)?;
    buffer.truncate(frame.buffer_size());
    let pixels = grey_pixels(frame.color_type, buffer, width as usize);
    Grey::new(width as usize, height as usize, pixels).ok_or_else(damaged)
}

fn decoding(error: png::DecodingError) -> PictureError {
    match error {
        png::DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated
        }
        other => PictureError::Damaged(other.to_string()),
    }
}

fn grey_pixels(colour: png::ColorType, samples: Vec<u8>, width: usize) -> Vec<u8> {
    let (grey, alpha): (Vec<u8>, Vec<u8>) = match colour {
        // The decoder has expanded palettes.
        png::ColorType::Grayscale | png::ColorType::Indexed => return samples,
        png::ColorType::Rgb => return samples.chunks_exact(3).map(|p| luma(p[0], p[1], p[2])).collect(),
        png::ColorType::GrayscaleAlpha => samples.chunks_exact(2).map(|p| (p[0], p[1])).unzip(),
        png::ColorType::Rgba => samples.chunks_exact(4).map(|p| (luma(p[0], p[1], p[2]), p[3])).unzip(),
    };
    let ground = if is_light_on_nothing(&grey, &alpha, width) { 0 } else { 255 };
    grey.into_iter().zip(alpha).map(|(grey, alpha)| laid_on(ground, grey, alpha)).collect()
}

/// Whether the image has only light ink on a transparent background, and would vanish on white.
///
/// The background is transparent if most of the border is. Dark ink means that the light pixels are its paper, or
/// part of the drawing; a small amount of dark ink may be the fringe that a drawing program leaves.
fn is_light_on_nothing(grey: &[u8], alpha: &[u8], width: usize) -> bool {
    let border = Grey::new(width, alpha.len() / width.max(1), alpha.to_vec());
    let (clear, all) = border
        .iter()
        .flat_map(Grey::border)
        .fold((0, 0_usize), |(clear, all), alpha| (clear + usize::from(alpha < 128), all + 1));
    let weight = |wanted: fn(u8) -> bool| -> u64 {
        grey.iter().zip(alpha).filter(|&(&grey, _)| wanted(grey)).map(|(_, &alpha)| u64::from(alpha)).sum()
    };
    let (dark, ink) = (weight(|grey| grey < 128), weight(|_| true));
    clear * 2 > all && ink > 0 && dark * 50 < ink
}

/// Rec. 601 luma in integers; the weights add up to 2¹⁶, so that white stays 255.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

fn laid_on(ground: u8, grey: u8, alpha: u8) -> u8 {
    let (ground, grey, alpha) = (u32::from(ground), u32::from(grey), u32::from(alpha));
    ((grey * alpha + ground * (255 - alpha) + 127) / 255) as u8
}

/// Returns the image unchanged.
///
/// # Errors
/// [`PictureError::NotMnistSize`] unless it is 28×28.
pub fn raw(image: &Grey) -> Result<Mnist, PictureError> {
    let wrong = PictureError::NotMnistSize { width: image.width, height: image.height };
    if image.width != SIDE { Err(wrong) } else { image.pixels.as_slice().try_into().map_err(|_| wrong) }
}

/// Prepares the image like MNIST's: light ink on dark, cropped to the ink, scaled to fit 20×20, centred by mass.
///
/// # Errors
/// [`PictureError::NoInk`] if nothing stands out from the background.
pub fn to_mnist(image: &Grey) -> Result<Mnist, PictureError> {
    let light = ink_of_brightness(image)?;
    let ink = |x: usize, y: usize| light[usize::from(image.pixels[y * image.width + x])];
    let Crop { left, top, width, height } = ink_box(image, ink).ok_or(PictureError::NoInk)?;
    let longest = width.max(height);
    let fit = |length: usize| ((length * BOX + longest / 2) / longest).max(1);
    let (columns, rows) = (fit(width), fit(height));
    let mean = |x: usize, y: usize| -> f64 {
        let across = |y: usize| {
            covered(x, width, columns).map(|(x, share)| share * ink(left + x, top + y)).sum::<f64>()
        };
        covered(y, height, rows).map(|(y, share)| share * across(y)).sum()
    };
    let small: Vec<f64> =
        (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y))).map(|(x, y)| mean(x, y)).collect();
    Ok(centre(&small, columns, rows))
}

/// The amount of ink, 0 to 255, for each brightness of a pixel.
///
/// The border's median is the paper, its median deviation the noise. Medians are used because ink may touch the
/// border.
fn ink_of_brightness(image: &Grey) -> Result<[f64; 256], PictureError> {
    let border: Vec<u8> = image.border().collect();
    let mean = border.iter().map(|&p| f64::from(p)).sum::<f64>() / border.len() as f64;
    let invert = mean > 127.0;
    let upright = |p: u8| f64::from(if invert { 255 - p } else { p });
    let paper = median(border.iter().map(|&p| upright(p)).collect());
    let deviation = median(border.iter().map(|&p| (upright(p) - paper).abs()).collect());
    // The factor 1.4826 converts the median deviation of normal noise to its standard deviation; three of these are
    // taken.
    let floor = paper + 3.0 * 1.4826 * deviation;
    let strongest = image.pixels.iter().map(|&p| upright(p)).fold(0.0, f64::max);
    if strongest - floor < FAINTEST_INK {
        return Err(PictureError::NoInk);
    }
    let ink = |p: usize| ((upright(p as u8) - floor) * 255.0 / (strongest - floor)).clamp(0.0, 255.0);
    Ok(std::array::from_fn(ink))
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// A rectangle of an image.
struct Crop {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

fn ink_box(image: &Grey, ink: impl Fn(usize, usize) -> f64) -> Option<Crop> {
    let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, usize::MAX, 0);
    for y in 0..image.height {
        for x in (0..image.width).filter(|&x| ink(x, y) >= BOX_INK * 255.0) {
            (left, right) = (left.min(x), right.max(x));
            (top, bottom) = (top.min(y), bottom.max(y));
        }
    }
    (left <= right).then(|| Crop { left, top, width: right - left + 1, height: bottom - top + 1 })
}

/// The source pixels that pixel `index` covers when `from` pixels are scaled to `to`, and the fraction that each
/// fills.
fn covered(index: usize, from: usize, to: usize) -> impl Iterator<Item = (usize, f64)> {
    let ratio = from as f64 / to as f64;
    let (start, end) = (index as f64 * ratio, (index + 1) as f64 * ratio);
    let last = (end.ceil() as usize).min(from);
    (start as usize..last).map(move |x| (x, (((x + 1) as f64).min(end) - (x as f64).max(start)) / ratio))
}

/// Places a small image in 28×28, with its centre of mass as near the middle as whole pixels and the edges allow.
fn centre(small: &[f64], columns: usize, rows: usize) -> Mnist {
    let mass: f64 = small.iter().sum();
    let moment = |place: fn(usize, usize) -> usize| {
        small.iter().enumerate().map(|(i, ink)| ink * place(i, columns) as f64).sum::<f64>() / mass
    };
    let offset = |centre: f64, length: usize| {
        ((SIDE / 2) as f64 - centre).round().clamp(0.0, (SIDE - length) as f64) as usize
    };
    let left = offset(moment(|index, columns| index % columns), columns);
    let top = offset(moment(|index, columns| index / columns), rows);
    let mut image = [0; SIDE * SIDE];
    for (y, row) in small.chunks_exact(columns).enumerate() {
        for (x, ink) in row.iter().enumerate() {
            image[(top + y) * SIDE + left + x] = ink.round() as u8;
        }
    }
    image
}
