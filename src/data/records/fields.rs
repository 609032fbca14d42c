//! Rows of CSV and TSV files.

use super::decoded::{Decoded, cause};
use super::limit::{LONGEST_ROW, too_long};
use super::{Cell, Record};
use crate::data::rows::Wanted;
use crate::data::table::{Columns, DELIMITERS_OF_CSV, DELIMITERS_OF_TSV, Kind, TableOptions, columns, problem};
use crate::data::tsv::Quotes;
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Largest size of a header in bytes. Each byte may be a column of its own, which takes some 40 bytes in memory.
const LONGEST_HEADER: u64 = 1 << 20;
/// Most line breaks from the start of a row to the next row.
const MOST_BREAKS: usize = 1 << 20;

/// How the fields of a file are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// The byte between two fields.
    pub delimiter: u8,
    /// Whether a quotation mark at the start of a field begins a quoted field; else it is a plain character.
    pub quoting: bool,
    /// Whether lines end with a carriage return and a line feed.
    pub crlf: bool,
}

/// What the header of a file says: the names of its columns, which of them are wanted, and how fields are written. `None` if the file is empty. The delimiter is
/// the first with which there are these columns; if there is none, the error is that of the first delimiter.
pub(super) fn header(path: &Path, kind: Kind, options: &TableOptions, wanted: Wanted) -> Result<Option<(Vec<String>, Columns, Style)>> {
    let encoding = options.encoding.as_deref();
    let crlf = ends_with_crlf(path, encoding)?;
    let mut likeliest = None;
    for delimiter in if kind == Kind::Tsv { DELIMITERS_OF_TSV } else { DELIMITERS_OF_CSV } {
        let quoting = delimiter != b'\t' || are_quotes(path, encoding)?;
        let style = Style { delimiter, quoting, crlf };
        let (mut reader, breaks) = open(path, encoding, style)?;
        let header = reader.headers().map_err(|e| malformed(path, style, &breaks, e))?.clone();
        let names: Vec<&str> = header.iter().map(str::trim).collect();
        if names.concat().is_empty()
            && !reader.read_record(&mut csv::StringRecord::new()).map_err(|e| malformed(path, style, &breaks, e))?
        {
            return Ok(None);
        }
        match columns(path, &names, options, wanted) {
            Ok(found) => return Ok(Some((header.iter().map(String::from).collect(), found, style))),
            Err(e) => likeliest = likeliest.or(Some(e)),
        }
    }
    Err(likeliest.unwrap_or_else(|| Error::file(path, "header", "is missing")))
}

/// Emits each row, until `emit` returns false. Returns whether the end was reached.
pub(super) fn walk(path: &Path, encoding: Option<&str>, style: Style, emit: &mut dyn FnMut(Record) -> Result<bool>) -> Result<bool> {
    let (mut reader, breaks) = open(path, encoding, style)?;
    let error = |e| malformed(path, style, &breaks, e);
    reader.headers().map_err(error)?;
    let mut row = csv::StringRecord::new();
    let mut last = None;
    loop {
        breaks.borrow_mut().row = reader.position().byte();
        if !reader.read_record(&mut row).map_err(error)? {
            break;
        }
        let start = row.position().map_or(0, csv::Position::byte);
        let line = breaks.borrow_mut().line(start);
        last = Some((start, line, row.iter().any(|field| field.contains('\n'))));
        let cells = row.iter().enumerate().map(|(i, field)| (i, Cell::Text(field.to_string()))).collect();
        if !emit(Record { place: format!("line {line}"), cells })? {
            return Ok(false);
        }
    }
    // Where a quote is never closed, the last row has the rest of the file: its line breaks, or an end without one.
    let ends_in_line = breaks.borrow().ends_in_line;
    if let Some((start, line, _)) = last.filter(|(.., has_breaks)| style.quoting && (*has_breaks || ends_in_line))
        && ends_in_quote(path, encoding, start, style.delimiter)?
    {
        return Err(Error::file(path, format_args!("line {line}"), "a quoted field is never closed"));
    }
    Ok(true)
}

type Reader = csv::Reader<Counted>;

fn open(path: &Path, encoding: Option<&str>, style: Style) -> Result<(Reader, Rc<RefCell<Breaks>>)> {
    let breaks = Rc::new(RefCell::new(Breaks::default()));
    let source = Counted { path: path.to_path_buf(), source: Decoded::open(path, encoding)?, breaks: breaks.clone(), at: 0 };
    Ok((csv::ReaderBuilder::new().delimiter(style.delimiter).quoting(style.quoting).from_reader(source), breaks))
}

fn malformed(path: &Path, style: Style, breaks: &RefCell<Breaks>, error: csv::Error) -> Error {
    if let csv::ErrorKind::Io(_) = error.kind() {
        return cause(path, error.into());
    }
    let line = error.position().map_or(1, |start| breaks.borrow_mut().line(start.byte()));
    Error::file(path, format_args!("line {line}"), problem(style.delimiter, &error))
}

