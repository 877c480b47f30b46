//! The data sets that can be downloaded: where they lie, and their checksums.
//!
//! Addresses and MD5 sums are those that the sets' publishers and torchvision's `datasets.mnist` name. The SHA-256 sums are
//! over the decompressed files.

use super::checksum::Checksum;

/// A well-known data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DataSet {
    /// 70,000 handwritten digits
    Mnist,
    /// 70,000 pieces of clothing, of ten kinds
    FashionMnist,
    /// 70,000 cursive Japanese characters, of ten kinds
    Kmnist,
    /// 145,600 handwritten letters
    EmnistLetters,
}

/// Where a data set lies.
#[derive(Debug)]
pub(super) struct Described {
    /// The addresses below which its files lie, in the order in which they are tried.
    pub(super) mirrors: &'static [&'static str],
    /// Its files; none if it lies in an archive.
    pub(super) files: &'static [FileOf],
    pub(super) archive: Option<&'static Archive>,
}

/// A file at a mirror.
#[derive(Debug)]
pub(super) struct FileOf {
    pub(super) name: &'static str,
    pub(super) checksum: Checksum,
}

/// A zip archive that holds more than the data set.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) file: FileOf,
    /// The directory in it.
    pub(super) directory: &'static str,
    /// The files to take.
    pub(super) members: &'static [&'static str],
}

impl DataSet {
    pub(super) fn get(self) -> &'static Described {
        match self {
            Self::Mnist => &MNIST,
            Self::FashionMnist => &FASHION_MNIST,
            Self::Kmnist => &KMNIST,
            Self::EmnistLetters => &EMNIST_LETTERS,
        }
    }
}

const fn content(name: &'static str, sha256: &'static str) -> FileOf {
    FileOf { name, checksum: Checksum::Content(sha256) }
}

const fn md5(name: &'static str, md5: &'static str) -> FileOf {
    FileOf { name, checksum: Checksum::Md5(md5) }
}

static MNIST: Described = Described {
    mirrors: &[
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ],
    files: &[
        content(
            "train-images-idx3-ubyte.gz",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        content(
            "train-labels-idx1-ubyte.gz",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        content(
            "t10k-images-idx3-ubyte.gz",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        content(
            "t10k-labels-idx1-ubyte.gz",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ],
    archive: None,
};

static FASHION_MNIST: Described = Described {
    mirrors: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"],
    files: &[
        content(
            "train-images-idx3-ubyte.gz",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        content(
            "train-labels-idx1-ubyte.gz",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        content(
            "t10k-images-idx3-ubyte.gz",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        content(
            "t10k-labels-idx1-ubyte.gz",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ],
    archive: None,
};

static KMNIST: Described = Described {
    mirrors: &["http://codh.rois.ac.jp/kmnist/dataset/kmnist"],
    files: &[
        md5("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
        md5("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
        md5("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
        md5("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
    ],
    archive: None,
};

static EMNIST_LETTERS: Described = Described {
    mirrors: &[
        "https://biometrics.nist.gov/cs_links/EMNIST",
        "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST",
    ],
    files: &[],
    archive: Some(&Archive {
        file: md5("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e"),
        directory: "gzip",
        members: &[
            "emnist-letters-train-images-idx3-ubyte.gz",
            "emnist-letters-train-labels-idx1-ubyte.gz",
            "emnist-letters-test-images-idx3-ubyte.gz",
            "emnist-letters-test-labels-idx1-ubyte.gz",
        ],
    }),
};
