//! The truth about data through the program: `data check`, and `train --suspects`.

use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");
const TICKETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tutorial/tickets.csv");

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.current_dir(folder).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).args(arguments.split_whitespace());
    command
}

/// Exit status, standard output and standard error.
fn run(folder: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(folder, arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn ok(folder: &Path, arguments: &str) -> (String, String) {
    let (status, said, noted) = run(folder, arguments);
    assert_eq!(status, Some(0), "{arguments}: {noted}");
    (said, noted)
}

#[test]
fn a_check_names_every_fault_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let train = "text,label\r\nGood film,pos\ngood  film,neg\n\"\",pos\nno label,\ncaf\u{fffd},pos\ncafÃ©,neg\ngood film,pos\n";
    fs::write(at.join("train.csv"), train).unwrap();
    fs::write(at.join("test.csv"), "text,label\nGOOD FILM,pos\na word of the longest kind here and so on and on and on,ugly\n").unwrap();
    let (said, _) = ok(at, &format!("data check --data train.csv --model {ENCODER} --max-length 12"));
    for line in [
        "train: 7 rows of train.csv, UTF-8",
        "  classes: neg 2 (28.6 %), pos 4 (57.1 %)",
        "test: 2 rows of test.csv, UTF-8",
        "train: 1 row without text\n    line 4\n",
        "train: 1 row without a label\n    line 5: no label\n",
        "train: 1 row with the replacement character U+FFFD: bytes were lost in decoding\n    line 6: caf\u{fffd}\n",
        "train: 1 row with signs of UTF-8 that was read in another encoding\n    line 7: cafÃ©\n",
        "train: 1 row with the text and the label of an earlier row (0 letter for letter)\n    line 2, line 8: Good film\n",
        "4 rows whose text also has another label\n    train line 2 pos, train line 3 neg, train line 8 pos, test line 2 pos: Good film\n",
        "test: 1 row whose text is in train, too (0 letter for letter)\n    train line 2, test line 2: Good film\n",
        "test: 1 row with a label that is none of the classes neg, pos\n    line 3 ugly: a word of the longest kind here and so on and on and on\n",
        "test: no row has the label neg",
        "train: lines end in several ways: 7 LF, 1 CRLF",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let tokens = said.lines().filter(|line| line.starts_with("  tokens of")).collect::<Vec<_>>();
    assert!(tokens.len() == 2 && tokens[0].contains("no text is longer than 12"), "{said}");
    assert!(tokens[1].contains("1 (50.0 %) are longer than 12, and are cut"), "{said}");
    // The exit status is for scripts; without --strict it says that the data could be read.
    assert_eq!(run(at, "data check --data train.csv --strict").0, Some(1));
    let all: Value = serde_json::from_str(&ok(at, "data check --data train.csv --json").0).unwrap();
    let leak = all["findings"].as_array().unwrap().iter().find(|f| f["kind"] == "leak").unwrap();
    assert_eq!((leak["rows"].as_u64(), leak["parts"][1].as_str()), (Some(1), Some("test")));
    assert_eq!(leak["examples"][0]["places"][1]["place"], "line 2");
    assert_eq!((all["forms"][0]["crlf"].as_u64(), all["parts"][1]["classes"][1]["rows"].as_u64()), (Some(1), Some(1)));

    fs::write(at.join("sound.csv"), "text,label\na,x\nb,y\n").unwrap();
    let (said, _) = ok(at, "data check --data sound.csv --strict");
    assert!(said.ends_with("nothing was found\n"), "{said}");
    // Nobody reads what is printed: the check has failed all the same.
    for more in ["", " --json"] {
        let mut child = command(at, &format!("data check --data train.csv --strict{more}")).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{more}");
    }
    fs::write(at.join("broken.csv"), "text,label\na,x\nb\n").unwrap();
    for (wrong, message) in [
        ("--data broken.csv", "broken.csv: line 3: 1 fields where the header has 2"),
        ("--data sound.csv --text-column body", "no column body"),
        ("--data missing.csv", "missing.csv"),
        ("--data sound.csv --max-length 9", "--model"),
    ] {
        let (status, _, noted) = run(at, &format!("data check {wrong}"));
        assert!(status != Some(0) && noted.contains(message), "{wrong}: {noted}");
    }
}

#[test]
fn a_check_knows_what_labels_are() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("train.csv"), "text,label\na,joy|anger\nA,joy\nb,[]\nc,\nd,[1.5]\n").unwrap();
    fs::write(at.join("test.csv"), "text,label\nf,sad\n").unwrap();
    let (said, _) = ok(at, "data check --data train.csv --task labels");
    for line in [
        "  labels: anger 1 (20.0 %), joy 2 (40.0 %); none of them 1 (20.0 %)\n",
        "train: 1 row without a label: write [] for a text with none of the labels\n    line 5: c\n",
        "train: 1 row with a label that is none of the classes anger, joy\n    line 6 [1.5]: d\n",
        "test: 1 row with a label that is none of the classes anger, joy\n    line 2 sad: f\n",
        "2 rows whose text also has another label\n    train line 2 joy|anger, train line 3 joy: a\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    fs::write(at.join("numbers.csv"), "text,label\na,1\nb,2.5\nc,many\nd,\n").unwrap();
    let (said, _) = ok(at, "data check --data numbers.csv --task numbers");
    for line in [
        "  numbers: 1 to 2.5, median 1.75, mean 1.7500, standard deviation 0.7500\n",
        "train: 1 row without a label\n    line 5: d\n",
        "train: 1 row whose label is not a number\n    line 4 many: c\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let all: Value = serde_json::from_str(&ok(at, "data check --data numbers.csv --task numbers --json").0).unwrap();
    assert_eq!((&all["task"], &all["parts"][0]["numbers"]["median"]), (&"numbers".into(), &1.75.into()));
    for (wrong, message) in
        [("--task numbers --labels a,b", "--task numbers has one number"), ("--cache x", "--cache"), ("--no-cache", "--no-cache")]
    {
        let (status, _, noted) = run(at, &format!("data check --data numbers.csv {wrong}"));
        assert!(status != Some(0) && noted.contains(message), "{wrong}: {noted}");
    }
}

#[test]
fn training_says_that_labels_contradict_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..12).map(|i| format!("text number {},{}\n", i / 2, ["a", "b"][i % 2])).collect();
    fs::write(dir.path().join("train.csv"), format!("text,label\n{rows}")).unwrap();
    fs::write(dir.path().join("test.csv"), "text,label\nanother,a\none,b\n").unwrap();
    let arguments = format!("train --model {ENCODER} --data train.csv --no-cache --epochs 1 --max-length 8 --out out");
    let (_, noted) = ok(dir.path(), &arguments);
    assert!(noted.contains("12 of the 12 training texts also stand there with another label: lowrank data check names them"), "{noted}");
    // Rows with two labels are in one fold, and there are six different texts.
    let (status, _, noted) = run(dir.path(), &format!("{arguments} --overwrite --suspects --folds 7"));
    assert!(
        status == Some(1) && noted.contains("--folds: expected at least 2, and at most the number of different texts, which is 6"),
        "{noted}"
    );
    let (_, _, noted) = run(dir.path(), &format!("{arguments} --folds 7"));
    assert!(noted.contains("--suspects"), "{noted}");
}

