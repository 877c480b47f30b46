//! Tables in Parquet files, by the crate `parquet` (its columns; not Arrow, which would only hold them once more).
//!
//! A table is what it would be as CSV: numbers are rounded to the nearest `f32`, a null and a NaN are missing, and so is a
//! text that stands for nothing; booleans are the texts `True` and `False`, as pandas writes them. But a column has the type
//! that the file gives it: texts stay texts, although all of them may be numbers.
//!
//! All columns of all row groups are read at once, each by a core. A file says itself how large its pages become: those
//! that are too large for any page are refused before memory is made for them ([`Pages`]), and so is a file that promises more
//! cells than its size is good for.
//!
//! Refused, by column: nested columns, dates and times, decimals, bytes that are no text, and codecs other than Snappy, gzip
//! and zstd.

mod pages;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType, FixedLenByteArray};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use ::parquet::file::serialized_reader::SerializedPageReader;
use ::parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};
use bytes::Bytes;
use rayon::prelude::*;

use self::pages::Pages;
use super::array::half;
use super::{Content, Files, Format, Request, most_inflated};
use crate::data::dataset::DataFile;
use crate::data::part::TableColumn;
use crate::data::place;
use crate::data::table::{Cell, ColumnCells, Kind, Plan, PlannedColumn, Use};
use crate::failure::{Failure, FailureKind};

/// A table in a Parquet file.
pub(crate) struct Parquet;

/// The most bytes of a file.
const MAX_BYTES: u64 = 64 << 30;
/// Cells that are decoded at once.
const AT_ONCE: usize = 64 << 10;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn claims(&self, path: &Path) -> bool {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ["parquet", "pq"].iter().any(|known| ending.eq_ignore_ascii_case(known)))
    }

    fn read(&self, path: &Path, request: &Request<'_>, files: &dyn Files) -> Result<Content, Failure> {
        let name = path.display().to_string();
        let bytes = files.read(path, &|_| MAX_BYTES)?;
        if bytes.is_empty() {
            return Err(Failure::at(FailureKind::Data, name, "the file is empty"));
        }
        let file = DataFile::of(path, &bytes);
        let table = Table::open(&name, bytes.into())?;
        let names = table.columns().iter().map(|column| column.name().to_string()).collect();
        let plan = Plan::new(&name, names, request.layout, request.wanted, request.known)?;
        let train = plan.part(&name, table.read(&plan)?)?;
        Ok(Content { train, test: None, files: vec![file] })
    }
}

/// An open file.
struct Table<'a> {
    file: &'a str,
    metadata: ParquetMetaData,
    pages: Arc<Pages>,
}

