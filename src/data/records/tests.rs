use super::*;
use crate::data::load_texts;
use proptest::prelude::*;
use std::io::Write as _;

fn put(dir: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The rows of a table, or the message without the path.
fn rows(path: &Path, options: &TableOptions) -> std::result::Result<(Records, Vec<Record>), String> {
    let read = || {
        let table = Records::open(path, options, &mut |_| true)?.unwrap();
        let mut all = Vec::new();
        let ended = table.each(&mut |record, text, second| {
            assert_eq!(record.cells.iter().find(|(i, _)| *i == table.texts.text).unwrap().1, Cell::Text(text));
            assert_eq!(second, None);
            all.push(record);
            Ok(true)
        })?;
        assert!(ended && all.len() == table.rows);
        Ok((table, all))
    };
    read().map_err(|e: Error| e.to_string().rsplit_once(&*path.to_string_lossy()).unwrap().1.to_string())
}

fn texts(path: &Path) -> std::result::Result<Vec<String>, String> {
    let (table, rows) = rows(path, &TableOptions::default())?;
    Ok(rows.iter().map(|row| row.text(table.texts.text, "").unwrap().to_string()).collect())
}

/// A text or another field, with everything that has a meaning in a table.
fn field() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab ]{0,3}|\"|,|\t|;|\n|\r\n|\r|\\{|\u{e9}", 0..4).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn rows_are_those_that_were_written(rows in prop::collection::vec((field(), field()), 1..20), tabs: bool, crlf: bool, mark: bool) {
        let dir = tempfile::tempdir().unwrap();
        let delimiter = if tabs { b'\t' } else { b',' };
        let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let bytes = if mark { "\u{feff}".into() } else { Vec::new() };
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).terminator(end).from_writer(bytes);
        writer.write_record(["b", "text"]).unwrap();
        rows.iter().for_each(|(b, text)| writer.write_record([b, text]).unwrap());
        let path = put(&dir, if tabs { "a.tsv" } else { "a.csv" }, writer.into_inner().unwrap());
        let pairs = TableOptions { text_pair_column: Some("b".into()), ..TableOptions::default() };
        let read = load_texts(&path, &pairs).unwrap().unwrap();
        prop_assert_eq!(read.into_iter().map(|row| (row.second.unwrap(), row.text)).collect::<Vec<_>>(), rows.clone());
        prop_assert_eq!(texts(&path).unwrap(), rows.into_iter().map(|(_, text)| text).collect::<Vec<_>>());
    }

    #[test]
    fn so_are_json_objects(rows in prop::collection::vec((field(), field(), any::<bool>()), 1..20), list: bool) {
        let dir = tempfile::tempdir().unwrap();
        let object = |(b, text, first): &(String, String, bool)| {
            let [b, text] = [b, text].map(|text| serde_json::to_string(text).unwrap());
            if *first { format!("{{\"b\": {b}, \"n\": [1], \"text\": {text}}}") } else { format!("{{\"text\": {text}, \"b\": {b}}}") }
        };
        let objects: Vec<String> = rows.iter().map(object).collect();
        let text = if list { format!("\n[{}]", objects.join(",\n")) } else { objects.join("\n\n") };
        let path = put(&dir, "a.json", text);
        let pairs = TableOptions { text_pair_column: Some("b".into()), ..TableOptions::default() };
        let read = load_texts(&path, &pairs).unwrap().unwrap();
        let place = |i: usize| if list { format!("object {}", i + 1) } else { format!("line {}", 2 * i + 1) };
        let wanted: Vec<_> = rows.iter().enumerate().map(|(i, row)| (place(i), row.1.clone(), Some(row.0.clone()))).collect();
        prop_assert_eq!(read.into_iter().map(|row| (row.name, row.text, row.second)).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn rows_have_all_their_columns_and_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(&dir, "a.csv", "\u{feff}id; Text ;c\r\n1;\"two\r\nlines\";x\r\n\r\n\r\n2;b;\r\n");
    let (table, all) = rows(&path, &TableOptions::default()).unwrap();
    assert_eq!((&table.columns[..], table.texts.text, table.mark), (&["id".to_string(), " Text ".into(), "c".into()][..], 1, true));
    assert_eq!(table.style, Some(Style { delimiter: b';', quoting: true, crlf: true }));
    let cell = |text: &str| Cell::Text(text.to_string());
    let row = |place: &str, cells: [&str; 3]| Record { place: place.into(), cells: cells.map(cell).into_iter().enumerate().collect() };
    assert_eq!(all, [row("line 2", ["1", "two\r\nlines", "x"]), row("line 6", ["2", "b", ""])]);

    let path = put(&dir, "a.jsonl", "\n{\"n\": 1.0, \"text\": \"a\\u00e9\"}\n\n{\"text\": \"b\", \"m\": [ 1 ], \"text\": \"c\"}");
    let (table, all) = rows(&path, &TableOptions::default()).unwrap();
    assert_eq!((&table.columns[..], table.style), (&["n".to_string(), "text".into(), "m".into()][..], None));
    let json = |text: &str| Cell::Json(text.to_string());
    assert_eq!(all[0], Record { place: "line 2".into(), cells: vec![(0, json("1.0")), (1, cell("a\u{e9}"))] });
    // Of a key that is there twice, the last value counts.
    assert_eq!(all[1], Record { place: "line 4".into(), cells: vec![(1, cell("c")), (2, json("[ 1 ]"))] });
}

#[test]
fn a_long_file_is_decoded_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    // Characters of two to four bytes lie across the ends of the parts that are read.
    let fields: Vec<String> = (0..9_000).map(|i| format!("{}\u{e9}\u{20ac}\u{1f600}{i}", "x".repeat(i % 7))).collect();
    let table = format!("text\n{}\n", fields.join("\n"));
    assert_eq!(texts(&put(&dir, "a.csv", &table)).unwrap(), fields);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(table.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(texts(&put(&dir, "a.csv.gz", &packed)).unwrap(), fields);
    assert!(texts(&put(&dir, "b.csv.gz", &packed[..packed.len() / 2])).unwrap_err().contains("damaged or truncated"));
    let wide: Vec<u8> = format!("\u{feff}{table}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(texts(&put(&dir, "wide.csv", &wide)).unwrap(), fields);
    let bad = [table.as_bytes(), b"\nabc\xffd\n"].concat();
    assert!(texts(&put(&dir, "bad.csv", &bad)).unwrap_err().starts_with(": line 9003: the byte 0xff is not UTF-8"));
    let broken = table.replace("8999", "8\"9\n99,1");
    assert!(texts(&put(&dir, "broken.csv", broken)).unwrap_err().starts_with(": line 9002: 2 fields where the header has 1"));
    let open = table.replace("xxx\u{e9}\u{20ac}\u{1f600}8893", "\"xxx");
    assert!(texts(&put(&dir, "open.csv", open)).unwrap_err().starts_with(": line 8895: a quoted field is never closed"));
}

#[test]
fn reading_can_be_stopped_and_a_changed_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for (name, table, longer) in [
        ("a.csv", "text\na\nb\nc\n", "text\na\nb\nc\nd\n"),
        ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n", "{\"text\": \"a\", \"more\": 1}\n"),
        ("a.json", "[{\"text\": \"a\"}, {\"text\": \"b\"}, {\"text\": \"c\"}]", "[]"),
    ] {
        let path = put(&dir, name, table);
        let options = TableOptions::default();
        assert!(Records::open(&path, &options, &mut |rows| rows < 2).unwrap().is_none(), "{name}");
        let table = Records::open(&path, &options, &mut |_| true).unwrap().unwrap();
        let mut seen = 0;
        let mut first_two = |_, _, _| {
            seen += 1;
            Ok(seen < 2)
        };
        assert!(!table.each(&mut first_two).unwrap() && seen == 2, "{name}");
        let failed = table.each(&mut |record, _, _| Err(Error::invalid(record.place)));
        assert!(failed.unwrap_err().to_string().ends_with('1') || name == "a.csv");
        put(&dir, name, longer);
        assert!(table.each(&mut |_, _, _| Ok(true)).unwrap_err().to_string().contains("was changed"), "{name}");
    }
}

#[test]
fn a_row_without_end_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = |name: &str, start: &str, fill: u8| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(start.as_bytes()).unwrap();
        (0..65).for_each(|_| packed.write_all(&vec![fill; 1 << 20]).unwrap());
        let path = put(&dir, name, packed.finish().unwrap());
        load_texts(&path, &TableOptions::default()).map(drop).unwrap_err().to_string()
    };
    for (name, start, line) in [
        ("a.csv.gz", "text,label\na,1\n\"b", 3),
        ("a.tsv.gz", "text\tlabel\n\nb\t1\n", 4),
        ("a.jsonl.gz", "{\"text\": \"a\"}\n\n{\"text\": \"", 3),
        ("a.json.gz", "[{\"text\": \"a\"},\n{\"text\": \"a\"},{\"text\": \"", 2),
    ] {
        let message = bomb(name, start, b'a');
        let words = format!("{name}: line {line}: the row that begins here has more than 64 MiB, the limit");
        assert!(message.contains(&words), "{message}");
    }
    let message = bomb("header.csv.gz", "", b'a');
    assert!(message.contains("header.csv.gz: header: has more than 1048576 bytes, the limit"), "{message}");
}

