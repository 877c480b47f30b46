//! Decodes a PNG or a JPEG of any colour and depth into grey values, upright.
//!
//! Colours become grey by their luma; of an animation, only the first image is used. An orientation in the file (EXIF)
//! is applied, because a digit on its side is another. Transparent pixels become white, or black if the drawing
//! has light ink only. Of samples of 16 bits, those bits count that the image uses: cameras of 10 to 14 bits leave the others zero.

use std::io::{Cursor, ErrorKind};

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult};

use super::{Grey, PictureError};

/// Maximum number of pixels, more than any camera's picture; limits the memory that a few bytes can request.
pub(super) const MAX_PIXELS: u64 = 64_000_000;

/// Upper bound on the size of a file with that many pixels.
pub const MAX_FILE_BYTES: u64 = 8 * MAX_PIXELS + (1 << 20);

/// Decodes a PNG or a JPEG.
///
/// # Errors
/// [`PictureError`] for anything but a whole image within the size limit.
pub fn read(bytes: &[u8]) -> Result<Grey, PictureError> {
    let file = Cursor::new(bytes);
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        upright("PNG", PngDecoder::new(file))
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        // Its decoder fills up what is missing.
        if is_cut_off(bytes) {
            Err(PictureError::Truncated("JPEG"))
        } else {
            upright("JPEG", JpegDecoder::new(file))
        }
    } else {
        Err(PictureError::Unknown)
    }
}

/// Whether a JPEG's last scan has no end-of-image marker.
fn is_cut_off(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let scan = jpeg.windows(2).rposition(|marker| marker == START_OF_SCAN).unwrap_or(0);
    !jpeg[scan..].windows(2).any(|marker| marker == END_OF_IMAGE)
}

/// Decodes a file of this format into grey, turned as its orientation says.
fn upright(format: &'static str, decoder: ImageResult<impl ImageDecoder>) -> Result<Grey, PictureError> {
    let failed = |error| of_decoder(format, error);
    let mut decoder = decoder.map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let damaged = || PictureError::Damaged(format, "its size makes no sense".to_owned());
    Grey::new(width, height, grey_pixels(image)).ok_or_else(damaged)
}

fn of_decoder(format: &'static str, error: ImageError) -> PictureError {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            PictureError::Truncated(format)
        }
        other => PictureError::Damaged(format, other.to_string().replace('\n', " ")),
    }
}

fn grey_pixels(image: DynamicImage) -> Vec<u8> {
    let colour = image.color();
    let is_deep = colour.bytes_per_pixel() > colour.channel_count();
    let width = image.width() as usize;
    let (grey, alpha): (Vec<u16>, Vec<u8>) =
        image.into_luma_alpha16().pixels().map(|pixel| (pixel.0[0], (pixel.0[1] >> 8) as u8)).unzip();
    let bits = if is_deep { 16 - grey.iter().fold(0, |bits, grey| bits | grey).leading_zeros() } else { 16 };
    let grey: Vec<u8> = grey.iter().map(|&grey| (u32::from(grey) << 8 >> bits) as u8).collect();
    if !colour.has_alpha() {
        return grey;
    }
    let ground = if is_light_on_nothing(&grey, &alpha, width) { 0 } else { 255 };
    grey.into_iter().zip(alpha).map(|(grey, alpha)| laid_on(ground, grey, alpha)).collect()
}

/// Whether the image has only light ink on a transparent background, and would vanish on white.
///
/// The background is transparent if most of the border is. Dark ink means that the light pixels are its paper, or
/// part of the drawing; a small amount of dark ink may be the fringe that a drawing program leaves.
fn is_light_on_nothing(grey: &[u8], alpha: &[u8], width: usize) -> bool {
    let last = alpha.len() / width - 1;
    let border = alpha.chunks_exact(width).enumerate().flat_map(|(y, row)| {
        let step = if y == 0 || y == last { 1 } else { (width - 1).max(1) };
        row.iter().step_by(step)
    });
    let (clear, all) =
        border.fold((0, 0), |(clear, all), &alpha| (clear + usize::from(alpha < 128), all + 1));
    let weight = |wanted: fn(u8) -> bool| -> u64 {
        grey.iter().zip(alpha).filter(|&(&grey, _)| wanted(grey)).map(|(_, &alpha)| u64::from(alpha)).sum()
    };
    let (dark, ink) = (weight(|grey| grey < 128), weight(|_| true));
    clear * 2 > all && ink > 0 && dark * 50 < ink
}

fn laid_on(ground: u8, grey: u8, alpha: u8) -> u8 {
    let (ground, grey, alpha) = (u32::from(ground), u32::from(grey), u32::from(alpha));
    ((grey * alpha + ground * (255 - alpha) + 127) / 255) as u8
}
