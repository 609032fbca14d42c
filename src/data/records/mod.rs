//! Tables that are read row by row, with all columns, in memory that does not grow with the table.
//!
//! [`Records::open`] reads a table once, and checks each row. [`Records::each`] reads it again.

mod decoded;
mod fields;
mod json;
#[cfg(test)]
mod tests;

pub use fields::Style;

use super::table::{self, Kind, TableOptions};
use crate::{Error, Result};
use json::Keys;
use std::path::{Path, PathBuf};

/// A value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number, a list or another value that is no text, as JSON.
    Json(String),
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it is in the file, for messages.
    pub place: String,
    /// Its values, each with the number of its column. An object of a JSON file has some of the columns, in an order of its own.
    pub cells: Vec<(usize, Cell)>,
}

impl Record {
    /// The text in the column with the number `column`, or the problem.
    fn text(&self, column: usize, name: &str) -> std::result::Result<&str, String> {
        match self.cells.iter().find(|(i, _)| *i == column) {
            Some((_, Cell::Text(text))) => Ok(text),
            Some(_) => Err(format!("{name:?} is not a string")),
            None => Err(format!("there is no {name:?}")),
        }
    }
}

/// A table with a column of texts, whose rows can be read again and again.
pub struct Records {
    path: PathBuf,
    encoding: Option<String>,
    /// Names of the columns, in the order of the file.
    pub columns: Vec<String>,
    /// Number of the column with the texts.
    pub text: usize,
    /// Number of rows.
    pub rows: usize,
    /// How fields are written; `None` if the rows are JSON objects.
    pub style: Option<Style>,
    /// Whether the file starts with a byte order mark.
    pub mark: bool,
}

impl Records {
    /// Reads the table at `path` once, and checks each row. `None` if `go_on` stops it, which gets the number of rows so far.
    ///
    /// # Errors
    /// If the file is no table, is damaged or not in the encoding, a row is malformed, or there is no column of texts. The message has the file and the line.
    pub fn open(path: &Path, options: &TableOptions, go_on: &mut dyn FnMut(usize) -> bool) -> Result<Option<Records>> {
        let kind = Kind::of(path)
            .ok_or_else(|| Error::file(path, "name", "is no table: expected .csv, .tsv, .json or .jsonl, perhaps with .gz"))?;
        let (encoding, wanted) = (options.encoding.as_deref(), options.text_column.as_deref());
        let mark = decoded::Decoded::open(path, encoding)?.mark;
        let mut all = Records {
            path: path.to_path_buf(),
            encoding: options.encoding.clone(),
            columns: Vec::new(),
            text: 0,
            rows: 0,
            style: None,
            mark,
        };
        if kind != Kind::Json {
            let (columns, text, style) = fields::header(path, kind, encoding, wanted)?;
            (all.columns, all.text, all.style) = (columns, text, Some(style));
            let mut count = |_| {
                all.rows += 1;
                Ok(go_on(all.rows))
            };
            return Ok(fields::walk(path, encoding, style, &mut count)?.then_some(all));
        }
        let mut count = |keys: &Keys, record: Record| {
            if all.rows == 0 {
                let names: Vec<&str> = keys.names.iter().map(String::as_str).collect();
                all.text = table::text_column(path, &names, wanted)?;
            }
            record.text(all.text, &keys.names[all.text]).map_err(|problem| Error::file(path, &record.place, problem))?;
            all.rows += 1;
            Ok(go_on(all.rows))
        };
        let (ended, keys) = json::walk(path, encoding, &mut count)?;
        all.columns = keys.names;
        if ended && all.rows == 0 {
            return Err(Error::file(path, "file", "is empty: it holds no text"));
        }
        Ok(ended.then_some(all))
    }

    /// Emits each row with its text, until `emit` returns false. Returns whether the end was reached.
    ///
    /// # Errors
    /// Those of `emit`, and if the file is not what it was when it was opened.
    pub fn each(&self, emit: &mut dyn FnMut(Record, String) -> Result<bool>) -> Result<bool> {
        let (path, encoding) = (&self.path, self.encoding.as_deref());
        let changed = || Error::file(path, "table", "was changed while it was read: run this again");
        let mut rows = 0;
        let mut own = |record: Record| {
            rows += 1;
            let text = record.text(self.text, "").map_err(|_| changed())?.to_string();
            match record.cells.iter().all(|(i, _)| *i < self.columns.len()) {
                true => emit(record, text),
                false => Err(changed()),
            }
        };
        let ended = match self.style {
            Some(style) => fields::walk(path, encoding, style, &mut own)?,
            None => json::walk(path, encoding, &mut |_, record| own(record))?.0,
        };
        if ended && rows != self.rows { Err(changed()) } else { Ok(ended) }
    }
}