impl<'a> Table<'a> {
    fn open(file: &'a str, bytes: Bytes) -> Result<Self, Failure> {
        let most = most_inflated(bytes.len() as u64);
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes);
        let metadata = metadata.map_err(|error| damaged(file, &error))?;
        let pages = Arc::new(Pages::new(bytes, &metadata));
        let table = Self { file, metadata, pages };
        let rows_of = |group: &RowGroupMetaData| u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
        let rows = table.metadata.row_groups().iter().map(rows_of).fold(0, u64::saturating_add);
        let cells = rows.saturating_mul(table.columns().len() as u64);
        if cells.saturating_mul(size_of::<f32>() as u64) > most {
            let what = format!("promises {rows} rows, far more than a file of its size has (write it again)");
            return Err(Failure::at(FailureKind::Data, file, what));
        }
        Ok(table)
    }

    fn columns(&self) -> &[ColumnDescPtr] {
        self.metadata.file_metadata().schema_descr().columns()
    }

    /// The columns that are not dropped.
    fn read(&self, plan: &Plan) -> Result<Vec<(Use, TableColumn)>, Failure> {
        let all = self.columns().iter().zip(&plan.columns).enumerate();
        let columns = all
            .filter(|(_, (_, planned))| planned.is_for != Use::Dropped)
            .map(|(index, (found, planned))| Column::of(self, index, found, planned))
            .collect::<Result<Vec<_>, _>>()?;
        let groups = self.metadata.num_row_groups();
        let pieces: Vec<_> =
            columns.iter().flat_map(|column| (0..groups).map(move |group| (column, group))).collect();
        let read: Vec<_> = pieces.into_par_iter().map(|(column, group)| self.cells(column, group)).collect();
        // Of several failures the first is told, whichever core is faster.
        let mut read = read.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
        let whole = |column: &Column<'_>| {
            let mut all = ColumnCells::new(column.kind);
            read.by_ref().take(groups).for_each(|cells| all.append(cells));
            (column.is_for, TableColumn { name: column.place.name.to_string(), cells: all.finish() })
        };
        Ok(columns.iter().map(whole).collect())
    }

    /// The cells of a column in a row group.
    fn cells(&self, column: &Column<'_>, group: usize) -> Result<ColumnCells, Failure> {
        let groups = self.metadata.row_groups();
        let rows = |group: usize| groups[group].num_rows() as usize;
        let piece = Piece { column, first: (0..group).map(rows).sum(), rows: rows(group) };
        let chunk = groups[group].column(column.index);
        let pages = SerializedPageReader::new(self.pages.clone(), chunk, piece.rows, None);
        let pages = pages.map_err(|error| damaged(self.file, &error))?;
        match get_column_reader(self.columns()[column.index].clone(), Box::new(pages)) {
            ColumnReader::BoolColumnReader(reader) => piece.read(reader, &BOOLEANS),
            ColumnReader::Int32ColumnReader(reader) if column.is_unsigned => piece.read(reader, &UINT32),
            ColumnReader::Int32ColumnReader(reader) => piece.read(reader, &INT32),
            ColumnReader::Int64ColumnReader(reader) if column.is_unsigned => piece.read(reader, &UINT64),
            ColumnReader::Int64ColumnReader(reader) => piece.read(reader, &INT64),
            ColumnReader::FloatColumnReader(reader) => piece.read(reader, &FLOAT),
            ColumnReader::DoubleColumnReader(reader) => piece.read(reader, &DOUBLE),
            ColumnReader::ByteArrayColumnReader(reader) => piece.read(reader, &TEXTS),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => piece.read(reader, &HALVES),
            ColumnReader::Int96ColumnReader(_) => unreachable!("times are refused before they are read"),
        }
    }
}

fn damaged(file: &str, error: &ParquetError) -> Failure {
    let what = format!("is no Parquet file, or is damaged: {error} (copy it again)");
    Failure::at(FailureKind::Data, file, what.replace('\n', " "))
}

/// A column to read.
struct Column<'a> {
    place: place::Column<'a>,
    /// Its place in the file.
    index: usize,
    is_for: Use,
    kind: Kind,
    is_unsigned: bool,
    is_optional: bool,
}

impl<'a> Column<'a> {
    fn of(
        table: &Table<'a>,
        index: usize,
        found: &ColumnDescriptor,
        planned: &'a PlannedColumn,
    ) -> Result<Self, Failure> {
        let place = place::Column { file: table.file, name: &planned.name };
        let typed = type_of(found).and_then(|typed| supported(table, index).map(|()| typed));
        let (natural, is_unsigned) = typed.map_err(|what| place.failure(what))?;
        Ok(Self {
            place,
            index,
            is_for: planned.is_for,
            kind: planned.kind.unwrap_or(natural),
            is_unsigned,
            is_optional: found.max_def_level() > 0,
        })
    }
}

