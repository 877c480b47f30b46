//! Reader for IDX, the format of MNIST's files.
//!
//! ```text
//! 00 00    always
//! 08       type of the values: unsigned bytes; 09 signed bytes, 0b and 0c integers of 2 and 4 bytes, 0d and 0e floats
//!          of 4 and 8 bytes
//! 01 … 04  number of dimensions: 1 for labels, 3 for images, 2 for rows of values, 4 for images with channels
//! n        each dimension, 4 bytes, big-endian: samples [, rows, columns [, channels]] or samples, values
//! values   row-major, big-endian
//! ```
//!
//! A file may be gzipped (it then starts with `1f 8b`), also in several members, as `cat a.gz b.gz` makes them.
//! It is inflated directly into the buffer that keeps its values, while a second thread hashes what is already
//! inflated. That buffer has the size that the header declares, but never more than [`MAX_BYTES`] and never more
//! than the compressed bytes could inflate to, so that a false header cannot exhaust memory. An endless file
//! cannot either: [`worth_reading`] determines from a file's first bytes how much of it to read.
//!
//! A file is valid to the byte or it is refused: the error says what is missing, too much or damaged, and where.
//!
//! The members of a gzip file are taken one by one, although flate2 has a reader for all of them: that one takes a few
//! appended bytes for a truncated member, and cannot say how many there are.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read as _};
use std::sync::mpsc;
use std::thread;

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::data::{NamedFile, grouped};

/// The maximum size of a file's values in bytes: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// How many of a file's first bytes [`worth_reading`] needs: the length of the longest header.
pub const START: usize = 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Deflate's densest code is 2 bits for 258 bytes.
const MAX_INFLATION: usize = 1032;

/// How many bytes are inflated before the hash continues: large enough to be rare, small enough for a CPU's
/// cache.
const HASHED_AT_ONCE: usize = 256 * 1024;

/// The maximum number of excess bytes that are counted.
const MAX_EXTRA: u64 = 1 << 20;

/// A decoded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The samples, and the shape of each: `[samples]`, `[samples, values]`, `[samples, rows, columns]` or `[samples, rows,
    /// columns, channels]`; no dimension is 0.
    pub dims: Vec<usize>,
    /// The type of the values.
    pub element: Element,
    /// The values, row-major, as stored: big-endian.
    pub values: Vec<u8>,
    /// SHA-256, in hex, of the whole uncompressed file: a file and its gzipped copy have the same hash.
    pub sha256: String,
}

/// The type of a file's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
    /// Signed integers of 2 bytes.
    I16,
    /// Signed integers of 4 bytes.
    I32,
    /// Floats of 4 bytes.
    F32,
    /// Floats of 8 bytes.
    F64,
}

impl Element {
    const ALL: [Self; 6] = [Self::U8, Self::I8, Self::I16, Self::I32, Self::F32, Self::F64];

    /// The byte that stands for it in a header.
    const fn code(self) -> u8 {
        match self {
            Self::U8 => 0x08,
            Self::I8 => 0x09,
            Self::I16 => 0x0b,
            Self::I32 => 0x0c,
            Self::F32 => 0x0d,
            Self::F64 => 0x0e,
        }
    }

    /// NumPy's name for it, as it is stored.
    pub(super) const fn dtype(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::I8 => "|i1",
            Self::I16 => ">i2",
            Self::I32 => ">i4",
            Self::F32 => ">f4",
            Self::F64 => ">f8",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|element| element.code() == code)
    }
}

/// What a file is expected to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value per sample, or a row of them.
    Labels,
    /// Rows and columns of values for each sample, or a row, with or without channels. A single byte for each is a label.
    Images,
}

impl Kind {
    /// The most dimensions that are read.
    const fn max_dimensions(self) -> u8 {
        match self {
            Self::Labels => 2,
            Self::Images => 4,
        }
    }

    /// How MNIST's files of this kind begin.
    pub(super) const fn magic(self) -> [u8; 4] {
        match self {
            Self::Labels => [0, 0, Element::U8.code(), 1],
            Self::Images => [0, 0, Element::U8.code(), 3],
        }
    }

    /// The dimensions in words.
    const fn shape(self) -> &'static str {
        match self {
            Self::Labels => "labels have 1 (samples), or 2 (samples, values)",
            Self::Images => "images have 3 (samples, rows, columns) or 4 (and channels), rows of values 2",
        }
    }

    pub(super) const fn sample(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Images => "image",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.sample())
    }
}

