//! Figures, training options and what a run leaves behind, through the program.

mod program;

use program::{ok, refused};
use serde_json::Value;
use std::fs;
use std::path::Path;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

fn train(more: &str) -> String {
    let sizes = "--train-limit 64 --test-limit 32 --epochs 1 --max-length 32 --lr 3e-3 --threads 1";
    format!("train --model {ENCODER} --data {ASSETS} --no-cache {sizes} {more}")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Unequal classes: five times as many reviews of one class, in a folder with a validation split.
fn unequal(folder: &Path) {
    let table = fs::read_to_string(Path::new(ASSETS).join("train.tsv")).unwrap();
    let rows = |label: &str, skip: usize, n: usize| -> Vec<String> {
        table.lines().filter(|line| line.starts_with(label)).skip(skip).take(n).map(|line| format!("{line}\n")).collect()
    };
    fs::create_dir_all(folder).unwrap();
    for (name, skip, [common, rare]) in [("train", 0, [100, 20]), ("validation", 100, [60, 12]), ("test", 200, [50, 10])] {
        let lines = [rows("positive", skip, common), rows("negative", skip, rare)].concat();
        let mut text = format!("label\ttext\n{}", lines.concat());
        if name == "test" {
            text += "negative\tA film <script>alert('x')</script> & more: superb, touching, a joy, the best of the year.\n";
        }
        fs::write(folder.join(name).with_extension("tsv"), text).unwrap();
    }
}

#[test]
fn a_run_on_unequal_classes_leaves_a_summary_and_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    unequal(&at.join("data"));
    let base = format!("train --model {ENCODER} --data data --no-cache --max-length 32 --lr 3e-3 --threads 1 --seed 1");
    let options =
        "--class-weights balanced --label-smoothing 0.05 --schedule cosine --no-bias-decay --epochs 4 --patience 4 --metric macro-f1";
    let (said, noted) = ok(at, &format!("{base} {options} --json --out out"));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(noted.contains("held-out: accuracy") && noted.contains("macro-f1 0."), "{noted}");
    let summary = json(&at.join("out/summary.json"));
    assert_eq!((&said["metrics"], &said["test"], &said["out"]), (&summary["metrics"], &summary["test"], &Value::from("out")));
    assert_eq!(summary["recipe"]["class_weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect::<Vec<_>>(), [3.0, 0.6]);
    assert_eq!((summary["recipe"]["label_smoothing"].as_f64(), summary["recipe"]["schedule"].as_str()), (Some(0.05), Some("cosine")));
    assert_eq!((summary["chosen_by"].as_str(), summary["epochs"].as_u64()), (Some("macro-f1"), Some(4)));
    assert_eq!(summary["temperature"], json(&at.join("out/lowrank.json")).get("temperature").cloned().unwrap_or_default());
    let support: Vec<u64> = summary["metrics"]["classes"].as_array().unwrap().iter().map(|c| c["support"].as_u64().unwrap()).collect();
    assert_eq!(support, [11, 50]);
    // The best epoch is the one with the highest figure in the record.
    let records = fs::read_to_string(at.join("out/metrics.jsonl")).unwrap();
    let figures: Vec<f64> = records.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["macro-f1"].as_f64()).collect();
    let best = figures.iter().enumerate().fold(0, |best, (i, value)| if *value > figures[best] { i } else { best });
    assert_eq!((figures.len(), summary["best_epoch"].as_u64()), (4, Some(best as u64 + 1)));

    let report = fs::read_to_string(at.join("out/report.html")).unwrap();
    for part in
        ["Reliability", "most confident mistakes", "macro F1", "Training loss", "macro-f1 by epoch", "answered negative", "label smoothing"]
    {
        assert!(report.contains(part), "{part}");
    }
    assert!(["<script", "http:", "https:", "src="].iter().all(|part| !report.contains(part)), "the page holds no script and loads nothing");
    let marker = fs::read_to_string(at.join("out/.lowrank-files.json")).unwrap();
    assert!(marker.contains("summary.json") && marker.contains("report.html"));
    // Another weight is another run; the marker lets the result be replaced.
    ok(at, &format!("{base} --class-weights negative=5 --no-report --overwrite --out out"));
    assert!(!at.join("out/report.html").exists() && at.join("out/summary.json").exists());
    for (wrong, message) in [
        ("--class-weights negative=0", "no positive number"),
        ("--class-weights bad=2", "none of the classes negative, positive"),
        ("--class-weights balanced,negative=2", "balanced stands alone"),
        ("--class-weights negative=2,negative=3", "two weights"),
        ("--label-smoothing 1", "lie in [0, 1)"),
        ("--metric macro-f1", "--keep-best or --patience"),
        ("--schedule step", "constant"),
    ] {
        refused(at, &format!("{base} {wrong} --out other"), message);
    }
    assert!(!at.join("other").exists());
}

#[test]
fn patience_ends_a_run_that_does_not_improve() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    // Without learning no epoch is better than the first.
    let (_, noted) = ok(at, &train("--lr 0 --epochs 9 --dev-fraction 0.5 --patience 2 --out out"));
    assert!(noted.contains("no better accuracy for 2 epochs: training ends"), "{noted}");
    let summary = json(&at.join("out/summary.json"));
    assert_eq!((summary["epochs"].as_u64(), summary["best_epoch"].as_u64()), (Some(3), Some(1)));
    assert_eq!(fs::read_to_string(at.join("out/metrics.jsonl")).unwrap().matches("held-out").count(), 3);
    refused(at, &train("--patience 2 --out other"), "--patience needs texts to choose by");
}

