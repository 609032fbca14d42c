//! Labelled texts of many forms, through the program: splits, labels, kinds of heads, files.

use lowrank::lora::{LoraConfig, Method, adapter};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use lowrank::tensor::safetensors;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const WORDS: [&str; 16] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "dull", "fine", "film", "plot", "a", "very", "not", "it", "was"];

/// The program, with a cache for the tests.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn lowrank(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output and standard error of a command.
fn ok(arguments: &[&str]) -> (String, String) {
    let out = lowrank(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", said(&out.stderr));
    (said(&out.stdout), said(&out.stderr))
}

fn fails(arguments: &[&str], messages: &[&str]) {
    let out = lowrank(arguments);
    let text = said(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{arguments:?} should say {messages:?}: {text}");
    messages.iter().for_each(|message| assert!(text.contains(message), "{arguments:?} should say {message}: {text}"));
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(&[arguments, &["--json"]].concat()).0).unwrap()
}

/// A folder for a test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// A random checkpoint with a head of `outputs` outputs, and `more` in its config.json.
    fn checkpoint(&self, name: &str, classes: usize, more: Value) -> String {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers) = (16, 2, 32, 1);
        (config.vocab_size, config.max_position_embeddings, config.initializer_range) = (WORDS.len(), 24, 0.3);
        let model = DistilBert::random(&config, classes, DType::F32, 7).unwrap();
        let tensors: Vec<_> = model.weights().iter().map(|w| (w.name().to_string(), w.value().unwrap())).collect();
        let mut json = serde_json::to_value(&config).unwrap();
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.write(&format!("{name}/config.json"), json.to_string());
        self.write(&format!("{name}/vocab.txt"), WORDS.join("\n"));
        safetensors::write(&self.path(name).join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
        self.text(name)
    }
}

/// Ten texts of each class, all different.
fn table(labels: [&str; 2]) -> String {
    let rows = (0..20).map(|i| format!("{} film {},{}\n", ["bad", "good"][i % 2], "very ".repeat(i / 2), labels[i % 2]));
    format!("text,label\n{}", rows.collect::<String>())
}

fn train<'a>(model: &'a str, data: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["train", "--model", model, "--data", data, "--out", out, "--no-cache", "--epochs", "1", "--max-length", "16", "--lr", "1e-2"]
}

#[test]
fn a_single_table_is_tested_on_texts_that_were_held_out() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({}));
    let twice = table(["negative", "positive"]) + "bad film ,negative\nbad film ,negative\n";
    let (data, out) = (dir.write("all.csv", twice), dir.text("out"));
    let mut command = train(&model, &data, &out);
    command.extend(["--json"]);
    let (stdout, stderr) = ok(&command);
    let trained: Value = serde_json::from_str(&stdout).unwrap();
    let tested = trained["test"]["examples"].as_u64().unwrap();
    // A fifth of ten distinct texts of each class; one of them occurs three times.
    assert!(tested == 4 || tested == 6, "{tested}");
    assert_eq!(trained["train_reviews"].as_u64().unwrap() + tested, 22);
    assert!(stderr.contains("has no test split: 0.2 of its different texts"), "{stderr}");
    assert!(stderr.contains(&format!("0 of the {tested} test texts also stand")), "{stderr}");
    assert!(stderr.contains("classes: negative "), "{stderr}");

    let eval = ["eval", "--model", &model, "--adapter", &out, "--data", &data, "--no-cache"];
    assert_eq!(json_of(&eval)["test"], trained["test"], "the same file gives the same figure");
    let rest = json_of(&[&eval[..], &["--split", "train"]].concat());
    assert_eq!(rest["train"]["examples"].as_u64().unwrap() + tested, 22);
    assert!(ok(&[&eval[..], &["--split", "train"]].concat()).0.contains("measured on texts that it was trained on"));
    assert_eq!(json_of(&[&eval[..], &["--split", "all"]].concat())["test"]["examples"], 22);
    let other = dir.write("other.csv", "text,label\ngood plot,positive\n");
    assert_eq!(json_of(&["eval", "--model", &model, "--adapter", &out, "--data", &other, "--no-cache"])["test"]["examples"], 1);

    let half = dir.text("half");
    let mut command = train(&model, &data, &half);
    command.extend(["--test-fraction", "0.5", "--dev-fraction", "0.4", "--keep-best", "--json"]);
    let trained: Value = serde_json::from_str(&ok(&command).0).unwrap();
    assert!(trained["test"]["examples"].as_u64().unwrap() >= 10);
    let none = dir.text("none");
    let mut command = train(&model, &data, &none);
    command.extend(["--test-fraction", "1"]);
    fails(&command, &["between 0 and 1", "--test"]);
    assert!(!dir.path("none").exists());
}

