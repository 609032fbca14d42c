//! Labelled texts in CSV, TSV and JSON lines.

use super::TableOptions;
use super::source::{Rows, decode};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The extensions of tables.
pub(super) const EXTENSIONS: [&str; 3] = ["csv", "tsv", "jsonl"];

/// Default columns: the first is taken, else the only one of the others that is there.
const TEXT: [&str; 3] = ["text", "review", "sentence"];
const LABEL: [&str; 2] = ["label", "sentiment"];

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Csv,
    Tsv,
    Jsonl,
}

impl Kind {
    /// By extension.
    pub fn of(path: &Path) -> Option<Kind> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        let kinds = [Kind::Csv, Kind::Tsv, Kind::Jsonl];
        EXTENSIONS.iter().zip(kinds).find(|(e, _)| **e == extension).map(|(_, kind)| kind)
    }
}

/// The rows of a table.
pub(super) fn read(path: &Path, options: &TableOptions) -> Result<Rows> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    match Kind::of(path) {
        Some(Kind::Jsonl) => read_jsonl(path, &bytes, options),
        kind => read_csv(path, &bytes, options, kind == Some(Kind::Tsv)),
    }
}

fn read_csv(path: &Path, bytes: &[u8], options: &TableOptions, tabs: bool) -> Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).quoting(!tabs).from_reader(bytes);
    let header = reader.byte_headers().map_err(|e| malformed(path, bytes, tabs, &e))?.clone();
    let header: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
    let header: Vec<&str> = header.iter().map(|name| name.trim()).collect();
    let (text, label) = columns(path, &header, options)?;
    let place = |name: &str| header.iter().position(|h| *h == name).unwrap_or_default();
    let (text, label) = (place(text), place(label));
    let mut rows = Rows::default();
    let mut record = csv::ByteRecord::new();
    let (mut line, mut counted) = (1, 0);
    while reader.read_byte_record(&mut record).map_err(|e| malformed(path, bytes, tabs, &e))? {
        let start = start(bytes, record.position());
        line += line_breaks(&bytes[counted..start]);
        counted = start;
        let name = String::from_utf8_lossy(&record[label]).trim().to_string();
        if name.is_empty() {
            return Err(Error::file(path, format_args!("line {line}"), "the label is empty"));
        }
        let (text, lossy) = decode(record[text].to_vec());
        rows.push(format!("line {line}"), text, &name, lossy);
    }
    if !tabs && is_unclosed(&bytes[counted..]) {
        return Err(Error::file(path, format_args!("line {line}"), "a quoted field is never closed"));
    }
    Ok(rows)
}

/// Byte at which a record starts. The reader's own position, and so its line, may stand before the line breaks that precede the record.
fn start(bytes: &[u8], position: Option<&csv::Position>) -> usize {
    let from = position.map_or(0, |p| p.byte() as usize).min(bytes.len());
    from + bytes[from..].iter().take_while(|&&b| b == b'\r' || b == b'\n').count()
}

fn line_breaks(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b == b'\n').count()
}

fn malformed(path: &Path, bytes: &[u8], tabs: bool, error: &csv::Error) -> Error {
    let line = 1 + line_breaks(&bytes[..start(bytes, error.position())]);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let hint = if tabs { "a field holds no tab and no line break" } else { "quote fields that hold commas or line breaks" };
            let problem = format_args!("{len} fields where the header has {expected_len}; {hint}");
            Error::file(path, format_args!("line {line}"), problem)
        }
        _ => Error::file(path, format_args!("line {line}"), error),
    }
}

/// Whether a last record that spans several lines ends within quotes: it has swallowed the rest of the file.
fn is_unclosed(record: &[u8]) -> bool {
    record.trim_ascii().contains(&b'\n') && record.iter().filter(|&&b| b == b'"').count() % 2 == 1
}

fn read_jsonl(path: &Path, bytes: &[u8], options: &TableOptions) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut keys: Option<(String, String)> = None;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let name = format!("line {}", i + 1);
        let decoded = String::from_utf8_lossy(line);
        let row: Map<String, Value> = serde_json::from_str(&decoded)
            .map_err(|e| Error::file(path, &name, format_args!("not a JSON object (column {}: {e})", e.column())))?;
        if keys.is_none() {
            let found: Vec<&str> = row.keys().map(String::as_str).collect();
            let (text, label) = columns(path, &found, options)?;
            keys = Some((text.to_string(), label.to_string()));
        }
        let Some((text_key, label_key)) = &keys else { continue };
        let Some(Value::String(text)) = row.get(text_key) else {
            return Err(Error::file(path, name, format_args!("{text_key:?} is not a string")));
        };
        let label = match row.get(label_key) {
            Some(Value::String(s)) => s.trim().to_string(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            _ => String::new(),
        };
        if label.is_empty() {
            return Err(Error::file(path, name, format_args!("{label_key:?} is not a label: expected a text, a number, true or false")));
        }
        rows.push(name, text.clone(), &label, matches!(decoded, std::borrow::Cow::Owned(_)));
    }
    Ok(rows)
}

/// Names of the text and the label column.
fn columns<'a>(path: &Path, header: &[&'a str], options: &TableOptions) -> Result<(&'a str, &'a str)> {
    let text = column(path, header, "text", options.text_column.as_deref(), &TEXT)?;
    let label = column(path, header, "label", options.label_column.as_deref(), &LABEL)?;
    if text == label {
        return Err(Error::file(path, "header", format_args!("the text and the label are both the column {text:?}")));
    }
    Ok((text, label))
}

