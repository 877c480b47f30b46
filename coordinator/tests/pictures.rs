//! Pictures of digits on their way in: decoded, told from paper, lines, frames and specks, and fitted to a model.
//!
//! `digits/` has pictures that once were refused or taken for another digit. `_isN` in a name is the digit, `_NN_` says
//! which of MNIST's test images it was drawn from.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions but not their helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use millefeuille_coordinator::see::Ink;
use millefeuille_coordinator::see::digits::{self, Tile};
use millefeuille_coordinator::see::picture::{self, Grey, PictureError, Size};
use millefeuille_core::data::formats::idx::file::{Idx, Kind};
use millefeuille_core::data::formats::idx::mnist;

const PIXELS: usize = 28 * 28;

/// MNIST's test images.
static MNIST: LazyLock<Vec<u8>> =
    LazyLock::new(|| Idx::decode(mnist::files().swap_remove(2), Kind::Images).unwrap().values);

fn digit(index: usize) -> &'static [u8] {
    &MNIST[index * PIXELS..][..PIXELS]
}

/// The first 5.
fn five() -> &'static [u8] {
    digit(8)
}

fn fitted(image: &Grey) -> Result<Vec<u8>, PictureError> {
    picture::fitted(image, Size::MNIST)
}

fn case(name: &str) -> Result<Vec<u8>, PictureError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/digits").join(name);
    fitted(&picture::read(&fs::read(path).unwrap()).unwrap())
}

/// The mean difference of the pixels, as a share of the mean ink.
fn difference(left: &[u8], right: &[u8]) -> f64 {
    let sum: u32 = left.iter().zip(right).map(|(&l, &r)| u32::from(l.abs_diff(r))).sum();
    f64::from(sum) / left.iter().map(|&ink| f64::from(ink)).sum::<f64>()
}

/// The image among MNIST's first hundred test images that is most like this one.
fn most_like(image: &[u8]) -> usize {
    let by_difference = |&left: &usize, &right: &usize| {
        difference(digit(left), image).total_cmp(&difference(digit(right), image))
    };
    (0..100).min_by(by_difference).unwrap()
}

// ---- digits on paper ----

#[test]
fn a_digit_is_found_in_shadow_in_a_frame_among_specks_and_on_ruled_paper() {
    for kind in ["d-shadow-lr255-150", "k-black-frame", "n-two-specks", "o-ruled-paper"] {
        for (index, class) in [7, 2, 1, 0, 4].into_iter().enumerate() {
            let name = format!("{kind}_{index:02}_is{class}.png");
            let image = case(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
            // They were enlarged and are reduced again, by other numbers.
            let distance = difference(digit(index), &image);
            assert!(distance < 0.4, "{name}: {distance}");
            assert_eq!(most_like(&image), index, "{name}");
        }
    }
}

#[test]
fn sixteen_bits_of_which_few_are_used_and_orientations_are_read() {
    let cases = [
        ("0-q-grey16-low8000.png", 3),
        ("7-q-grey16-low8000.png", 0),
        ("2-y-exif6.png", 1),
        ("3-y-exif6.png", 18),
        ("exif6_is2.jpg", 1),
        ("shadow-noise_is5.jpg", 15),
    ];
    for (name, index) in cases {
        assert_eq!(most_like(&case(name).unwrap()), index, "{name}");
    }
}

#[test]
fn what_is_no_digit_and_what_is_two_is_said() {
    let dot = case("onedot.png").unwrap_err().to_string();
    assert_eq!(dot, "the image is empty but for dots and lines: nothing in it could be a digit");
    let two = case("42.png").unwrap_err().to_string();
    assert_eq!(two, "2 separate figures, where one digit is needed (give each an image of its own)");
}

#[test]
fn every_picture_of_a_case_is_tested() {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/digits");
    let pictures = fs::read_dir(directory).unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        Path::new(&name).extension().is_some_and(|extension| extension != "md")
    });
    assert_eq!(pictures.count(), 4 * 5 + 6 + 2);
}

/// The image as `zoom` times as many pixels a side, on paper of a larger size, dark ink on light.
fn scanned(image: &[u8], zoom: usize, size: (usize, usize), corner: (usize, usize), paper: u8) -> Grey {
    let mut pixels = vec![paper; size.0 * size.1];
    for y in 0..28 * zoom {
        for x in 0..28 * zoom {
            let ink = u32::from(image[y / zoom * 28 + x / zoom]);
            let grey = u32::from(paper) * (255 - ink) / 255;
            pixels[(corner.1 + y) * size.0 + corner.0 + x] = grey as u8;
        }
    }
    Grey::new(size.0, size.1, pixels).unwrap()
}

fn mnist_sized(pixels: &[u8]) -> Grey {
    Grey::new(28, 28, pixels.to_vec()).unwrap()
}

