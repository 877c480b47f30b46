//! NumPy's arrays are read whatever their numeric type, or refused by array and place.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

mod common;

use std::io::Write as _;

use common::{CLASSES, NUMBERS, data, floats, read};
use millefeuille_core::data::schema::{Element, Features, Target};
use millefeuille_core::job::ColumnName;
use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// An array, by the published layout of version 1.0 of the format.
fn npy(dtype: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn digits() -> Vec<(&'static str, Vec<u8>)> {
    let images = |first: u8| (first..first + 12).collect::<Vec<u8>>();
    vec![
        ("x_train", npy("|u1", "False", "(3, 2, 2)", &images(0))),
        ("y_train", npy("<i8", "False", "(3,)", &[0_i64, 1, 2].map(i64::to_le_bytes).concat())),
        ("x_test", npy("|u1", "False", "(3, 2, 2)", &images(100))),
        ("y_test", npy("|u1", "False", "(3, 1)", &[2, 1, 0])),
    ]
}

#[test]
fn keras_files_have_images_and_a_test_set() {
    let dataset = read("digits.npz", npz(&digits()), &data(), CLASSES).unwrap();
    assert_eq!(dataset.schema.features, Features::image(2, 2));
    assert_eq!(dataset.schema.target, Target::Class { classes: 3 });
    assert_eq!((dataset.train.features, dataset.train.targets), ((0..12).collect(), vec![0, 1, 2]));
    assert_eq!((dataset.test.features, dataset.test.targets), ((100..112).collect(), vec![2, 1, 0]));
}

#[test]
fn every_numeric_type_is_read() {
    let cases: [(&str, Vec<u8>); 14] = [
        ("|b1", vec![1, 0, 1, 1]),
        ("|u1", vec![1, 2, 3, 4]),
        ("|i1", [-1_i8, 2, 3, 4].map(i8::to_le_bytes).concat()),
        ("<u2", [1_u16, 2, 3, 400].map(u16::to_le_bytes).concat()),
        ("<i2", [-1_i16, 2, 3, 400].map(i16::to_le_bytes).concat()),
        ("<u4", [1_u32, 2, 3, 70_000].map(u32::to_le_bytes).concat()),
        ("<i4", [-1_i32, 2, 3, 70_000].map(i32::to_le_bytes).concat()),
        ("<u8", [1_u64, 2, 3, 70_000].map(u64::to_le_bytes).concat()),
        ("<i8", [-1_i64, 2, 3, 70_000].map(i64::to_le_bytes).concat()),
        ("<f4", [0.5_f32, -2.0, 3.0, 4e9].map(f32::to_le_bytes).concat()),
        ("<f8", [0.5_f64, -2.0, 3.0, 4e9].map(f64::to_le_bytes).concat()),
        // By the definition of binary16: the smallest number, a third, the largest.
        ("<f2", [0x0001_u16, 0xb555, 0x7bff, 0x3c00].map(u16::to_le_bytes).concat()),
        (">i2", [-1_i16, 2, 3, 400].map(i16::to_be_bytes).concat()),
        (">f8", [0.5_f64, -2.0, 3.0, 4e9].map(f64::to_be_bytes).concat()),
    ];
    let expected: [[f32; 4]; 14] = [
        [1.0, 0.0, 1.0, 1.0],
        [1.0, 2.0, 3.0, 4.0],
        [-1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, 3.0, 400.0],
        [-1.0, 2.0, 3.0, 400.0],
        [1.0, 2.0, 3.0, 70_000.0],
        [-1.0, 2.0, 3.0, 70_000.0],
        [1.0, 2.0, 3.0, 70_000.0],
        [-1.0, 2.0, 3.0, 70_000.0],
        [0.5, -2.0, 3.0, 4e9],
        [0.5, -2.0, 3.0, 4e9],
        [5.9604645e-8, -0.33325195, 65_504.0, 1.0],
        [-1.0, 2.0, 3.0, 400.0],
        [0.5, -2.0, 3.0, 4e9],
    ];
    for ((dtype, bytes), expected) in cases.into_iter().zip(expected) {
        let arrays = [
            ("x", npy(dtype, "False", "(2, 2)", &bytes)),
            ("y", npy("<f4", "False", "(2,)", &floats(&[7.5, 8.5]))),
        ];
        let dataset = read("a.npz", npz(&arrays), &data(), NUMBERS).unwrap();
        assert_eq!(dataset.schema.features, Features { element: Element::F32, shape: vec![2] }, "{dtype}");
        assert_eq!(dataset.train.features, floats(&expected), "{dtype}");
        assert_eq!(dataset.train.targets, floats(&[7.5, 8.5]));
    }
}

#[test]
fn an_array_in_fortrans_order_has_the_same_samples() {
    let y = || ("y", npy("<f4", "False", "(2,)", &floats(&[1.0, 2.0])));
    let in_c = npy("<f4", "False", "(2, 3, 2)", &floats(&(0..12).map(|i| i as f32).collect::<Vec<_>>()));
    let place = |i: usize| (i % 2) * 6 + (i / 2 % 3) * 2 + i / 6;
    let in_fortran =
        npy("<f4", "True", "(2, 3, 2)", &floats(&(0..12).map(|i| place(i) as f32).collect::<Vec<_>>()));
    let features = |x| read("a.npz", npz(&[("x", x), y()]), &data(), NUMBERS).unwrap().train.features;
    assert_eq!(features(in_fortran), features(in_c));
}

#[test]
fn one_hot_rows_are_classes() {
    let x = || ("x", npy("<f4", "False", "(2, 1)", &floats(&[1.0, 2.0])));
    let hot = npy("<f4", "False", "(2, 3)", &floats(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
    let dataset = read("a.npz", npz(&[x(), ("y", hot)]), &data(), CLASSES).unwrap();
    assert_eq!(dataset.train.targets, [2, 0]);
    let not = npy("<f4", "False", "(2, 3)", &floats(&[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]));
    let error = read("a.npz", npz(&[x(), ("y", not)]), &data(), CLASSES).unwrap_err().to_string();
    assert!(error.starts_with("a.npz, array y: row 1 is not one-hot"), "{error}");
}

#[test]
fn an_array_alone_is_a_table() {
    let table = npy(
        "<f8",
        "False",
        "(3, 3)",
        &[1.0_f64, 0.0, 10.0, 2.0, 1.0, 20.0, 3.0, 1.0, 30.0].map(f64::to_le_bytes).concat(),
    );
    let mut data = data();
    data.table.target = vec![ColumnName::Number(1)];
    let dataset = read("table.npy", table, &data, CLASSES).unwrap();
    assert_eq!(dataset.inputs.feature_names(), ["0", "2"]);
    assert_eq!(dataset.train.features, floats(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]));
    assert_eq!(dataset.train.targets, [0, 1, 1]);
}

#[test]
fn bad_arrays_are_refused_by_name() {
    let with = |name: &str, bytes: Vec<u8>| {
        let mut arrays = digits();
        arrays.iter_mut().find(|(other, _)| *other == name).unwrap().1 = bytes;
        npz(&arrays)
    };
    let named = |names: [&str; 4]| {
        npz(&digits().into_iter().zip(names).map(|((_, bytes), name)| (name, bytes)).collect::<Vec<_>>())
    };
    let nan = floats(&[0.0, 1.0, f32::NAN, 3.0, 4.0, 5.0]);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("no archive", b"PK".to_vec(), "a.npz: is no archive of arrays"),
        ("no array", with("x_train", b"abc".to_vec()), "a.npz, array x_train: is no NumPy array"),
        (
            "objects",
            with("y_train", npy("|O", "False", "(3,)", &[0; 24])),
            "a.npz, array y_train: has Python objects",
        ),
        (
            "complex",
            with("x_train", npy("<c8", "False", "(3,)", &[0; 24])),
            "has values of type <c8; booleans, integers",
        ),
        (
            "short",
            with("x_train", npy("|u1", "False", "(3, 2, 2)", &[0; 11])),
            "has 11 bytes of values, not the [3, 2, 2]",
        ),
        (
            "no samples",
            with("x_train", npy("|u1", "False", "(0, 2)", &[])),
            "has the shape [0, 2]: no samples",
        ),
        ("not a number", with("x_train", npy("<f4", "False", "(3, 2)", &nan)), "sample 2, value 0 is NaN"),
        (
            "counts",
            with("y_train", npy("|u1", "False", "(2,)", &[0, 1])),
            "2 targets for the 3 samples of a.npz, array x_train",
        ),
        ("names", named(["a", "b", "c", "d"]), "a.npz: which arrays have the samples?"),
    ];
    for (case, bytes, says) in cases {
        let error = read("a.npz", bytes, &data(), CLASSES).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{case}: {error}");
    }
}

#[test]
fn weights_are_in_an_array_of_their_own() {
    let with = |weights: Vec<u8>, test: Option<Vec<u8>>| {
        let test = test.map(|test| ("w_test", test));
        npz(&digits().into_iter().chain([("w_train", weights)]).chain(test).collect::<Vec<_>>())
    };
    let mut weighted = data();
    weighted.table.sample_weight = Some(ColumnName::Name("w_train".into()));
    let train = || npy("<f4", "False", "(3,)", &floats(&[0.5, 0.0, 2.0]));
    let test = npy("<i4", "False", "(3, 1)", &[1, 2, 3].map(i32::to_le_bytes).concat());
    let both = read("a.npz", with(train(), Some(test)), &weighted, CLASSES).unwrap();
    assert_eq!((both.train.weights, both.test.weights), (vec![0.5, 0.0, 2.0], vec![1.0, 2.0, 3.0]));
    let one = read("a.npz", with(train(), None), &weighted, CLASSES).unwrap();
    assert_eq!((one.schema.weighted, one.test.weights), (true, vec![1.0; 3]), "the test set has none");
    assert!(!read("a.npz", with(train(), None), &data(), CLASSES).unwrap().schema.weighted, "nobody asked");

    for (bytes, says) in [
        (npz(&digits()), "a.npz: sample_weight: there is no array w_train"),
        (
            with(npy("|u1", "False", "(2,)", &[1, 1]), None),
            "2 weights for the 3 samples of a.npz, array x_train",
        ),
        (
            with(npy("|u1", "False", "(3, 2)", &[1; 6]), None),
            "a.npz, array w_train: has the shape [3, 2]: not one weight for each sample",
        ),
        (
            with(npy("<f4", "False", "(3,)", &floats(&[1.0, f32::NAN, 1.0])), None),
            "a.npz, array w_train: the weight at 1 is NaN: not a weight",
        ),
    ] {
        let error = read("a.npz", bytes, &weighted, CLASSES).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn training_and_test_arrays_are_stored_as_one_type() {
    let mut arrays = digits();
    let floats_of = |first: u8| floats(&(first..first + 12).map(f32::from).collect::<Vec<_>>());
    arrays[2].1 = npy("<f4", "False", "(3, 2, 2)", &floats_of(100));
    let error = read("a.npz", npz(&arrays), &data(), CLASSES).unwrap_err().to_string();
    assert_eq!(
        error,
        "a.npz, array x_test: is numbers, but the training data is bytes (give data of the same kind)"
    );

    let mut arrays = digits();
    arrays[0].1 = npy("<f4", "False", "(3, 2, 2)", &floats_of(0));
    let dataset = read("a.npz", npz(&arrays), &data(), CLASSES).unwrap();
    assert_eq!((dataset.train.features, dataset.test.features), (floats_of(0), floats_of(100)));
}

proptest! {
    #[test]
    fn a_damaged_archive_is_an_error_or_an_archive(place in 0_usize..900, byte: u8, end in 0_usize..1200) {
        let mut bytes = npz(&digits());
        let place = place % bytes.len();
        bytes[place] = byte;
        bytes.truncate(end);
        if let Err(failure) = read("a.npz", bytes, &data(), CLASSES) {
            prop_assert!(!failure.to_string().contains('\n'));
        }
    }
}