fn column<'a>(path: &Path, header: &[&'a str], what: &str, given: Option<&str>, defaults: &[&str]) -> Result<&'a str> {
    let fail = |problem: String| {
        let there = header.join(", ");
        Err(Error::file(path, "header", format_args!("{problem}; the columns are {there}: name the {what} column")))
    };
    let wanted = given.map_or_else(|| defaults.to_vec(), |name| vec![name]);
    let found: Vec<&str> = header.iter().copied().filter(|name| wanted.contains(name)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => fail(format!("there is no column {}", wanted.join(" or "))),
        // The first default wins unless it stands there twice.
        several => match several.iter().filter(|name| **name == wanted[0]).collect::<Vec<_>>().as_slice() {
            [one] => Ok(one),
            _ => fail(format!("several columns may hold the {what}: {}", several.join(", "))),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Dataset, Split, TableOptions, load, load_with_labels};
    use crate::{Error, Result};

    fn read(name: &str, bytes: impl AsRef<[u8]>, options: &TableOptions) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        load(&path, Split::Train, options)
    }

    fn error(name: &str, bytes: impl AsRef<[u8]>) -> String {
        let message = read(name, bytes, &TableOptions::default()).map_err(|e: Error| e.to_string()).unwrap_err();
        assert!(message.contains(name), "{message}");
        message
    }

    fn plain(name: &str, bytes: impl AsRef<[u8]>) -> Dataset {
        read(name, bytes, &TableOptions::default()).unwrap()
    }

    #[test]
    fn reads_csv() {
        let d = plain(
            "a.csv",
            b"\xef\xbb\xbfid,review,sentiment\r\n1,\"two\nlines, \"\"quoted\"\"\",positive\r\n2,it\xff is 12\" long,negative\r\n",
        );
        assert_eq!(d.texts, ["two\nlines, \"quoted\"", "it\u{fffd} is 12\" long"]);
        assert_eq!((d.labels, d.lossy), (vec![1, 0], 1));
        assert_eq!(
            (d.label_names, d.names),
            (vec!["negative".to_string(), "positive".into()], vec!["line 2".to_string(), "line 4".into()])
        );
    }

    #[test]
    fn tsv_is_literal() {
        let d = plain("a.tsv", "label\ttext\n10\t\"Hex County\" is\n9\t\"open\n");
        assert_eq!((d.texts, d.labels), (vec!["\"Hex County\" is".to_string(), "\"open".into()], vec![1, 0]));
        assert!(error("a.tsv", "text\tlabel\n\"a\nb\"\t1\n").contains("line 2: 1 fields where the header has 2; a field holds no tab"));
    }

    #[test]
    fn reads_jsonl() {
        let d = plain("a.jsonl", b"{\"text\": \"a\", \"label\": 1}\n\n{\"label\": 0, \"text\": \"b\xff\", \"more\": []}\r\n");
        assert_eq!((d.texts, d.labels, d.lossy), (vec!["a".to_string(), "b\u{fffd}".into()], vec![1, 0], 1));
        assert_eq!(d.names, ["line 1", "line 3"]);
        assert_eq!(plain("a.jsonl", "{\"text\": \"a\", \"label\": true}").label_names, ["true"]);
        assert!(
            error("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": 3, \"label\": 1}").contains("line 2: \"text\" is not a string")
        );
        assert!(error("a.jsonl", "{\"text\": \"a\", \"label\": null}").contains("line 1: \"label\" is not a label"));
        assert!(error("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n[]\n").contains("line 2: not a JSON object"));
        assert!(error("a.jsonl", "{\"txt\": \"a\"}").contains("there is no column text or review or sentence; the columns are txt"));
    }

    #[test]
    fn bad_tables_are_refused_with_the_line() {
        assert!(error("a.csv", "text,label\na,1\n\nb,1,2\n").contains("line 4: 3 fields where the header has 2"));
        assert!(error("a.csv", "text,label\na, \n").contains("line 2: the label is empty"));
        assert!(error("a.csv", "label,text\n1,a\n1,\"b\n1,c\n").contains("line 3: a quoted field is never closed"));
        assert!(error("a.csv", "text,label\n").contains("holds no text"));
        assert!(error("a.csv", "").contains("there is no column"));
        assert!(error("a.csv", "review,sentence,label\na,b,1\n").contains("several columns may hold the text: review, sentence"));
        assert!(error("a.csv", "text,text,label\na,b,1\n").contains("several columns"));
    }

    #[test]
    fn columns_and_labels_may_be_given() {
        let of = |text: &str, label: &str| TableOptions { text_column: Some(text.into()), label_column: Some(label.into()) };
        let table = "text,sentence,stars\na,b,3\nc,d,5\n";
        assert_eq!(read("a.csv", table, &of("sentence", "stars")).unwrap().texts, ["b", "d"]);
        assert!(read("a.csv", table, &of("body", "stars")).unwrap_err().to_string().contains("no column body"));
        assert!(read("a.csv", table, &of("text", "text")).unwrap_err().to_string().contains("both the column"));
        assert_eq!(plain("a.csv", "sentence,text,label\na,b,1\n").texts, ["b"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.csv");
        std::fs::write(&path, table).unwrap();
        let known = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|s| s.to_string()).collect();
            load_with_labels(&path, Split::Test, &of("text", "stars"), Some(&names))
        };
        assert_eq!(known(&["5", "4", "3"]).unwrap().labels, [2, 0]);
        let message = known(&["1", "3"]).unwrap_err().to_string();
        assert!(message.contains("test.csv: line 3: the label \"5\" is unknown; the training split has 1, 3"), "{message}");
    }
}