/// The tickets without the rows that `data check` names, and with some labels changed on top of the ten wrong ones that the file has. Returns the
/// lines of the changed rows.
fn with_wrong_labels(folder: &Path) -> HashSet<u64> {
    let mut reader = csv::Reader::from_path(TICKETS).unwrap();
    let mut writer = csv::Writer::from_path(folder.join("train.csv")).unwrap();
    writer.write_record(["text", "label"]).unwrap();
    let (mut planted, mut line, mut row) = (HashSet::new(), 2, 0);
    for record in reader.records() {
        let record = record.unwrap();
        // One row a line.
        let (text, mut label) = (record[2].replace('\n', " "), &record[3]);
        if text.trim().is_empty() {
            continue;
        }
        if row % 16 == 5 {
            label = if label == "billing" { "delivery" } else { "billing" };
            planted.insert(line);
        }
        writer.write_record([&text, label]).unwrap();
        (line, row) = (line + 1, row + 1);
    }
    writer.flush().unwrap();
    planted
}

const RECIPE: &str = "--max-length 48 --epochs 12 --lr 3e-3 --batch 16 --threads 2 --no-cache --test-fraction 0.1";

#[test]
fn planted_label_errors_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let planted = with_wrong_labels(at);
    let (_, noted) = ok(at, &format!("train --model {ENCODER} --data train.csv {RECIPE} --suspects --folds 4 --out out"));
    assert!(noted.contains("fold 4 of 4") && noted.contains("labels are doubtful"), "{noted}");
    let found: Vec<csv::StringRecord> =
        csv::Reader::from_path(at.join("out/suspects.csv")).unwrap().records().map(Result::unwrap).collect();
    let rows: Vec<csv::StringRecord> = csv::Reader::from_path(at.join("train.csv")).unwrap().records().map(Result::unwrap).collect();
    let mut hits = 0;
    for record in &found {
        let line: u64 = record[1].parse().unwrap();
        let row = &rows[line as usize - 2];
        assert_eq!((&record[0], &record[6], &record[2]), ("train.csv", &row[0], &row[1]));
        assert!(record[3] != record[2] && record[5].parse::<f64>().unwrap() <= 1.0);
        hits += usize::from(planted.contains(&line));
    }
    // A tenth of the rows were held out for the test. Measured: 19 of about 24 with AVX-512, in a list of 35.
    let trained = planted.len() * 9 / 10;
    assert!(10 * hits >= 6 * trained && 3 * hits >= found.len(), "{hits} of about {trained} planted errors among {} suspects", found.len());
    let summary: Value = serde_json::from_slice(&fs::read(at.join("out/summary.json")).unwrap()).unwrap();
    assert_eq!(
        (summary["suspects"]["file"].as_str(), summary["suspects"]["found"].as_u64()),
        (Some("suspects.csv"), Some(found.len() as u64))
    );
    assert!(fs::read_to_string(at.join("out/.lowrank-files.json")).unwrap().contains("suspects.csv"));
}

