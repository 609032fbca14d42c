//! Writes Parquet files.
//!
//! The columns of a Parquet file that is read are copied as they are, one row group at a time, so they keep their types. Other tables become columns of
//! texts, or of numbers or truth values where a JSON file has no other values.

use super::{Table, damaged};
use crate::table::{self, Answer, AnswerKind, Column, present};
use lowrank::Result;
use lowrank::data::{Cell, Record};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::FileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Found<T> = std::result::Result<T, ParquetError>;

/// Rows of a row group, at most, and their bytes, about, where rows are not copied.
const ROWS: usize = 1 << 16;
const BYTES: usize = 32 << 20;

/// What all values of a column are, apart from missing ones.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// Nothing yet.
    Missing,
    Flag,
    /// A whole number that a double has exactly.
    Whole,
    /// Another one that 64 bits have.
    Long,
    Number,
    Text,
}

impl Kind {
    fn of(cell: &Cell) -> Kind {
        match cell {
            Cell::Text(_) => Kind::Text,
            Cell::Json(value) => match value.as_str() {
                "null" => Kind::Missing,
                "true" | "false" => Kind::Flag,
                value if value.parse::<i64>().is_ok_and(|n| n.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS) => Kind::Whole,
                value if value.parse::<i64>().is_ok() => Kind::Long,
                // A larger whole number keeps its digits as a text.
                value if value.bytes().all(|b| b.is_ascii_digit() || b == b'-') => Kind::Text,
                value if value.parse::<f64>().is_ok_and(f64::is_finite) => Kind::Number,
                _ => Kind::Text,
            },
        }
    }

    /// The kind of a column with values of both kinds.
    fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (a, b) if a == b => a,
            (Kind::Missing, other) | (other, Kind::Missing) => other,
            (Kind::Whole, Kind::Number) | (Kind::Number, Kind::Whole) => Kind::Number,
            (Kind::Whole, Kind::Long) | (Kind::Long, Kind::Whole) => Kind::Long,
            _ => Kind::Text,
        }
    }

    fn field(self, name: &str, repetition: Repetition) -> Found<Arc<Type>> {
        let (physical, logical) = match self {
            Kind::Flag => (Physical::BOOLEAN, None),
            Kind::Whole | Kind::Long => (Physical::INT64, None),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Missing | Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        Type::primitive_type_builder(name, physical).with_logical_type(logical).with_repetition(repetition).build().map(Arc::new)
    }
}

/// A sink that writes a Parquet file.
///
/// # Errors
/// If the file cannot be written.
pub fn sink<'a>(path: &Path, file: &'a File, table: &'a table::Table, added: &'a [Column]) -> Result<Box<dyn table::Sink + 'a>> {
    let kinds = kinds(table)?;
    let error = |e| damaged(path, e);
    let mut fields = match table {
        table::Table::Parquet(read) => read.file.metadata().file_metadata().schema().get_fields().to_vec(),
        table::Table::Text(_) => {
            let columns = table.columns().iter().zip(&kinds);
            columns.map(|(name, kind)| kind.field(name, Repetition::OPTIONAL)).collect::<Found<_>>().map_err(error)?
        }
    };
    for column in added {
        let kind = if column.kind == AnswerKind::Number { Kind::Number } else { Kind::Text };
        fields.push(kind.field(&column.name, Repetition::REQUIRED).map_err(error)?);
    }
    let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(error)?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(error)?;
    let source = match table {
        table::Table::Parquet(read) => Some(read),
        table::Table::Text(_) => None,
    };
    Ok(Box::new(Sink { path: path.to_path_buf(), writer, source, kinds, added, waiting: Vec::new(), bytes: 0, group: 0 }))
}

/// The kinds of the columns of a file of text; none for other files. A CSV file has only texts.
fn kinds(table: &table::Table) -> Result<Vec<Kind>> {
    let table::Table::Text(records) = table else { return Ok(Vec::new()) };
    if records.style.is_some() {
        return Ok(vec![Kind::Text; records.columns.len()]);
    }
    let mut kinds = vec![Kind::Missing; records.columns.len()];
    records.each(&mut |record, _, _| {
        record.cells.iter().for_each(|(column, cell)| kinds[*column] = kinds[*column].with(Kind::of(cell)));
        Ok(true)
    })?;
    Ok(kinds)
}