#[test]
fn an_mnist_digit_comes_back_as_it_was() {
    assert!(difference(five(), &fitted(&mnist_sized(five())).unwrap()) < 0.02);
    for (zoom, size, corner) in [(1, (40, 90), (3, 55)), (7, (300, 200), (90, 2)), (10, (280, 280), (0, 0))] {
        let image = scanned(five(), zoom, size, corner, 255);
        let distance = difference(five(), &fitted(&image).unwrap());
        assert!(distance < 0.02, "enlarged {zoom} times: {distance}");
    }
}

#[test]
fn grey_paper_and_its_noise_are_not_ink() {
    let image = scanned(five(), 9, (400, 300), (100, 20), 190);
    let mut random = random();
    let noisy = image.pixels().iter().map(|&grey| grey.saturating_add((random() % 17) as u8)).collect();
    let distance = difference(five(), &fitted(&Grey::new(400, 300, noisy).unwrap()).unwrap());
    assert!(distance < 0.12, "{distance}");
}

#[test]
fn a_frame_may_be_thick_turned_or_drawn_and_the_ink_weaker() {
    let plain = scanned(five(), 10, (400, 400), (60, 60), 255);
    let framed = |from: usize, to: usize, frame: u8, weaken: u8| {
        let pixels = plain.pixels().iter().enumerate().map(|(place, &grey)| {
            let (x, y) = (place % 400, place / 400);
            let edge = x.min(y).min(399 - x).min(399 - y);
            if (from..to).contains(&edge) { frame } else { 255 - (255 - grey) / weaken }
        });
        Grey::new(400, 400, pixels.collect()).unwrap()
    };
    for (from, to, frame, weaken) in
        [(0, 8, 0, 1), (0, 30, 20, 1), (20, 26, 0, 1), (0, 8, 0, 3), (0, 1, 0, 4)]
    {
        let distance = difference(five(), &fitted(&framed(from, to, frame, weaken)).unwrap());
        assert!(distance < 0.05, "a frame of {frame} from {from} to {to}, ink 1/{weaken}: {distance}");
    }
}

#[test]
fn a_digit_fits_images_of_any_size() {
    let image = scanned(five(), 4, (112, 112), (0, 0), 255);
    for (rows, columns) in [(32, 32), (8, 8), (64, 64), (20, 40)] {
        let size = Size { rows, columns };
        let digit = picture::fitted(&image, size).unwrap();
        assert_eq!(digit.len(), rows * columns);
        let inked = |line: &dyn Fn(usize) -> usize, count: usize| {
            (0..count)
                .filter(|&place| digit.iter().enumerate().any(|(at, &ink)| ink > 60 && line(at) == place))
                .count()
        };
        // 20 of 28 pixels, within two for rounding and faint ink.
        let height = inked(&|at| at / columns, rows);
        assert!(height.abs_diff(rows * 20 / 28) <= 2, "{height} rows of {rows} have ink");
    }
}

#[test]
fn an_image_without_ink_is_refused() {
    for grey in [0, 90, 255] {
        let blank = Grey::new(50, 30, vec![grey; 1500]).unwrap();
        assert!(matches!(fitted(&blank), Err(PictureError::NoInk)));
    }
    let error = fitted(&Grey::new(1, 1, vec![255]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the image is empty: no ink stands out from its background");
}

#[test]
fn raw_takes_an_image_of_the_models_size_as_it_is() {
    assert_eq!(picture::raw(mnist_sized(five()), Size::MNIST).unwrap(), five());
    let other = Grey::new(28, 27, vec![0; 756]).unwrap();
    let error = picture::raw(other, Size { rows: 32, columns: 32 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an image of 28×27 pixels where 32×32 is needed (without --raw it is scaled to fit)"
    );
    assert!(Grey::new(28, 28, vec![0; 3]).is_none() && Grey::new(0, 5, vec![]).is_none());
}

// ---- files ----

fn png(width: u32, height: u32, colour: png::ColorType, depth: png::BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![255, 255, 255, 0, 0, 0]);
    }
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    bytes
}

fn png_of_five() -> Vec<u8> {
    png(28, 28, png::ColorType::Grayscale, png::BitDepth::Eight, five())
}

fn jpeg(image: &Grey) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width() as u32, image.height() as u32);
    JpegEncoder::new(&mut bytes).write_image(image.pixels(), width, height, ExtendedColorType::L8).unwrap();
    bytes
}

#[test]
fn every_kind_of_png_becomes_grey() {
    use png::BitDepth::{Eight, One, Sixteen};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let read = |colour, depth, samples: &[u8]| picture::read(&png(2, 1, colour, depth, samples)).unwrap();
    let pixels = |colour, depth, samples: &[u8]| read(colour, depth, samples).pixels().to_vec();
    assert_eq!(pixels(Grayscale, Eight, &[3, 200]), [3, 200]);
    assert_eq!(pixels(Grayscale, One, &[0b0100_0000]), [0, 255]);
    assert_eq!(pixels(Grayscale, Sixteen, &[3, 99, 200, 0]), [3, 200]);
    // Ten of sixteen bits are used.
    assert_eq!(pixels(Grayscale, Sixteen, &[0, 0, 3, 255]), [0, 255]);
    assert_eq!(pixels(Indexed, One, &[0b0100_0000]), [255, 0]);
    assert_eq!(pixels(GrayscaleAlpha, Eight, &[0, 0, 0, 255]), [255, 0]);
    assert_eq!(pixels(Rgb, Eight, &[255, 255, 255, 255, 0, 0]), [255, 54]);
    assert_eq!(pixels(Rgba, Eight, &[0, 0, 255, 255, 0, 0, 0, 128]), [18, 127]);
}

