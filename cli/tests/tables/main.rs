//! `predict --data`: tables in, tables out.

#[cfg(feature = "parquet")]
mod parquet;

use flate2::read::MultiGzDecoder;
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::{DType, safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const WORDS: [&str; 16] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "dull", "fine", "film", "plot", "a", "very", "not", "it", "was"];

/// A folder with a random model of three classes, `model`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers) = (16, 2, 32, 1);
        (config.vocab_size, config.max_position_embeddings, config.initializer_range) = (WORDS.len(), 24, 0.3);
        let model = DistilBert::random(&config, 3, DType::F32, 7).unwrap();
        let tensors: Vec<_> = model.weights().iter().map(|w| (w.name().to_string(), w.value().unwrap())).collect();
        let mut json = serde_json::to_value(&config).unwrap();
        json["id2label"] = json!({ "0": "bad, really", "1": "good", "2": "\u{fc}ber" });
        fs::create_dir(folder.path("model")).unwrap();
        folder.write("model/config.json", json.to_string());
        folder.write("model/vocab.txt", WORDS.join("\n"));
        safetensors::write(&folder.path("model/model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The text of a file, which may be packed.
    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap();
        let mut text = String::new();
        match name.ends_with(".gz") {
            true => MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).map(drop).unwrap(),
            false => text = String::from_utf8(bytes).unwrap(),
        }
        text
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
        command.current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command.args(["--threads", "1", "predict", "--model", "model"]).args(arguments.split_whitespace());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard error.
    fn ok(&self, arguments: &str) -> String {
        let out = self.run(arguments);
        let noted = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success() && out.stdout.is_empty(), "{arguments}: {noted}");
        noted
    }

    /// The command fails, says all of this, and leaves no file.
    fn refused(&self, arguments: &str, says: &[&str]) {
        let before = self.names();
        let out = self.run(arguments);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(matches!(out.status.code(), Some(1 | 2)), "{arguments}: {said}");
        says.iter().for_each(|text| assert!(said.contains(text), "{arguments} should say {text}: {said}"));
        assert_eq!(self.names(), before, "{arguments}");
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "cache");
        names.sort();
        names
    }

    /// The answers of `predict` to the texts, one after another.
    fn answers(&self, texts: &[&str]) -> Vec<Value> {
        let out = self.command("--json").args(texts).output().unwrap();
        let all: Value = serde_json::from_slice(&out.stdout).unwrap();
        all["predictions"].as_array().unwrap().clone()
    }
}

/// The texts of most tables here: line breaks, delimiters, quotation marks, nothing at all, and more tokens than the model has positions for.
fn texts() -> Vec<String> {
    let long = "very ".repeat(40) + "dull";
    let texts =
        ["good film", "a \"fine\" plot", "bad, dull; and\tlong", "two\nlines", "two\r\nlines", "", "it was \u{e9}\u{1f600} fine", &long];
    texts.map(String::from).to_vec()
}

const ADDED: [&str; 5] = ["label", "probability", "p(bad, really)", "p(good)", "p(\u{fc}ber)"];

/// The records of a CSV or TSV file.
fn records(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(String::from).collect()).collect()
}

/// The texts as a table with an identifier before them and a number behind them.
fn csv_of(texts: &[String], delimiter: u8, crlf: bool) -> String {
    let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).terminator(end).from_writer(Vec::new());
    writer.write_record(["id", "Text", "stars, of 5"]).unwrap();
    for (i, text) in texts.iter().enumerate() {
        writer.write_record([format!("00{i}"), text.clone(), format!("{i}.50")]).unwrap();
    }
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

/// A row has the answer's numbers, each with all of its digits.
fn assert_answer(row: &[String], answer: &Value) {
    let numbers: Vec<f64> = row[1..].iter().map(|number| number.parse().unwrap()).collect();
    assert_eq!(row[0], answer["label"].as_str().unwrap());
    assert_eq!(numbers[0], answer["probability"].as_f64().unwrap());
    assert_eq!(json!(numbers[1..]), answer["probabilities"]);
}

