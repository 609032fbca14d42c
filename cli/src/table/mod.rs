//! Tables with answers: all columns of a table, and the answers of a model as further columns.
//!
//! ```text
//! Table (rows in order) ─► answers ─► Sink (a file in any of the formats)
//! ```

mod fields;
mod format;
mod json;
#[cfg(feature = "parquet")]
mod parquet;

pub use format::Format;

use flate2::Compression;
use flate2::write::GzEncoder;
use lowrank::data::{Cell, Record, Records, TableOptions};
use lowrank::text::repeated;
use lowrank::{Error, Result};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A value that a model gives for a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// A class.
    Text(String),
    /// A probability or another number.
    Number(f64),
    /// The labels that a text has.
    Texts(Vec<String>),
}

impl Answer {
    /// The answer in one field.
    pub fn text(&self) -> String {
        match self {
            Answer::Text(text) => text.clone(),
            Answer::Number(number) => number.to_string(),
            // As training reads several labels.
            Answer::Texts(texts) if texts.is_empty() || texts.iter().any(|text| text.contains(['|', ',', ';'])) => json!(texts).to_string(),
            Answer::Texts(texts) => texts.join("|"),
        }
    }
}

/// The text of a value that is not missing.
fn present(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Json(value) if value == "null" => None,
        Cell::Text(text) | Cell::Json(text) => Some(text),
    }
}

/// The kind of the values of a column of answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerKind {
    /// Of [`Answer::Text`].
    Text,
    /// Of [`Answer::Number`].
    Number,
    /// Of [`Answer::Texts`].
    Texts,
}

/// A column of answers.
pub struct Column {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub kind: AnswerKind,
}

/// A table that is read.
pub enum Table {
    /// CSV, TSV or JSON.
    Text(Records),
    /// Parquet.
    #[cfg(feature = "parquet")]
    Parquet(parquet::Table),
}

impl Table {
    /// Reads a table once, and checks each row. `None` if `go_on` stops it, which gets the number of rows so far.
    ///
    /// # Errors
    /// If it cannot be read; the message has the file and the line.
    pub fn open(path: &Path, options: &TableOptions, go_on: &mut dyn FnMut(usize) -> bool) -> Result<Option<Table>> {
        match Format::of(path, "--data")? {
            Format::Parquet => open_parquet(path, options),
            _ => Ok(Records::open(path, options, go_on)?.map(Table::Text)),
        }
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        match self {
            Table::Text(records) => &records.columns,
            #[cfg(feature = "parquet")]
            Table::Parquet(table) => &table.columns,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Table::Text(records) => records.rows,
            #[cfg(feature = "parquet")]
            Table::Parquet(table) => table.rows,
        }
    }

    /// Emits each row with its text, and with the second text of a pair, until `emit` returns false. Returns whether the end was reached. A row has no cells if the sink copies them: `copied`.
    ///
    /// # Errors
    /// Those of `emit`, and if the file is not what it was when it was opened.
    pub fn each(&self, copied: bool, emit: &mut dyn FnMut(Record, String, Option<String>) -> Result<bool>) -> Result<bool> {
        let _ = copied; // Without the feature "parquet", nothing is copied.
        match self {
            Table::Text(records) => records.each(emit),
            #[cfg(feature = "parquet")]
            Table::Parquet(table) => table.each(copied, emit),
        }
    }
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path, options: &TableOptions) -> Result<Option<Table>> {
    if options.encoding.is_some() {
        return Err(Error::file(path, "--encoding", "is for files of text: the texts of a Parquet file are UTF-8"));
    }
    Ok(Some(Table::Parquet(parquet::Table::open(path, options)?)))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(path: &Path, _: &TableOptions) -> Result<Option<Table>> {
    Err(format::no_parquet(path, "--data"))
}

/// A table that is written.
pub trait Sink {
    /// Whether the rows are copied from the table that is read, so that their cells are not needed.
    fn copies(&self) -> bool {
        false
    }

    /// Writes a row and its answers.
    fn row(&mut self, record: Record, answers: Vec<Answer>) -> Result<()>;

    /// Writes what is left. Afterwards the file is complete.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A sink that writes into `file`, which will be at `path`: the columns of `table`, and then `added`.
///
/// # Errors
/// If the format cannot hold the table.
pub fn sink<'a>(path: &Path, file: &'a File, table: &'a Table, added: &'a [Column]) -> Result<Box<dyn Sink + 'a>> {
    let (place, columns, format) = (path.to_path_buf(), table.columns(), Format::of(path, "--out")?);
    if let Some(twice) = repeated(columns).filter(|_| !format.has_fields()) {
        let problem = format!("the column {twice:?} is there twice, and only a .csv or .tsv file can hold both: rename one");
        return Err(Error::file(path, "--out", problem));
    }
    let text = |packed| Stream { path: place.clone(), out: Packed::new(file, packed) };
    let style = match table {
        Table::Text(records) => records.style,
        #[cfg(feature = "parquet")]
        Table::Parquet(_) => None,
    };
    let mark = matches!(table, Table::Text(records) if records.mark && records.style.is_some());
    Ok(match format {
        Format::Fields { delimiter, packed } => {
            let style = fields::style(style, delimiter);
            Box::new(fields::Sink::new(text(packed), style, mark, columns, added)?)
        }
        Format::Json { list, packed } => Box::new(json::Sink::new(text(packed), list, columns, added)),
        Format::Parquet => parquet_sink(path, file, table, added)?,
    })
}

#[cfg(feature = "parquet")]
fn parquet_sink<'a>(path: &Path, file: &'a File, table: &'a Table, added: &'a [Column]) -> Result<Box<dyn Sink + 'a>> {
    parquet::sink(path, file, table, added)
}

#[cfg(not(feature = "parquet"))]
fn parquet_sink<'a>(path: &Path, _: &'a File, _: &'a Table, _: &'a [Column]) -> Result<Box<dyn Sink + 'a>> {
    Err(format::no_parquet(path, "--out"))
}

/// The stream of a text file.
struct Stream<'a> {
    path: std::path::PathBuf,
    out: Packed<'a>,
}

impl Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io(&self.path, e))
    }

    fn finish(self) -> Result<()> {
        self.out.finish().map_err(|e| Error::io(&self.path, e))
    }
}

/// A file, perhaps packed in gzip format.
enum Packed<'a> {
    No(BufWriter<&'a File>),
    Yes(GzEncoder<BufWriter<&'a File>>),
}

impl<'a> Packed<'a> {
    fn new(file: &'a File, packed: bool) -> Packed<'a> {
        let out = BufWriter::new(file);
        if packed { Packed::Yes(GzEncoder::new(out, Compression::default())) } else { Packed::No(out) }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Packed::No(mut out) => out.flush(),
            Packed::Yes(out) => out.finish()?.flush(),
        }
    }
}

impl Write for Packed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packed::No(out) => out.write(bytes),
            Packed::Yes(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Packed::No(out) => out.flush(),
            Packed::Yes(out) => out.flush(),
        }
    }
}