/// What a column holds, and whether its integers have no sign; else why it is not read.
fn type_of(column: &ColumnDescriptor) -> Result<(Kind, bool), &'static str> {
    if column.path().parts().len() > 1 || column.max_rep_level() > 0 {
        return Err(
            "is nested, and a table has a number or a text in each cell (make columns of it, or drop it)",
        );
    }
    let is_unsigned = match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        Some(LogicalType::Date | LogicalType::Time(_) | LogicalType::Timestamp(_)) => {
            return Err("has dates or times, which are not read (make numbers of them, or drop it)");
        }
        Some(LogicalType::Decimal(_)) => return Err("has decimals, which are not read (make it float64)"),
        _ => false,
    };
    let converted = column.converted_type();
    if converted == ConvertedType::DECIMAL {
        return Err("has decimals, which are not read (make it float64)");
    }
    match column.physical_type() {
        Type::BOOLEAN => Ok((Kind::Texts, false)),
        Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE => Ok((Kind::Numbers, is_unsigned)),
        Type::BYTE_ARRAY => Ok((Kind::Texts, false)),
        Type::FIXED_LEN_BYTE_ARRAY if column.logical_type_ref() == Some(&LogicalType::Float16) => {
            Ok((Kind::Numbers, false))
        }
        Type::FIXED_LEN_BYTE_ARRAY => Err("has bytes, which are neither numbers nor texts (drop it)"),
        Type::INT96 => Err("has dates or times, which are not read (make numbers of them, or drop it)"),
    }
}

/// Checks the codecs of a column's parts.
fn supported(table: &Table<'_>, index: usize) -> Result<(), &'static str> {
    let groups = table.metadata.row_groups().iter();
    let is_read = |codec: Compression| {
        use Compression::{GZIP, SNAPPY, UNCOMPRESSED, ZSTD};
        matches!(codec, UNCOMPRESSED | SNAPPY | GZIP(_) | ZSTD(_))
    };
    match groups.map(|group| group.column(index).compression()).all(is_read) {
        true => Ok(()),
        false => Err("is compressed by a codec that is not read (write it with snappy, gzip or zstd)"),
    }
}

/// A column's part in a row group.
struct Piece<'a> {
    column: &'a Column<'a>,
    /// Its first row in the file.
    first: usize,
    rows: usize,
}

/// A value as a cell's number, and as a cell's text; or what is wrong with it.
struct Converted<V> {
    number: fn(&V) -> Result<f32, String>,
    text: for<'v> fn(&'v V) -> Result<Cow<'v, str>, String>,
}

impl Piece<'_> {
    fn read<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        converted: &Converted<T::T>,
    ) -> Result<ColumnCells, Failure> {
        let place = self.column.place;
        let mut cells = ColumnCells::new(self.column.kind);
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let mut row = 0;
        while row < self.rows {
            levels.clear();
            values.clear();
            let levels_to_fill = self.column.is_optional.then_some(&mut levels);
            let most = AT_ONCE.min(self.rows - row);
            let read = reader.read_records(most, levels_to_fill, None, &mut values);
            let (read, _, _) = read.map_err(|error| damaged(place.file, &error))?;
            if read == 0 {
                let what =
                    format!("ends after {} rows (the file is damaged: copy it again)", self.first + row);
                return Err(place.failure(what));
            }
            let mut values = values.iter();
            for place_of_cell in 0..read {
                let is_null = levels.get(place_of_cell) == Some(&0);
                let value = if is_null { None } else { values.next() };
                let pushed = push(&mut cells, value, converted);
                pushed.map_err(|what| place.failure_at(self.first + row + place_of_cell, what))?;
            }
            row += read;
        }
        Ok(cells)
    }
}

/// Adds a cell; `None` is a null.
fn push<V>(cells: &mut ColumnCells, value: Option<&V>, converted: &Converted<V>) -> Result<(), String> {
    match (cells, value) {
        (ColumnCells::Numbers(numbers), None) => numbers.push(f32::NAN),
        (ColumnCells::Numbers(numbers), Some(value)) => numbers.push((converted.number)(value)?),
        (ColumnCells::Texts(texts), None) => texts.push(Cell::Missing, ""),
        (ColumnCells::Texts(texts), Some(value)) => {
            let text = (converted.text)(value)?;
            texts.push(Cell::of(&text), &text);
        }
    }
    Ok(())
}

