//! A table in a Parquet file is the table that it would be as CSV, bit for bit, or it is refused by column or row.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use common::{CLASSES, NUMBERS, read, to_learn};
use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::job::{ColumnName, Data, Missing, Wanted};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

/// A file that pandas and pyarrow have written (`core/tests/parquet/write.py`).
macro_rules! written {
    ($name:literal) => {
        ($name, include_bytes!(concat!("parquet/", $name)).as_slice())
    };
}

/// A row: a whole number, a number, a text, a truth; each may be missing.
type Row = (Option<i64>, Option<f64>, Option<&'static str>, bool);

fn parquet(rows: &[Row], codec: Compression, group: usize) -> Vec<u8> {
    let schema = "message table { optional int64 whole; optional double number; optional binary word (UTF8);
                  required boolean truth; required double y; }";
    let properties = WriterProperties::builder().set_compression(codec).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut group = writer.next_row_group().unwrap();
        let levels =
            |is_there: fn(&Row) -> bool| rows.iter().map(|row| i16::from(is_there(row))).collect::<Vec<_>>();
        column::<Int64Type>(
            &mut group,
            rows.iter().filter_map(|row| row.0),
            Some(levels(|row| row.0.is_some())),
        );
        column::<DoubleType>(
            &mut group,
            rows.iter().filter_map(|row| row.1),
            Some(levels(|row| row.1.is_some())),
        );
        let words = rows.iter().filter_map(|row| row.2.map(ByteArray::from));
        column::<ByteArrayType>(&mut group, words, Some(levels(|row| row.2.is_some())));
        column::<BoolType>(&mut group, rows.iter().map(|row| row.3), None);
        column::<DoubleType>(&mut group, rows.iter().map(y), None);
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: impl Iterator<Item = T::T>,
    levels: Option<Vec<i16>>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&values.collect::<Vec<_>>(), levels.as_deref(), None).unwrap();
    column.close().unwrap();
}

fn y(row: &Row) -> f64 {
    row.1.filter(|number| number.is_finite()).unwrap_or(0.5) + f64::from(u8::from(row.3))
}

fn csv(rows: &[Row]) -> String {
    let mut text = "whole,number,word,truth,y\n".to_string();
    for row in rows {
        let whole = row.0.map(|whole| whole.to_string()).unwrap_or_default();
        let number = row.1.map(|number| format!("{number:?}")).unwrap_or_default();
        let word = row.2.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).unwrap_or_default();
        let truth = if row.3 { "True" } else { "False" };
        writeln!(text, "{whole},{number},{word},{truth},{:?}", y(row)).unwrap();
    }
    text
}

/// Everything of a data set but its file.
fn content(dataset: Dataset) -> Dataset {
    Dataset { files: Vec::new(), ..dataset }
}

fn filled(target: &str) -> Data {
    let mut data = to_learn(target);
    data.table.missing = Missing::Mean;
    data
}

#[test]
fn files_of_pyarrow_are_the_tables_that_pandas_writes_as_csv() {
    for (target, wanted) in [("kind", CLASSES), ("float64", NUMBERS), ("is new", CLASSES)] {
        let mut data = filled(target);
        data.table.drop = vec![ColumnName::Name("uint32".into())];
        let (name, text) = written!("table.csv");
        let expected = content(read(name, text, &data, wanted).unwrap());
        for (name, bytes) in [
            written!("snappy.parquet"),
            written!("gzip.parquet"),
            written!("zstd-v2.parquet"),
            written!("plain.parquet"),
            written!("split.parquet"),
        ] {
            let dataset = read(name, bytes, &data, wanted).unwrap();
            assert_eq!(dataset.files[0].name, name);
            assert_eq!(content(dataset), expected, "{name}, {target}");
        }
    }
    let uint32 = |name, bytes: &[u8]| content(read(name, bytes, &filled("uint32"), NUMBERS).unwrap());
    let ((text, table), (name, bytes)) = (written!("table.csv"), written!("snappy.parquet"));
    assert_eq!(uint32(name, bytes), uint32(text, table));
}

