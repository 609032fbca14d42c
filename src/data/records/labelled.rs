//! The texts and labels of a table.

use super::{Cell, Record, walk};
use crate::data::rows::{Row, Wanted};
use crate::data::table::{Columns, EMPTY_LABEL, TableOptions};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Emits the texts of the rows of a table, with what else is `wanted`.
///
/// # Errors
/// If the file is no table, is damaged or not in the encoding, a row is malformed, or a column is missing. The message has the file and the line.
pub(in crate::data) fn read(path: &Path, options: &TableOptions, wanted: Wanted, emit: &mut dyn FnMut(Row)) -> Result<()> {
    let mut own = |names: &[String], columns: Columns, record: Record| {
        emit(row(names, columns, &record, wanted).map_err(|problem| Error::file(path, &record.place, problem))?);
        Ok(true)
    };
    walk(path, options, wanted, &mut own).map(drop)
}

/// The row of a record, or what is wrong with it.
fn row(names: &[String], Columns { text, second, label }: Columns, record: &Record, wanted: Wanted) -> std::result::Result<Row, String> {
    let text_of = |column: usize| match record.cell(column) {
        None if wanted == Wanted::AsTheyAre => Ok(String::new()),
        _ => record.text(column, &names[column]).map(String::from),
    };
    let (text, second) = (text_of(text)?, second.map(text_of).transpose()?);
    let found = label.and_then(|column| record.cell(column));
    let own = match found {
        Some(Cell::Text(text)) => text.trim().to_string(),
        Some(Cell::Json(value)) if !value.starts_with('{') => {
            serde_json::from_str(value).map_or(String::new(), |value: Value| value.to_string())
        }
        _ => String::new(),
    };
    if let (Some(column), true, Wanted::Labelled) = (label, own.is_empty(), wanted) {
        return Err(match found {
            Some(Cell::Text(_)) => EMPTY_LABEL.to_string(),
            _ => format!("{:?} is not a label: expected a text, a number, true or false", names[column]),
        });
    }
    let lossy = text.contains('\u{fffd}') || second.as_deref().is_some_and(|second| second.contains('\u{fffd}'));
    Ok(Row { name: record.place.clone(), text, second, label: own, lossy })
}
