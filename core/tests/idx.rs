//! Data sets are read correctly, or refused with an error that names the file, the place and the remedy.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use millefeuille_core::data::NamedFile;
use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::formats::idx::file::{
    Fault, Idx, IdxError, Kind, MAX_BYTES, START, worth_reading,
};
use millefeuille_core::data::formats::idx::{self, mnist};
use millefeuille_core::data::formats::{Content, DataFormat, Files, Request};
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::request::{TableLayout, Wanted};
use millefeuille_core::data::schema::{Element, Features, Target};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::data::table::Known;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;
use proptest::prelude::*;

fn named(name: &str, bytes: Vec<u8>) -> NamedFile {
    NamedFile { name: name.to_owned(), bytes: Cow::Owned(bytes) }
}

fn header(dims: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes
}

fn file(dims: &[u32]) -> Vec<u8> {
    let values: u32 = dims.iter().product();
    let mut bytes = header(dims);
    bytes.extend((0..values).map(|i| (i * 7 % 10) as u8));
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

fn images(bytes: Vec<u8>) -> Result<Idx, IdxError> {
    Idx::decode(named("digits/images.gz", bytes), Kind::Images)
}

fn message(bytes: Vec<u8>) -> String {
    images(bytes).expect_err("the file is wrong").to_string()
}

#[test]
fn raw_and_gzip_decode_to_the_same() {
    let bytes = file(&[9, 4, 3]);
    let raw = images(bytes.clone()).unwrap();
    assert_eq!(raw.dims, [9, 4, 3]);
    assert_eq!(raw.values, bytes[16..]);
    assert_eq!(images(gzip(&bytes)).unwrap(), raw);
}

/// The data set of four files for the article's model.
fn dataset(files: Vec<NamedFile>) -> Result<Dataset, Failure> {
    let job = Job::default();
    Parts::from(idx::content(files, job.wanted())?).prepare(job.data.recipe(job.wanted()))
}

#[test]
fn the_built_in_files_match_their_published_checksums() {
    let data = dataset(mnist::files()).unwrap();
    let sums = include_str!("../../data/mnist/SHA256SUMS");
    assert_eq!(data.files.len(), 4);
    for file in &data.files {
        assert!(sums.contains(&format!("{}  {}\n", file.sha256, file.name)), "{file:?}");
    }
    assert_eq!(
        (data.train.len, data.test.len, data.schema.features.clone()),
        (60_000, 10_000, Features::image(28, 28))
    );

    let store = ShardStore::new(data, 8);
    let first_ten = |split| (0..10).map(|i| store.sample(split, i).unwrap().1[0]).collect::<Vec<_>>();
    assert_eq!(first_ten(Split::Train), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(first_ten(Split::Test), [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    assert_eq!(store.sizes().of(Split::Validation), 12_000);
}

#[test]
fn a_truncated_file_says_how_much_is_missing_and_where() {
    let mut bytes = file(&[60, 28, 28]);
    bytes.truncate(bytes.len() - 1_024);
    let expected = "1,024 bytes missing after image 58 (the file is truncated; ";
    assert_eq!(message(bytes.clone()), format!("digits/images.gz: {expected}fetch it again)"));
    let ours = named("data/mnist/train-images-idx3-ubyte.gz", gzip(&bytes));
    assert_eq!(
        Idx::decode(ours, Kind::Images).unwrap_err().to_string(),
        format!("data/mnist/train-images-idx3-ubyte.gz: {expected}restore it with git checkout)")
    );
    bytes.truncate(16);
    assert_eq!(
        message(bytes),
        "digits/images.gz: 47,040 bytes missing after the header (the file is truncated; fetch it again)"
    );
}

#[test]
fn gzip_in_several_members_is_one_file() {
    let bytes = file(&[60, 28, 28]);
    let (first, last) = bytes.split_at(20_000);
    let (header, rest) = first.split_at(7);

    let members = [gzip(header), gzip(&[]), gzip(rest), gzip(last)].concat();
    assert_eq!(images(members.clone()).unwrap(), images(bytes.clone()).unwrap());

    let missing = [gzip(header), gzip(rest)].concat();
    assert!(message(missing).contains(": 27,056 bytes missing after image 25 ("));
    let extra = [members.clone(), gzip(&[1, 2])].concat();
    assert!(message(extra).contains(": 2 bytes too many after image 60 ("));
    let mut damaged = [gzip(first), gzip(last)].concat();
    let place = gzip(first).len() + 10;
    damaged[place..place + 8].fill(0xff);
    assert!(message(damaged).contains(": gzip data damaged at or before decompressed byte 20,000 ("));
    let trailing = [members, vec![0; 3]].concat();
    assert!(message(trailing).contains(": 3 bytes after the end of the gzip data ("));
}

#[test]
fn gzip_that_ends_before_its_first_byte_is_reported() {
    for len in [2, 3, 10, 12] {
        assert_eq!(
            message(gzip(&file(&[9, 4, 3]))[..len].to_vec()),
            "digits/images.gz: its gzip data ends before the first byte of what it holds \
             (the file is truncated; fetch it again)",
            "of {len} bytes"
        );
    }
}

#[test]
fn no_more_is_read_than_the_check_needs() {
    let bytes = file(&[9, 4, 3]);
    let worth = |bytes: &[u8]| worth_reading(&bytes[..bytes.len().min(START)], Kind::Images);
    assert_eq!(worth(&bytes), bytes.len() as u64 + (1 << 20), "as much as is counted of what is too much");
    assert_eq!(worth(&[0; 100]), START as u64, "what is not IDX shows that at its start");
    assert_eq!(worth(&header(&[u32::MAX, 28, 28])), 16);
    assert_eq!(worth(&bytes[..7]), 7);
    assert!(worth(&gzip(&bytes)) > MAX_BYTES, "nothing is known of what is packed");
}

#[test]
fn an_over_long_file_is_refused() {
    let mut bytes = file(&[60, 28, 28]);
    bytes.push(0);
    let expected = "digits/images.gz: 1 byte too many after image 60 \
                    (the file is over-long, or its header is damaged; fetch it again)";
    assert_eq!(message(bytes.clone()), expected);
    assert_eq!(message(gzip(&bytes)), expected);
    bytes.resize(40_000_000, 0);
    assert!(message(gzip(&bytes)).contains(": at least 1,048,576 bytes too many after image 60 ("));
    assert!(message(bytes).contains(": at least 1,048,576 bytes too many after image 60 ("));
}

#[test]
fn the_first_bytes_of_another_format_are_shown() {
    assert_eq!(message(vec![]), "digits/images.gz: the file is empty (fetch it again)");
    assert_eq!(message(gzip(&[])), message(vec![]));
    assert_eq!(
        message(b"\x89PNG and so on".to_vec()),
        "digits/images.gz: starts with 89 50 4e 47; images start with 00 00 08 03 \
         (this is neither gzip nor IDX; fetch it again)"
    );
    let raw = Idx::decode(named("digits/images", b"no images".to_vec()), Kind::Images).unwrap_err();
    assert!(raw.to_string().ends_with("(this is not IDX, or it is damaged; fetch it again)"), "{raw}");
    assert_eq!(
        message(file(&[3])),
        "digits/images.gz: starts with 00 00 08 01; images start with 00 00 08 03 \
         (these are labels: put a file of images here)"
    );
    assert_eq!(
        message(vec![0, 0, 0x0a, 3, 0, 0]),
        "digits/images.gz: has values of type 0x0a, which IDX does not have \
         (if its header is damaged, fetch it again)"
    );
    assert_eq!(
        message(file(&[1, 2, 3])[..13].to_vec()),
        "digits/images.gz: 13 of the header's 16 bytes are there (the file is truncated; fetch it again)"
    );
    assert_eq!(
        message(file(&[2, 3, 2, 2, 1])),
        "digits/images.gz: has 5 dimensions; images have 3 (samples, rows, columns) or 4 (and channels), \
         rows of values 2 (reshape it)"
    );
    let labels = Idx::decode(named("labels", file(&[2, 10, 1, 1])), Kind::Labels).unwrap_err();
    assert_eq!(
        labels.to_string(),
        "labels: has 4 dimensions; labels have 1 (samples), or 2 (samples, values) (reshape it)"
    );
    for bytes in [gzip(&gzip(&file(&[9, 4, 3]))), gzip(&gzip(&[]))] {
        assert_eq!(message(bytes), "digits/images.gz: gzipped twice (gunzip it once)");
    }
}

#[test]
fn impossible_sizes_in_the_header_are_refused() {
    assert_eq!(
        message(header(&[0, 28, 28])),
        "digits/images.gz: promises 0 × 28 × 28 values: nothing to learn from \
         (if its header is damaged, fetch it again)"
    );
    assert_eq!(
        message(gzip(&header(&[u32::MAX; 3]))),
        "digits/images.gz: promises 4,294,967,295 × 4,294,967,295 × 4,294,967,295 values; \
         at most 1,073,741,824 are read (if its header is damaged, fetch it again)"
    );
    // As much as is allowed, promised by a few bytes: refused without the buffer for it.
    let fault = images(gzip(&header(&[1 << 20, 32, 32]))).unwrap_err().fault;
    assert_eq!(fault, Fault::Missing { bytes: 1 << 30, samples: 0, kind: Kind::Images });
}

#[test]
fn the_place_of_damage_in_gzip_is_named() {
    // Stored without compression, a changed value is noticed by the checksum, at the very end.
    let bytes = file(&[60, 28, 28]);
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&bytes).unwrap();
    let mut stored = stored.finish().unwrap();
    stored[30_000] ^= 1;
    assert_eq!(
        message(stored),
        "digits/images.gz: gzip data damaged at or before decompressed byte 47,056 (fetch it again)"
    );

    let mut noise: Vec<u8> = (0..47_040_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    noise.splice(0..0, header(&[60, 28, 28]));
    let mut damaged = gzip(&noise);
    let middle = damaged.len() / 2;
    damaged[middle..middle + 200].fill(0xff);
    let Fault::Damaged { at } = images(damaged).unwrap_err().fault else { panic!("not noticed") };
    assert!((1..=47_056).contains(&at), "{at}");
}

#[test]
fn the_end_of_gzip_is_checked() {
    let bytes = gzip(&file(&[60, 28, 28]));
    assert_eq!(
        message(bytes[..bytes.len() - 3].to_vec()),
        "digits/images.gz: all values are there, but the gzip checksum behind them is cut off \
         (the file is truncated; fetch it again)"
    );
    assert_eq!(
        message([&bytes[..], b"and more"].concat()),
        "digits/images.gz: 8 bytes after the end of the gzip data (something was appended; fetch it again)"
    );
}

#[test]
fn rows_of_values_are_read_as_images_are() {
    let bytes = file(&[9, 12]);
    let raw = images(bytes.clone()).unwrap();
    assert_eq!((&raw.dims[..], &raw.values[..]), (&[9, 12][..], &bytes[12..]));
    assert_eq!(images(gzip(&bytes)).unwrap(), raw);
    assert_eq!(worth_reading(&bytes[..START], Kind::Images), bytes.len() as u64 + (1 << 20));
    assert_eq!(
        message(bytes[..11].to_vec()),
        "digits/images.gz: 11 of the header's 12 bytes are there (the file is truncated; fetch it again)"
    );

    let labels = || named("labels", file(&[9]));
    let rows = |values| named("rows", file(&[9, values]));
    let data = dataset(vec![rows(12), labels(), rows(12), labels()]).unwrap();
    assert_eq!(data.schema.features, Features { element: Element::U8, shape: vec![12] });
    let error = dataset(vec![rows(12), labels(), rows(13), labels()]).unwrap_err();
    assert!(
        error.to_string().starts_with("rows: images of 13 pixels, but those in rows have 12 ("),
        "{error}"
    );
}

/// A directory of files that only has names.
struct Listed(&'static str, &'static [&'static str]);

impl Files for Listed {
    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        Ok(self.is_directory(path))
    }

    fn is_directory(&self, path: &Path) -> bool {
        Path::new(self.0).starts_with(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, Failure> {
        let names = if directory == Path::new(self.0) { self.1 } else { &[] };
        Ok(names.iter().map(|name| name.to_string()).collect())
    }

    fn read(&self, path: &Path, _: &dyn Fn(&[u8]) -> u64) -> Result<Vec<u8>, Failure> {
        let name = path.to_string_lossy();
        Ok(if name.contains("labels") { file(&[9]) } else { file(&[9, 4, 3]) })
    }
}

fn listed(at: &'static str, names: &'static [&'static str]) -> Result<Content, Failure> {
    let layout = TableLayout::default();
    let request = Request { layout: &layout, wanted: Wanted::default(), known: Known::Nothing };
    DataFormat::Idx.read(Path::new("data"), &request, &Listed(at, names))
}

const USUAL: &[&str] = &[
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
];

#[test]
fn files_are_found_under_the_names_that_others_give_them() {
    let known = listed("data", USUAL).unwrap();
    let names: Vec<_> = known.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, [USUAL[2], USUAL[3], USUAL[0], USUAL[1]]);
    for (at, names) in [
        ("data/MNIST/raw", USUAL),
        (
            "data",
            &[
                "t10k-images.idx3-ubyte",
                "t10k-labels.idx1-ubyte",
                "train-images.idx3-ubyte",
                "train-labels.idx1-ubyte",
            ],
        ),
        (
            "data",
            &[
                "t10k-images.idx3-ubyte.gz",
                "t10k-labels-idx1-ubyte.gz",
                "train-images.idx3-ubyte.gz",
                "train-labels-idx1-ubyte",
            ],
        ),
        // Both forms of one file.
        (
            "data/MNIST/raw",
            &[
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
                "train-images-idx3-ubyte",
                "train-images-idx3-ubyte.gz",
                "train-images.idx3-ubyte",
                "train-labels-idx1-ubyte",
            ],
        ),
    ] {
        assert_eq!(listed(at, names).unwrap().files, known.files, "{at} {names:?}");
    }
    let letters = &[
        "emnist-letters-test-images-idx3-ubyte",
        "emnist-letters-test-labels-idx1-ubyte.gz",
        "emnist-letters-train-images-idx3-ubyte",
        "emnist-letters-train-labels-idx1-ubyte",
    ];
    assert_eq!(listed("data", letters).unwrap().files[0].name, letters[2]);
}

#[test]
fn a_file_that_is_missing_or_there_twice_is_named() {
    let error = listed("data", &USUAL[..3]).unwrap_err().to_string();
    assert!(error.contains("data/train-labels-idx1-ubyte: missing (") && error.contains(".gz"), "{error}");
    let error =
        listed("data", &["train-images-idx3-ubyte", "train-images-idx2-float"]).unwrap_err().to_string();
    assert!(
        error.starts_with("data: which is to be read, train-images-idx2-float or train-images-idx3-ubyte? ("),
        "{error}"
    );
}

/// Values in their bytes, big-endian.
type FourValues = [&'static [u8]; 4];

/// A file of these values, each in its bytes.
fn typed(code: u8, dims: &[u32], values: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header(dims);
    bytes[2] = code;
    bytes.extend(values.concat());
    bytes
}

#[test]
fn every_type_and_number_of_dimensions_is_read() {
    let types: [(u8, FourValues, [f32; 4]); 5] = [
        (0x09, [&[0xff], &[2], &[0x80], &[4]], [-1.0, 2.0, -128.0, 4.0]),
        (0x0b, [&[0xff, 0xfe], &[0, 1], &[1, 0], &[0, 4]], [-2.0, 1.0, 256.0, 4.0]),
        (0x0c, [&[0xff; 4], &[0, 1, 0, 0], &[0, 0, 0, 3], &[0; 4]], [-1.0, 65_536.0, 3.0, 0.0]),
        (0x0d, [&[0x3f, 0, 0, 0], &[0xc0, 0, 0, 0], &[0; 4], &[0x40, 0x40, 0, 0]], [0.5, -2.0, 0.0, 3.0]),
        (
            0x0e,
            [
                &[0x3f, 0xe0, 0, 0, 0, 0, 0, 0],
                &[0xc0, 0, 0, 0, 0, 0, 0, 0],
                &[0; 8],
                &[0x40, 8, 0, 0, 0, 0, 0, 0],
            ],
            [0.5, -2.0, 0.0, 3.0],
        ),
    ];
    for (code, values, expected) in types {
        for (dims, shape) in [
            (&[4][..], vec![1]),
            (&[2, 2], vec![2]),
            (&[2, 2, 1], vec![2, 1]),
            (&[2, 1, 2, 1], vec![1, 2, 1]),
        ] {
            let images = || named("images", typed(code, dims, &values));
            let labels = || {
                named("labels", [header(&dims[..1]), vec![0, 1, 1, 0][..dims[0] as usize].to_vec()].concat())
            };
            let data = dataset(vec![images(), labels(), images(), labels()]).unwrap();
            assert_eq!(
                data.schema.features,
                Features { element: Element::F32, shape },
                "type {code}, {dims:?}"
            );
            let stored: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(data.train.features, stored, "type {code}, {dims:?}");
        }
    }
    let bytes = file(&[2, 3, 4, 3]);
    let coloured = || named("images", bytes.clone());
    let labels = || named("labels", typed(0x0b, &[2], &[&[0, 7], &[0, 9]]));
    let data = dataset(vec![coloured(), labels(), coloured(), labels()]).unwrap();
    assert_eq!(data.schema.features, Features { element: Element::U8, shape: vec![3, 4, 3] });
    assert_eq!((&data.train.features[..], &data.train.targets[..]), (&bytes[20..], &[7, 9][..]));
}

#[test]
fn labels_of_many_classes_and_numbers_are_learned() {
    let images = || named("images", file(&[600, 2]));
    let classes: Vec<[u8; 2]> = (0..600_u16).map(u16::to_be_bytes).collect();
    let of_classes =
        || named("labels", typed(0x0b, &[600], &classes.iter().map(|class| &class[..]).collect::<Vec<_>>()));
    let wanted = Wanted { classes: true, numbers: false, class_count: Some(600) };
    let read = |files, wanted| {
        let recipe = Job::default().data.recipe(wanted);
        Parts::from(idx::content(files, wanted).unwrap()).prepare(recipe)
    };
    let data = read(vec![images(), of_classes(), images(), of_classes()], wanted).unwrap();
    assert_eq!(data.schema.target, Target::Class { classes: 600 });
    assert_eq!(data.train.targets, (0..600_u16).flat_map(u16::to_le_bytes).collect::<Vec<_>>());

    let images = || named("images", file(&[2, 2]));
    let numbers = || named("labels", typed(0x0d, &[2], &[&[0x3f, 0, 0, 0], &[0xc0, 0, 0, 0]]));
    let wanted = Wanted { classes: false, numbers: true, class_count: None };
    let data = read(vec![images(), numbers(), images(), numbers()], wanted).unwrap();
    assert_eq!(data.train.targets, [0.5_f32, -2.0].map(f32::to_le_bytes).concat());
}

#[test]
fn a_value_that_is_no_finite_number_is_named() {
    let images = || named("images", typed(0x0d, &[2, 2], &[&[0; 4], &[0; 4], &[0; 4], &[0x7f, 0x80, 0, 0]]));
    let labels = || named("labels", [header(&[2]), vec![0, 1]].concat());
    let error = dataset(vec![images(), labels(), images(), labels()]).unwrap_err().to_string();
    assert_eq!(error, "images: sample 2, value 1 is inf, no finite number of 32 bits");
}

fn four(train: u32, labels: &[u8], test_shape: [u32; 2]) -> Vec<NamedFile> {
    let mut train_labels = header(&[labels.len() as u32]);
    train_labels.extend(labels);
    vec![
        named("train-images", file(&[train, 4, 3])),
        named("train-labels", train_labels),
        named("test-images", file(&[2, test_shape[0], test_shape[1]])),
        named("test-labels", file(&[2])),
    ]
}

#[test]
fn files_are_checked_against_each_other() {
    let refused = |files| dataset(files).unwrap_err().to_string();
    assert!(dataset(four(3, &[0, 9, 1], [4, 3])).is_ok());
    assert_eq!(
        refused(four(3, &[0, 9], [4, 3])),
        "train-labels: 2 labels for the 3 images in train-images (put two files of one data set here)"
    );
    assert_eq!(
        refused(four(2, &[0, 9], [3, 4])),
        "test-images: images of 3 × 4 pixels, but those in train-images have 4 × 3 \
         (put two files of one data set here)"
    );
    assert_eq!(
        refused(four(2, &[0, 10], [4, 3])),
        "train-labels: the label at index 1 is 10 (there are 10 classes, 0 to 9)"
    );
    let mut swapped = four(3, &[0, 9, 1], [4, 3]);
    swapped.swap(0, 1);
    assert!(refused(swapped).starts_with("train-labels: starts with 00 00 08 01; images start with"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_truncation_is_an_error(len in 0_usize..16 + 20 * 12, compressed in any::<bool>()) {
        let mut bytes = file(&[20, 4, 3]);
        if compressed {
            bytes = gzip(&bytes);
        }
        bytes.truncate(len.min(bytes.len() - 1));
        prop_assert!(images(bytes).is_err());
    }

    #[test]
    fn any_flipped_bit_is_an_error_or_a_decode(bit in 0_usize..16 * 8, values in 0_usize..300, labels: bool) {
        let mut bytes = if labels { file(&[12 * 20]) } else { file(&[20, 4, 3]) };
        bytes[bit / 8 % if labels { 8 } else { 16 }] ^= 1 << (bit % 8);
        bytes.resize(bytes.len().min(16 + values), 0);
        let kind = if labels { Kind::Labels } else { Kind::Images };
        let [raw, gzipped] = [bytes.clone(), gzip(&bytes)].map(|bytes| Idx::decode(named("f", bytes), kind));
        prop_assert_eq!(&raw, &gzipped);
        if let Ok(idx) = raw {
            prop_assert_eq!(idx.dims.iter().product::<usize>(), idx.values.len());
        }
    }

    #[test]
    fn a_flipped_bit_in_gzip_never_changes_a_value(bit in 0_usize..200 * 8) {
        let bytes = file(&[20, 4, 3]);
        let mut gzipped = gzip(&bytes);
        let len = gzipped.len();
        gzipped[bit / 8 % len] ^= 1 << (bit % 8);
        // Some bits say nothing about the values: gzip's time stamp, the padding behind the last code.
        if let Ok(idx) = images(gzipped) {
            prop_assert_eq!(&idx.values, &bytes[16..]);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_decode(bytes in proptest::collection::vec(any::<u8>(), 0..64), gz: bool) {
        let bytes = if gz { [&[0x1f, 0x8b, 8, 0], &bytes[..]].concat() } else { bytes };
        let _ = images(bytes);
    }
}