#[test]
fn a_figure_that_held_out_texts_do_not_have_is_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("dev.tsv"), "label\ttext\npositive\tone film\npositive\tanother film\n").unwrap();
    refused(at, &train("--dev dev.tsv --keep-best --metric roc-auc --out out"), "roc-auc is not defined for these 2 texts");
    ok(at, &train("--dev dev.tsv --keep-best --metric weighted-f1 --out out"));
}

#[test]
fn a_run_starts_from_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--rank 4 --targets q_lin --out first"));
    // Without learning, the second adapter is the first.
    let (_, noted) = ok(at, &train("--lr 0 --weight-decay 0 --init-from first --seed 3 --out second"));
    assert!(noted.contains("starting from the adapter first"), "{noted}");
    let tensors = |name: &str| fs::read(at.join(name).join("adapter_model.safetensors")).unwrap();
    assert_eq!(tensors("first"), tensors("second"));
    ok(at, &train("--init-from first --out third"));
    assert_ne!(tensors("first"), tensors("third"));
    assert_eq!(json(&at.join("third/adapter_config.json"))["r"], 4);
    refused(at, &train("--init-from first --rank 8 --out other"), "leave out --method and its options");
    refused(at, &train("--init-from first --new-head --out other"), "--new-head");
    refused(at, &train("--init-from first --out first --overwrite"), "is the adapter");
    refused(at, &train(&format!("--init-from {ENCODER} --out other")), "given with --model");
    fs::write(at.join("three.csv"), "text,label\na,x\nb,y\nc,z\nd,x\ne,y\nf,z\n".repeat(3)).unwrap();
    refused(at, &train("--data three.csv --init-from first --out other"), "none of the classes");
    assert!(!at.join("other").exists());
}

