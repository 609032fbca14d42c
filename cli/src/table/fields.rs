//! Writes CSV and TSV files.

use super::{Answer, Column, Stream, present};
use csv::{ByteRecord, QuoteStyle, Terminator, Writer, WriterBuilder};
use lowrank::data::{Record, Style};
use lowrank::{Error, Result};

/// How fields are written: as in the table that was read, if it has the kind of fields that the name promises, else in the common form.
pub fn style(read: Option<Style>, delimiter: u8) -> Style {
    let is_tsv = |delimiter| delimiter == b'\t';
    match read {
        Some(style) if is_tsv(style.delimiter) == is_tsv(delimiter) => style,
        other => Style { delimiter, quoting: true, crlf: other.is_some_and(|style| style.crlf) },
    }
}

/// A CSV or TSV file.
pub struct Sink<'a> {
    out: Stream<'a>,
    style: Style,
    /// Number of columns of the table that is read.
    columns: usize,
}

impl<'a> Sink<'a> {
    /// Writes the header, with a byte order mark before it if `mark`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(out: Stream<'a>, style: Style, mark: bool, columns: &[String], added: &[Column]) -> Result<Sink<'a>> {
        let mut sink = Sink { out, style, columns: columns.len() };
        if mark {
            sink.out.write("\u{feff}".as_bytes())?;
        }
        let names = columns.iter().chain(added.iter().map(|column| &column.name)).map(String::as_str);
        sink.line(names.collect(), "the header")?;
        Ok(sink)
    }

    fn line(&mut self, fields: Vec<&str>, place: &str) -> Result<()> {
        let Style { delimiter, quoting, crlf } = self.style;
        if !quoting && let Some(field) = fields.iter().find(|field| field.contains([char::from(delimiter), '\n', '\r'])) {
            let problem = format!("{place} has {field:?}, and a file whose fields are not quoted cannot hold it: choose .csv or .jsonl");
            return Err(Error::file(&self.out.path, "--out", problem));
        }
        let end = if crlf { Terminator::CRLF } else { Terminator::Any(b'\n') };
        let quotes = if quoting { QuoteStyle::Necessary } else { QuoteStyle::Never };
        let mut writer: Writer<Vec<u8>> =
            WriterBuilder::new().delimiter(delimiter).terminator(end).quote_style(quotes).from_writer(Vec::new());
        let problem = |e: String| Error::file(&self.out.path, "--out", e);
        writer.write_byte_record(&ByteRecord::from(fields)).map_err(|e| problem(e.to_string()))?;
        let bytes = writer.into_inner().map_err(|e| problem(e.to_string()))?;
        self.out.write(&bytes)
    }
}

impl super::Sink for Sink<'_> {
    fn row(&mut self, record: Record, answers: Vec<Answer>) -> Result<()> {
        let mut fields = vec![""; self.columns];
        for (column, cell) in &record.cells {
            fields[*column] = present(cell).unwrap_or_default();
        }
        let answers: Vec<String> = answers.iter().map(Answer::text).collect();
        fields.extend(answers.iter().map(String::as_str));
        self.line(fields, &record.place)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.out.finish()
    }
}
