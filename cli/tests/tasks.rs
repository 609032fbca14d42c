//! Pairs of texts, several labels and regression, through the program.

mod program;
#[cfg(unix)]
#[path = "program/resume.rs"]
mod resume;

use program::{ok, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn json_of(folder: &Path, arguments: &str) -> Value {
    serde_json::from_str(&ok(folder, arguments).0).unwrap()
}

const TRAIN: &str = "--epochs 2 --max-length 24 --lr 5e-3 --threads 1 --seed 1";

fn train(data: &str, more: &str) -> String {
    format!("train --model {ENCODER} --data {data} {TRAIN} {more}")
}

/// The reviews of the bundled data with their labels, positive is true.
fn reviews(n: usize) -> Vec<(String, bool)> {
    let table = fs::read_to_string(Path::new(ASSETS).join("train.tsv")).unwrap();
    let rows = table.lines().skip(1).filter_map(|line| line.split_once('\t'));
    rows.map(|(label, text)| (text.replace('"', "'"), label == "positive")).take(n).collect()
}

/// Pairs of reviews, and whether both have the same opinion, as a table and as lines. Returns the rows.
fn paired(at: &Path) -> Vec<(String, String, &'static str)> {
    let short = |text: &str| text.chars().take(60).collect::<String>();
    let label = |same: bool| if same { "same" } else { "other" };
    let row = |pair: &[(String, bool)]| (short(&pair[0].0), short(&pair[1].0), label(pair[0].1 == pair[1].1));
    let rows: Vec<_> = reviews(160).chunks(2).map(row).collect();
    let csv: String = rows.iter().map(|(a, b, label)| format!("\"{a}\",\"{b}\",{label}\n")).collect();
    fs::write(at.join("pairs.csv"), format!("text,other,label\n{csv}")).unwrap();
    let lines = rows.iter().map(|(a, b, label)| format!("{}\n", json!({"text": a, "other": b, "label": label})));
    fs::write(at.join("pairs.jsonl"), lines.collect::<String>()).unwrap();
    rows
}

#[test]
fn pairs_train_and_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let rows = paired(at);
    let pairs = "--text-pair-column other";
    ok(at, &train("pairs.csv", &format!("{pairs} --out out")));
    let about = read(&at.join("out/lowrank.json"));
    assert_eq!((&about["pairs"], &about["text_pair_column"]), (&json!(true), &json!("other")));
    assert_eq!(read(&at.join("out/summary.json"))["pairs"], true);
    // From the cache, and from another form of the table: the same bytes.
    let bytes = fs::read(at.join("out/adapter_model.safetensors")).unwrap();
    for (out, data) in [("again", "pairs.csv"), ("lines", "pairs.jsonl")] {
        ok(at, &train(data, &format!("{pairs} --out {out}")));
        assert_eq!(fs::read(at.join(out).join("adapter_model.safetensors")).unwrap(), bytes, "{out}");
    }
    let model = format!("--model {ENCODER} --adapter out");
    let found = json_of(at, &format!("eval {model} --data pairs.csv {pairs} --json"));
    assert_eq!(found["test"]["examples"], read(&at.join("out/summary.json"))["test"]["examples"]);
    ok(at, &format!("eval {model} --data pairs.csv {pairs} --split all --out scored.csv"));
    let scored = fs::read_to_string(at.join("scored.csv")).unwrap();
    assert!(scored.starts_with("text,text_pair,label,answer,probability,p(other),p(same)\n") && scored.contains(&rows[1].1), "{scored}");
    let (said, _) = ok(at, &format!("predict {model} --file pairs.jsonl {pairs} --json"));
    let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&first["text"], &first["text_pair"], said.lines().count()), (&json!(rows[0].0), &json!(rows[0].1), 80));
    pairs_in_tables(at, &model, said.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    // The second text counts.
    fs::write(at.join("two.csv"), "text,other\nA fine film,A fine film\nA fine film,\"Awful, dull and far too long\"\n").unwrap();
    let (said, _) = ok(at, &format!("predict {model} --file two.csv {pairs}"));
    let [one, two] = said.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(one.ends_with("\tA fine film\tA fine film") && one.split('\t').nth(1) != two.split('\t').nth(1), "{said}");
    // A single text is another thing.
    refused(at, &format!("predict {model} text"), "was trained on pairs of texts");
    refused(at, &format!("serve {model} --port 0"), "pairs");
    refused(at, &train("pairs.csv", "--text-pair-column third --out no"), "there is no column third");
    refused(at, &train("pairs.csv", "--text-pair-column other --max-length 4 --out no"), "is too short for pairs");
    ok(at, &train("pairs.csv", "--out single"));
    refused(at, &format!("predict --model {ENCODER} --adapter single --file two.csv {pairs}"), "was trained on single texts");
    ok(at, &format!("merge {model} --out merged"));
    assert_eq!(read(&at.join("merged/lowrank.json"))["pairs"], true);
    let line = json!({"text": "good", "text_pair": "bad"}).to_string();
    fs::write(at.join("line.jsonl"), line).unwrap();
    let found = json_of(at, &format!("tokenize --model {ENCODER} --jsonl --file line.jsonl"));
    assert_eq!((found["ids"].as_array().unwrap().len(), &found["token_type_ids"]), (5, &json!([0, 0, 0, 1, 1])));
}

