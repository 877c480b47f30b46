//! Text tables are read as people write them, or refused by line, or by row and column.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

mod common;

use common::{CLASSES, NUMBERS, numbers, to_learn as data};
use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::schema::Target;
use millefeuille_core::data::split::Sizes;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::{ColumnName, Data, Missing, Normalize, Wanted};
use proptest::prelude::*;

fn read(text: impl AsRef<[u8]>, data: &Data, wanted: Wanted) -> Result<Dataset, Failure> {
    common::read("flowers.csv", text, data, wanted)
}

fn error(text: impl AsRef<[u8]>, data: &Data, wanted: Wanted) -> String {
    read(text, data, wanted).unwrap_err().to_string()
}

fn features(dataset: &Dataset) -> Vec<f32> {
    numbers(&dataset.train.features)
}

const FLOWERS: &str = "length,colour,kind\n1.5,red,rose\n-2e1,blue,lily\n3,red,rose\n";

#[test]
fn columns_become_features_in_order_and_texts_categories() {
    let dataset = read(FLOWERS, &data("kind"), CLASSES).unwrap();
    assert_eq!(dataset.schema.target, Target::Class { classes: 2 });
    assert_eq!(dataset.inputs.classes, ["lily", "rose"]);
    assert_eq!(dataset.inputs.feature_names(), ["length", "colour=blue", "colour=red"]);
    assert_eq!(features(&dataset), [1.5, 0.0, 1.0, -20.0, 1.0, 0.0, 3.0, 0.0, 1.0]);
    assert_eq!(dataset.train.targets, [1, 0, 1]);
}

#[test]
fn the_same_table_is_read_however_it_is_written() {
    let expected = read(FLOWERS, &data("kind"), CLASSES).unwrap();
    let forms: [(&str, Vec<u8>); 6] = [
        ("\\r\\n", FLOWERS.replace('\n', "\r\n").into()),
        ("a byte-order mark", ["\u{feff}", FLOWERS].concat().into()),
        ("no last line end", FLOWERS.trim_end().into()),
        ("spaces", FLOWERS.replace(",blue", ", blue ").into()),
        ("empty lines", FLOWERS.replace('\n', "\n\n").into()),
        ("quotes", FLOWERS.replace("rose", "\"rose\"").replace("1.5", "\"1.5\"").into()),
    ];
    for (form, text) in forms {
        let dataset = read(text, &data("kind"), CLASSES).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(
            (dataset.train, dataset.inputs),
            (expected.train.clone(), expected.inputs.clone()),
            "{form}"
        );
    }
}

#[test]
fn a_quoted_field_may_have_separators_and_line_ends() {
    let text = "note,kind\n\"a, \"\"b\"\"\nc\",1\nd,2\n";
    let dataset = read(text, &data("kind"), CLASSES).unwrap();
    assert_eq!(dataset.inputs.feature_names(), ["note=a, \"b\"\nc", "note=d"]);
}

#[test]
fn tables_without_a_header_have_numbers_for_names() {
    let mut data = data("");
    data.table.header = false;
    data.table.target = vec![ColumnName::Number(2)];
    data.table.drop = vec![ColumnName::Number(1)];
    let dataset = read(
        "1;x;3\n4;y;6\n",
        &{
            data.table.separator = Some(';');
            data.clone()
        },
        NUMBERS,
    )
    .unwrap();
    assert_eq!((features(&dataset), dataset.inputs.feature_names()), (vec![1.0, 4.0], vec!["0".to_string()]));
    assert_eq!(dataset.train.targets, [3.0f32, 6.0].map(f32::to_le_bytes).concat());
}

#[test]
fn classes_that_are_numbers_are_sorted_as_numbers() {
    let rows: String = (1..=12).rev().map(|label| format!("{label},{label}\n")).collect();
    let dataset = read(format!("x,label\n{rows}"), &data("label"), CLASSES).unwrap();
    assert_eq!(dataset.inputs.classes[..3], ["1", "2", "3"]);
    assert_eq!(dataset.train.targets, (0..12).rev().collect::<Vec<u8>>());
}

