//! Rows of JSON files: one object a line, or a list of objects.

use super::decoded::{Decoded, cause};
use super::limit::{LONGEST_ROW, Place, Rows, too_long};
use super::{Cell, Record};
use crate::data::ordered::Ordered;
use crate::{Error, Result};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// The keys of the objects so far, in the order of their first appearance.
#[derive(Default)]
struct Keys {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

impl Keys {
    fn of(&mut self, key: String) -> usize {
        let names = &mut self.names;
        *self.index.entry(key).or_insert_with_key(|key| {
            names.push(key.clone());
            names.len() - 1
        })
    }
}

/// Emits each object with the keys so far, until `emit` returns false. Returns whether the end was reached, and all keys.
pub(super) fn walk(
    path: &Path,
    encoding: Option<&str>,
    emit: &mut dyn FnMut(&[String], Record) -> Result<bool>,
) -> Result<(bool, Vec<String>)> {
    let mut source = BufReader::new(Decoded::open(path, encoding)?);
    let (first, line) = first_byte(path, &mut source)?;
    let mut keys = Keys::default();
    let mut emit_object = |place: String, object: Ordered<Box<RawValue>>| {
        let mut cells = Vec::with_capacity(object.entries().len());
        for (key, value) in object.into_entries() {
            let cell = match value.get().starts_with('"') {
                true => Cell::Text(serde_json::from_str(value.get()).map_err(|e| Error::file(path, &place, e))?),
                false => Cell::Json(value.get().to_string()),
            };
            cells.push((keys.of(key), cell));
        }
        emit(&keys.names, Record { place, cells })
    };
    let ended = match first {
        Some(b'[') => list(path, source, line, &mut emit_object)?,
        _ => lines(path, source, line, &mut emit_object)?,
    };
    Ok((ended, keys.names))
}

type EmitObject<'a> = dyn FnMut(String, Ordered<Box<RawValue>>) -> Result<bool> + 'a;

/// The first byte that is no white space, `None` if there is none, and its line. The white space is consumed.
fn first_byte(path: &Path, source: &mut impl BufRead) -> Result<(Option<u8>, usize)> {
    let mut line = 1;
    loop {
        let part = source.fill_buf().map_err(|e| cause(path, e))?;
        let blank = part.iter().take_while(|b| b.is_ascii_whitespace()).count();
        line += part[..blank].iter().filter(|&&b| b == b'\n').count();
        if blank < part.len() || part.is_empty() {
            return Ok((part.get(blank).copied(), line)).inspect(|_| source.consume(blank));
        }
        source.consume(blank);
    }
}

/// One object a line.
fn lines(path: &Path, mut source: impl BufRead, mut line: usize, emit: &mut EmitObject) -> Result<bool> {
    let mut text = Vec::new();
    while source.by_ref().take(LONGEST_ROW + 1).read_until(b'\n', &mut text).map_err(|e| cause(path, e))? > 0 {
        if text.len() as u64 > LONGEST_ROW {
            return Err(too_long(path, line as u64));
        }
        if !String::from_utf8_lossy(&text).trim().is_empty() {
            let place = format!("line {line}");
            let object = serde_json::from_slice(text.strip_suffix(b"\n").unwrap_or(&text))
                .map_err(|e| Error::file(path, &place, format_args!("not a JSON object (column {}: {e})", e.column())))?;
            if !emit(place, object)? {
                return Ok(false);
            }
        }
        line += 1;
        text.clear();
    }
    Ok(true)
}

/// A list of objects.
fn list(path: &Path, source: impl BufRead, line: usize, emit: &mut EmitObject) -> Result<bool> {
    let mut stopped = None;
    let place = Rc::new(Place::default());
    let source = Rows { from: source, path: path.to_path_buf(), before: line as u64 - 1, place: place.clone() };
    let mut reader = serde_json::Deserializer::from_reader(source);
    let all = Objects { emit, place: &place, stopped: &mut stopped }.deserialize(&mut reader).and_then(|()| reader.end());
    match (stopped, all) {
        (Some(stop), _) => stop.map(|()| false),
        (None, Ok(())) => Ok(true),
        (None, Err(e)) if e.is_io() => Err(cause(path, e.into())),
        (None, Err(e)) => {
            Err(Error::file(path, format_args!("line {}", line - 1 + e.line()), format_args!("not a list of JSON objects ({e})")))
        }
    }
}

/// Emits the objects of a list while it is read.
struct Objects<'a, 'e> {
    emit: &'a mut EmitObject<'e>,
    /// Where the reader is.
    place: &'a Place,
    /// Why it was not read to its end.
    stopped: &'a mut Option<Result<()>>,
}

impl<'de> DeserializeSeed<'de> for Objects<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let mut number = 0;
        while let Some(object) = list.next_element()? {
            number += 1;
            match (self.emit)(format!("object {number}"), object) {
                Ok(true) => self.place.next_row(),
                other => {
                    *self.stopped = Some(other.map(drop));
                    return Err(A::Error::custom("stopped"));
                }
            }
        }
        Ok(())
    }
}