#[test]
fn many_rows_may_be_longer_together_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let text = "a".repeat(1 << 20);
    let object = format!("{{\"text\": \"{text}\"}}");
    for (name, table) in [
        ("a.csv", format!("text\n{}", format!("{text}\n").repeat(66))),
        ("a.jsonl", format!("{object}\n").repeat(66)),
        ("a.json", format!("[{}]", vec![object; 66].join(","))),
    ] {
        let texts = load_texts(&put(&dir, name, table), &TableOptions::default()).unwrap().unwrap();
        assert_eq!(texts.iter().map(|row| row.text.len()).collect::<Vec<_>>(), vec![1 << 20; 66], "{name}");
    }
}

#[test]
fn a_header_and_blank_lines_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let commas = "text,label".to_string() + &",".repeat(1 << 21);
    assert!(texts(&put(&dir, "commas.csv", &commas)).unwrap_err().contains("header: has more than 1048576 bytes"));
    let blank = format!("text,label\n{}a,b\n", "\n".repeat(1 << 21));
    assert!(texts(&put(&dir, "blank.csv", &blank)).unwrap_err().contains("more than 1048576 line breaks before the next row"));
    let few = format!("text,label\n{}a,b\n", "\n".repeat(1 << 10));
    assert_eq!(texts(&put(&dir, "few.csv", &few)).unwrap(), ["a"]);
}

#[test]
fn a_quote_that_is_open_at_the_end_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let found = |text: &str| texts(&put(&dir, "a.csv", text));
    for open in ["label,text\n1,a\n0,\"cut off he", "label,text\n0,\"two\nlines", "label,text\n0,\"a\"\"\n", "label,text\n0,\""] {
        let message = found(open).unwrap_err();
        assert!(message.contains("a quoted field is never closed"), "{open:?}: {message}");
    }
    for closed in
        ["label,text\n0,it is 12\" long", "label,text\n\"two\nlines\",it is 12\" long\n", "label,text\n0,\"a\"\"\"", "label,text\n0,\"\""]
    {
        assert_eq!(found(closed).unwrap().len(), 1, "{closed:?}");
    }
}