#[test]
fn several_targets_are_numbers_for_each_sample() {
    let mut data = data("a");
    data.table.target.push(ColumnName::Name("c".into()));
    let dataset = read("a,b,c\n1,2,3\n4,5,6\n", &data, NUMBERS).unwrap();
    assert_eq!(dataset.schema.target, Target::Reals { width: 2 });
    assert_eq!(dataset.train.targets, [1.0f32, 3.0, 4.0, 6.0].map(f32::to_le_bytes).concat());
    assert_eq!(dataset.inputs.targets, ["a", "c"]);
}

#[test]
fn the_name_of_a_target_may_have_a_comma() {
    let mut data = data("low, high");
    data.table.target.push(ColumnName::Name("c".into()));
    let dataset = read("\"low, high\",b,c\n1,2,3\n4,5,6\n", &data, NUMBERS).unwrap();
    assert_eq!(dataset.inputs.targets, ["low, high", "c"]);
}

#[test]
fn missing_values_take_the_mean_of_the_training_split() {
    let text = "x,colour,y\n1,red,1\n,blue,2\n3,NA,3\n100,red,4\n";
    let mut data = Data { validation_split: 0.25, ..data("y") };
    assert_eq!(
        error(text, &data, NUMBERS),
        "flowers.csv, row 3, column colour: the value is missing (fill it in, leave the row or the column out, or set \
         missing = \"mean\")"
    );
    data.table.missing = Missing::Mean;
    let dataset = read(text, &data, NUMBERS).unwrap();
    assert_eq!(dataset.sizes, Sizes { train: 3, validation: 1, test: 0 });
    assert_eq!(features(&dataset), [1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 3.0, 0.0, 0.0, 100.0, 0.0, 1.0]);
}

#[test]
fn a_normalisation_is_fitted_to_the_training_split_alone() {
    let data = Data { validation_split: 0.5, normalize: Normalize::Scale, ..data("y") };
    let dataset = read("x,y\n2,1\n6,1\n10,1\n0,1\n", &data, NUMBERS).unwrap();
    assert_eq!(features(&dataset), [0.0, 1.0, 2.0, -0.5]);
}

#[test]
fn samples_are_ordered_before_the_split_and_none_is_lost() {
    let rows: String = (0..100).map(|row| format!("{row},{row}\n")).collect();
    let split = |seed| {
        let data = Data { validation_split: 0.2, test_split: 0.1, shuffle_split: seed, ..data("y") };
        read(format!("x,y\n{rows}"), &data, NUMBERS).unwrap()
    };
    let (plain, seven) = (split(None), split(Some(7)));
    assert_eq!(plain.sizes, Sizes { train: 72, validation: 18, test: 10 });
    assert_eq!(features(&plain), (0..90).map(|row| row as f32).collect::<Vec<_>>());
    let mut all = [seven.train.features.clone(), seven.test.features.clone()].concat();
    assert_ne!(seven.train.features, plain.train.features);
    assert_eq!(seven.train.features, seven.train.targets, "rows stay whole");
    let mut rows: Vec<[u8; 4]> = all.chunks(4).map(|row| row.try_into().unwrap()).collect();
    rows.sort_by(|a, b| f32::from_le_bytes(*a).total_cmp(&f32::from_le_bytes(*b)));
    all = rows.concat();
    assert_eq!(all, [plain.train.features, plain.test.features].concat());
    assert_ne!(split(Some(8)).train.features, seven.train.features);
}

#[test]
fn a_table_of_many_parts_is_read_as_one() {
    // Larger than what is read at once, with quoted line ends near every cut, and a text in the last row of a column that
    // has numbers otherwise.
    let row = |row: usize| format!("{row},\"note {}\n{}\",{}\n", row % 7, "x".repeat(80), row % 3);
    let text: String = (0..100_000).map(row).collect();
    let dataset = read(format!("x,note,y\n{text}"), &data("y"), CLASSES).unwrap();
    assert_eq!((dataset.train.len, dataset.schema.features.width()), (100_000, 8));
    let values = features(&dataset);
    assert!((0..100_000).all(|row| values[row * 8] == row as f32 && values[row * 8 + 1 + row % 7] == 1.0));
    assert!((0..100_000).all(|row| usize::from(dataset.train.targets[row]) == row % 3));
}

