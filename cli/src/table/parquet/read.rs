//! Reads Parquet files.

use super::damaged;
use lowrank::data::{Cell, Record, TableOptions, text_columns};
use lowrank::files::open_file;
use lowrank::{Error, Result};
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A Parquet file with a column of texts.
pub struct Table {
    pub(super) path: PathBuf,
    pub(super) file: SerializedFileReader<File>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Numbers of the columns with the texts: one, or two for pairs.
    texts: Vec<usize>,
    /// Number of rows.
    pub rows: usize,
}

impl Table {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it is no Parquet file, or has no column of texts.
    pub fn open(path: &Path, options: &TableOptions) -> Result<Table> {
        let file = open_file(path)?;
        let file = SerializedFileReader::new(file).map_err(|e| damaged(path, e))?;
        let about = file.metadata().file_metadata();
        let columns: Vec<String> = about.schema().get_fields().iter().map(|field| field.name().to_string()).collect();
        let (text, second) = text_columns(path, &columns.iter().map(String::as_str).collect::<Vec<_>>(), options)?;
        let rows = usize::try_from(about.num_rows()).map_err(|_| Error::file(path, "parquet", "has a negative number of rows"))?;
        Ok(Table { path: path.to_path_buf(), columns, texts: [text].into_iter().chain(second).collect(), rows, file })
    }

    /// Emits each row with its text, and with the second text of a pair, until `emit` returns false. Returns whether the end was reached. With `copied`, only the texts are read, and rows have no
    /// cells.
    ///
    /// # Errors
    /// Those of `emit`; if the file is damaged, or compressed in a way that needs C code; or if a text is missing.
    pub fn each(&self, copied: bool, emit: &mut dyn FnMut(Record, String, Option<String>) -> Result<bool>) -> Result<bool> {
        self.check_compression(copied)?;
        let schema = self.file.metadata().file_metadata().schema();
        let fields = schema.get_fields();
        let read = self.texts.iter().map(|&i| Arc::clone(&fields[i])).collect();
        let only = || Type::group_type_builder(schema.name()).with_fields(read).build();
        let projection = copied.then(only).transpose().map_err(|e| damaged(&self.path, e))?;
        let mut rows = self.file.get_row_iter(projection).map_err(|e| damaged(&self.path, e))?;
        let mut number = 0;
        loop {
            // The crate panics at some damages, and at dates and numbers out of its range.
            let next = catch_unwind(AssertUnwindSafe(|| rows.next().map(|row| row.map(|row| self.record(row, number + 1, copied)))));
            let problem = "the file is damaged, or a date or a number is out of the range that can be read";
            let next = next.map_err(|_| Error::file(&self.path, format_args!("row {}", number + 1), problem))?;
            let Some(row) = next.transpose().map_err(|e| damaged(&self.path, e))? else { break };
            number += 1;
            let (record, text, second) = row?;
            if !emit(record, text, second)? {
                return Ok(false);
            }
        }
        match number == self.rows {
            true => Ok(true),
            false => Err(Error::file(
                &self.path,
                "parquet",
                format!("holds {number} rows, but its metadata says {}: the file is damaged", self.rows),
            )),
        }
    }

    /// A row and its texts. With `copied`, the row has only the texts.
    fn record(&self, row: Row, number: usize, copied: bool) -> Result<(Record, String, Option<String>)> {
        let place = format!("row {number}");
        let fields = row.into_columns();
        let text = |&i: &usize| match fields.iter().find(|(name, _)| *name == self.columns[i]) {
            Some((_, Field::Str(text))) => Ok(text.clone()),
            _ => Err(Error::file(&self.path, &place, format!("{:?} is not a string", self.columns[i]))),
        };
        let (first, second) = (text(&self.texts[0])?, self.texts.get(1).map(text).transpose()?);
        let cells = if copied { Vec::new() } else { fields.into_iter().map(|(_, field)| cell(field)).enumerate().collect() };
        Ok((Record { place, cells }, first, second))
    }

    /// Refuses compression that cannot be read. With `copied`, it matters for the texts alone.
    fn check_compression(&self, copied: bool) -> Result<()> {
        let groups = self.file.metadata().row_groups();
        for column in groups.iter().flat_map(|group| group.columns()) {
            let parts = column.column_path().parts();
            let is_read = !copied || parts.first().is_some_and(|name| self.texts.iter().any(|&i| *name == self.columns[i]));
            let readable = matches!(column.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_));
            if is_read && !readable {
                let name = format!("{:?}", column.compression());
                let name = name.split('(').next().unwrap_or_default();
                let problem = format!(
                    "is compressed with {name}, which this program cannot read: write the file again with snappy, gzip or no compression, such as \
                     df.to_parquet(…, compression=\"snappy\") of pandas"
                );
                return Err(Error::file(&self.path, format!("column {:?}", parts.join(".")), problem));
            }
        }
        Ok(())
    }
}

/// A value as a cell. Numbers keep their digits; dates and times are texts.
fn cell(field: Field) -> Cell {
    match field {
        Field::Str(text) => Cell::Text(text),
        // As a 64-bit number, it would get further digits.
        Field::Float(number) if number.is_finite() => Cell::Json(serde_json::to_string(&number).unwrap_or_default()),
        other => match other.to_json_value() {
            serde_json::Value::String(text) => Cell::Text(text),
            value => Cell::Json(value.to_string()),
        },
    }
}
