//! MNIST, built into the program.
//!
//! The four gzipped files are part of the binary (11 MB), so that the default job needs no download, no path and
//! no network. `data/mnist/README.md` says where they come from and how to check them.

use std::borrow::Cow;

use crate::data::NamedFile;

/// The pixels of an image, 28 × 28.
pub(crate) const INPUTS: u32 = 784;

macro_rules! file {
    ($name:literal) => {
        NamedFile {
            name: concat!("data/mnist/", $name).to_owned(),
            bytes: Cow::Borrowed(include_bytes!(concat!("../../../../../data/mnist/", $name))),
        }
    };
}

/// MNIST's four files, in a data set's order.
pub fn files() -> Vec<NamedFile> {
    vec![
        file!("train-images-idx3-ubyte.gz"),
        file!("train-labels-idx1-ubyte.gz"),
        file!("t10k-images-idx3-ubyte.gz"),
        file!("t10k-labels-idx1-ubyte.gz"),
    ]
}