/// Why a file was refused: one line with the file, the place and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}: {fault} ({})", advice(file, fault))]
pub struct IdxError {
    /// The file's name, as given.
    pub file: String,
    /// What is wrong with the file.
    pub fault: Fault,
}

/// What can be wrong with an IDX file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The file is not IDX, or holds the other [`Kind`].
    #[error("starts with {}; {expected} start with {}", spaced(found), spaced(&expected.magic()))]
    Magic {
        /// The file's first four bytes.
        found: [u8; 4],
        /// The expected kind.
        expected: Kind,
    },
    /// The file would be IDX, if there were such a type.
    #[error("has values of type 0x{found:02x}, which IDX does not have")]
    Type {
        /// The file's type byte.
        found: u8,
    },
    /// The file is IDX, with another number of dimensions than the expected kind has.
    #[error("has {found} dimensions; {}", expected.shape())]
    Dimensions {
        /// How many there are.
        found: u8,
        /// The expected kind.
        expected: Kind,
    },
    /// What was gzipped is gzip again.
    #[error("gzipped twice")]
    GzippedTwice,
    /// The file ends within the header.
    #[error("{held} of the header's {len} bytes are there")]
    Header {
        /// How many bytes there are.
        held: usize,
        /// How many the header has.
        len: usize,
    },
    /// A dimension is 0.
    #[error("promises {} values: nothing to learn from", product(dims))]
    NoSamples {
        /// The dimensions in the header.
        dims: Vec<u32>,
    },
    /// The values are more than [`MAX_BYTES`].
    #[error("promises {} values; at most {} are read", product(dims), grouped(MAX_BYTES / element.bytes() as u64))]
    TooLarge {
        /// The dimensions in the header.
        dims: Vec<u32>,
        /// The type of the values.
        element: Element,
    },
    /// The file ends before the last value.
    #[error("{} {} missing {}", grouped(*bytes), plural("byte", *bytes), after(*samples, *kind))]
    Missing {
        /// How many bytes are missing.
        bytes: u64,
        /// How many complete samples there are.
        samples: u64,
        /// The kind of the file.
        kind: Kind,
    },
    /// The file continues after the last value.
    #[error("{} {} too many {}", at_least(*bytes), plural("byte", *bytes), after(*samples, *kind))]
    Extra {
        /// How many excess bytes there are; counted up to 1 MiB.
        bytes: u64,
        /// The number of samples in the header.
        samples: u64,
        /// The kind of the file.
        kind: Kind,
    },
    /// The gzip data does not inflate, or does not match its checksum.
    #[error("gzip data damaged at or before decompressed byte {}", grouped(*at))]
    Damaged {
        /// How many bytes had been inflated when the damage was found, header included.
        at: u64,
    },
    /// The gzip data ends before anything could be inflated.
    #[error("its gzip data ends before the first byte of what it holds")]
    NothingInflated,
    /// All values are there, but gzip's checksum is cut off.
    #[error("all values are there, but the gzip checksum behind them is cut off")]
    NoChecksum,
    /// Something follows the gzip data.
    #[error("{} {} after the end of the gzip data", grouped(*bytes), plural("byte", *bytes))]
    Trailing {
        /// How many bytes.
        bytes: u64,
    },
}

impl Idx {
    /// Decodes `file`, raw or gzipped.
    ///
    /// # Errors
    ///
    /// If the file is not a complete file of `kind` with nothing after it.
    pub fn decode(file: NamedFile, kind: Kind) -> Result<Self, IdxError> {
        let NamedFile { name, bytes } = file;
        let idx = if bytes.starts_with(&GZIP) { inflate(&bytes, kind) } else { take(bytes, kind) };
        idx.map_err(|fault| IdxError { file: name, fault })
    }
}

/// How many bytes of a file to read, judged by its first [`START`] bytes (or all, if there are fewer): enough to
/// decode it, or else to report what is wrong with it.
pub fn worth_reading(start: &[u8], kind: Kind) -> u64 {
    if start.starts_with(&GZIP) {
        return MAX_BYTES + MAX_EXTRA;
    }
    let whole = |header: Header| header.len() as u64 + header.bytes + MAX_EXTRA;
    Header::parse(start, kind).map_or(start.len() as u64, whole)
}

