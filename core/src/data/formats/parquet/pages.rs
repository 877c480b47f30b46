//! A file's bytes, which are not given to the decoder where a page of them would become too large.
//!
//! The decoder makes memory for a page as its header promises, or inflates it to its end. So each header is looked at first. It
//! is Thrift in its compact form, and begins with three integers in this order (`PageHeader` in `parquet.thrift`): the type
//! of the page, its size once inflated, its size as stored.

use ::parquet::basic::Compression;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;
use bytes::buf::Reader;

/// The bytes of a file.
pub(super) struct Pages {
    bytes: Bytes,
    /// The most bytes of a page as stored.
    most_stored: u64,
}

/// The most bytes of a page, inflated. Usual pages have a million.
const MAX_INFLATED: u64 = 256 << 20;
/// The most bytes of a page in a file that has deflated ones: the decoder inflates these to their end, whatever is promised, and
/// a byte becomes up to 1032.
const MAX_DEFLATED: u64 = 2 << 20;

/// The header of a field that is an integer of 32 bits and follows the one before.
const NEXT_I32: u8 = 0x15;

impl Pages {
    pub(super) fn new(bytes: Bytes, metadata: &ParquetMetaData) -> Self {
        let most_stored = if has_deflated(metadata) { MAX_DEFLATED } else { MAX_INFLATED };
        Self { bytes, most_stored }
    }

    /// Checks the header of a page.
    fn check(&self, header: &[u8]) -> Result<()> {
        let mut rest = header;
        let sizes = [(); 3].map(|()| integer(&mut rest));
        let [Some(_), Some(inflated), Some(stored)] = sizes else {
            return Err(ParquetError::General("a page's header is damaged".to_string()));
        };
        if inflated > MAX_INFLATED || stored > self.most_stored {
            let what = format!("a page of {stored} bytes that become {inflated} is too large");
            return Err(ParquetError::General(what));
        }
        Ok(())
    }
}

fn has_deflated(metadata: &ParquetMetaData) -> bool {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns.into_iter().any(|column| matches!(column.compression(), Compression::GZIP(_)))
}

/// The next field, if it is an integer that is not negative: zigzag, in groups of 7 bits, the lowest first.
fn integer(rest: &mut &[u8]) -> Option<u64> {
    let (&NEXT_I32, mut bytes) = rest.split_first()? else { return None };
    let mut zigzag = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = bytes.split_first()?;
        bytes = after;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            *rest = bytes;
            return (zigzag % 2 == 0).then_some(zigzag / 2);
        }
    }
    None
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The decoder reads the headers of pages through readers, all else as bytes.
impl ChunkReader for Pages {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let read = self.bytes.get_read(start)?;
        self.check(read.get_ref())?;
        Ok(read)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.len() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the file's end")));
        }
        self.bytes.get_bytes(start, length)
    }
}
