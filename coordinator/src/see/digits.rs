//! Small grey images side by side, with captions: the first digits of a data set, or a model's predictions.
//!
//! In the terminal, a character cell shows two pixels, one above the other (`▀`), since cells are about twice as high
//! as wide. A row has five images, shown at half size if they do not fit at full size. With colour, a cell shows two
//! greys. Without colour, a threshold separates ink from paper, and quarter-cell characters (`▚`) recover some of the
//! detail that the smaller size loses.
//!
//! An SVG embeds the images as small PNG files. They are enlarged first, because not every viewer keeps enlarged
//! pixels sharp, and inverted, dark on light, to suit a page. A wrong prediction has a red frame and an explicit
//! caption: `6 ✗ (is 5)`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use super::picture::Grey;
use super::{Ink, centred, width};

/// Maximum number of images in a row.
const A_ROW: usize = 5;

/// The mark of a prediction in a caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing was predicted, or the true class is unknown.
    None,
    Right,
    Wrong,
}

/// An image with its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    image: Grey,
    caption: String,
    verdict: Verdict,
}

impl Tile {
    /// An image with a caption and no mark.
    pub fn labelled(image: Grey, caption: impl ToString) -> Tile {
        Tile { image, caption: caption.to_string(), verdict: Verdict::None }
    }

    /// An image with its predicted class, and a mark: `7 ✓`, `6 ✗ (is 5)`.
    pub fn predicted(image: Grey, predicted: u32, actual: u32) -> Tile {
        if predicted == actual {
            Tile { image, caption: format!("{predicted} ✓"), verdict: Verdict::Right }
        } else {
            Tile { image, caption: format!("{predicted} ✗ (is {actual})"), verdict: Verdict::Wrong }
        }
    }
}

/// The images as terminal text of at most `columns` (or one image's) width, with a line feed after each line.
pub fn terminal(tiles: &[Tile], columns: usize, ink: Ink) -> String {
    const GAP: usize = 2;
    let Some(widest) = tiles.iter().map(|tile| tile.image.width()).max() else { return String::new() };
    let caption = tiles.iter().map(|tile| width(&tile.caption)).max().unwrap_or(0);
    let beside = |cell: usize| (columns + GAP) / (cell + GAP);
    let full_size = beside(widest.max(caption)) >= tiles.len().min(A_ROW);
    let shrink = if full_size { 1 } else { 2 };
    let cell = widest.div_ceil(shrink).max(caption);
    let raster = Raster { ink, shrink };
    let rows = tiles.chunks(beside(cell).clamp(1, A_ROW)).map(|row| terminal_row(row, raster, cell, GAP));
    rows.collect::<Vec<_>>().join("\n")
}

