//! `--truncate` and `--windows`, through the program.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).args(arguments).output().unwrap()
}

/// Standard output and standard error. `arguments` are separated by spaces; `texts` follow.
fn ok(folder: &Path, arguments: &str, texts: &[&str]) -> (String, String) {
    let out = run(folder, &arguments.split_whitespace().chain(texts.iter().copied()).collect::<Vec<_>>());
    let [said, noted] = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(out.status.success(), "{arguments}: {noted}");
    (said, noted)
}

/// Sixteen reviews of eleven words each: with six tokens kept, four words.
fn table(folder: &Path) {
    let rows = (0..16).map(|i| match i % 2 {
        0 => format!("a long and dull start {i} but a superb and moving end,positive\n"),
        _ => format!("a superb and moving start {i} but a long and dull end,negative\n"),
    });
    fs::write(folder.join("data.csv"), format!("text,label\n{}", rows.collect::<String>())).unwrap();
}

/// The probabilities of texts.
fn probabilities(folder: &Path, options: &str, texts: &[&str]) -> Vec<Vec<f64>> {
    let all: Value = serde_json::from_str(&ok(folder, &format!("predict --json {options}"), texts).0).unwrap();
    let numbers = |p: &Value| serde_json::from_value(p["probabilities"].clone()).unwrap();
    all["predictions"].as_array().unwrap().iter().map(numbers).collect()
}

#[test]
fn the_parts_of_a_text_are_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let ids = |options: &str| -> Vec<u32> {
        let said =
            ok(dir.path(), &format!("tokenize --model {ENCODER} {options}"), &["one two three four five six seven eight nine ten"]).0;
        said.split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    let all = ids("");
    assert_eq!(all.len(), 12);
    let join = |first: usize, last: usize| [&all[..=first], &all[11 - last..]].concat();
    for (options, first, last) in [("", 6, 0), ("--truncate head", 6, 0), ("--truncate tail", 0, 6), ("--truncate head-tail", 2, 4)] {
        assert_eq!(ids(&format!("--max-length 8 {options}")), join(first, last), "{options}");
    }
    let wrong = run(dir.path(), &["tokenize", "--model", ENCODER, "--max-length", "8", "--truncate", "middle", "a"]);
    assert!(wrong.status.code() == Some(2) && String::from_utf8_lossy(&wrong.stderr).contains("head, tail, head-tail"));
}

#[test]
fn predict_and_eval_cut_texts_as_training_did() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    table(at);
    let train = format!("train --model {ENCODER} --data data.csv --epochs 1 --max-length 6 --lr 1e-2 --batch 4 --threads 1");
    let (_, plain) = ok(at, &format!("{train} --out plain"), &[]);
    assert!(plain.contains("longer than 6 tokens, and are cut there") && plain.contains("(100.0 %)"), "{plain}");
    let (_, noted) = ok(at, &format!("{train} --truncate tail --windows 2 --out out"), &[]);
    // Training sees one window; the test texts have two, of seven tokens together.
    assert!(noted.contains("training texts are longer than 6 tokens, and only their last 4 are kept (100.0 %)"), "{noted}");
    assert!(noted.contains("test texts are longer than the 9 tokens of 2 windows, and only their last 7 are kept (100.0 %)"), "{noted}");
    let file = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    let about: Value = serde_json::from_str(&file("out/lowrank.json")).unwrap();
    let summary: Value = serde_json::from_str(&file("out/summary.json")).unwrap();
    for kept in [&about, &summary] {
        assert_eq!((&kept["max_length"], &kept["truncate"], &kept["windows"]), (&json!(6), &json!("tail"), &json!(2)));
    }
    assert!(file("out/report.html").contains("windows of a measured text"));
    assert!(!file("plain/lowrank.json").contains("truncate") && !file("plain/lowrank.json").contains("windows"));
    assert_ne!(file("plain/metrics.jsonl").lines().last(), file("out/metrics.jsonl").lines().last(), "other tokens were trained on");

    // The last seven words are two windows, which share one word.
    let model = format!("--model {ENCODER} --adapter out");
    let text = "w x y a superb and moving film it is";
    let own = probabilities(at, &model, &[text]).remove(0);
    let parts = probabilities(at, &format!("{model} --windows 1"), &["a superb and moving", "moving film it is"]);
    // Logits are log-probabilities but for a constant, so the mean of logits is the geometric mean of probabilities.
    let product: Vec<f64> = (0..2).map(|c| (parts[0][c] * parts[1][c]).sqrt()).collect();
    let expected: Vec<f64> = product.iter().map(|p| p / (product[0] + product[1])).collect();
    assert!(own.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{own:?} {expected:?}");
    for (options, same) in [
        ("--windows 1", "moving film it is"),
        ("--windows 1 --truncate head", "w x y a"),
        // round(4 · 128 / 510) = 1.
        ("--windows 1 --truncate head-tail", "w film it is"),
    ] {
        let cut = probabilities(at, &format!("{model} {options}"), &[text]).remove(0);
        assert_eq!(cut, probabilities(at, &model, &[same]).remove(0), "{options}");
        assert_ne!(cut, own, "{options}");
    }

    // `eval` gives the figures of the run again, and other figures for other parts; the cache keeps them apart.
    let eval = |options: &str| -> Value {
        let said = ok(at, &format!("eval {model} --data data.csv --json --threads 1 {options}"), &[]).0;
        serde_json::from_str::<Value>(&said).unwrap()["test"].clone()
    };
    assert_eq!(eval(""), summary["test"]);
    assert_eq!(eval("--truncate tail --windows 2"), summary["test"]);
    let losses: Vec<Value> =
        ["--truncate head", "--windows 1", "--truncate head-tail", "--windows 3"].map(|o| eval(o)["loss"].clone()).into();
    assert!(losses.iter().all(|loss| *loss != summary["test"]["loss"]), "{losses:?}");

    // An adapter that goes on keeps both, and a damaged file is refused.
    ok(at, &format!("{train} --init-from out --out further"), &[]);
    let further: Value = serde_json::from_str(&file("further/lowrank.json")).unwrap();
    assert_eq!((&further["truncate"], &further["windows"]), (&json!("tail"), &json!(2)));
    for (from, to, says) in [("\"windows\": 2", "\"windows\": 0", "must be at least 1"), ("\"tail\"", "\"middle\"", "middle")] {
        fs::write(at.join("further/lowrank.json"), file("out/lowrank.json").replace(from, to)).unwrap();
        let out = run(at, &["predict", "--model", ENCODER, "--adapter", "further", "a"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains("lowrank.json") && said.contains(says), "{said}");
    }
}