#[test]
fn splits_may_be_files_of_their_own() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({}));
    let train_file = dir.write("d/train.csv", table(["0", "1"]));
    let (test, out) = (dir.write("else.csv", "text,label\ngood film ,1\nbad plot,0\nit was dull,0\n"), dir.text("out"));
    dir.write("d/validation.csv", "text,label\ngood plot,1\nbad plot,0\n");
    let folder = dir.text("d");
    let mut command = train(&model, &folder, &out);
    command.extend(["--test", &test, "--keep-best"]);
    let (_, stderr) = ok(&command);
    assert!(stderr.contains("1 of the 3 test texts also stand") && stderr.contains("0 of the 2 held-out texts"), "{stderr}");
    assert!(std::fs::read_to_string(dir.path("out/metrics.jsonl")).unwrap().contains("held-out"));
    let beside = dir.text("beside");
    assert!(ok(&train(&model, &train_file, &beside)).1.contains("2 held-out texts"), "validation.csv lies beside train.csv");
    let given = dir.text("given");
    let mut command = train(&model, &test, &given);
    command.extend(["--dev", &train_file, "--test", &train_file]);
    assert!(ok(&command).1.contains("1 of the 20 held-out texts"));
    let alone = dir.write("alone.csv", table(["0", "1"]) + "it was,1\n");
    let mut command = train(&model, &alone, &given);
    command.extend(["--keep-best", "--overwrite"]);
    fails(&command, &["--keep-best needs"]);

    // Training texts are reported as such, in any file.
    let eval = |data: &str, more: &[&str]| {
        ok(&[&["eval", "--model", &model, "--adapter", &out, "--data", data, "--no-cache"][..], more].concat()).0
    };
    assert!(eval(&train_file, &[]).contains("texts that it was trained on"));
    assert!(eval(&folder, &["--split", "train"]).contains("texts that it was trained on"));
    assert!(!eval(&folder, &["--split", "validation"]).contains("trained on") && !eval(&alone, &[]).contains("trained on, "));
    fails(&["eval", "--model", &model, "--adapter", &out, "--data", &folder, "--no-cache"], &["test"]);
}