#[test]
fn every_column_stays_and_the_answers_are_those_of_predict() {
    let dir = Folder::new();
    let texts = texts();
    let answers = dir.answers(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, delimiter, crlf, mark) in
        [("a.csv", b',', false, false), ("b.csv", b';', true, true), ("c.tsv", b'\t', false, true), ("d.tsv", b'\t', true, false)]
    {
        let table = csv_of(&texts, delimiter, crlf);
        dir.write(name, format!("{}{table}", if mark { "\u{feff}" } else { "" }));
        let out = format!("out-{name}");
        let noted = dir.ok(&format!("--data {name} --out {out}"));
        assert!(noted.contains("8 rows with their answers written to"), "{noted}");
        let written = dir.read(&out);
        assert_eq!(written.starts_with('\u{feff}'), mark, "{name}");
        let written = written.trim_start_matches('\u{feff}');
        assert_eq!(written.contains("\r\n0"), crlf, "{name}: line ends");
        let (old, new) = (records(&table, delimiter), records(written, delimiter));
        assert_eq!(new.len(), 9);
        assert_eq!(new[0], [&["id", "Text", "stars, of 5"][..], &ADDED].concat());
        for ((old, new), answer) in old.iter().zip(&new).skip(1).zip(&answers) {
            assert_eq!(new[..3], old[..], "{name}");
            assert_answer(&new[3..], answer);
        }
        // What was written is a table again. The names are taken.
        let noted = dir.ok(&format!("--data {out} --out again-{name}"));
        assert!(noted.contains("has a column \"label\""), "{noted}");
        let again = dir.read(&format!("again-{name}"));
        let again = records(again.trim_start_matches('\u{feff}'), delimiter);
        for (i, (again, new)) in again.iter().zip(&new).enumerate() {
            assert_eq!(again[..8], new[..], "{name}");
            let names = ADDED.map(|name| format!("predicted_{name}"));
            assert_eq!(again[8..], if i == 0 { names.to_vec() } else { new[3..].to_vec() });
        }
        dir.refused(&format!("--data again-{name} --out third.csv"), &["predicted_label", "rename or remove them"]);
    }
    // Literal quotation marks, as in GLUE's files, stay literal.
    dir.write("glue.tsv", "id\ttext\n1\tsay \"no\" film\n2\t\"open\n");
    dir.ok("--data glue.tsv --out out.tsv");
    let glue = dir.read("out.tsv");
    assert!(glue.starts_with("id\ttext\tlabel\t") && glue.contains("\n1\tsay \"no\" film\t") && glue.contains("\n2\t\"open\t"), "{glue}");
    // Rows that no encoding spoils, and the plain reading of the same file.
    let listed = dir.run("--file a.csv");
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 8);
}

#[test]
fn formats_may_differ() {
    let dir = Folder::new();
    let texts = texts();
    let answers = dir.answers(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    // Keys in an order of their own, one that only some rows have, and values of every kind with digits that a number would lose.
    let mut lines = String::new();
    for (i, text) in texts.iter().enumerate() {
        let more = if i == 2 { ", \"more\": [1, {\"z\": 1, \"a\": null}]" } else { "" };
        writeln!(lines, "{{\"z\": {i}.10, \"text\": {}, \"big\": 12345678901234567890123, \"none\": null{more}}}", json!(text)).unwrap();
    }
    dir.write("a.jsonl", &lines);
    dir.ok("--data a.jsonl --out b.jsonl.gz");
    let written = dir.read("b.jsonl.gz");
    for ((line, old), answer) in written.lines().zip(lines.lines()).zip(&answers) {
        let kept = old.strip_suffix('}').unwrap();
        assert!(line.starts_with(&format!("{kept}, \"label\": {}, \"probability\": ", answer["label"])), "{line}");
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&row["probability"], &row["p(good)"]), (&answer["probability"], &answer["probabilities"][1]));
    }
    assert_eq!(written.lines().count(), 8);
    // A list of objects, over several lines.
    let list = format!("\n[{}]", lines.trim_end().replace('\n', ",\n").replace("[1, {", "[1,\n {"));
    dir.write("list.json", &list);
    dir.ok("--data list.json --out out.json");
    let rows: Vec<Value> = serde_json::from_str(&dir.read("out.json")).unwrap();
    assert_eq!((rows.len(), &rows[3]["text"], &rows[3]["label"]), (8, &json!("two\nlines"), &answers[3]["label"]));
    // Columns of a file of fields: all keys, in the order in which they appear first.
    dir.ok("--data b.jsonl.gz --out c.tsv.gz");
    let table = records(&dir.read("c.tsv.gz"), b'\t');
    let predicted = ADDED.map(|name| format!("predicted_{name}"));
    let names: Vec<String> =
        ["z", "text", "big", "none"].into_iter().chain(ADDED).map(String::from).chain(["more".into()]).chain(predicted).collect();
    assert_eq!(table[0], names);
    assert_eq!(table[3][..4], ["2.10", "bad, dull; and\tlong", "12345678901234567890123", ""]);
    assert_eq!((table[3][9].as_str(), table[4][9].as_str()), ("[1, {\"z\": 1, \"a\": null}]", ""));
    assert_answer(&table[3][10..], &answers[2]);
    // And the other way round: a field of CSV is a text.
    dir.write("d.csv", csv_of(&texts, b',', false));
    dir.ok("--data d.csv --out d.jsonl");
    let first = dir.read("d.jsonl");
    assert!(first.starts_with("{\"id\": \"000\", \"Text\": \"good film\", \"stars, of 5\": \"0.50\", \"label\": "), "{first}");
    // A name with two columns is no key.
    dir.write("twice.csv", "text,a,a\ngood,1,2\n");
    dir.ok("--data twice.csv --out twice-out.csv");
    dir.refused("--data twice.csv --out twice.jsonl", &["column \"a\" is there twice"]);
    // Without rows, the header is all.
    dir.write("empty.csv", "text,id\n");
    dir.ok("--data empty.csv --out header.csv");
    assert_eq!(records(&dir.read("header.csv"), b',')[0].len(), 7);
    dir.ok("--data empty.csv --out none.json");
    assert_eq!(dir.read("none.json"), "[]\n");
}