/// `predict --data` answers the pairs as `--file` does, whose `answers` are given; the column may be named, or is that of training.
fn pairs_in_tables(at: &Path, model: &str, answers: Vec<Value>) {
    for (data, out, more) in [("pairs.csv", "scored.tsv", ""), ("pairs.jsonl", "scored.jsonl", "--text-pair-column other")] {
        let (_, noted) = ok(at, &format!("predict {model} --data {data} {more} --out {out}"));
        assert!(noted.contains("has a column \"label\"") && noted.contains("80 rows with their answers"), "{noted}");
    }
    let mut table = csv::ReaderBuilder::new().delimiter(b'\t').from_path(at.join("scored.tsv")).unwrap();
    let head = ["text", "other", "label", "predicted_label", "predicted_probability", "predicted_p(other)", "predicted_p(same)"];
    assert_eq!(table.headers().unwrap(), &csv::StringRecord::from(head.to_vec()));
    let lines = fs::read_to_string(at.join("scored.jsonl")).unwrap();
    let before = fs::read_to_string(at.join("pairs.jsonl")).unwrap();
    let mut count = 0;
    for (((row, line), old), answer) in table.records().map(Result::unwrap).zip(lines.lines()).zip(before.lines()).zip(&answers) {
        let [object, old]: [Value; 2] = [line, old].map(|line| serde_json::from_str(line).unwrap());
        assert!(old.as_object().unwrap().iter().all(|(key, value)| object[key] == *value), "{line}");
        assert_eq!((&answer["text"], &answer["text_pair"]), (&object["text"], &object["other"]));
        assert_eq!(
            (&row[0], &row[1], &row[2]),
            (object["text"].as_str().unwrap(), object["other"].as_str().unwrap(), object["label"].as_str().unwrap())
        );
        assert_eq!((&answer["label"], &json!(row[3])), (&object["predicted_label"], &answer["label"]));
        for (i, column) in ["predicted_p(other)", "predicted_p(same)"].iter().enumerate() {
            let p = &answer["probabilities"][i];
            assert!(object[column] == *p && json!(row[5 + i].parse::<f64>().unwrap()) == *p, "{line}");
        }
        count += 1;
    }
    assert_eq!(count, 80);
    // The file of training has the column, so `eval` and `predict --file` find it too.
    let (said, _) = ok(at, &format!("predict {model} --file pairs.jsonl --json"));
    assert_eq!(said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>(), answers);
    ok(at, &format!("eval {model} --data pairs.csv"));
    fs::write(at.join("one.csv"), "text,label\na,same\n").unwrap();
    fs::write(at.join("gap.jsonl"), "{\"text\": \"a\", \"other\": \"b\"}\n{\"text\": \"a\"}\n").unwrap();
    fs::write(at.join("lines.txt"), "a\n").unwrap();
    for (arguments, message) in [
        (
            "predict --data one.csv --out no.csv",
            "one.csv: header: there is no column other; the columns are text, label: name the text-pair column with --text-pair-column",
        ),
        ("predict --data gap.jsonl --out no.csv", "gap.jsonl: line 2: there is no \"other\""),
        ("predict --data pairs.csv --text-pair-column text --out no.csv", "the first and the second text are both the column"),
        ("predict --file lines.txt", "lines.txt: --file: is no table with a column \"other\""),
        ("eval --data one.csv", "there is no column other"),
    ] {
        refused(at, &format!("{arguments} {model}"), message);
        assert!(!at.join("no.csv").exists());
    }
    // An adapter of an older version does not say which column it was.
    fs::create_dir(at.join("old")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(at.join("out").join(file), at.join("old").join(file)).unwrap();
    }
    let mut about = read(&at.join("out/lowrank.json"));
    about.as_object_mut().unwrap().remove("text_pair_column").unwrap();
    fs::write(at.join("old/lowrank.json"), about.to_string()).unwrap();
    let old = format!("--model {ENCODER} --adapter old");
    refused(at, &format!("predict {old} --data pairs.csv --out no.csv"), "name the column of the second text with --text-pair-column");
    ok(at, &format!("predict {old} --data pairs.csv --text-pair-column other --out old.csv"));
}