#[test]
fn what_is_no_table_of_numbers_and_texts_is_refused_by_column() {
    let rows = |number| [(Some(1), Some(number), Some("a"), true), (Some(2), Some(2.0), Some("b"), false)];
    let own = |number| parquet(&rows(number), Compression::UNCOMPRESSED, 10);
    let missing = [(Some(1), Some(1.0), Some("a"), true), (None, Some(2.0), Some("b"), false)];
    let cases: [(&str, Vec<u8>, &str, Wanted, &str); 11] = [
        ("empty", Vec::new(), "y", NUMBERS, "t.parquet: the file is empty"),
        ("text", b"a,b\n1,2\n".to_vec(), "y", NUMBERS, "t.parquet: is no Parquet file, or is damaged: "),
        ("no rows", parquet(&[], Compression::UNCOMPRESSED, 1), "y", NUMBERS, "t.parquet: has no rows"),
        ("nested", written!("nested.parquet").1.to_vec(), "kind", CLASSES, "column element: is nested"),
        ("times", written!("times.parquet").1.to_vec(), "kind", CLASSES, "column x: has dates or times"),
        (
            "codec",
            written!("brotli.parquet").1.to_vec(),
            "kind",
            CLASSES,
            "column int8: is compressed by a codec",
        ),
        (
            "infinity",
            own(f64::INFINITY),
            "y",
            NUMBERS,
            "t.parquet, row 1, column number: `inf` is not a finite",
        ),
        ("too large", own(1e39), "y", NUMBERS, "t.parquet, row 1, column number: `1"),
        ("NaN", own(f64::NAN), "y", NUMBERS, "t.parquet, row 1, column number: the value is missing"),
        (
            "null",
            parquet(&missing, Compression::UNCOMPRESSED, 1),
            "y",
            NUMBERS,
            "t.parquet, row 2, column whole: the value is missing",
        ),
        ("texts to learn", own(1.0), "word", NUMBERS, "t.parquet, row 1, column word: `a` is no number"),
    ];
    for (case, bytes, target, wanted, says) in cases {
        let error = read("t.parquet", bytes, &to_learn(target), wanted).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{case}: {error}");
    }
}

#[test]
fn a_class_that_training_has_not_seen_and_one_alone_are_refused() {
    let rows = [(Some(1), Some(1.0), Some("a"), true), (Some(2), Some(2.0), Some("a"), false)];
    let bytes = parquet(&rows, Compression::SNAPPY, 10);
    let error = read("t.parquet", bytes, &to_learn("word"), CLASSES).unwrap_err().to_string();
    assert_eq!(error, "t.parquet, column word: every row has the class a: there is nothing to tell apart");
}

/// A page's header says how large the page becomes: here two gigabytes, in place of what it has.
#[test]
fn a_page_that_would_exhaust_memory_is_refused() {
    let rows: Vec<Row> = (0..200).map(|row| (Some(row), Some(row as f64), Some("a"), true)).collect();
    let bytes = parquet(&rows, Compression::SNAPPY, 1000);
    // Of the first page: its type, its size inflated and its size as stored, each behind the mark of a number.
    assert_eq!((&bytes[..6], bytes[6] & 0x80), (b"PAR1\x15\x04".as_slice(), 0x15 & 0x80));
    let mut bomb = bytes.clone();
    let len = bytes[7..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    bomb.splice(7..7 + len, huge);
    // What comes before the end has moved, so that its offsets no longer fit; the header is looked at first.
    let error = read("t.parquet", bomb, &to_learn("y"), NUMBERS).unwrap_err().to_string();
    assert!(error.contains("that become 2147483647 is too large"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_the_same_as_csv_and_as_parquet(
        cells in proptest::collection::vec(
            (any::<Option<i32>>(), proptest::option::of(-1e30_f64..1e30), 0_usize..5, any::<bool>()),
            2..40,
        ),
        codec in 0_usize..4,
        group in 1_usize..50,
    ) {
        let words = [Some("red"), Some("NA"), Some(""), None, Some("a, \"b\"")];
        let mut rows: Vec<Row> = cells
            .into_iter()
            .map(|(whole, number, word, truth)| (whole.map(|whole| i64::from(whole) << 20), number, words[word], truth))
            .collect();
        // A column without any text would be one of numbers as CSV.
        rows[0].2 = Some("red");
        let codecs = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ];
        let bytes = parquet(&rows, codecs[codec], group);
        let of = |name, bytes: &[u8]| content(read(name, bytes, &filled("y"), NUMBERS).unwrap());
        prop_assert_eq!(of("t.parquet", &bytes), of("t.csv", csv(&rows).as_bytes()));
    }

    #[test]
    fn a_truncated_or_damaged_file_is_an_error_or_a_table(place in 0_usize..10_000, byte: u8, end in 0_usize..10_000) {
        let (_, bytes) = written!("snappy.parquet");
        let mut cut = bytes.to_vec();
        cut.truncate(end % bytes.len());
        let failure = read("t.parquet", cut, &to_learn("kind"), CLASSES).unwrap_err().to_string();
        prop_assert!(!failure.contains('\n'));
        let mut damaged = bytes.to_vec();
        damaged[place % bytes.len()] = byte;
        if let Err(failure) = read("t.parquet", damaged, &to_learn("kind"), CLASSES) {
            prop_assert!(!failure.to_string().contains('\n'));
        }
    }
}
