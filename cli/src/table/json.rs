//! Writes JSON objects, one a line or in a list.

use super::{Answer, Column, Stream};
use lowrank::Result;
use lowrank::data::{Cell, Record};
use serde_json::json;

/// A JSON file.
pub struct Sink<'a> {
    out: Stream<'a>,
    list: bool,
    /// The names of the columns, and then of the answers, as JSON.
    names: Vec<String>,
    columns: usize,
    rows: usize,
}

impl<'a> Sink<'a> {
    /// A file with one object a line, or with a `list` of objects.
    pub fn new(out: Stream<'a>, list: bool, columns: &[String], added: &[Column]) -> Sink<'a> {
        let names = columns.iter().chain(added.iter().map(|column| &column.name)).map(|name| json!(name).to_string());
        Sink { out, list, names: names.collect(), columns: columns.len(), rows: 0 }
    }
}

impl super::Sink for Sink<'_> {
    fn row(&mut self, record: Record, answers: Vec<Answer>) -> Result<()> {
        let own = record.cells.into_iter().map(|(column, cell)| {
            let value = match cell {
                Cell::Text(text) => json!(text).to_string(),
                // An object may go over several lines.
                Cell::Json(value) => one_line(value),
            };
            format!("{}: {value}", self.names[column])
        });
        let answers = answers.into_iter().zip(&self.names[self.columns..]).map(|(answer, name)| {
            let value = match answer {
                Answer::Text(text) => json!(text),
                Answer::Number(number) => json!(number),
                Answer::Texts(texts) => json!(texts),
            };
            format!("{name}: {value}")
        });
        let object = own.chain(answers).collect::<Vec<_>>().join(", ");
        let (before, after) = match (self.list, self.rows) {
            (false, _) => ("", "\n"),
            (true, 0) => ("[\n", ""),
            (true, _) => (",\n", ""),
        };
        self.rows += 1;
        self.out.write(format!("{before}{{{object}}}{after}").as_bytes())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.list {
            self.out.write(if self.rows == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.finish()
    }
}

/// A JSON value without line breaks: outside of strings they are white space, and strings have none.
fn one_line(value: String) -> String {
    if value.contains(['\n', '\r']) { value.replace(['\n', '\r'], " ") } else { value }
}