/// Reviews with two labels: whether they are positive, and whether they are long.
fn labelled(at: &Path) {
    let label = |text: &str, positive: bool| {
        let long = text.len() > 200;
        [(positive, "positive"), (long, "long")].iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>()
    };
    let (mut csv, mut lines) = ("text,label\n".to_string(), String::new());
    for (text, positive) in reviews(400) {
        let labels = label(&text, positive);
        let cell = if labels.is_empty() { "[]".to_string() } else { labels.join("|") };
        csv += &format!("\"{text}\",{cell}\n");
        lines += &format!("{}\n", json!({"text": text, "label": labels}));
    }
    fs::write(at.join("labels.csv"), csv).unwrap();
    fs::write(at.join("labels.jsonl"), lines).unwrap();
}

#[test]
fn several_labels_train_and_answer_at_their_thresholds() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    labelled(at);
    let task = "--task labels --dev-fraction 0.25";
    let (_, noted) = ok(at, &train("labels.csv", &format!("{task} --keep-best --metric macro-f1 --out out")));
    for part in ["labels: long ", "texts have none", "thresholds with the highest F1, from", "all labels right", "macro-f1 0."] {
        assert!(noted.contains(part), "{part}: {noted}");
    }
    let about = read(&at.join("out/lowrank.json"));
    assert_eq!((about["problem_type"].as_str(), &about["labels"]), (Some("multi_label_classification"), &json!(["long", "positive"])));
    let thresholds: Vec<f64> = serde_json::from_value(about["thresholds"].clone()).unwrap();
    assert!(thresholds.len() == 2 && thresholds.iter().all(|t| (0.0..1.0).contains(t)), "{thresholds:?}");
    let summary = read(&at.join("out/summary.json"));
    assert_eq!((&summary["thresholds"], &summary["metrics"]["thresholds"]), (&about["thresholds"], &about["thresholds"]));
    assert!(summary["metrics"]["classes"][1]["roc_auc"]["value"].as_f64().is_some() && summary["temperature"].is_null());
    let record: Value = serde_json::from_str(fs::read_to_string(at.join("out/metrics.jsonl")).unwrap().lines().next().unwrap()).unwrap();
    assert!(record["loss"].as_f64().is_some() && record.get("accuracy").is_none(), "{record}");
    let report = fs::read_to_string(at.join("out/report.html")).unwrap();
    assert!(
        ["micro F1", "threshold", "The worst answers", "Training loss"].iter().all(|part| report.contains(part))
            && !report.contains("Confusions")
    );
    // Another form of the same table gives the same bytes.
    ok(at, &train("labels.jsonl", &format!("{task} --keep-best --metric macro-f1 --no-report --out lines")));
    let bytes = |out: &str| fs::read(at.join(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(bytes("out"), bytes("lines"));

    let model = format!("--model {ENCODER} --adapter out");
    let found = json_of(at, &format!("eval {model} --data labels.csv --json"));
    assert_eq!((&found["test"], &found["metrics"]["micro_f1"]), (&summary["test"], &summary["metrics"]["micro_f1"]));
    let (said, _) = ok(at, &format!("predict {model} --file labels.jsonl --json"));
    let (mut at_half, mut at_thresholds) = (0, 0);
    for line in said.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let p: Vec<f64> = serde_json::from_value(answer["probabilities"].clone()).unwrap();
        let names = |cut: &[f64]| {
            ["long", "positive"].into_iter().zip(p.iter().zip(cut)).filter(|(_, (p, t))| p >= t).map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(answer["labels"], json!(names(&thresholds)));
        at_thresholds += names(&thresholds).len();
        at_half += names(&[0.5, 0.5]).len();
    }
    let (raw, _) = ok(at, &format!("predict {model} --file labels.jsonl --json --raw"));
    let count = |line: &str| serde_json::from_str::<Value>(line).unwrap()["labels"].as_array().unwrap().len();
    assert_eq!(raw.lines().map(count).sum::<usize>(), at_half);
    assert_ne!(at_half, at_thresholds, "{thresholds:?}");

    ok(at, &format!("eval {model} --data labels.csv --split all --out scored.csv"));
    let mut table = csv::Reader::from_path(at.join("scored.csv")).unwrap();
    let head = ["text", "label", "answer", "p(long)", "p(positive)", "answer(long)", "answer(positive)"];
    assert_eq!(table.headers().unwrap(), &csv::StringRecord::from(head.to_vec()));
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    for (row, line) in rows.iter().zip(said.lines()) {
        let answer: Value = serde_json::from_str(line).unwrap();
        let names = |cell: &str| if cell == "[]" { Vec::new() } else { cell.split('|').map(String::from).collect() };
        assert_eq!((json!(row[0]), json!(names(&row[2]))), (answer["text"].clone(), answer["labels"].clone()));
        assert_eq!(names(&row[1]).contains(&"long".to_string()), row[0].len() > 200);
        for (i, name) in ["long", "positive"].iter().enumerate() {
            let p: f64 = row[3 + i].parse().unwrap();
            assert!((p - answer["probabilities"][i].as_f64().unwrap()).abs() < 1e-6, "{line}");
            assert_eq!(row[5 + i].parse::<u8>().unwrap(), u8::from(p >= thresholds[i]));
            assert_eq!(&row[5 + i] == "1", names(&row[2]).contains(&name.to_string()));
        }
    }
    assert_eq!(rows.len(), 400);
    // The table of answers can be trained on.
    ok(at, &train("scored.csv", "--task labels --label-column answer --epochs 1 --no-report --out of_answers"));

    ok(at, &format!("merge {model} --out merged"));
    assert_eq!(read(&at.join("merged/config.json"))["problem_type"], "multi_label_classification");
    assert_eq!(read(&at.join("merged/lowrank.json"))["thresholds"], about["thresholds"]);
    let (merged, _) = ok(at, "predict --model merged --file labels.jsonl --json");
    assert_eq!(merged.lines().map(count).sum::<usize>(), at_thresholds);
    // A run that goes on has the task of its adapter.
    ok(at, &train("labels.csv", "--init-from out --no-report --out more"));
    assert_eq!(read(&at.join("more/lowrank.json"))["problem_type"], "multi_label_classification");
    for (wrong, message) in [
        ("--task labels --class-weights balanced", "--class-weights is for --task classes"),
        ("--task labels --label-smoothing 0.1", "--label-smoothing is for --task classes"),
        ("--task labels --dev-fraction 0.2 --keep-best --metric matthews", "--metric matthews is not a figure of --task labels"),
        ("--task numbers", "labels.csv: line 2: the label"),
        ("--task numbers --init-from out", "is for multi_label_classification (--task labels)"),
        ("--task labels --labels positive", "none of the classes positive"),
    ] {
        refused(at, &train("labels.csv", &format!("{wrong} --out no")), message);
    }
    fs::write(at.join("empty.csv"), "text,label\na,b\nc,\n").unwrap();
    refused(at, &train("empty.csv", "--task labels --out no"), "write [] for a text with none of the labels");
}

#[test]
fn numbers_train_and_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let rows: String = reviews(300)
        .iter()
        .enumerate()
        .map(|(i, (text, positive))| format!("\"{text}\",{}\n", f64::from(u8::from(*positive)) + (i % 100) as f64 / 1000.0))
        .collect();
    fs::write(at.join("numbers.csv"), format!("text,label\n{rows}")).unwrap();
    refused(at, &train("numbers.csv", "--out no"), "--task numbers trains a regression");
    let (_, noted) =
        ok(at, &train("numbers.csv", "--task numbers --dev-fraction 0.2 --patience 1 --metric spearman --eval-every-epoch --out out"));
    for part in ["numbers: 0", "standard deviation 0.", "held-out: mean squared error", "spearman "] {
        assert!(noted.contains(part), "{part}: {noted}");
    }
    let (about, summary) = (read(&at.join("out/lowrank.json")), read(&at.join("out/summary.json")));
    assert_eq!(
        (about["problem_type"].as_str(), &about["labels"], about.get("temperature")),
        (Some("regression"), &json!(["LABEL_0"]), None)
    );
    let figures = &summary["metrics"];
    assert!(["pearson", "spearman", "r2", "mean_absolute_error"].iter().all(|key| figures[key]["value"].as_f64().is_some()), "{figures}");
    assert!(figures["mean_squared_error"]["value"].as_f64().unwrap() < 0.35, "better than nothing: {figures}");
    let report = fs::read_to_string(at.join("out/report.html")).unwrap();
    assert!(["Pearson", "squared error", "Answers"].iter().all(|part| report.contains(part)) && !report.contains("Reliability"));
    let model = format!("--model {ENCODER} --adapter out");
    let found = json_of(at, &format!("eval {model} --data numbers.csv --json"));
    assert_eq!((&found["test"], &found["metrics"]), (&summary["test"], figures));
    let (said, _) = ok(at, &format!("predict {model} good"));
    assert!(said.split('\t').next().unwrap().parse::<f64>().is_ok(), "{said}");
    ok(at, &format!("eval {model} --data numbers.csv --split all --out scored.tsv"));
    let mut table = csv::ReaderBuilder::new().delimiter(b'\t').from_path(at.join("scored.tsv")).unwrap();
    assert_eq!(table.headers().unwrap(), &csv::StringRecord::from(vec!["text", "label", "answer"]));
    let numbers: Vec<[f64; 2]> = table.records().map(Result::unwrap).map(|row| [1, 2].map(|i| row[i].parse().unwrap())).collect();
    let truth: Vec<f64> = rows.lines().map(|line| line.rsplit_once(',').unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers.iter().map(|row| row[0]).collect::<Vec<_>>(), truth);
    let all = json_of(at, &format!("eval {model} --data numbers.csv --split all --json"));
    let error = numbers.iter().map(|[y, found]| (found - y).powi(2)).sum::<f64>() / numbers.len() as f64;
    assert!((error - all["test"]["mean_squared_error"].as_f64().unwrap()).abs() < 1e-9, "{error} {}", all["test"]);
    ok(at, &train("numbers.csv", "--task numbers --method full --lr 1e-4 --epochs 1 --no-report --out full"));
    let config = read(&at.join("full/config.json"));
    assert_eq!((config["problem_type"].as_str(), &config["id2label"]), (Some("regression"), &json!({"0": "LABEL_0"})));
    // The checkpoint says what it is for.
    let more = format!("train --model full --data numbers.csv {TRAIN} --no-report");
    ok(at, &format!("{more} --out again"));
    assert_eq!(read(&at.join("again/lowrank.json"))["problem_type"], "regression");
    refused(at, &format!("{more} --task labels --out no"), "the head is for regression (--task numbers), and --task labels is given");
    for (wrong, message) in [
        ("--task numbers --class-weights balanced", "--class-weights is for --task classes"),
        ("--task numbers --labels a,b", "leave it out"),
        ("--task numbers --dev-fraction 0.2 --patience 1 --metric accuracy", "which has loss, mae, pearson, spearman, r2"),
    ] {
        refused(at, &train("numbers.csv", &format!("{wrong} --out no")), message);
    }
    fs::write(at.join("wrong.csv"), "text,label\na,1\nb,\"[1, 2]\"\n").unwrap();
    refused(at, &train("wrong.csv", "--task numbers --out no"), "wrong.csv: line 3: the label \"[1, 2]\" is not a number");
    fs::write(at.join("same.csv"), "text,label\na,1\nb,1\nc,1\nd,1.0\ne,1\n").unwrap();
    refused(at, &train("same.csv", "--task numbers --out no"), "there is nothing to learn");
}