/// A number that is finite or missing.
fn finite(number: f32, value: &dyn std::fmt::Display) -> Result<f32, String> {
    if number.is_infinite() {
        Err(format!("`{value}` is not a finite number of 32 bits"))
    } else {
        Ok(number)
    }
}

/// The nearest `f32` of the number as it would be written. Where a double is halfway between two, its shortest decimal form may not be.
fn nearest(value: f64) -> f32 {
    let number = value as f32;
    let may_be_halfway = value.to_bits().trailing_zeros() >= 28 && f64::from(number) != value;
    if may_be_halfway { value.to_string().parse().unwrap_or(number) } else { number }
}

/// A float as pandas writes it: `1.0`.
fn float_text(value: &dyn std::fmt::Debug) -> Cow<'static, str> {
    Cow::Owned(format!("{value:?}"))
}

const BOOLEANS: Converted<bool> = Converted {
    number: |value| Ok(f32::from(u8::from(*value))),
    text: |value| Ok(Cow::Borrowed(if *value { "True" } else { "False" })),
};
const INT32: Converted<i32> =
    Converted { number: |value| Ok(*value as f32), text: |value| Ok(Cow::Owned(value.to_string())) };
const UINT32: Converted<i32> = Converted {
    number: |value| Ok(value.cast_unsigned() as f32),
    text: |value| Ok(Cow::Owned(value.cast_unsigned().to_string())),
};
const INT64: Converted<i64> =
    Converted { number: |value| Ok(*value as f32), text: |value| Ok(Cow::Owned(value.to_string())) };
const UINT64: Converted<i64> = Converted {
    number: |value| Ok(value.cast_unsigned() as f32),
    text: |value| Ok(Cow::Owned(value.cast_unsigned().to_string())),
};
const FLOAT: Converted<f32> =
    Converted { number: |value| finite(*value, value), text: |value| Ok(float_text(value)) };
const DOUBLE: Converted<f64> =
    Converted { number: |value| finite(nearest(*value), value), text: |value| Ok(float_text(value)) };
const HALVES: Converted<FixedLenByteArray> = Converted {
    number: |value| half_of(value).and_then(|half| finite(half, &half)),
    text: |value| half_of(value).map(|half| float_text(&half)),
};
const TEXTS: Converted<ByteArray> = Converted {
    number: |value| {
        let text = text_of(value)?;
        match Cell::of(text) {
            Cell::Number(number) => Ok(number),
            Cell::Missing => Ok(f32::NAN),
            Cell::NotFinite => Err(format!("`{text}` is not a finite number of 32 bits")),
            Cell::Text(text) => Err(format!("`{text}` is no number")),
        }
    },
    text: |value| text_of(value).map(Cow::Borrowed),
};

fn half_of(value: &FixedLenByteArray) -> Result<f32, String> {
    match value.data() {
        &[low, high] => Ok(half(u16::from_le_bytes([low, high]))),
        other => Err(format!("{} bytes are no float of 16 bits", other.len())),
    }
}

fn text_of(value: &ByteArray) -> Result<&str, String> {
    value.as_utf8().map_err(|_| "has bytes that are no text in UTF-8 (drop the column)".to_string())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_double_is_rounded_as_its_decimal_form_is() {
        let halfway = |low: f32| (f64::from(low) + f64::from(low.next_up())) / 2.0;
        let lows = (0..10_000_u32).map(|step| f32::from_bits(0x3000_0000 + step * 81_919));
        let doubles =
            lows.flat_map(|low| [halfway(low), halfway(low).next_up(), f64::from(low), -halfway(low)]);
        let mut differ = 0;
        for double in doubles.chain([1e-45, 7e-46, 3e-39, 1e39, 0.1, -0.0]) {
            let written: f32 = double.to_string().parse().unwrap();
            assert_eq!(nearest(double).to_bits(), written.to_bits(), "{double}");
            differ += u32::from(written.to_bits() != (double as f32).to_bits());
        }
        assert!(differ > 100, "{differ} of these would be rounded otherwise");
    }
}