/// Decodes a raw file; an owned buffer is reused.
fn take(bytes: Cow<'_, [u8]>, kind: Kind) -> Result<Idx, Fault> {
    let header = Header::parse(&bytes, kind)?;
    let held = (bytes.len() - header.len()) as u64;
    if held < header.bytes {
        return Err(header.missing(held));
    }
    if held > header.bytes {
        return Err(header.extra(held - header.bytes));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let mut values = bytes.into_owned();
    values.drain(..header.len());
    Ok(Idx { dims: header.dims(), element: header.element, values, sha256 })
}

/// Decodes a gzipped file.
fn inflate(bytes: &[u8], kind: Kind) -> Result<Idx, Fault> {
    let mut gzip = Gzip::new(bytes);
    let start = gzip.start()?;
    if start.starts_with(&GZIP) {
        return Err(Fault::GzippedTwice);
    }
    if start.is_empty() && gzip.is_cut_off {
        return Err(Fault::NothingInflated);
    }
    let header = Header::parse(&start, kind)?;

    let room = header.bytes.min(bytes.len().saturating_mul(MAX_INFLATION) as u64);
    let mut values = vec![0; room as usize];
    let (held, sha256) = gzip.fill_and_hash(&start, &mut values)?;
    if held < header.bytes {
        return Err(header.missing(held));
    }
    gzip.finish(&header)?;
    Ok(Idx { dims: header.dims(), element: header.element, values, sha256 })
}

/// A header with valid dimensions.
struct Header {
    kind: Kind,
    element: Element,
    dims: Vec<u32>,
    /// All values' size.
    bytes: u64,
}

impl Header {
    fn parse(start: &[u8], kind: Kind) -> Result<Self, Fault> {
        if start.is_empty() {
            return Err(Fault::Empty);
        }
        let short = |len| Fault::Header { held: start.len(), len };
        let Some((&magic, rest)) = start.split_first_chunk() else {
            return Err(short(header_len(kind.magic())));
        };
        let element = checked(magic, kind)?;
        let (dims, _) = rest.as_chunks();
        let Some(dims) = dims.get(..magic[3].into()) else { return Err(short(header_len(magic))) };
        Self::new(kind, element, dims.iter().map(|&dim| u32::from_be_bytes(dim)).collect())
    }

    fn new(kind: Kind, element: Element, dims: Vec<u32>) -> Result<Self, Fault> {
        if dims.contains(&0) {
            return Err(Fault::NoSamples { dims });
        }
        let width = element.bytes() as u64;
        let bytes = dims.iter().try_fold(width, |product, &dim| product.checked_mul(u64::from(dim)));
        match bytes {
            Some(bytes) if bytes <= MAX_BYTES => Ok(Self { kind, element, dims, bytes }),
            _ => Err(Fault::TooLarge { dims, element }),
        }
    }

    /// Its length in bytes.
    fn len(&self) -> usize {
        4 + 4 * self.dims.len()
    }

    fn dims(&self) -> Vec<usize> {
        self.dims.iter().map(|&dim| dim as usize).collect()
    }

    fn samples(&self) -> u64 {
        u64::from(self.dims[0])
    }

    fn missing(&self, held: u64) -> Fault {
        let samples = held / (self.bytes / self.samples());
        Fault::Missing { bytes: self.bytes - held, samples, kind: self.kind }
    }

    fn extra(&self, bytes: u64) -> Fault {
        Fault::Extra { bytes: bytes.min(MAX_EXTRA), samples: self.samples(), kind: self.kind }
    }
}

/// The length of the header that begins with this magic number.
fn header_len(magic: [u8; 4]) -> usize {
    4 + 4 * usize::from(magic[3])
}

/// The type of the values, if a file of this kind may begin so.
fn checked(found: [u8; 4], expected: Kind) -> Result<Element, Fault> {
    let is_other = kind_of(found).is_some_and(|kind| kind != expected);
    match (found, Element::of(found[2])) {
        ([0, 0, _, dimensions @ 1..=8], Some(element)) if !is_other => {
            if dimensions <= expected.max_dimensions() {
                Ok(element)
            } else {
                Err(Fault::Dimensions { found: dimensions, expected })
            }
        }
        ([0, 0, code @ 0x08..=0x0e, _], None) => Err(Fault::Type { found: code }),
        _ => Err(Fault::Magic { found, expected }),
    }
}

/// A gzip file, inflated piecewise.
struct Gzip<'a> {
    member: GzDecoder<&'a [u8]>,
    /// How many bytes have been inflated.
    made: u64,
    /// Whether the file ends within a member.
    is_cut_off: bool,
}