#[test]
fn a_jpeg_is_read_like_a_png() {
    let image = scanned(five(), 7, (300, 200), (90, 2), 255);
    let read = picture::read(&jpeg(&image)).unwrap();
    assert_eq!((read.width(), read.height()), (300, 200));
    assert!(difference(five(), &fitted(&read).unwrap()) < 0.05);
}

#[test]
fn a_digit_on_a_transparent_background_is_read_in_any_ink() {
    let ink = |grey: u8| five().iter().flat_map(|&alpha| [grey, alpha]).collect::<Vec<u8>>();
    for grey in [0, 60, 200, 255] {
        let image = png(28, 28, png::ColorType::GrayscaleAlpha, png::BitDepth::Eight, &ink(grey));
        let seen = fitted(&picture::read(&image).unwrap()).unwrap();
        assert!(difference(five(), &seen) < 0.05, "ink of {grey}");
    }
    // A card, dark on light, that stands on nothing: its paper is not taken for ink.
    let card = five().iter().enumerate().flat_map(|(place, ink)| {
        let (x, y) = (place % 28, place / 28);
        let outside = x < 1 || y < 1 || x > 26 || y > 26;
        if outside { [0, 0] } else { [255 - ink, 255] }
    });
    let image = png(28, 28, png::ColorType::GrayscaleAlpha, png::BitDepth::Eight, &card.collect::<Vec<u8>>());
    let seen = fitted(&picture::read(&image).unwrap()).unwrap();
    assert!(difference(five(), &seen) < 0.05);
}

fn message(bytes: &[u8]) -> String {
    picture::read(bytes).unwrap_err().to_string()
}

#[test]
fn a_bad_png_is_reported_in_one_line() {
    let good = png_of_five();
    assert_eq!(message(b""), "neither a PNG nor a JPEG file (give one of these, or an IDX file of images)");
    assert_eq!(message(b"GIF89a"), message(b""));
    // The last twelve bytes only say that the file ends.
    for length in 8..good.len() - 12 {
        let text = message(&good[..length]);
        assert!(text.contains("PNG file is truncated"), "{length} of {} bytes: {text}", good.len());
    }
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let text = message(&damaged);
    assert!(text.starts_with("the PNG file is damaged (") && !text.contains('\n'), "{text}");
    let mut large = good;
    large[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let header_crc = crc32(&large[12..29]);
    large[29..33].copy_from_slice(&header_crc.to_be_bytes());
    assert_eq!(message(&large), "an image of 16384×16384 pixels is too large (at most 64 megapixels)");
}

#[test]
fn a_bad_jpeg_is_reported_in_one_line() {
    let good = jpeg(&mnist_sized(five()));
    for length in 3..good.len() - 2 {
        assert!(
            message(&good[..length]).contains("JPEG file is truncated"),
            "{length} of {} bytes",
            good.len()
        );
    }
    let text = message(b"\xff\xd8\xff\xda\0\x04\0\0\xff\xd9");
    assert!(text.starts_with("the JPEG file is damaged (") && !text.contains('\n'), "{text}");
}

fn crc32(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), fold))
}

/// A xorshift generator, the same numbers every time.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[test]
fn no_size_and_no_garbage_causes_a_panic() {
    let mut random = random();
    let mut sizes =
        vec![(1, 1), (3, 1000), (1000, 3), (1, 500), (500, 1), (2, 2), (28, 28), (1, 2000), (700, 500)];
    sizes.extend((0..100).map(|_| (1 + random() as usize % 70, 1 + random() as usize % 70)));
    for (width, height) in sizes {
        let mask = [0x01, 0x3f, 0xff][random() as usize % 3];
        let pixels: Vec<u8> = (0..width * height).map(|_| random() as u8 & mask).collect();
        let encoded =
            png(width as u32, height as u32, png::ColorType::Grayscale, png::BitDepth::Eight, &pixels);
        let image = picture::read(&encoded).unwrap();
        assert_eq!((image.width(), image.height(), image.pixels()), (width, height, pixels.as_slice()));
        match fitted(&image) {
            Ok(digit) => assert!(digit.iter().any(|&ink| ink > 0), "{width}×{height}"),
            Err(error) => assert!(!error.to_string().is_empty(), "{width}×{height}"),
        }
        let _ = digits::terminal(&[Tile::labelled(image, "?")], 80, Ink::Plain);
    }
    for good in [png_of_five(), jpeg(&mnist_sized(five()))] {
        for _ in 0..500 {
            let mut bytes = good.clone();
            let place = 8 + random() as usize % (bytes.len() - 8);
            bytes[place] = random() as u8;
            let _ = picture::read(&bytes).map(|image| fitted(&image));
        }
    }
}
