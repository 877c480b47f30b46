//! Files that may be gzipped.

use std::io::Read as _;

use flate2::bufread::MultiGzDecoder;

use crate::failure::{Failure, FailureKind};

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The content of a file: inflated if it is gzipped.
///
/// # Errors
/// If it is damaged, or has more than `most` bytes inflated.
pub(super) fn inflated(file: &str, bytes: Vec<u8>, most: u64) -> Result<Vec<u8>, Failure> {
    let too_large = |len: u64| {
        (len > most).then(|| {
            let what = format!("more than {most} bytes, the most that are read (cut it into several files)");
            Failure::at(FailureKind::Data, file, what)
        })
    };
    if !bytes.starts_with(&MAGIC) {
        return too_large(bytes.len() as u64).map_or(Ok(bytes), Err);
    }
    let mut content = Vec::new();
    let read = MultiGzDecoder::new(&bytes[..]).take(most + 1).read_to_end(&mut content);
    read.map_err(|error| {
        let what = format!("its gzip data is damaged or ends early: {error} (copy the file again)");
        Failure::at(FailureKind::Data, file, what)
    })?;
    too_large(content.len() as u64).map_or(Ok(content), Err)
}