#[test]
fn a_column_of_weights_is_no_input() {
    let text = "length,kind,w\n1.5,rose,2\n-2,lily,0\n3,rose,0.5\n4,lily,1\n";
    let mut data = Data { validation_split: 0.5, ..data("kind") };
    data.table.sample_weight = Some(ColumnName::Name("w".into()));
    let dataset = read(text, &data, CLASSES).unwrap();
    assert!(dataset.schema.weighted && !read(text, &self::data("kind"), CLASSES).unwrap().schema.weighted);
    assert_eq!(dataset.inputs.feature_names(), ["length"]);
    assert_eq!(dataset.train.weights, [2.0, 0.0, 0.5, 1.0]);
    data.table.sample_weight = Some(ColumnName::Number(2));
    assert_eq!(read(text, &data, CLASSES), Ok(dataset));
    for (from, to, says) in [
        (",w", ",v", "there is no column w"),
        (
            ",2\n",
            ",-2\n",
            "flowers.csv, row 1, column w: -2 is not a weight; give a finite number of at least 0",
        ),
        (",0\n", ",\n", "flowers.csv, row 2, column w: the weight is missing"),
        (",0.5\n", ",much\n", "flowers.csv, row 3, column w: `much` is no number"),
    ] {
        data.table.sample_weight = Some(ColumnName::Name("w".into()));
        let error = error(text.replace(from, to), &data, CLASSES);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn bad_tables_are_refused_by_place() {
    let with = |change: fn(&mut Data)| {
        let mut data = data("kind");
        change(&mut data);
        data
    };
    let plain = || data("kind");
    let cases: [(&str, &[u8], Data, &str); 24] = [
        ("empty", b"", plain(), "flowers.csv: the file is empty"),
        ("a header only", b"x,kind\n", plain(), "flowers.csv: has no rows"),
        ("ragged", b"x,kind\n1,a\n1,2,b\n", plain(), "flowers.csv:3: 3 fields, but the first line has 2"),
        (
            "an open quote",
            b"x,kind\n1,a\n2,\"b\n3,c\n",
            plain(),
            "flowers.csv:3: a quote is opened here and never",
        ),
        ("not UTF-8", b"x,kind\n1,a\n2,\xff\n", plain(), "flowers.csv:3: is not UTF-8"),
        ("UTF-16", b"\xff\xfex\0", plain(), "flowers.csv: is UTF-16"),
        ("a duplicate name", b"x,x,kind\n1,2,a\n", plain(), "flowers.csv: two columns have the name x"),
        (
            "no such target",
            b"x,kinds\n1,a\n",
            plain(),
            "target: there is no column kind; did you mean `kinds`?",
        ),
        (
            "another separator",
            b"x;kind\n1;a\n",
            plain(),
            "flowers.csv:1: the first line has one field (set separator",
        ),
        (
            "an infinity",
            b"x,kind\n1,a\ninf,b\n",
            plain(),
            "flowers.csv:3: `inf` in field 1 is not a finite number",
        ),
        (
            "too large",
            b"x,kind\n1,a\n1e39,b\n",
            plain(),
            "flowers.csv:3: `1e39` in field 1 is not a finite number",
        ),
        (
            "not a number",
            b"x,kind\n1,a\nNaN,b\n",
            plain(),
            "flowers.csv, row 2, column x: the value is missing",
        ),
        (
            "a missing label",
            b"x,kind\n1,a\n2,\n",
            plain(),
            "flowers.csv, row 2, column kind: the value to learn is",
        ),
        (
            "a comma",
            b"x,kind\n\"1,5\",a\n\"2,5\",b\n",
            plain(),
            "row 1, column x: `1,5` is no number (write a point",
        ),
        (
            "a text",
            b"x,kind\n1,a\n2,b\nfour,b\n",
            plain(),
            "row 3, column x: `four` is no number, but 2 of the column's",
        ),
        (
            "one class",
            b"x,kind\n1,a\n2,a\n",
            plain(),
            "column kind: every row has the class a: there is nothing to tell",
        ),
        (
            "only a target",
            b"kind\na\nb\n",
            plain(),
            "flowers.csv: has no column to learn from beside the target",
        ),
        ("no header", b"1,2\n3,4\n", plain(), "flowers.csv:1: the first line has numbers only"),
        (
            "a header",
            b"x,y\n1,a\n2,b\n",
            with(|data| {
                data.table.header = false;
                data.table.target = vec![ColumnName::Number(1)];
            }),
            "row 1, column 0: `x`, and numbers below: is the first line a header?",
        ),
        (
            "no target",
            b"x,y\n1,a\n",
            with(|data| data.table.target.clear()),
            "flowers.csv: which column is to be learned? (set target to one of x, y)",
        ),
        (
            "no such number",
            b"x,y\n1,a\n",
            with(|data| data.table.target = vec![ColumnName::Number(2)]),
            "flowers.csv: target: there is no column 2; the table has 2, from 0",
        ),
        (
            "no such column to drop",
            b"x,kind\n1,a\n",
            with(|data| data.table.drop = vec![ColumnName::Name("xx".into())]),
            "flowers.csv: drop: there is no column xx",
        ),
        (
            "damaged gzip",
            b"\x1f\x8b\x08\0\0\0\0\0",
            plain(),
            "flowers.csv: its gzip data is damaged or ends early",
        ),
        ("empty lines", b"\n\n\n", plain(), "flowers.csv: has no lines"),
    ];
    for (case, text, data, says) in cases {
        let error = error(text, &data, CLASSES);
        assert!(error.contains(says), "{case}: {error}");
        assert!(!error.contains('\n'), "{case}: {error}");
    }
}

#[test]
fn names_are_no_categories() {
    let rows: String = (0..100).map(|row| format!("name {row},{}\n", row % 2)).collect();
    let error = error(format!("x,kind\n{rows}"), &data("kind"), CLASSES);
    assert_eq!(
        error,
        "flowers.csv, column x: 100 different texts in 100 rows are names, not categories (drop = [\"x\"])"
    );
}

#[test]
fn texts_are_no_numbers_to_learn() {
    let error = error(FLOWERS, &data("kind"), NUMBERS);
    assert_eq!(error, "flowers.csv, row 1, column kind: `rose` is no number");
}

#[test]
fn labels_of_their_own_are_from_0_to_1() {
    let mut data = data("a");
    data.table.target.push(ColumnName::Name("b".into()));
    let both = Wanted { classes: true, numbers: true, class_count: None };
    let dataset = read("a,b,x\n1,0,5\n0,0.5,6\n", &data, both).unwrap();
    assert_eq!(dataset.schema.target, Target::Reals { width: 2 });
    let error = error("a,b,x\n1,0,5\n0,2,6\n", &data, both);
    assert_eq!(
        error,
        "flowers.csv, sample 2: its target 2 is not a number from 0 to 1, which the loss needs"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_table_or_an_error(bytes in proptest::collection::vec(proptest::sample::select(b"1a,;\"\n\r \xff.-e\x1f".to_vec()), 0..60)) {
        for wanted in [CLASSES, NUMBERS] {
            if let Err(failure) = read([b"x,y\n".to_vec(), bytes.clone()].concat(), &data("y"), wanted) {
                prop_assert!(!failure.to_string().contains('\n'));
            }
        }
    }

    #[test]
    fn a_truncated_table_has_no_more_rows_or_is_an_error(end in 0_usize..FLOWERS.len()) {
        if let Ok(dataset) = read(&FLOWERS[..end], &data("kind"), CLASSES) {
            prop_assert!(dataset.train.len as usize == FLOWERS[..end].trim_end().lines().count() - 1);
        }
    }
}
