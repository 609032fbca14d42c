//! What tables of texts have in common: their formats, and their columns.

use super::rows::Wanted;
use crate::{Error, Result};
use std::fmt;
use std::io;
use std::path::Path;

/// Options of reading tables and folders of texts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TableOptions {
    /// Name of the column (or JSON key) with the text. Without it `text`, else the only one of `review` and `sentence`.
    pub text_column: Option<String>,
    /// Name of the column (or JSON key) with the second text of each pair. Without it, each text stands alone.
    pub text_pair_column: Option<String>,
    /// Name of the column (or JSON key) with the label. Without it `label`, else `sentiment`.
    pub label_column: Option<String>,
    /// Encoding of the files, by a name of the WHATWG Encoding Standard such as `windows-1252`. Without it UTF-8, or UTF-16 if a file has
    /// that form.
    pub encoding: Option<String>,
}

/// Part of the key of cached tokens: without pairs, it is the text that it was before there were pairs.
impl fmt::Debug for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut fields = f.debug_struct("TableOptions");
        fields.field("text_column", &self.text_column).field("label_column", &self.label_column).field("encoding", &self.encoding);
        self.text_pair_column.iter().for_each(|column| _ = fields.field("text_pair_column", column));
        fields.finish()
    }
}

/// What is wrong with a row without a label.
pub(super) const EMPTY_LABEL: &str = "the label is empty";

/// The extensions of tables. Each may be followed by `.gz`.
pub(super) const EXTENSIONS: [&str; 5] = ["csv", "tsv", "jsonl", "ndjson", "json"];

/// Default columns: the first if it exists, else the only one of the others that exists.
const TEXT: [&str; 3] = ["text", "review", "sentence"];
const LABEL: [&str; 2] = ["label", "sentiment"];

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Csv,
    Tsv,
    /// One object a line, or a list of objects.
    Json,
}

impl Kind {
    /// The kind of a file, by its extension.
    pub fn of(path: &Path) -> Option<Kind> {
        // The name before the extension need not be UTF-8.
        let name = path.file_name()?.as_encoded_bytes().to_ascii_lowercase();
        match name.strip_suffix(b".gz").unwrap_or(&name).rsplitn(2, |&b| b == b'.').collect::<Vec<_>>()[..] {
            [b"csv", _] => Some(Kind::Csv),
            [b"tsv", _] => Some(Kind::Tsv),
            [end, _] if EXTENSIONS.iter().any(|known| known.as_bytes() == end) => Some(Kind::Json),
            _ => None,
        }
    }
}

/// The first bytes of a file in gzip format.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The error for a file in gzip format that cannot be decompressed.
pub(super) fn damaged(path: &Path, e: &io::Error) -> Error {
    Error::file(path, "gzip", format_args!("the compressed file is damaged or truncated ({e}); make it again"))
}

/// Delimiters that are tried for this extension, in this order.
pub(super) const DELIMITERS_OF_CSV: [u8; 4] = *b",;\t|";
pub(super) const DELIMITERS_OF_TSV: [u8; 4] = *b"\t,;|";

/// The columns that are read of a table, each by its position in the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub text: usize,
    pub second: Option<usize>,
    pub label: Option<usize>,
}

/// The positions of the columns of texts and labels in a header.
///
/// # Errors
/// If one is missing, or is there twice.
pub(super) fn columns(path: &Path, header: &[&str], options: &TableOptions, wanted: Wanted) -> Result<Columns> {
    let (text, second) = text_columns(path, header, options)?;
    if wanted == Wanted::Texts {
        return Ok(Columns { text, second, label: None });
    }
    let label = column(path, header, "label", options.label_column.as_deref(), &LABEL)?;
    if label == text || Some(label) == second {
        return Err(same(path, if label == text { "the text and the label" } else { "the second text and the label" }, header[label]));
    }
    Ok(Columns { text, second, label: Some(label) })
}

/// The positions of the columns of texts in a header: of the text, the column given, or `text`, or the only one of `review` and `sentence`; and of the second
/// text of pairs, if a column is given.
///
/// # Errors
/// If one is missing, is there twice, or both are one column.
pub fn text_columns(path: &Path, header: &[&str], options: &TableOptions) -> Result<(usize, Option<usize>)> {
    let text = column(path, header, "text", options.text_column.as_deref(), &TEXT)?;
    let pair = options.text_pair_column.as_deref();
    let second = pair.map(|given| column(path, header, "text-pair", Some(given), &[])).transpose()?;
    if second == Some(text) { Err(same(path, "the first and the second text", header[text])) } else { Ok((text, second)) }
}

fn same(path: &Path, what: &str, column: &str) -> Error {
    Error::file(path, "header", format_args!("{what} are both the column {column:?}"))
}