#[test]
fn the_adapter_does_not_depend_on_suspects() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    with_wrong_labels(at);
    let recipe = format!("train --model {ENCODER} --data train.csv {RECIPE} --train-limit 60 --epochs 2 --dev-fraction 0.2 --keep-best");
    ok(at, &format!("{recipe} --out plain"));
    ok(at, &format!("{recipe} --suspects 3 --folds 2 --out out"));
    let read = |name: &str| fs::read(at.join(name)).unwrap();
    for file in ["adapter_model.safetensors", "adapter_config.json", "metrics.jsonl"] {
        assert_eq!(read(&format!("plain/{file}")), read(&format!("out/{file}")), "{file}");
    }
    let about = |name: &str| {
        let mut about: Value = serde_json::from_slice(&read(&format!("{name}/lowrank.json"))).unwrap();
        about.as_object_mut().unwrap().remove("command").unwrap();
        about
    };
    assert_eq!(about("plain"), about("out"));
    assert!(!at.join("plain/suspects.csv").exists());
    let listed = fs::read_to_string(at.join("out/suspects.csv")).unwrap().lines().count();
    assert!(listed <= 4, "a header and at most three rows, not {listed} lines");
    // Again, the same bytes.
    let table = read("out/suspects.csv");
    ok(at, &format!("{recipe} --suspects 3 --folds 2 --out out --overwrite"));
    assert_eq!(read("out/suspects.csv"), table);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_in_a_fold_keeps_its_training() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    with_wrong_labels(at);
    let arguments = format!("train --model {ENCODER} --data train.csv {RECIPE} --epochs 3 --suspects --folds 4 --out out");
    let mut child = command(at, &arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("fold 2 of 4")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let last = lines.last().unwrap();
    assert!(last.contains("run again with --resume"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(at.join("out/checkpoint.safetensors").exists() && !at.join("out/suspects.csv").exists());
    let (_, noted) = ok(at, &format!("{arguments} --resume"));
    assert!(noted.contains("fold 1 of 4") && at.join("out/suspects.csv").exists(), "{noted}");
}

#[test]
fn inspect_counts_no_more_numbers_than_there_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = r#"{"dtype":"F4","shape":[9223372036854775808],"data_offsets":[0,0]}"#;
    let header = format!("{{\"a\":{tensor},\"b\":{tensor}}}");
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    fs::write(dir.path().join("a.safetensors"), bytes).unwrap();
    let (status, said, noted) = run(dir.path(), "inspect a.safetensors");
    assert!(status == Some(1) && noted.contains("a.safetensors"), "{said} {noted}");
}
