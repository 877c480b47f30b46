//! Checksums of files, in the two forms in which they are published.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use md5::Md5;
use sha2::{Digest, Sha256};

/// What a file's checksum is, in hex.
#[derive(Clone, Copy, Debug)]
pub(super) enum Checksum {
    /// The SHA-256 of what a gzipped file holds: mirrors compress it each in their own way.
    Content(&'static str),
    /// The MD5 of the file, where its publisher gives nothing better. It tells damage, not forgery.
    Md5(&'static str),
}

impl Checksum {
    /// Whether this file has it. A file that can't be inflated has not.
    pub(super) fn is_of(self, path: &Path) -> io::Result<bool> {
        let file = BufReader::new(File::open(path)?);
        match self {
            Self::Content(sha256) => {
                Ok(digest::<Sha256>(MultiGzDecoder::new(file)).is_ok_and(|found| found == sha256))
            }
            Self::Md5(md5) => Ok(digest::<Md5>(file)? == md5),
        }
    }
}

fn digest<D: Digest>(mut content: impl Read) -> io::Result<String> {
    let (mut digest, mut buffer) = (D::new(), vec![0; 1 << 16]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}
