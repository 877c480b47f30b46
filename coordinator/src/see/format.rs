//! Recognizes a file of images by its first bytes, to read it or to say why it can't be read.

/// A file's format, as far as its start shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A PNG or a JPEG image.
    Picture,
    /// An IDX file, perhaps gzipped.
    Idx,
    /// The file is empty.
    Empty,
    /// Something else, in words: "a GIF image".
    Other(&'static str),
}

/// Signatures of other formats, all at the first byte.
const OTHERS: &[(&[u8], &str)] = &[
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG picture"),
    (b"<?xml", "XML, an SVG picture perhaps"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a ZIP archive"),
];

/// The format of a file with this start; a dozen bytes are enough.
pub fn of(start: &[u8]) -> Format {
    let begins = |with: &[u8]| start.starts_with(with);
    if start.is_empty() {
        return Format::Empty;
    }
    if begins(b"\x89PNG") || begins(b"\xff\xd8\xff") {
        return Format::Picture;
    }
    if begins(&[0, 0]) || begins(&[0x1f, 0x8b]) {
        return Format::Idx;
    }
    if begins(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
        return Format::Other("a WebP image");
    }
    if start.get(4..8) == Some(b"ftyp") {
        return Format::Other("a HEIC or AVIF image, or a film");
    }
    let known = OTHERS.iter().find(|(with, _)| begins(with)).map(|&(_, name)| name);
    let text = || start.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    Format::Other(known.unwrap_or_else(|| if text() { "text" } else { "of an unknown kind" }))
}