#[cfg(unix)]
#[test]
fn a_run_for_each_task_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    paired(at);
    labelled(at);
    let numbers: String = reviews(200).iter().map(|(text, _)| format!("\"{text}\",{}\n", text.len() as f64 / 400.0)).collect();
    fs::write(at.join("numbers.csv"), format!("text,label\n{numbers}")).unwrap();
    let recipe =
        "--train-limit 40 --epochs 12 --batch 8 --dev-fraction 0.4 --patience 12 --eval-every-epoch --checkpoint-every 2 --no-report";
    for (name, task) in [
        ("pairs", "--text-pair-column other --metric macro-f1"),
        ("labels", "--task labels --metric micro-f1"),
        ("numbers", "--task numbers --metric spearman"),
    ] {
        let arguments = |out: &str| train(&format!("{name}.csv"), &format!("{task} {recipe} --out {out}"));
        ok(at, &arguments("whole"));
        resume::stop_and_resume(at, &arguments(name), name, "-INT");
        assert!(resume::result(&at.join(name)) == resume::result(&at.join("whole")), "{name}: other bytes");
        let figures =
            |out: &str| ["test", "held_out", "thresholds", "best_epoch"].map(|key| read(&at.join(out).join("summary.json"))[key].clone());
        assert_eq!(figures(name), figures("whole"), "{name}");
        fs::remove_dir_all(at.join("whole")).unwrap();
    }
}