#[test]
fn labels_become_the_classes_that_the_model_has() {
    let dir = Folder::new();
    let swapped = dir.checkpoint("model", 2, json!({"id2label": {"0": "Positive", "1": "NEGATIVE"}}));
    let eval = |data: &str| json_of(&["eval", "--model", &swapped, "--data", data, "--no-cache"]);
    let names = eval(&dir.write("names.csv", "text,label\ngood film,positive\nbad plot,negative\ndull,Negative\n"));
    let numbers = eval(&dir.write("numbers.csv", "text,label\ngood film,0\nbad plot,1.0\ndull,LABEL_1\n"));
    assert_eq!((&names["test"], &names["labels"]), (&numbers["test"], &json!(["Positive", "NEGATIVE"])));
    let rows = |confusion: &Value| -> Vec<u64> {
        confusion.as_array().unwrap().iter().map(|row| row.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum()).collect()
    };
    assert_eq!(rows(&names["test"]["confusion"]), [1, 2]);
    let one = eval(&dir.write("one.csv", "text,label\nbad plot,negative\n"));
    assert_eq!(rows(&one["test"]["confusion"]), [0, 1], "one label in the data is not class 0");

    let other = dir.write("other.csv", "text,label\ngood film,positive\nbad plot,meh\n");
    let command = ["eval", "--model", &swapped, "--data", &other, "--no-cache"];
    fails(&command, &["other.csv: line 3: the label \"meh\" is none of the classes Positive, NEGATIVE", "--labels"]);
    assert_eq!(json_of(&[&command[..], &["--labels", "meh=negative"]].concat())["test"]["examples"], 2);

    // Further training of a head whose classes have names keeps the names.
    let data = dir.write("all.csv", table(["negative", "positive"]));
    let out = dir.text("out");
    ok(&train(&swapped, &data, &out));
    let about: Value = serde_json::from_slice(&std::fs::read(dir.path("out/lowrank.json")).unwrap()).unwrap();
    assert_eq!(about["labels"], json!(["Positive", "NEGATIVE"]));
    let topics = dir.write("topics.csv", table(["sport", "music"]));
    let new = dir.text("new");
    fails(&train(&swapped, &topics, &new), &["none of the classes Positive, NEGATIVE", "--new-head"]);
    let mut command = train(&swapped, &topics, &new);
    command.extend(["--new-head"]);
    ok(&command);
    let about: Value = serde_json::from_slice(&std::fs::read(dir.path("new/lowrank.json")).unwrap()).unwrap();
    assert_eq!(about["labels"], json!(["music", "sport"]));
}

#[test]
fn labels_that_are_no_classes_are_refused() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({}));
    let out = dir.text("out");
    let unlabelled = dir.write("unlabelled.csv", table(["0", "1"]) + "it was,-1\n");
    fails(&train(&model, &unlabelled, &out), &["unlabelled.csv: line 22: the label \"-1\"", "--labels"]);
    let single = dir.write("single.csv", table(["good", "Good"]));
    fails(&train(&model, &single, &out), &["all texts have the label", "nothing to learn"]);
    let spellings = dir.write("spellings.csv", table(["good", "bad"]) + "it was,GOOD\n");
    assert!(ok(&train(&model, &spellings, &out)).1.contains("classes: bad "));
    let about: Value = serde_json::from_slice(&std::fs::read(dir.path("out/lowrank.json")).unwrap()).unwrap();
    assert_eq!(about["labels"], json!(["bad", "good"]));
    let named = dir.text("named");
    let numbers = dir.write("numbers.csv", table(["0", "1"]));
    let mut command = train(&model, &numbers, &named);
    command.extend(["--labels", "negative,positive"]);
    ok(&command);
    let predictions = json_of(&["predict", "--model", &model, "--adapter", &named, "good film"]);
    assert_eq!(predictions["labels"], json!(["negative", "positive"]));
}

#[test]
fn a_model_with_two_classes_of_one_name_is_refused() {
    let dir = Folder::new();
    let twice = json!({ "id2label": { "0": "good", "1": "good" } });
    let whole = dir.checkpoint("whole", 2, twice.clone());
    let words = ["config.json: \"id2label\" has the name \"good\" twice: two classes could not be told apart"];
    fails(&["predict", "--model", &whole, "good film"], &words);
    // An adapter as PEFT saves it, without lowrank.json: its classes have the names that the base gives.
    let mut model = DistilBert::open(&whole).unwrap();
    let method = Method::Lora(LoraConfig::new(2, &["q_lin"]));
    method.apply(&mut model, 0).unwrap();
    std::fs::create_dir(dir.path("adapter")).unwrap();
    adapter::save(&model, &method, "whole", &dir.path("adapter")).unwrap();
    let adapter = dir.text("adapter");
    fails(&["predict", "--model", &whole, "--adapter", &adapter, "good film"], &words);
    let base = dir.checkpoint("base", 2, json!({ "id2label": { "0": "bad", "1": "good" } }));
    assert!(ok(&["predict", "--model", &base, "--adapter", &adapter, "good film"]).0.contains("good film"));
}