fn terminal_row(tiles: &[Tile], raster: Raster, cell: usize, gap: usize) -> String {
    let (gap, blank) = (" ".repeat(gap), " ".repeat(cell));
    let pictures: Vec<Vec<String>> = tiles.iter().map(|tile| raster.lines(&tile.image, cell)).collect();
    let height = pictures.iter().map(Vec::len).max().unwrap_or(0);
    let across = |y: usize| {
        pictures.iter().map(|p| p.get(y).unwrap_or(&blank).as_str()).collect::<Vec<_>>().join(&gap)
    };
    let captions: Vec<String> = tiles.iter().map(|tile| painted_caption(tile, cell, raster.ink)).collect();
    let lines = (0..height).map(across).chain([captions.join(&gap)]);
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

fn painted_caption(tile: &Tile, cell: usize, ink: Ink) -> String {
    let caption = centred(&tile.caption, cell);
    match tile.verdict {
        Verdict::Wrong => ink.paint("1;31", &caption),
        Verdict::Right | Verdict::None => caption,
    }
}

/// How an image is turned into characters.
#[derive(Clone, Copy)]
struct Raster {
    ink: Ink,
    /// The factor by which the image is shrunk.
    shrink: usize,
}

impl Raster {
    /// Number of pixels side by side in a cell. Without greys there are quarter-cell characters, so a shrunk image
    /// keeps its width in pixels.
    fn across(self) -> usize {
        if self.ink == Ink::Plain { self.shrink } else { 1 }
    }

    /// The image as lines `cell` characters wide, two rows of pixels a line.
    fn lines(self, image: &Grey, cell: usize) -> Vec<String> {
        let image = shrunk(image, self.shrink / self.across(), self.shrink);
        let blank = vec![0; image.width()];
        let rows: Vec<&[u8]> = image.pixels().chunks_exact(image.width()).collect();
        let line = |pair: &[&[u8]]| {
            let (upper, lower) = (pair[0], pair.get(1).copied().unwrap_or(&blank));
            let columns = image.width().div_ceil(self.across());
            let left = (cell - columns) / 2;
            let text = match self.ink {
                Ink::Colour => grey_line(upper, lower),
                Ink::Plain => block_line(upper, lower, self.across()),
            };
            format!("{}{text}{}", " ".repeat(left), " ".repeat(cell - columns - left))
        };
        rows.chunks(2).map(line).collect()
    }
}

/// A smaller image. Each pixel is the mean of `across` × `down` pixels of the original.
fn shrunk(image: &Grey, across: usize, down: usize) -> Grey {
    let (columns, rows) = (image.width().div_ceil(across), image.height().div_ceil(down));
    let mean = |left: usize, top: usize| {
        let places =
            |y: usize| (left..(left + across).min(image.width())).map(move |x| y * image.width() + x);
        let indices: Vec<usize> = (top..(top + down).min(image.height())).flat_map(places).collect();
        (indices.iter().map(|&i| usize::from(image.pixels()[i])).sum::<usize>() / indices.len()) as u8
    };
    let places = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
    let pixels = places.map(|(x, y)| mean(x * across, y * down)).collect();
    Grey::new(columns, rows, pixels).expect("a shrunk image has a pixel for each of its places")
}

/// Two greys per cell; an escape sequence is written only when they change.
fn grey_line(upper: &[u8], lower: &[u8]) -> String {
    let mut line = String::new();
    let mut before = None;
    for (&up, &low) in upper.iter().zip(lower) {
        if before != Some((up, low)) {
            // Writing to a String cannot fail.
            let _ = write!(line, "\x1b[38;2;{up};{up};{up};48;2;{low};{low};{low}m");
            before = Some((up, low));
        }
        line.push('▀');
    }
    line + "\x1b[0m"
}

/// Halves of cells where `across` is 1, quarters where it is 2.
fn block_line(upper: &[u8], lower: &[u8], across: usize) -> String {
    // Indexed by the inked quarters: upper left, upper right, lower left, lower right.
    const BLOCKS: [char; 16] =
        [' ', '▘', '▝', '▀', '▖', '▌', '▞', '▛', '▗', '▚', '▐', '▜', '▄', '▙', '▟', '█'];
    // Below the middle, since a thin stroke turns grey at half size.
    let inked = |grey: u8| usize::from(grey >= 100);
    let halves = |cell: &[u8]| inked(cell[0]) | inked(cell[cell.len() - 1]) << 1;
    let cells = upper.chunks(across).zip(lower.chunks(across));
    cells.map(|(up, low)| BLOCKS[halves(up) | halves(low) << 2]).collect()
}

/// Sizes of the SVG, in its pixels.
const ZOOM: usize = 3;
const MARGIN: usize = 14;
const SPACE: usize = 20;
const CAPTION: usize = 26;

/// The images in rows of five as an SVG document.
pub fn svg(tiles: &[Tile]) -> String {
    let widest = tiles.iter().map(|tile| tile.image.width()).max().unwrap_or(0) * ZOOM;
    let highest = tiles.iter().map(|tile| tile.image.height()).max().unwrap_or(0) * ZOOM;
    let (columns, rows) = (tiles.len().clamp(1, A_ROW), tiles.len().div_ceil(A_ROW));
    let total_width = 2 * MARGIN + columns * (widest + SPACE) - SPACE;
    let total_height = 2 * MARGIN + rows * (highest + CAPTION);
    let captions: Vec<String> = tiles.iter().map(|tile| escaped(&tile.caption)).collect();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" \
         viewBox=\"0 0 {total_width} {total_height}\" role=\"img\" font-family=\"sans-serif\" font-size=\"15\" \
         text-anchor=\"middle\">\n<title>Digits: {}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        captions.join(", "),
    );
    for (index, (tile, caption)) in tiles.iter().zip(&captions).enumerate() {
        let left = MARGIN + index % A_ROW * (widest + SPACE);
        let top = MARGIN + index / A_ROW * (highest + CAPTION);
        text += &svg_tile(tile, caption, left + (widest - tile.image.width() * ZOOM) / 2, top);
    }
    text + "</svg>\n"
}

fn svg_tile(tile: &Tile, caption: &str, left: usize, top: usize) -> String {
    let (wide, high) = (tile.image.width() * ZOOM, tile.image.height() * ZOOM);
    let data = STANDARD.encode(enlarged_png(&tile.image));
    let (frame, stroke, text) = match tile.verdict {
        Verdict::Wrong => ("#c62828", 3, "fill=\"#c62828\" font-weight=\"bold\""),
        Verdict::Right | Verdict::None => ("#c8c8c8", 1, "fill=\"#222222\""),
    };
    let (middle, baseline) = (left + wide / 2, top + high + 18);
    format!(
        "<image x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{high}\" href=\"data:image/png;base64,{data}\"/>\n\
         <rect x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{high}\" fill=\"none\" stroke=\"{frame}\" \
         stroke-width=\"{stroke}\"/>\n\
         <text x=\"{middle}\" y=\"{baseline}\" {text}>{caption}</text>\n"
    )
}

/// The inverted image as a PNG, each of its pixels a square.
fn enlarged_png(image: &Grey) -> Vec<u8> {
    let enlarge =
        |row: &[u8]| row.iter().flat_map(|&grey| [255 - grey; ZOOM]).collect::<Vec<u8>>().repeat(ZOOM);
    let pixels: Vec<u8> = image.pixels().chunks_exact(image.width()).flat_map(enlarge).collect();
    let side =
        |length: usize| u32::try_from(length * ZOOM).expect("an image to show is no wider than 2³² pixels");
    let (width, height) = (side(image.width()), side(image.height()));
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&pixels, width, height, ExtendedColorType::L8)
        .expect("a PNG of the right size is written to memory");
    bytes
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