#[test]
fn encodings_are_read_and_utf_8_is_written() {
    let dir = Folder::new();
    dir.write("latin.csv", b"text,by\nsch\xf6n film,M\xfcller\n");
    dir.ok("--data latin.csv --encoding windows-1252 --out latin-out.csv");
    assert!(dir.read("latin-out.csv").contains("\nsch\u{f6}n film,M\u{fc}ller,"));
    let table = "\u{feff}text\tby\r\nsch\u{f6}n film\tM\u{fc}ller\r\n";
    let wide: Vec<u8> = table.encode_utf16().flat_map(u16::to_le_bytes).collect();
    dir.write("wide.tsv", wide);
    dir.ok("--data wide.tsv --out wide-out.tsv");
    let written = dir.read("wide-out.tsv");
    assert!(written.starts_with("\u{feff}text\tby\tlabel") && written.contains("\r\nsch\u{f6}n film\tM\u{fc}ller\t"), "{written}");
    dir.refused("--data latin.csv --out x.csv", &["latin.csv: line 2: the byte 0xf6 is not UTF-8", "--encoding windows-1252"]);
}

#[test]
fn what_is_malformed_is_named_and_nothing_is_written() {
    let dir = Folder::new();
    for (name, bytes, says) in [
        ("ragged.csv", &b"id,text\n1,good\n\n\"2\n3\",a,b\n"[..], "ragged.csv: line 4: 3 fields where the header has 2"),
        ("short.csv", b"id,text\r\n1,good\r\n2\r\n", "short.csv: line 3: 1 fields where the header has 2"),
        ("open.csv", b"id,text\n1,good\n2,\"bad\n3,fine\n", "open.csv: line 3: a quoted field is never closed"),
        ("body.csv", b"id,body\n1,good\n", "--text-column"),
        ("empty.csv", b"", "empty.csv: file: is empty"),
        ("empty.jsonl", b"\n \n", "empty.jsonl: file: is empty"),
        ("line.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": }\n", "line.jsonl: line 3: not a JSON object"),
        ("missing.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "missing.jsonl: line 2: there is no \"text\""),
        ("number.jsonl", b"{\"text\": \"a\"}\n{\"text\": 1}\n", "number.jsonl: line 2: \"text\" is not a string"),
        ("list.json", b"\n[{\"text\": \"a\"},\n3]", "list.json: line 3: not a list of JSON objects"),
        ("more.json", b"[{\"text\": \"a\"}] x", "more.json: line 1: not a list of JSON objects"),
        ("half.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "half.csv.gz: gzip: the compressed file is damaged or truncated"),
    ] {
        dir.write(name, bytes);
        dir.refused(&format!("--data {name} --out out.csv"), &[says]);
    }
    dir.write("a.csv", "text\ngood\n");
    for (arguments, says) in [
        ("--data a.csv --out a.csv", "is the table that this command reads"),
        ("--data a.csv --out model/x.csv", "lies inside the model"),
        ("--data a.csv --out x.txt", "must end with .csv"),
        ("--data a.txt --out x.csv", "must end with .csv"),
        ("--data a.csv --out half.csv.gz", "exists already: give --overwrite"),
        ("--data none.csv --out x.csv", "none.csv"),
        ("--data a.csv", "--out"),
        ("--out x.csv", "--data"),
        ("--data a.csv --out x.csv --json", "--json"),
        ("--data a.csv --out x.csv --file a.csv", "--file"),
        ("--data a.csv --out x.csv more", "[TEXTS]"),
    ] {
        dir.refused(arguments, &[says]);
    }
    if cfg!(not(feature = "parquet")) {
        dir.refused("--data a.csv --out x.parquet", &["--features parquet"]);
    }
    dir.ok("--data a.csv --out half.csv.gz --overwrite");
    assert!(dir.read("half.csv.gz").starts_with("text,label,"));
}

/// A table of `rows` rows of about a thousand bytes, long and short ones in turn.
fn large(dir: &Folder, name: &str, rows: usize) {
    let mut file = std::io::BufWriter::new(fs::File::create(dir.path(name)).unwrap());
    writeln!(file, "id,text,note").unwrap();
    for i in 0..rows {
        writeln!(file, "{i},{} {}film,{}", WORDS[5 + i % 9], "very ".repeat(i % 7), "x".repeat(1000)).unwrap();
    }
    file.flush().unwrap();
}

/// The most memory of a process that runs: `VmHWM`, in bytes.
#[cfg(target_os = "linux")]
fn most_memory(mut child: Child) -> usize {
    let mut most = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        most = most.max(line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) << 10);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            return most;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_table() {
    let dir = Folder::new();
    for end in ["csv", "jsonl"] {
        let mut most = Vec::new();
        for (name, rows) in [("few", 2_000), ("many", 40_000)] {
            large(&dir, &format!("{name}.csv"), rows);
            let arguments = format!("--data {name}.csv --out {name}-out.{end} --max-length 12 --overwrite --quiet");
            most.push(most_memory(dir.command(&arguments).spawn().unwrap()));
            let text = dir.read(&format!("{name}-out.{end}"));
            assert_eq!(text.lines().count(), rows + usize::from(end == "csv"));
        }
        // The large table has 40 MB more. Twice as many rows as the small table has are in memory at once.
        assert!(most[0] > 4 << 20 && most[1] < most[0] + (24 << 20), "{most:?} bytes");
    }
    // The order, over several buffers, and the numbers of short texts that were computed with others.
    let table = records(&dir.read("many-out.csv"), b',');
    assert!(table.iter().skip(1).enumerate().all(|(i, row)| row[0] == i.to_string() && row[2].len() == 1000));
    let some = [0, 1, 4_095, 4_096, 20_003, 39_999];
    let answers = dir.answers(&some.map(|i| table[i + 1][1].as_str()));
    some.iter().zip(&answers).for_each(|(i, answer)| assert_answer(&table[i + 1][3..], answer));
}

#[cfg(unix)]
#[test]
fn a_stopped_run_leaves_nothing() {
    let dir = Folder::new();
    large(&dir, "many.csv", 60_000);
    let before = dir.names();
    let mut child = dir.command("--data many.csv --out out.csv").stderr(Stdio::piped()).spawn().unwrap();
    // The hidden file is there while rows are computed.
    while !dir.names().iter().any(|name| name.contains(".partial-")) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(130) && said.contains("stopped: nothing was written"), "{said}");
    assert_eq!(dir.names(), before);
}

#[test]
fn windows_and_columns_are_as_asked_for() {
    let dir = Folder::new();
    let long = "good film very dull plot a fine film it was not bad very very good plot";
    dir.write("a.csv", format!("title,body\nx,{long}\n"));
    dir.ok("--data a.csv --text-column body --max-length 6 --truncate tail --windows 3 --out b.csv");
    let row = &records(&dir.read("b.csv"), b',')[1];
    let out = dir.command("--json --max-length 6 --truncate tail --windows 3").arg(long).output().unwrap();
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_answer(&row[2..], &all["predictions"][0]);
    dir.ok("--data a.csv --text-column title --out c.csv");
    assert_ne!(records(&dir.read("c.csv"), b',')[1][3..], row[3..]);
}
