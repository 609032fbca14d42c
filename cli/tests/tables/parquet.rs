//! Parquet tables, in a program with the feature `parquet`.

use super::{ADDED, Folder, assert_answer, csv_of, records, texts};
use ::parquet::basic::{Compression, Type as Physical};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::sync::Arc;

const SCHEMA: &str = "message other {
    optional int32 day (DATE);
    required binary text (UTF8);
    optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    required int64 at (TIMESTAMP(MICROS, true));
    required float f;
}";

/// A file with two row groups, of 3 and 2 rows.
fn typed(dir: &Folder, name: &str, compression: Compression) {
    let properties = WriterProperties::builder().set_compression(compression).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(dir.path(name)).unwrap(), schema, Arc::new(properties)).unwrap();
    let bytes = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    for (texts, days, at) in [(&["good film", "a bad plot", "not fine"][..], vec![19_000, 7], 5), (&["", "very dull"][..], vec![-1], 6)] {
        let n = texts.len();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        // The second day is missing; the first row has two tags, the others have no list.
        column.typed::<Int32Type>().write_batch(&days, Some(&[1, 0, 1][..n]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes(texts), None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let (levels, repeated) = ([3, 3, 0, 0], [0, 1, 0, 0]);
        column.typed::<ByteArrayType>().write_batch(&bytes(&["x", "y"]), Some(&levels[..n + 1]), Some(&repeated[..n + 1])).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[at, at + 1, i64::from(i32::MAX) * 1_000_000][..n], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<FloatType>().write_batch(&[0.1, 1e20, -2.5][..n], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn open(dir: &Folder, name: &str) -> (SerializedFileReader<File>, Vec<Row>) {
    let file = SerializedFileReader::new(File::open(dir.path(name)).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    (file, rows)
}

fn answers(rows: &[Row], skip: usize) -> Vec<Vec<Field>> {
    rows.iter().map(|row| row.get_column_iter().skip(skip).map(|(_, field)| field.clone()).collect()).collect()
}

#[test]
fn columns_of_parquet_keep_their_types() {
    let dir = Folder::new();
    for (name, compression) in
        [("plain", Compression::UNCOMPRESSED), ("snappy", Compression::SNAPPY), ("gzip", Compression::GZIP(Default::default()))]
    {
        typed(&dir, &format!("{name}.parquet"), compression);
        dir.ok(&format!("--data {name}.parquet --out {name}-out.parquet"));
        let ((old, before), (new, after)) = (open(&dir, &format!("{name}.parquet")), open(&dir, &format!("{name}-out.parquet")));
        let [old_fields, new_fields] = [&old, &new].map(|file| file.metadata().file_metadata().schema().get_fields());
        assert_eq!(new_fields[..5], *old_fields);
        assert_eq!(new_fields[5..].iter().map(|field| field.name()).collect::<Vec<_>>(), ADDED);
        assert_eq!(new_fields[6].get_physical_type(), Physical::DOUBLE);
        assert_eq!(new.metadata().row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [3, 2]);
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old.get_column_iter().collect::<Vec<_>>(), new.get_column_iter().take(5).collect::<Vec<_>>());
        }
        let expected = dir.answers(&["good film", "a bad plot", "not fine", "", "very dull"]);
        assert_eq!(after.len(), 5);
        for (row, answer) in answers(&after, 5).iter().zip(&expected) {
            let number = |field: &Field| if let Field::Double(number) = field { json!(number) } else { panic!("{field}") };
            assert_eq!((&row[0], number(&row[1])), (&Field::Str(answer["label"].as_str().unwrap().into()), answer["probability"].clone()));
            assert_eq!(json!(row[2..].iter().map(number).collect::<Vec<_>>()), answer["probabilities"]);
        }
    }
    // As other formats: dates and times are texts, numbers have the digits of their type.
    dir.ok("--data gzip.parquet --out out.jsonl");
    let first: Value = serde_json::from_str(dir.read("out.jsonl").lines().next().unwrap()).unwrap();
    assert!(dir.read("out.jsonl").starts_with("{\"day\": \"2022-01-08\", \"text\": \"good film\", \"tags\": [\"x\",\"y\"], \"at\": "));
    assert_eq!(first["f"].to_string(), "0.1");
    dir.ok("--data snappy.parquet --out out.csv");
    let table = records(&dir.read("out.csv"), b',');
    assert_eq!((&table[2][..3], table[2][4].as_str()), (&["".to_string(), "a bad plot".into(), "".into()][..], "1e+20"));
    assert_eq!(table.len(), 6);
}

#[test]
fn other_tables_become_parquet() {
    let dir = Folder::new();
    let texts = texts();
    dir.write("a.csv", csv_of(&texts, b',', false));
    dir.ok("--data a.csv --out a.parquet");
    dir.ok("--data a.csv --out direct.csv");
    dir.ok("--data a.parquet --out back.csv");
    let (direct, back) = (records(&dir.read("direct.csv"), b','), records(&dir.read("back.csv"), b','));
    for (direct, back) in direct.iter().zip(&back).skip(1) {
        // The answers of the first pass are columns of the second.
        assert_eq!((&back[..8], &back[8..]), (&direct[..], &direct[3..]));
    }
    assert_eq!((direct.len(), back.len()), (9, 9));
    assert_answer(&back[3][8..], &dir.answers(&[&texts[2]])[0]);
    // A JSON column that has only numbers or truth values is one in Parquet.
    let rows = [
        "{\"text\": \"good\", \"n\": 1, \"x\": 2, \"b\": true, \"mixed\": 1, \"deep\": {\"k\": [1]}, \"huge\": 18446744073709551615, \"both\": 9007199254740993}",
        "{\"text\": \"bad\", \"n\": -9007199254740993, \"x\": 0.5, \"b\": null, \"mixed\": \"one\", \"both\": 1.5}",
    ];
    dir.write("a.jsonl", rows.join("\n"));
    dir.ok("--data a.jsonl --out b.parquet");
    let (file, rows) = open(&dir, "b.parquet");
    let types: Vec<Physical> = file.metadata().file_metadata().schema().get_fields()[..6].iter().map(|f| f.get_physical_type()).collect();
    let (text, second) = (Physical::BYTE_ARRAY, &rows[1]);
    assert_eq!(types, [text, Physical::INT64, Physical::DOUBLE, Physical::BOOLEAN, text, text]);
    let second: Vec<&Field> = second.get_column_iter().map(|(_, field)| field).take(6).collect();
    let word = |text: &str| Field::Str(text.into());
    assert_eq!(second, [&word("bad"), &Field::Long(-9007199254740993), &Field::Double(0.5), &Field::Null, &word("one"), &Field::Null]);
    assert_eq!(rows[0].get_column_iter().nth(5).unwrap().1, &word("{\"k\": [1]}"));
    // A number that no type has exactly keeps its digits as a text.
    let digits: Vec<&Field> = rows[0].get_column_iter().map(|(_, field)| field).skip(6).take(2).collect();
    assert_eq!(digits, [&word("18446744073709551615"), &word("9007199254740993")]);
    dir.write("none.csv", "text,id\n");
    dir.ok("--data none.csv --out none.parquet");
    assert_eq!(open(&dir, "none.parquet").1.len(), 0);
}

#[test]
fn pairs_are_read_from_parquet() {
    let dir = Folder::new();
    dir.write("a.csv", "other,id,text\nbad film,1,good film\ngood film,2,bad film\n,3,dull\n");
    let pairs = "--text-pair-column other";
    dir.ok(&format!("--data a.csv {pairs} --out a.parquet"));
    dir.ok(&format!("--data a.csv {pairs} --out direct.csv"));
    // Once with all columns decoded, once with the texts alone.
    dir.ok(&format!("--data a.parquet {pairs} --out back.csv"));
    dir.ok(&format!("--data a.parquet {pairs} --out copied.parquet"));
    let (direct, back) = (records(&dir.read("direct.csv"), b','), records(&dir.read("back.csv"), b','));
    assert!(direct[1][3..] != direct[2][3..], "the order of the texts counts");
    for (i, (direct, back)) in direct.iter().zip(&back).enumerate().skip(1) {
        assert_eq!((&back[..8], &back[8..]), (&direct[..], &direct[3..]));
        let copied: Vec<String> = open(&dir, "copied.parquet").1[i - 1].get_column_iter().map(|(_, field)| field.to_string()).collect();
        let old: Vec<String> = open(&dir, "a.parquet").1[i - 1].get_column_iter().map(|(_, field)| field.to_string()).collect();
        assert_eq!((&copied[..8], &copied[8..]), (&old[..], &old[3..]));
    }
    assert_eq!((direct.len(), back.len()), (4, 4));
    dir.refused("--data a.parquet --text-pair-column third --out no.csv", &["no column third", "--text-pair-column"]);
}

/// Copies a file, with `claimed` as the compression of one of its columns.
fn claim(dir: &Folder, from: &str, to: &str, column: usize, claimed: Compression) {
    let (old, _) = open(dir, from);
    let schema = old.metadata().file_metadata().schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(File::create(dir.path(to)).unwrap(), schema, Default::default()).unwrap();
    for group in old.metadata().row_groups() {
        let mut out = writer.next_row_group().unwrap();
        for (i, chunk) in group.columns().iter().enumerate() {
            let mut metadata = chunk.clone();
            if i == column {
                metadata = metadata.into_builder().set_compression(claimed).build().unwrap();
            }
            let close = ColumnCloseResult {
                bytes_written: chunk.compressed_size() as u64,
                rows_written: group.num_rows() as u64,
                metadata,
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            };
            out.append_column(&File::open(dir.path(from)).unwrap(), close).unwrap();
        }
        out.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn what_cannot_be_read_is_refused() {
    let dir = Folder::new();
    typed(&dir, "a.parquet", Compression::UNCOMPRESSED);
    let zstd = Compression::ZSTD(Default::default());
    claim(&dir, "a.parquet", "text.parquet", 1, zstd);
    let says = ["text.parquet: column \"text\": is compressed with ZSTD, which this program cannot read", "snappy"];
    dir.refused("--data text.parquet --out out.parquet", &says);
    dir.refused("--data text.parquet --out out.csv", &says);
    claim(&dir, "a.parquet", "day.parquet", 0, zstd);
    dir.refused("--data day.parquet --out out.csv", &["column \"day\"", "ZSTD"]);
    // Columns that are copied are not decoded.
    dir.ok("--data day.parquet --out copied.parquet");
    dir.refused("--data a.parquet --text-column day --out out.csv", &["row 1: \"day\" is not a string"]);
    dir.refused("--data a.parquet --text-column body --out out.csv", &["no column body", "day, text, tags"]);
    dir.refused("--data a.parquet --encoding latin1 --out out.csv", &["--encoding", "UTF-8"]);
    dir.write("b.csv", "text,a,a\nx,1,2\n");
    dir.refused("--data b.csv --out out.parquet", &["column \"a\" is there twice"]);
    // A file that is cut off or changed is an error, or a table, and never a crash.
    let bytes = fs::read(dir.path("a.parquet")).unwrap();
    for i in (0..bytes.len()).step_by(23) {
        let mut changed = bytes.clone();
        match i % 2 {
            0 => changed.truncate(i),
            _ => changed[i] ^= 0x55,
        }
        dir.write("bad.parquet", &changed);
        let out = dir.run("--data bad.parquet --out bad.csv --overwrite");
        assert!(matches!(out.status.code(), Some(0 | 1)), "{i}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(i % 2 == 1 || String::from_utf8_lossy(&out.stderr).contains("bad.parquet"), "{i}");
    }
}