/// The bytes of line breaks that the reader of a table has read ahead.
#[derive(Default)]
struct Breaks {
    /// The offset of each, and whether it ends a line.
    ahead: VecDeque<(u64, bool)>,
    /// Lines that ended before them.
    lines: u64,
    /// Offset of the row that is being read.
    row: u64,
    /// Whether the last byte so far is no line break.
    ends_in_line: bool,
}

impl Breaks {
    /// The line, from 1, of the row at this offset or behind the line breaks that start there: the position that the reader gives may be before them.
    fn line(&mut self, mut offset: u64) -> u64 {
        while let Some(&(at, ends)) = self.ahead.front().filter(|(at, _)| *at <= offset) {
            offset += u64::from(at == offset);
            self.lines += u64::from(ends);
            self.ahead.pop_front();
        }
        self.lines + 1
    }
}

/// A stream whose line breaks are noted. It ends with an error in a row that is too long.
struct Counted {
    path: PathBuf,
    source: Decoded,
    breaks: Rc<RefCell<Breaks>>,
    at: u64,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(out)?;
        let mut breaks = self.breaks.borrow_mut();
        let found = out[..read].iter().zip(self.at..).filter(|(b, _)| matches!(b, b'\r' | b'\n'));
        breaks.ahead.extend(found.map(|(&b, at)| (at, b == b'\n')));
        breaks.ends_in_line = out[..read].last().map_or(breaks.ends_in_line, |byte| !matches!(byte, b'\r' | b'\n'));
        self.at += read as u64;
        let row = breaks.row;
        // The first line goes on beyond the limit.
        if row == 0 && self.at > LONGEST_HEADER && breaks.ahead.front().is_none_or(|(at, _)| *at > LONGEST_HEADER) {
            let problem = format!("has more than {LONGEST_HEADER} bytes, the limit: the first line must have the names of the columns");
            return Err(io::Error::other(Error::file(&self.path, "header", problem)));
        }
        if breaks.ahead.len() > MOST_BREAKS {
            let (line, problem) = (
                breaks.line(row),
                format!("more than {MOST_BREAKS} line breaks before the next row: close the quote, or remove empty lines"),
            );
            return Err(io::Error::other(Error::file(&self.path, format_args!("line {line}"), problem)));
        }
        match self.at - row > LONGEST_ROW {
            true => Err(io::Error::other(too_long(&self.path, breaks.line(row)))),
            false => Ok(read),
        }
    }
}

/// Reads a whole file in parts, until `f` returns false.
pub(in crate::data) fn each_part(path: &Path, encoding: Option<&str>, mut f: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let (mut source, mut part) = (Decoded::open(path, encoding)?, vec![0; 64 << 10]);
    loop {
        let read = source.read(&mut part).map_err(|e| cause(path, e))?;
        if read == 0 || !f(&part[..read]) {
            return Ok(());
        }
    }
}

/// Whether the first line ends with a carriage return and a line feed.
fn ends_with_crlf(path: &Path, encoding: Option<&str>) -> Result<bool> {
    let (mut before, mut found) = (0, false);
    each_part(path, encoding, |part| {
        let end = part.iter().position(|&b| b == b'\n');
        found = end.is_some_and(|end| if end == 0 { before } else { part[end - 1] } == b'\r');
        before = part[part.len() - 1];
        end.is_none()
    })?;
    Ok(found)
}

/// Whether the quotation marks of a TSV file are quotes.
fn are_quotes(path: &Path, encoding: Option<&str>) -> Result<bool> {
    let mut quotes = Quotes::default();
    each_part(path, encoding, |part| {
        quotes.read(part);
        true
    })?;
    Ok(quotes.are_quotes())
}

/// Whether a quoted field that begins at an offset or after it is never closed.
fn ends_in_quote(path: &Path, encoding: Option<&str>, start: u64, delimiter: u8) -> Result<bool> {
    /// Where a byte stands.
    #[derive(Clone, Copy)]
    enum At {
        /// At the start of a field.
        Start,
        /// In a field without quotes.
        Plain,
        /// Between quotes.
        Quoted,
        /// Behind a quotation mark between quotes: the end of the field, or the first of two that stand for one.
        Mark,
    }
    let (mut offset, mut at) = (0, At::Start);
    each_part(path, encoding, |part| {
        let skipped = start.saturating_sub(offset).min(part.len() as u64) as usize;
        for &byte in &part[skipped..] {
            at = match (at, byte) {
                (At::Quoted, b'"') => At::Mark,
                (At::Quoted, _) | (At::Start | At::Mark, b'"') => At::Quoted,
                (_, b'\r' | b'\n') => At::Start,
                (_, byte) if byte == delimiter => At::Start,
                _ => At::Plain,
            };
        }
        offset += part.len() as u64;
        true
    })?;
    Ok(matches!(at, At::Quoted))
}
