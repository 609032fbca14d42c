//! Pairs of texts, several labels and regression, through the program.

mod program;

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

#[test]
fn pairs_train_and_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    // Whether two reviews have the same opinion.
    let all = reviews(160);
    let short = |text: &str| text.chars().take(60).collect::<String>();
    let row = |pair: &[(String, bool)]| (short(&pair[0].0), short(&pair[1].0), pair[0].1 == pair[1].1);
    let rows: Vec<_> = all.chunks(2).map(row).collect();
    let csv: String = rows.iter().map(|(a, b, same)| format!("\"{a}\",\"{b}\",{}\n", if *same { "same" } else { "other" })).collect();
    fs::write(at.join("pairs.csv"), format!("text,other,label\n{csv}")).unwrap();
    let lines: String = rows
        .iter()
        .map(|(a, b, same)| format!("{}\n", json!({"text": a, "other": b, "label": if *same { "same" } else { "other" }})))
        .collect();
    fs::write(at.join("pairs.jsonl"), &lines).unwrap();
    let pairs = "--text-pair-column other";
    ok(at, &train("pairs.csv", &format!("{pairs} --out out")));
    assert_eq!(read(&at.join("out/lowrank.json"))["pairs"], true);
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
    // The second text counts.
    fs::write(at.join("two.csv"), "text,other\nA fine film,A fine film\nA fine film,\"Awful, dull and far too long\"\n").unwrap();
    let (said, _) = ok(at, &format!("predict {model} --file two.csv {pairs}"));
    let [one, two] = said.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(one.ends_with("\tA fine film\tA fine film") && one.split('\t').nth(1) != two.split('\t').nth(1), "{said}");
    // A single text is another thing.
    refused(at, &format!("predict {model} text"), "was trained on pairs of texts");
    refused(at, &format!("eval {model} --data pairs.csv"), "--text-pair-column");
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