/// What is wrong with a row.
pub(super) fn problem(delimiter: u8, error: &csv::Error) -> String {
    let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() else { return error.to_string() };
    let hint = match delimiter {
        b'\t' => "a field holds no tab and no line break, or all such fields are quoted",
        _ => "quote fields that hold the delimiter or line breaks",
    };
    format!("{len} fields where the header has {expected_len}; {hint}")
}

/// The position of the column for `what`: the one `given`, or one of the `defaults`. Case is ignored if no name matches exactly.
fn column(path: &Path, header: &[&str], what: &str, given: Option<&str>, defaults: &[&str]) -> Result<usize> {
    let fail = |problem: String| {
        // What is no header may be a text of any length.
        let short = |name: &&str| name.chars().take(60).collect::<String>();
        let more = if header.len() > 12 { format!(" and {} more", header.len() - 12) } else { String::new() };
        let there = format!("{}{more}", header.iter().take(12).map(short).collect::<Vec<_>>().join(", "));
        Err(Error::file(path, "header", format_args!("{problem}; the columns are {there}: name the {what} column with --{what}-column")))
    };
    let wanted = given.map_or_else(|| defaults.to_vec(), |name| vec![name]);
    let among = |same: fn(&str, &str) -> bool| -> Vec<usize> {
        (0..header.len()).filter(|&i| wanted.iter().any(|wanted| same(header[i], wanted))).collect()
    };
    let mut found = among(|name, wanted| name == wanted);
    if found.is_empty() {
        found = among(|name, wanted| name.to_lowercase() == wanted.to_lowercase());
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => fail(format!("there is no column {}", wanted.join(" or "))),
        // The first default wins, unless it occurs twice.
        several => match several.iter().filter(|&&i| header[i].to_lowercase() == wanted[0].to_lowercase()).collect::<Vec<_>>().as_slice() {
            [one] => Ok(**one),
            _ => {
                fail(format!("several columns may hold the {what}: {}", several.iter().map(|&i| header[i]).collect::<Vec<_>>().join(", ")))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Dataset, Labels, Split, TableOptions, load, load_texts, load_with_labels};
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
            b"\xef\xbb\xbfid,review,sentiment\r\n1,\"two\nlines, \"\"quoted\"\"\",positive\r\n2,it is 12\" long,negative\r\n",
        );
        assert_eq!(d.texts, ["two\nlines, \"quoted\"", "it is 12\" long"]);
        assert_eq!((d.labels, d.lossy), (vec![1, 0], 0));
        assert_eq!(
            (d.label_names, d.names),
            (vec!["negative".to_string(), "positive".into()], vec!["line 2".to_string(), "line 4".into()])
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_name_need_not_be_utf_8() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        for (name, table) in [(&b"\xff.csv"[..], "text,label\na,1\n"), (b"\xff.x.JSONL", "{\"text\": \"a\", \"label\": 1}\n")] {
            let path = dir.path().join(OsStr::from_bytes(name));
            std::fs::write(&path, table).unwrap();
            assert_eq!(load(&path, Split::Train, &TableOptions::default()).unwrap().texts, ["a"]);
        }
        for name in [&b"\xff"[..], b"csv", b"\xff.gz", b"a.csv.\xff"] {
            assert!(super::Kind::of(std::path::Path::new(OsStr::from_bytes(name))).is_none());
        }
    }

    #[test]
    fn tsv_is_literal() {
        let d = plain("a.tsv", "label\ttext\n10\t\"Hex County\" is\n9\t\"open\n");
        assert_eq!((d.texts, d.labels), (vec!["\"Hex County\" is".to_string(), "\"open".into()], vec![1, 0]));
        assert!(error("a.tsv", "text\tlabel\nsay \"a\nb\"\t1\n").contains("line 2: 1 fields where the header has 2; a field holds no tab"));
    }

    #[test]
    fn reads_jsonl() {
        let d = plain("a.jsonl", b"{\"text\": \"a\", \"label\": 1}\n\n{\"label\": 0, \"text\": \"b\", \"more\": []}\r\n");
        assert_eq!((d.texts, d.labels, d.lossy), (vec!["a".to_string(), "b".into()], vec![1, 0], 0));
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
        assert!(error("a.csv", "").contains("is empty"));
        assert!(error("a.json", "{\"text\": {\"0\": \"a\"}, \"label\": {\"0\": 1}}").contains("orient=\"records\""));
        assert!(error("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"label\": 1}").contains("line 2: there is no \"text\""));
        assert!(error("a.csv", "review,sentence,label\na,b,1\n").contains("several columns may hold the text: review, sentence"));
        assert!(error("a.csv", "text,text,label\na,b,1\n").contains("several columns"));
    }

    #[test]
    fn columns_and_labels_may_be_given() {
        let of = |text: &str, label: &str| TableOptions {
            text_column: Some(text.into()),
            label_column: Some(label.into()),
            ..TableOptions::default()
        };
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
            load_with_labels(&path, Split::Test, &of("text", "stars"), &Labels::named(&names))
        };
        assert_eq!(known(&["5", "4", "3"]).unwrap().labels, [2, 0]);
        let message = known(&["1", "3"]).unwrap_err().to_string();
        assert!(message.contains("test.csv: line 3: the label \"5\" is none of the classes 1, 3"), "{message}");
    }

    #[test]
    fn files_are_read_as_people_have_them() {
        let d = plain("a.csv", "Text;LABEL\na, b;1\n\"c; d\";0\n");
        assert_eq!((&d.texts[..], &d.labels[..]), (&["a, b".to_string(), "c; d".into()][..], &[1, 0][..]));
        assert_eq!(plain("a.csv", "Review\tSentiment\na,b\tgood\n").texts, ["a,b"]);
        assert_eq!(plain("a.tsv", "text\tlabel\n\"He said \"\"no\"\"\nand left\"\t1\nb\t0\n").texts, ["He said \"no\"\nand left", "b"]);
        assert_eq!(plain("a.json", "[{\"Text\": \"a\", \"label\": 1},\n {\"Text\": \"b\", \"label\": 0}]").labels, [1, 0]);
        assert_eq!(plain("a.json", "{\"text\": \"a\", \"label\": 1}\n").texts, ["a"]);
        assert!(error("a.json", "[{\"text\": \"a\", \"label\": 1},\n 3]").contains("line 2: not a list of JSON objects"));
        assert!(
            error("a.json", "[{\"text\": \"a\", \"label\": 1}, {\"text\": 2, \"label\": 1}]")
                .contains("object 2: \"text\" is not a string")
        );
        assert!(error("a.csv", b"text,label\na,1\nb\xff,0\n").contains("line 3: the byte 0xff is not UTF-8"));
        let replaced = TableOptions { encoding: Some("utf-8".into()), ..TableOptions::default() };
        assert_eq!(read("a.csv", b"text,label\na,1\nb\xff,0\n", &replaced).unwrap().lossy, 1);
        let wide: Vec<u8> = "\u{feff}text\tlabel\nsch\u{f6}n\t1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(plain("a.tsv", wide).texts, ["sch\u{f6}n"]);
    }

    #[test]
    fn pairs_are_read() {
        let of = |second: &str| TableOptions { text_pair_column: Some(second.into()), ..TableOptions::default() };
        for (name, table) in [
            ("a.csv", "text,other,label\na,b,1\n\"c,\",d,0\n"),
            ("a.tsv", "label\tOther\ttext\n1\tb\ta\n0\td\tc,\n"),
            ("a.jsonl", "{\"text\": \"a\", \"other\": \"b\", \"label\": 1}\n{\"other\": \"d\", \"text\": \"c,\", \"label\": 0}\n"),
        ] {
            let d = read(name, table, &of("other")).unwrap();
            assert_eq!(
                (&d.texts[..], &d.seconds[..], &d.labels[..]),
                (&["a".to_string(), "c,".into()][..], &["b".to_string(), "d".into()][..], &[1, 0][..])
            );
        }
        let error = |table: &str, second: &str| read("a.csv", table, &of(second)).unwrap_err().to_string();
        assert!(
            error("text,label\na,1\n", "b")
                .contains("there is no column b; the columns are text, label: name the text-pair column with --text-pair-column")
        );
        assert!(error("text,label\na,1\n", "Text").contains("the first and the second text are both the column \"text\""));
        assert!(error("text,label\na,1\n", "label").contains("the second text and the label are both"));
        let message = read("a.jsonl", "{\"text\": \"a\", \"b\": 1, \"label\": 1}", &of("b")).unwrap_err().to_string();
        assert!(message.contains("line 1: \"b\" is not a string"), "{message}");
    }

    #[test]
    fn compressed_tables_are_read() {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(b"text,label\na,1\nb,0\n").unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(plain("a.csv.gz", &packed).labels, [1, 0]);
        assert!(error("a.csv.gz", &packed[..packed.len() - 9]).contains("damaged or truncated"));
    }

    #[test]
    fn texts_need_no_labels() {
        let dir = tempfile::tempdir().unwrap();
        let texts = |name: &str, table: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, table).unwrap();
            load_texts(&path, &TableOptions::default())
                .map(|rows| rows.map(|rows| rows.into_iter().map(|row| row.text).collect::<Vec<_>>()))
        };
        assert_eq!(texts("a.csv", "id,Text\n1,a\n2,b\n").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(texts("a.jsonl", "{\"text\": \"a\"}\n").unwrap().unwrap(), ["a"]);
        assert!(texts("a.txt", "a\n").unwrap().is_none());
        assert!(texts("b.csv", "id,body\n1,a\n").unwrap_err().to_string().contains("--text-column"));
    }
}
