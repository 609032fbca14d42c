//! Tables that are read row by row, in memory that does not grow with the table.
//!
//! `read` gives the texts and labels of a table. For all its columns, [`Records::open`] reads a table once, and checks each row; [`Records::each`] reads it
//! again.

mod decoded;
mod fields;
mod json;
mod labelled;
mod limit;
#[cfg(test)]
mod tests;

pub(super) use decoded::Decoded;
pub use fields::Style;
pub(super) use fields::each_part;
pub(super) use labelled::read;

use super::rows::Wanted;
use super::table::{self, Columns, Kind, TableOptions};
use crate::{Error, Result};
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
    /// Bytes of memory that its values take, about.
    pub fn bytes(&self) -> usize {
        let of = |(_, cell): &(usize, Cell)| match cell {
            Cell::Text(text) | Cell::Json(text) => text.len() + size_of::<(usize, Cell)>(),
        };
        self.cells.iter().map(of).sum()
    }

    /// The value in the column with the number `column`. `None` if there is none, or it is null.
    fn cell(&self, column: usize) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|(i, _)| *i == column)
            .map(|(_, cell)| cell)
            .filter(|cell| !matches!(cell, Cell::Json(value) if value == "null"))
    }

    /// The text in a column, or the problem.
    fn text(&self, column: usize, name: &str) -> std::result::Result<&str, String> {
        match self.cells.iter().find(|(i, _)| *i == column) {
            Some((_, Cell::Text(text))) => Ok(text),
            Some((_, Cell::Json(value))) if value.starts_with(['{', '[']) => {
                Err(format!("{name:?} is not one text; expected an object for each row, as pandas writes with orient=\"records\""))
            }
            Some(_) => Err(format!("{name:?} is not a string")),
            None => Err(format!("there is no {name:?}")),
        }
    }

    /// The text, and the second text of a pair, or the problem.
    fn texts(&self, Columns { text, second, .. }: Columns, names: &[String]) -> std::result::Result<(&str, Option<&str>), String> {
        let of = |column: usize| self.text(column, &names[column]);
        Ok((of(text)?, second.map(of).transpose()?))
    }
}

/// What the header of a table or its first object says.
struct Layout {
    /// Names of the columns, in the order of the file.
    names: Vec<String>,
    columns: Columns,
    /// How fields are written; `None` if the rows are JSON objects.
    style: Option<Style>,
}

/// Takes the names of the columns, the numbers of those that are wanted, and a row. Returns whether to go on.
type EmitRow<'a> = dyn FnMut(&[String], Columns, Record) -> Result<bool> + 'a;

/// Emits each row of a table with the names of its columns and the numbers of those that are `wanted`, until `emit` returns false. `None` if it did.
fn walk(path: &Path, options: &TableOptions, wanted: Wanted, emit: &mut EmitRow) -> Result<Option<Layout>> {
    let kind =
        Kind::of(path).ok_or_else(|| Error::file(path, "name", "is no table: expected .csv, .tsv, .json or .jsonl, perhaps with .gz"))?;
    let (encoding, empty) = (options.encoding.as_deref(), || Error::file(path, "file", "is empty: it holds no text"));
    if kind != Kind::Json {
        let (names, columns, style) = fields::header(path, kind, options, wanted)?.ok_or_else(empty)?;
        let ended = fields::walk(path, encoding, style, &mut |record| emit(&names, columns, record))?;
        return Ok(ended.then_some(Layout { names, columns, style: Some(style) }));
    }
    let mut columns = None;
    let mut own = |names: &[String], record: Record| {
        let found = match columns {
            Some(columns) => columns,
            None => table::columns(path, &names.iter().map(String::as_str).collect::<Vec<_>>(), options, wanted)?,
        };
        columns = Some(found);
        emit(names, found, record)
    };
    let (ended, names) = json::walk(path, encoding, &mut own)?;
    let columns = columns.ok_or_else(empty)?;
    Ok(ended.then_some(Layout { names, columns, style: None }))
}

/// A table with a column of texts, whose rows can be read again and again.
pub struct Records {
    path: PathBuf,
    encoding: Option<String>,
    /// Names of the columns, in the order of the file.
    pub columns: Vec<String>,
    /// Number of rows.
    pub rows: usize,
    /// How fields are written; `None` if the rows are JSON objects.
    pub style: Option<Style>,
    /// Whether the file starts with a byte order mark.
    pub mark: bool,
    texts: Columns,
}

impl Records {
    /// Reads the table at `path` once, and checks each row. `None` if `go_on` stops it, which gets the number of rows so far.
    ///
    /// # Errors
    /// If the file is no table, is damaged or not in the encoding, a row is malformed, or there is no column of texts. The message has the file and the line.
    pub fn open(path: &Path, options: &TableOptions, go_on: &mut dyn FnMut(usize) -> bool) -> Result<Option<Records>> {
        let mark = Decoded::open(path, options.encoding.as_deref())?.mark;
        let mut rows = 0;
        let mut count = |names: &[String], columns: Columns, record: Record| {
            record.texts(columns, names).map_err(|problem| Error::file(path, &record.place, problem))?;
            rows += 1;
            Ok(go_on(rows))
        };
        let found = walk(path, options, Wanted::Texts, &mut count)?;
        let encoding = options.encoding.clone();
        Ok(found.map(|Layout { names, columns: texts, style }| Records {
            path: path.to_path_buf(),
            encoding,
            columns: names,
            rows,
            style,
            mark,
            texts,
        }))
    }

    /// Emits each row with its text, and with the second text of a pair, until `emit` returns false. Returns whether the end was reached.
    ///
    /// # Errors
    /// Those of `emit`, and if the file is not what it was when it was opened.
    pub fn each(&self, emit: &mut dyn FnMut(Record, String, Option<String>) -> Result<bool>) -> Result<bool> {
        let (path, encoding) = (&self.path, self.encoding.as_deref());
        let changed = || Error::file(path, "table", "was changed while it was read: run this again");
        let mut rows = 0;
        let mut own = |record: Record| {
            rows += 1;
            let texts = record.texts(self.texts, &self.columns).map(|(text, second)| (text.to_string(), second.map(String::from)));
            match texts {
                Ok((text, second)) if record.cells.iter().all(|(i, _)| *i < self.columns.len()) => emit(record, text, second),
                _ => Err(changed()),
            }
        };
        let ended = match self.style {
            Some(style) => fields::walk(path, encoding, style, &mut own)?,
            None => json::walk(path, encoding, &mut |_, record| own(record))?.0,
        };
        if ended && rows != self.rows { Err(changed()) } else { Ok(ended) }
    }
}