impl<'a> Gzip<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { member: GzDecoder::new(input), made: 0, is_cut_off: false }
    }

    /// The header, as far as it is there: its first four bytes say how long it is.
    fn start(&mut self) -> Result<Vec<u8>, Fault> {
        let mut start = vec![0; START];
        let held = self.fill(&mut start[..4])?;
        let Some(&magic) = start[..held].first_chunk() else {
            start.truncate(held);
            return Ok(start);
        };
        let len = header_len(magic).min(START);
        let held = 4 + self.fill(&mut start[4..len])?;
        start.truncate(held);
        Ok(start)
    }

    /// Fills `output` as far as the data reaches; returns the number of bytes.
    fn fill(&mut self, output: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < output.len() && !self.is_cut_off {
            match self.member.read(&mut output[filled..]) {
                Ok(0) if !self.next_member() => break,
                Ok(made) => {
                    filled += made;
                    self.made += made as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.is_cut_off = true,
                Err(_) => return Err(Fault::Damaged { at: self.made }),
            }
        }
        Ok(filled)
    }

    /// Goes on to the next member, if there is one.
    fn next_member(&mut self) -> bool {
        let rest = self.rest();
        let is_member = rest.starts_with(&GZIP);
        if is_member {
            self.member = GzDecoder::new(rest);
        }
        is_member
    }

    /// Like [`fill`](Self::fill), but also hashes `start` and the filled bytes.
    fn fill_and_hash(&mut self, start: &[u8], output: &mut [u8]) -> Result<(u64, String), Fault> {
        thread::scope(|scope| {
            let (filled, to_hash) = mpsc::channel::<&[u8]>();
            let hash = scope.spawn(move || {
                let whole = to_hash.iter().fold(Sha256::new_with_prefix(start), Digest::chain_update);
                hex::encode(whole.finalize())
            });
            let mut held = 0;
            for chunk in output.chunks_mut(HASHED_AT_ONCE) {
                let len = self.fill(chunk)?;
                held += len as u64;
                filled.send(&chunk[..len]).expect("the hash waits until the last chunk");
            }
            drop(filled);
            Ok((held, hash.join().expect("hashing does not fail")))
        })
    }

    /// Checks that the file ends where its last value does.
    fn finish(&mut self, header: &Header) -> Result<(), Fault> {
        let mut scratch = [0; 4096];
        let mut extra = 0;
        while extra < MAX_EXTRA {
            match self.fill(&mut scratch)? {
                0 => break,
                more => extra += more as u64,
            }
        }
        if extra > 0 {
            return Err(header.extra(extra));
        }
        if self.is_cut_off {
            return Err(Fault::NoChecksum);
        }
        match self.rest().len() as u64 {
            0 => Ok(()),
            bytes => Err(Fault::Trailing { bytes }),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.member.get_ref()
    }
}

/// What probably happened, and what to do.
fn advice(file: &str, fault: &Fault) -> String {
    // The files that come with the project are under version control; any other came from somewhere else.
    let again = if file.contains("data/mnist/") { "restore it with git checkout" } else { "fetch it again" };
    match fault {
        Fault::Magic { found, expected } => match kind_of(*found) {
            Some(other) => format!("these are {other}: put a file of {expected} here"),
            None if file.ends_with(".gz") => format!("this is neither gzip nor IDX; {again}"),
            None => format!("this is not IDX, or it is damaged; {again}"),
        },
        Fault::Dimensions { .. } => "reshape it".to_owned(),
        Fault::GzippedTwice => "gunzip it once".to_owned(),
        Fault::Header { .. } | Fault::Missing { .. } | Fault::NothingInflated | Fault::NoChecksum => {
            format!("the file is truncated; {again}")
        }
        Fault::Type { .. } | Fault::NoSamples { .. } | Fault::TooLarge { .. } => {
            format!("if its header is damaged, {again}")
        }
        Fault::Extra { .. } => format!("the file is over-long, or its header is damaged; {again}"),
        Fault::Empty | Fault::Damaged { .. } => again.to_owned(),
        Fault::Trailing { .. } => format!("something was appended; {again}"),
    }
}

fn kind_of(magic: [u8; 4]) -> Option<Kind> {
    [Kind::Labels, Kind::Images].into_iter().find(|kind| kind.magic() == magic)
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn product(dims: &[u32]) -> String {
    dims.iter().map(|&dim| grouped(dim.into())).collect::<Vec<_>>().join(" × ")
}

fn plural(word: &str, count: u64) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn at_least(count: u64) -> String {
    let text = grouped(count);
    if count < MAX_EXTRA { text } else { format!("at least {text}") }
}

fn after(samples: u64, kind: Kind) -> String {
    match samples {
        0 => "after the header".to_owned(),
        last => format!("after {} {}", kind.sample(), grouped(last)),
    }
}