#[test]
fn a_temperature_changes_probabilities_and_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let (_, noted) = ok(at, &train("--train-limit 160 --dev-fraction 0.4 --epochs 3 --out out"));
    assert!(noted.contains("no answer changes"), "{noted}");
    let about = json(&at.join("out/lowrank.json"));
    let t = about["temperature"].as_f64().unwrap();
    assert!(t > 0.0 && t != 1.0);
    let eval = |more: &str| -> Value {
        let said = ok(at, &format!("eval --model {ENCODER} --adapter out --data {ASSETS} --no-cache --limit 60 --json {more}")).0;
        serde_json::from_str(&said).unwrap()
    };
    let (scaled, raw) = (eval(""), eval("--raw"));
    for key in ["accuracy", "confusion", "interval"] {
        assert_eq!(scaled["test"][key], raw["test"][key]);
    }
    assert_ne!(scaled["test"]["loss"], raw["test"]["loss"]);
    // The probabilities are those of the logits over T: with two classes, the log odds are.
    let odds = |more: &str| -> Vec<f64> {
        let said = ok(at, &format!("predict --model {ENCODER} --adapter {more} --json Superb Dull So-so")).0;
        let predictions = serde_json::from_str::<Value>(&said).unwrap()["predictions"].clone();
        let odds = |p: &Value| (p["probabilities"][1].as_f64().unwrap() / p["probabilities"][0].as_f64().unwrap()).ln();
        predictions.as_array().unwrap().iter().map(odds).collect()
    };
    for (raw, scaled) in odds("out --raw").iter().zip(odds("out")) {
        assert!((raw / t - scaled).abs() < 1e-9, "{raw} / {t} and {scaled}");
    }
    // A merged checkpoint has the same logits, and so the same temperature.
    ok(at, &format!("merge --model {ENCODER} --adapter out --out merged"));
    assert_eq!(json(&at.join("merged/lowrank.json"))["temperature"], about["temperature"]);
    // An adapter of an older version has none.
    let mut old = about.clone();
    old.as_object_mut().unwrap().remove("temperature");
    fs::write(at.join("out/lowrank.json"), old.to_string()).unwrap();
    assert_eq!(eval("")["test"], raw["test"]);
    for beyond in [-1.0, 1e18] {
        old["temperature"] = Value::from(beyond);
        fs::write(at.join("out/lowrank.json"), old.to_string()).unwrap();
        refused(at, &format!("predict --model {ENCODER} --adapter out good"), "must be from 1e-10 to 1e6");
    }
    // Few held-out texts give none.
    ok(at, &train("--dev-fraction 0.2 --out few"));
    assert!(json(&at.join("few/lowrank.json")).get("temperature").is_none());
}

#[test]
fn eval_writes_a_table_of_answers_that_gives_its_figures_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--out out"));
    fs::write(
        at.join("test.csv"),
        "text,label\n\"a, \"\"fine\"\" film\",positive\nDull,negative\n\"two\nlines\",positive\n=1+1,negative\n",
    )
    .unwrap();
    let eval = format!("eval --model {ENCODER} --adapter out --data test.csv --no-cache");
    let (said, _) = ok(at, &format!("{eval} --out scored.csv"));
    for part in ["accuracy", "macro F1", "Matthews", "ROC-AUC", "calibration error", "negative: texts 2, precision"] {
        assert!(said.contains(part), "{said}");
    }
    let (json_said, _) = ok(at, &format!("{eval} --json"));
    let found: Value = serde_json::from_str(&json_said).unwrap();
    let mut table = csv::Reader::from_path(at.join("scored.csv")).unwrap();
    assert_eq!(table.headers().unwrap(), vec!["text", "label", "answer", "probability", "p(negative)", "p(positive)"]);
    let rows: Vec<Vec<String>> = table.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["a, \"fine\" film", "Dull", "two\nlines", "=1+1"]);
    assert_eq!(rows.iter().map(|row| row[1].as_str()).collect::<Vec<_>>(), ["positive", "negative", "positive", "negative"]);
    let number = |cell: &String| cell.parse::<f64>().unwrap();
    let right = rows.iter().filter(|row| row[1] == row[2]).count();
    assert_eq!(found["test"]["accuracy"].as_f64().unwrap(), right as f64 / 4.0);
    let loss = rows.iter().map(|row| -number(&row[if row[1] == "negative" { 4 } else { 5 }]).ln()).sum::<f64>() / 4.0;
    assert!((found["test"]["loss"].as_f64().unwrap() - loss).abs() < 1e-12);
    for row in &rows {
        assert_eq!(number(&row[3]), number(&row[4]).max(number(&row[5])));
    }
    let before = fs::read(at.join("scored.csv")).unwrap();
    for (out, message) in [
        ("scored.csv", "exists already"),
        ("scored.xlsx", "must end with"),
        ("test.csv", "is the data"),
        ("out/x.csv", "inside the adapter"),
    ] {
        refused(at, &format!("{eval} --out {out}"), message);
    }
    assert_eq!(fs::read(at.join("scored.csv")).unwrap(), before);
    ok(at, &format!("{eval} --out scored.csv --overwrite"));
    ok(at, &format!("{eval} --out scored.tsv"));
    refused(at, &format!("{eval} --adapter out --out two.csv"), "of one model");
}