/// A Parquet file.
struct Sink<'a> {
    path: PathBuf,
    writer: SerializedFileWriter<&'a File>,
    /// The file whose columns are copied.
    source: Option<&'a Table>,
    /// Else the kinds of the columns.
    kinds: Vec<Kind>,
    added: &'a [Column],
    /// Rows of the next row group.
    waiting: Vec<(Record, Vec<Answer>)>,
    bytes: usize,
    /// Row groups that were copied.
    group: usize,
}

impl table::Sink for Sink<'_> {
    fn copies(&self) -> bool {
        self.source.is_some()
    }

    fn row(&mut self, record: Record, answers: Vec<Answer>) -> Result<()> {
        self.bytes += record.cells.iter().map(|(_, Cell::Text(text) | Cell::Json(text))| text.len()).sum::<usize>();
        self.waiting.push((record, answers));
        let full = match self.source {
            Some(source) => {
                let groups = source.file.metadata().row_groups();
                while groups.get(self.group).is_some_and(|group| group.num_rows() == 0) {
                    self.group += 1;
                }
                groups.get(self.group).is_some_and(|group| group.num_rows() == self.waiting.len() as i64)
            }
            None => self.waiting.len() == ROWS || self.bytes >= BYTES,
        };
        if full { self.write_group().map_err(|e| damaged(&self.path, e)) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if !self.waiting.is_empty() {
            self.write_group().map_err(|e| damaged(&self.path, e))?;
        }
        self.writer.finish().map_err(|e| damaged(&self.path, e))?;
        Ok(())
    }
}

impl Sink<'_> {
    /// Writes the rows that wait as a row group.
    fn write_group(&mut self) -> Found<()> {
        let (rows, answers): (Vec<Record>, Vec<Vec<Answer>>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        self.bytes = 0;
        let mut out = self.writer.next_row_group()?;
        if let Some(source) = self.source {
            copy_group(source, self.group, &mut out)?;
            self.group += 1;
        }
        for (column, kind) in self.kinds.iter().enumerate() {
            let cells = rows.iter().map(|row| row.cells.iter().find(|(i, _)| *i == column).map(|(_, cell)| cell));
            let cells: Vec<Option<&str>> = cells.map(|cell| cell.and_then(present)).collect();
            match kind {
                Kind::Flag => write::<BoolType>(&mut out, cells.iter().map(|c| c.and_then(|c| c.parse().ok())).collect(), true)?,
                Kind::Whole | Kind::Long => {
                    write::<Int64Type>(&mut out, cells.iter().map(|c| c.and_then(|c| c.parse().ok())).collect(), true)?
                }
                Kind::Number => write::<DoubleType>(&mut out, cells.iter().map(|c| c.and_then(|c| c.parse().ok())).collect(), true)?,
                _ => write::<ByteArrayType>(&mut out, cells.iter().map(|c| c.map(Into::into)).collect(), true)?,
            }
        }
        for (i, column) in self.added.iter().enumerate() {
            let own = answers.iter().map(|row| &row[i]);
            match column.kind {
                AnswerKind::Number => write::<DoubleType>(&mut out, own.map(number).collect(), false)?,
                _ => write::<ByteArrayType>(&mut out, own.map(|answer| Some(answer.text().as_str().into())).collect(), false)?,
            }
        }
        out.close()?;
        Ok(())
    }
}

fn number(answer: &Answer) -> Option<f64> {
    if let Answer::Number(number) = answer { Some(*number) } else { None }
}

/// Writes the next column of a row group. A value may be missing if the column is `optional`.
fn write<T: DataType>(out: &mut SerializedRowGroupWriter<&File>, values: Vec<Option<T::T>>, optional: bool) -> Found<()> {
    let mut column = out.next_column()?.ok_or_else(|| ParquetError::General("there is no further column".into()))?;
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&values, optional.then_some(&levels[..]), None)?;
    column.close()
}

/// Copies the columns of a row group byte by byte.
fn copy_group(source: &Table, group: usize, out: &mut SerializedRowGroupWriter<&File>) -> Found<()> {
    let file = File::open(&source.path)?;
    let group = source.file.metadata().row_group(group);
    for column in group.columns() {
        let close = ColumnCloseResult {
            bytes_written: column.compressed_size().try_into().unwrap_or(0),
            rows_written: group.num_rows().try_into().unwrap_or(0),
            metadata: column.clone(),
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        out.append_column(&file, close)?;
    }
    Ok(())
}