#[test]
fn each_kind_of_head_answers_as_it_was_trained() {
    let dir = Folder::new();
    let regression = dir.checkpoint("regression", 1, json!({"problem_type": "regression", "num_labels": 1}));
    let several = dir.checkpoint("several", 3, json!({"problem_type": "multi_label_classification", "num_labels": 3}));
    let three = dir.checkpoint("three", 3, json!({"num_labels": 3}));
    let rows = |model: &str| -> Vec<f64> {
        let said = json_of(&["predict", "--model", model, "good film"]);
        said["predictions"][0]["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
    };
    // The weights are equal; only the meaning of the logits differs.
    let (sigmoids, softmax) = (rows(&several), rows(&three));
    assert!((softmax.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let odds: Vec<f64> = sigmoids.iter().map(|p| p / (1.0 - p)).collect();
    let sum: f64 = odds.iter().sum();
    assert!(odds.iter().zip(&softmax).all(|(o, p)| (o / sum - p).abs() < 1e-9), "{sigmoids:?} {softmax:?}");
    let number = rows(&regression)[0];
    assert_eq!(ok(&["predict", "--model", &regression, "good film"]).0, format!("{number:.4}\tgood film\n"));

    let stars = dir.write("stars.csv", "text,label\ngood film,4.5\ngood film,-2\n");
    let found = json_of(&["eval", "--model", &regression, "--data", &stars, "--no-cache"]);
    let wanted = ((number - 4.5).abs() + (number + 2.0).abs()) / 2.0;
    assert!((found["test"]["mean_absolute_error"].as_f64().unwrap() - wanted).abs() < 1e-5, "{found}");
    let tags = dir.write(
        "tags.jsonl",
        "{\"text\": \"good film\", \"label\": [\"LABEL_0\", \"LABEL_2\"]}\n{\"text\": \"dull\", \"label\": [0, 1, 0]}\n",
    );
    assert_eq!(json_of(&["eval", "--model", &several, "--data", &tags, "--no-cache"])["test"]["examples"], 2);
    fails(&["eval", "--model", &regression, "--data", &tags, "--no-cache"], &["tags.jsonl", "is not a number"]);

    let (data, out) = (dir.write("all.csv", table(["0", "1"])), dir.text("out"));
    for model in [&regression, &several] {
        fails(&[&train(model, &data, &dir.text("never"))[..], &["--task", "classes"]].concat(), &["problem_type", "--new-head"]);
        let mut command = train(model, &data, &out);
        command.extend(["--new-head", "--method", "full", "--overwrite"]);
        ok(&command);
        assert_eq!(json_of(&["predict", "--model", &out, "good"])["predictions"][0]["probabilities"].as_array().unwrap().len(), 2);
    }
    let (_, stderr) = ok(&[&train(&three, &data, &dir.text("two"))[..], &["--method", "full"]].concat());
    assert!(stderr.contains("head has 3 classes and the data have 2"), "{stderr}");
    let named = dir.checkpoint("named", 3, json!({"id2label": {"0": "a", "1": "b", "2": "c"}}));
    let others = dir.write("others.csv", table(["x", "y"]));
    fails(&train(&named, &others, &dir.text("no")), &["\"x\"", "a, b, c", "--new-head"]);
}

#[test]
fn predictions_come_from_files_and_lines() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({"id2label": {"0": "bad", "1": "good"}}));
    let predict = |file: &str, more: &[&str]| ok(&[&["predict", "--model", &model, "--file", file][..], more].concat()).0;
    let alone = ok(&["predict", "--model", &model, "a film", "it was bad"]).0;
    assert_eq!(predict(&dir.write("a.txt", "a film\r\nit was bad\r\n"), &[]), alone);
    assert_eq!(predict(&dir.write("a.csv", "id;Review\n1;a film\n2;it was bad\n"), &[]), alone, "the header is no text");
    let lines =
        predict(&dir.write("a.jsonl", "{\"body\": \"a film\"}\n{\"body\": \"it was bad\"}\n"), &["--text-column", "body", "--json"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[1]["text"]), (2, &json!("it was bad")));
    let latin = dir.write("latin.txt", b"a film \xe9\n");
    fails(&["predict", "--model", &model, "--file", &latin], &["latin.txt: line 1", "--encoding windows-1252"]);
    assert!(predict(&latin, &["--encoding", "latin1"]).contains("a film \u{e9}"));

    // Each line is answered before the next one arrives.
    let mut child = program().args(["predict", "--model", &model]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut answers = String::new();
    for text in ["a film", "it was bad"] {
        writeln!(input, "{text}").unwrap();
        output.read_line(&mut answers).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(answers, alone);
}

#[test]
fn odd_texts_are_counted() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({}));
    let long = format!("{},1\n ,0\n,1\n", "very ".repeat(30));
    let (data, out) = (dir.write("train.csv", table(["0", "1"]) + &long), dir.text("out"));
    dir.write("test.csv", "text,label\ngood,1\nbad,0\n");
    let (_, stderr) = ok(&train(&model, &data, &out));
    assert!(stderr.contains("1 of the 23 training texts are longer than 16 tokens"), "{stderr}");
    assert!(stderr.contains("2 of the 23 training texts are empty"), "{stderr}");
    assert!(Path::new(&out).exists());
}

#[test]
fn options_that_would_do_nothing_or_cheat_are_refused() {
    let dir = Folder::new();
    let model = dir.checkpoint("model", 2, json!({}));
    let (data, out) = (dir.write("d.csv", table(["0", "1"])), dir.text("out"));
    let test = dir.write("test.csv", "text,label\nit was good,1\nit was bad,0\n");
    let with = |more: &[&'static str]| -> Vec<String> {
        train(&model, &data, &out).into_iter().chain(more.iter().copied()).map(String::from).collect()
    };
    let refused = |arguments: Vec<String>, message: &str| fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[message]);
    let tested = |more: &[&'static str]| -> Vec<String> { with(more).into_iter().chain(["--test".to_string(), test.clone()]).collect() };
    refused(tested(&["--test-fraction", "0.3"]), "--test-fraction is for data without a test split");
    let both: Vec<String> = tested(&["--keep-best", "--dev"]).into_iter().collect();
    let place = both.iter().position(|word| word == "--dev").unwrap() + 1;
    let both = [&both[..place], std::slice::from_ref(&test), &both[place..]].concat();
    refused(both, "--keep-best would choose on the test set: 2 of the held-out texts");
    refused(with(&["--labels", "x=foo"]), "no text has the label \"x\"");
    refused(with(&["--rank-pattern", "k_lin=3"]), "names linears that get no term");
    refused(with(&["--rank-pattern", "q_lin=2,q_lin=3"]), "is given twice");
    assert!(!dir.path("out").exists());
    let eval = |more: &[&str]| {
        [&["eval", "--model", &model, "--data", &data, "--no-cache"][..], more].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    refused(eval(&["--split", "validation"]), "has no validation split");
    refused(eval(&["--split", "train"]), "is not what the model was trained on");
    // The classes of this head have no names.
    let said = ok(&train(&model, &dir.write("named.csv", table(["no", "yes"])), &out)).1;
    assert!(said.contains("have no names: they are taken for no, yes"), "{said}");
    let doubled = std::fs::read_to_string(dir.path("out/lowrank.json")).unwrap().replace("\"no\"", "\"yes\"");
    dir.write("out/lowrank.json", doubled);
    fails(&["predict", "--model", &model, "--adapter", &out, "good"], &["lowrank.json", "twice"]);
}
