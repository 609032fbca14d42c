//! The program on the bundled encoder and reviews.

use std::path::Path;
use std::process::{Command, Output};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

fn lowrank(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// The program, with its own cache.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ok(arguments: &[&str]) -> String {
    let out = lowrank(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn fails(arguments: &[&str], message: &str) {
    ends_with(1, arguments, message);
}

fn ends_with(code: i32, arguments: &[&str], message: &str) {
    let out = lowrank(arguments);
    assert_eq!(out.status.code(), Some(code), "{arguments:?}");
    let said = text(&out.stderr);
    assert!(said.contains(message) && !said.contains("panicked"), "{arguments:?} should say {message}: {said}");
}

/// The bundled encoder, in a folder that a test may change.
fn copy_encoder(to: &Path) {
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        std::fs::copy(Path::new(ENCODER).join(name), to.join(name)).unwrap();
    }
}

fn train(out: &Path, more: &[&str]) -> Vec<String> {
    let out = out.to_str().unwrap();
    let base = ["train", "--model", ENCODER, "--data", ASSETS, "--out", out, "--no-cache", "--max-length", "48", "--epochs", "1"];
    let limits = ["--train-limit", "64", "--test-limit", "32", "--lr", "3e-3"];
    base.iter().chain(&limits).chain(more).map(|s| s.to_string()).collect()
}

fn run_train(out: &Path, more: &[&str]) -> serde_json::Value {
    let arguments = train(out, &[more, &["--json"]].concat());
    serde_json::from_str(&ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes_at_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        run_train(&out, more);
        std::fs::read(out.join("adapter_model.safetensors")).unwrap()
    };
    let one = adapter("one", &["--threads", "1"]);
    assert!(one == adapter("two", &["--threads", "2"]) && one == adapter("again", &["--threads", "2"]));
    assert!(one != adapter("other", &["--seed", "1"]));
    assert!(one != adapter("gaussian", &["--lora-init", "gaussian"]));
    assert!(one == adapter("recomputed", &["--recompute"]), "a layer computed again is the same layer");
    let bf16 = adapter("bf16", &["--dtype", "bf16", "--threads", "1"]);
    assert!(bf16 == adapter("bf16 again", &["--dtype", "bf16", "--threads", "2"]) && bf16 != one);
}

#[test]
fn every_method_evaluates_after_a_reload_as_before() {
    let dir = tempfile::tempdir().unwrap();
    for (i, more) in [
        &["--method", "head", "--cache-trunk"][..],
        &["--method", "full"],
        &["--method", "selective", "--frozen-layers", "3", "--cache-trunk"],
        &["--method", "bitfit"],
        &["--method", "adapter", "--adapter-size", "8"],
        &["--method", "adapter-pfeiffer"],
        &["--method", "prefix", "--virtual-tokens", "4"],
        &["--method", "prompt", "--virtual-tokens", "100"],
        &["--rslora", "--lora-plus-ratio", "16", "--rank-pattern", "q_lin=2", "--layers", "1,3"],
        &["--method", "dora"],
        &["--method", "dylora"],
        &["--method", "lora-fa", "--modules-to-save", "LayerNorm"],
        &["--method", "rslora", "--target-pattern", r".*layer\.[12]\..*(q_lin|lin1)"],
        &["--method", "intrinsic", "--dimension", "100", "--recompute"],
    ]
    .iter()
    .enumerate()
    {
        let out = dir.path().join(i.to_string());
        let trained = run_train(&out, more);
        let o = out.to_str().unwrap();
        let model = if out.join("config.json").exists() { vec!["--model", o] } else { vec!["--model", ENCODER, "--adapter", o] };
        let eval = [&["eval", "--data", ASSETS, "--limit", "32", "--no-cache", "--json"][..], &model].concat();
        let again: serde_json::Value = serde_json::from_str(&ok(&eval)).unwrap();
        assert_eq!(trained["test"], again["test"], "{more:?}");
        let memory: u64 = trained["memory_bytes"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert!(memory >= trained["peak_memory_bytes"].as_u64().unwrap(), "every byte has a category");
        assert!(ok(&["inspect", o]).contains("tensors"));
    }
    fails(&["eval", "--model", ENCODER, "--data", ASSETS], "no trained head");
    let no_room = train(&dir.path().join("no"), &["--method", "prompt", "--virtual-tokens", "600"]);
    fails(&no_room.iter().map(String::as_str).collect::<Vec<_>>(), "leaves 0 positions");
    let lora_and_trunk = train(&dir.path().join("no"), &["--cache-trunk"]);
    fails(&lora_and_trunk.iter().map(String::as_str).collect::<Vec<_>>(), "nothing stays the same");
}

#[test]
fn several_adapters_answer_over_one_base_and_join_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, joined] = ["one", "two", "joined"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
    run_train(Path::new(&one), &["--method", "dylora", "--targets", "all-linear"]);
    run_train(Path::new(&two), &["--targets", "all-linear", "--rank", "3", "--seed", "2"]);
    let answers = |more: &[&str]| ok(&[&["predict", "--model", ENCODER, "What a film!", "Dull."][..], more].concat());
    let (alone, other) = (answers(&["--adapter", &one]), answers(&["--adapter", &two]));
    let both = answers(&["--adapter", &format!("first={one}"), "--adapter", &format!("second={two}")]);
    let named = |name: &str, text: &str| text.lines().map(|line| format!("{name}\t{line}\n")).collect::<String>();
    assert_eq!(both, named("first", &alone) + &named("second", &other));
    let json: serde_json::Value = serde_json::from_str(&answers(&["--json", "--adapter", &one, "--adapter", &two])).unwrap();
    assert_eq!(json["adapters"][1]["adapter"], two);

    assert_ne!(alone, answers(&["--adapter", &one, "--rank", "2"]), "fewer ranks");
    assert_eq!(alone, answers(&["--adapter", &one, "--rank", "8"]));
    fails(&["predict", "--model", ENCODER, "--adapter", &one, "--rank", "9", "x"], "rank 8, which cannot be cut to rank 9");

    let (quarter, half) = (format!("0.25={one}"), format!("0.5={two}"));
    let join = ["combine", "--model", ENCODER, "--adapter", &quarter, "--adapter", &half, "--out", &joined];
    assert!(ok(&[&join[..], &["--how", "cat"]].concat()).contains("2 adapters on 24 linears"));
    assert!(ok(&["inspect", &joined]).contains("LoRA of rank 11"));
    let cat = answers(&["--adapter", &joined]);
    let join = [&join[..], &["--overwrite"]].concat();
    ok(&[&join[..], &["--rank", "11"]].concat());
    assert_eq!(cat, answers(&["--adapter", &joined]), "of all ranks, svd is cat");
    fails(&[&join[..], &["--how", "linear"]].concat(), "the ranks differ");
    fails(&[&join[..], &["--rank", "12"]].concat(), "rank 12 is not between 1 and the 11");
    fails(&["combine", "--model", ENCODER, "--adapter", &format!("x={one}"), "--out", &format!("{joined}2")], "must be a number");

    std::fs::write(Path::new(&one).join("adapter_config.json"), std::fs::read(Path::new(&two).join("adapter_config.json")).unwrap())
        .unwrap();
    fails(&["predict", "--model", ENCODER, "--adapter", &one, "x"], "has rank 8");
    let lenient = lowrank(&["predict", "--model", ENCODER, "--adapter", &one, "--lenient", "x"]);
    assert!(lenient.status.success() && text(&lenient.stderr).contains("the file's is taken"), "{}", text(&lenient.stderr));
}

#[test]
fn the_last_epoch_is_timed() {
    let bench = ["bench", "epoch", "--model", ENCODER, "--data", ASSETS, "--no-cache", "--train-limit", "8", "--test-limit", "6"];
    let bench = [&bench[..], &["--batch", "4", "--epochs", "2", "--eval-batches", "2,4"]].concat();
    let said = ok(&bench);
    for part in ["epoch 2 over 8 texts", "in batches of 2: ", "in batches of 4: ", "best evaluation: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let json: serde_json::Value = serde_json::from_str(&ok(&[&bench[..], &["--json"]].concat())).unwrap();
    assert!(json["epoch_seconds"].as_f64().unwrap() > 0.0 && json["eval_seconds"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(
        (json["train_texts"].as_u64(), json["test_texts"].as_u64(), &json["device_bytes"]),
        (Some(8), Some(6), &serde_json::Value::Null)
    );
    assert_eq!(json["eval_seconds_by_batch"].as_array().unwrap().len(), 2);
    fails(&[&bench[..13], &["--epochs", "1"]].concat(), "the first epoch warms up");
    fails(&[&bench[..], &["--rank", "0"]].concat(), "rank");
}

#[test]
fn latency_is_told_beside_the_base() {
    let bench = ["bench", "latency", "--model", ENCODER, "--batch", "2", "--length", "9", "--rounds", "3"];
    let said = ok(&bench);
    assert_eq!(said.lines().count(), 10, "{said}");
    assert!(said.contains("adapter-pfeiffer") && said.contains("of the base"));
    // A verdict needs ten rounds.
    assert!(said.contains("3 rounds are too few for a verdict") && !said.contains("costs") && !said.contains("undecided"), "{said}");
    let few: serde_json::Value = serde_json::from_str(&ok(&[&bench[..], &["--json"]].concat())).unwrap();
    assert!(few["methods"].as_array().unwrap().iter().all(|method| method["cost"].is_null()));
    let judged = ok(&[&bench[..8], &["--rounds", "10", "--methods", "merged,lora"]].concat());
    assert!(!judged.contains("too few") && judged.lines().count() == 4, "{judged}");
    let verdicts = ["costs nothing", "costs time", "undecided"];
    assert!(judged.lines().skip(2).all(|line| verdicts.iter().any(|verdict| line.ends_with(&format!("): {verdict}")))), "{judged}");
    fails(&[&bench[..6], &["--length", "120", "--methods", "prompt"]].concat(), "108 positions");
}

#[test]
fn a_merged_adapter_is_a_checkpoint_with_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let [adapter, merged, prefix] = ["adapter", "merged", "prefix"].map(|name| dir.path().join(name));
    run_train(&adapter, &["--targets", "all-linear"]);
    let [a, m, p] = [&adapter, &merged, &prefix].map(|path| path.to_str().unwrap());
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    copy_encoder(&base);
    let beside = ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];
    for name in beside {
        std::fs::write(base.join(name), "{ }").unwrap();
    }
    let merge = ["merge", "--model", base.to_str().unwrap(), "--adapter", a, "--out", m];
    assert!(ok(&merge).contains("24 linears merged"));
    for name in beside {
        assert_eq!(std::fs::read_to_string(merged.join(name)).unwrap(), "{ }", "{name}");
    }
    // All these files may be replaced.
    ok(&[&merge[..], &["--overwrite"]].concat());
    let answers = |model: &[&str]| -> Vec<f64> {
        let said = ok(&[&["predict", "--json", "What a film!", "Dull."][..], model].concat());
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        json["predictions"].as_array().unwrap().iter().map(|p| p["probability"].as_f64().unwrap()).collect()
    };
    for (a, b) in answers(&["--model", ENCODER, "--adapter", a]).iter().zip(answers(&["--model", m])) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    run_train(&prefix, &["--method", "prefix"]);
    fails(&["merge", "--model", ENCODER, "--adapter", p, "--out", &format!("{m}2")], "only low-rank terms");
    fails(&["merge", "--model", ENCODER, "--adapter", a, "--out", &format!("{m}2"), "--tolerance", "0"], "nothing was written");
    assert!(!dir.path().join("merged2").exists());
}

#[test]
fn an_adapter_evaluates_after_a_reload_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    let trained = run_train(&out, &["--dev-fraction", "0.25", "--keep-best", "--accumulate", "2", "--batch", "8"]);
    let o = out.to_str().unwrap();
    let eval = ["eval", "--model", ENCODER, "--adapter", o, "--data", ASSETS, "--limit", "32", "--no-cache", "--json"];
    let again: serde_json::Value = serde_json::from_str(&ok(&eval)).unwrap();
    assert_eq!(trained["test"], again["test"]);
    assert_eq!(trained["test"]["examples"], 32);
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(metrics.lines().count() == 4 && metrics.contains("held-out") && !metrics.contains("\"test\""), "{metrics}");

    let said = ok(&["predict", "--model", ENCODER, "--adapter", o, "A fine film.", "Dull."]);
    assert_eq!(said.lines().count(), 2);
    let json: serde_json::Value =
        serde_json::from_str(&ok(&["predict", "--model", ENCODER, "--adapter", o, "--json", "A fine film."])).unwrap();
    let sum: f64 = json["predictions"][0]["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-12);
    assert!(ok(&["inspect", o]).contains("LoRA of rank 8, alpha 16, scale 2, dropout 0.1, on q_lin, v_lin"));

    std::fs::write(out.join("lowrank.json"), "{").unwrap();
    fails(&eval, "lowrank.json");
    std::fs::remove_file(out.join("lowrank.json")).unwrap();
    ok(&["predict", "--model", ENCODER, "--adapter", o, "PEFT's own adapters have no lowrank.json"]);
    std::fs::write(out.join("adapter_model.safetensors"), "short").unwrap();
    fails(&eval, "adapter_model.safetensors: header");
}

#[test]
fn an_adapter_is_used_by_its_name_on_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("adapter");
    run_train(&folder, &[]);
    let commit = "12040accade4e8a0f71eabdb258fecc2e7e948be";
    let repo = dir.path().join("hub/models--me--films");
    let snapshot = repo.join("snapshots").join(commit);
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors", "lowrank.json"] {
        std::fs::copy(folder.join(name), snapshot.join(name)).unwrap();
    }
    let predict = |adapter: &str, more: &[&str]| {
        let arguments = ["predict", "--model", ENCODER, "--adapter", adapter, "--json", "A fine film."];
        let out = program().args(arguments).args(more).env("HF_HUB_CACHE", dir.path().join("hub")).output().unwrap();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let local = predict(folder.to_str().unwrap(), &[]).1;
    assert!(local.contains("probabilities"));
    for name in ["me/films", &format!("me/films@{commit}"), "first=me/films"] {
        let (code, said, problem) = predict(name, &[]);
        assert_eq!(code, Some(0), "{problem}");
        let [local, said] = [&local, &said].map(|s| serde_json::from_str::<serde_json::Value>(s).unwrap()["predictions"].clone());
        assert_eq!(said, local, "{name}");
    }
    let (code, _, problem) = predict("me/films@v2", &[]);
    assert!(code == Some(2) && problem.contains("run: lowrank fetch me/films@v2"), "{problem}");
    // As strict as a local one.
    let about = std::fs::read_to_string(folder.join("lowrank.json")).unwrap();
    let hash = about.split("\"base_hash\": \"").nth(1).unwrap()[..12].to_string();
    std::fs::write(snapshot.join("lowrank.json"), about.replace(&hash, "000000000000")).unwrap();
    let (code, _, problem) = predict("me/films", &[]);
    assert!(code == Some(1) && problem.contains("another base"), "{problem}");
    assert_eq!(predict("me/films", &["--any-base"]).0, Some(0));
}

#[test]
#[cfg(feature = "onnx")]
fn a_model_is_exported_with_its_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (adapter, out) = (path("adapter"), path("onnx"));
    run_train(Path::new(&adapter), &[]);
    let export = ["export", "--onnx", "--model", ENCODER, "--adapter", &adapter, "--out", &out];
    assert!(ok(&export).contains("model.onnx of 7,"), "1.8 million numbers in f32");
    for name in ["model.onnx", "tokenizer.json", "vocab.txt", "config.json"] {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }
    let json = |file: &Path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(file).unwrap()).unwrap();
    let names = json(&Path::new(&out).join("config.json"))["id2label"].clone();
    let trained = json(&Path::new(&adapter).join("lowrank.json"))["labels"].clone();
    assert!(names["0"] == trained[0] && names["1"] == trained[1] && trained[0].is_string(), "{names} {trained}");
    assert!(!Path::new(&out).join("model.safetensors").exists());
    fails(&export, "holds a finished result: give --overwrite");
    ends_with(2, &[&export[..1], &export[2..]].concat(), "--onnx");
    fails(&["export", "--onnx", "--model", ENCODER, "--out", &path("none")], "has no trained head");
    fails(&["export", "--onnx", "--model", ENCODER, "--adapter", &adapter, "--out", ENCODER], "is the model that this command reads");
    let prefix = path("prefix");
    run_train(Path::new(&prefix), &["--method", "prefix"]);
    fails(&["export", "--onnx", "--model", ENCODER, "--adapter", &prefix, "--out", &path("none")], "only low-rank terms can be merged");
    assert!(!Path::new(&path("none")).exists());
}

#[test]
fn an_instruction_set_that_is_not_there_is_an_error() {
    let out = Command::new(env!("CARGO_BIN_EXE_lowrank")).args(["gradcheck", "Add"]).env("LOWRANK_SIMD", "sse9").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("LOWRANK_SIMD=sse9"));
    fails(&["gradcheck", "Add", "--simd", "sse9"], "--simd sse9: this processor can run portable");
    ok(&["gradcheck", "Add", "--simd", "portable"]);
}

#[test]
fn bad_input_gets_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let n = nowhere.to_str().unwrap();
    fails(&["inspect", n], "nowhere");
    ends_with(2, &["tokenize", "--model", n], "nowhere: no such folder");
    ends_with(2, &["train", "--model", n, "--data", ASSETS, "--out", n], "such as distilbert-base-uncased");
    ends_with(2, &["train", "--model", "never/fetched", "--data", ASSETS, "--out", n], "run: lowrank fetch never/fetched");
    fails(&["train", "--model", ENCODER, "--data", n, "--out", n, "--no-cache"], "nowhere");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--targets", "q_lin,value", "--no-cache"], "v_lin");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--max-length", "129"], "128 positions");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--rank", "0", "--no-cache"], "rank must be at least 1");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--target-pattern", "(", "--no-cache"], "the pattern \"(\"");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--method", "dylora", "--rslora", "--no-cache"], "dylora");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--epochs", "0", "--no-cache"], "epochs");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", ENCODER, "--no-cache"], "is the model");
    fails(&["train", "--model", ENCODER, "--data", ASSETS, "--out", n, "--resume", "--no-cache"], "nothing to --resume");
    fails(&["gradcheck", "Liner"], "Linear");
    assert!(!nowhere.exists());
    // A run that diverges keeps its last good state.
    let out = dir.path().join("diverged");
    let arguments = train(&out, &["--lr", "1e30", "--clip", "1e30"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fails(&arguments, "training stopped at step");
    assert!(!out.join("adapter_model.safetensors").exists());
}

#[test]
fn tokenize_takes_texts_or_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts");
    std::fs::write(&file, "a film\ngood\n").unwrap();
    let f = file.to_str().unwrap();
    let lines = ok(&["tokenize", "--model", ENCODER, "a film", "good"]);
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(ok(&["tokenize", "--model", ENCODER, "--file", f]), lines);
    let ids: Vec<String> = lines.lines().map(|line| format!("{{\"ids\":[{}]}}\n", line.replace(' ', ","))).collect();
    assert_eq!(ok(&["tokenize", "--model", ENCODER, "--jsonl", "a film", "good"]), ids.concat());
    fails(&["tokenize", "--model", ENCODER, "--file", f, "good"], "give texts or --file, not both");
    // In older versions the argument was the file.
    let out = lowrank(&["tokenize", "--model", ENCODER, f]);
    assert!(out.status.success() && text(&out.stderr).contains("--file"), "{}", text(&out.stderr));
}

#[test]
fn the_files_beside_a_vocabulary_count_and_must_fit_the_model() {
    let dir = tempfile::tempdir().unwrap();
    copy_encoder(dir.path());
    let model = dir.path().to_str().unwrap();
    let vocabulary = std::fs::read_to_string(dir.path().join("vocab.txt")).unwrap();
    let known = vocabulary.lines().position(|line| line == "film").unwrap();
    std::fs::write(dir.path().join("added_tokens.json"), format!("{{\"film\": {known}}}")).unwrap();
    assert!(ok(&["tokenize", "--model", model, "xfilmx"]).contains(&format!(" {known} ")));
    ok(&["explain", "--model", model, "xfilmx"]);
    let ids = vocabulary.lines().count();
    std::fs::write(dir.path().join("added_tokens.json"), format!("{{\"Newer word\": {ids}}}")).unwrap();
    assert!(ok(&["tokenize", "--model", model, "a newer word"]).contains(&format!(" {ids} ")));
    let message = format!("added_tokens.json: \"Newer word\": has the id {ids}, but the model has embeddings for {ids} tokens");
    fails(&["explain", "--model", model, "a"], &message);
}

#[test]
fn small_commands_say_what_they_should() {
    assert!(ok(&["gradcheck", "Gelu", "--cases", "3"]).contains("ok"));
    assert!(ok(&["gradcheck", "--plant-bug", "LayerNorm", "--cases", "8"]).contains("Sign"));
    let ledger = ok(&["explain", "--model", ENCODER]);
    assert!(ledger.contains("layer.0.q_lin+layer.0.k_lin+layer.0.v_lin") && ledger.contains("no gradient comes here"), "{ledger}");
    assert!(ok(&["inspect", ENCODER]).contains("DistilBERT: 4 layers, 128 wide, 4 heads, feed-forward 512"));
    assert!(ok(&["--help"]).contains("gradcheck"));
    assert_eq!(lowrank(&["nonsense"]).status.code(), Some(2));
    // Without arguments it prints the help.
    let nothing = lowrank(&[]);
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(2), 0));
    assert!(text(&nothing.stderr).contains("Usage: lowrank") && text(&nothing.stderr).contains("demo "));
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef lowrank"), ("fish", "complete -c lowrank")] {
        let script = ok(&["completions", shell]);
        assert!(script.contains(sign) && script.contains("gradcheck") && script.contains("lora-dropout"), "{shell}");
    }
    let page = ok(&["man"]);
    assert!(page.contains(".TH lowrank 1") && page.contains("lowrank\\-gradcheck(1)"), "{page}");
    let page = ok(&["man", "train"]);
    assert!(page.contains(".TH lowrank-train 1") && page.contains("\\-\\-lora\\-dropout"), "{page}");
    fails(&["man", "trian"], "there is no command \"trian\"");
}

/// Sets the first number of a tensor in a safetensors file to NaN.
fn spoil(file: &Path, tensor: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let nan: &[u8] = if header[tensor]["dtype"] == "F16" { &[0, 0x7E] } else { &[0, 0, 0xC0, 0x7F] };
    let at = data + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + nan.len()].copy_from_slice(nan);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_nan_is_refused_by_name_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken, base, out) = (dir.path().join("whole"), dir.path().join("broken"), dir.path().join("base"), dir.path().join("out"));
    run_train(&whole, &["--train-limit", "8", "--test-limit", "8"]);
    for (from, to) in [(whole.as_path(), &broken), (Path::new(ENCODER), &base)] {
        std::fs::create_dir(to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let factor = "base_model.model.distilbert.transformer.layer.0.attention.q_lin.lora_B.weight";
    spoil(&broken.join("adapter_model.safetensors"), factor);
    let weight = "distilbert.transformer.layer.2.ffn.lin1.weight";
    spoil(&base.join("model.safetensors"), weight);
    let [w, b, n, o] = [&whole, &broken, &base, &out].map(|path| path.to_str().unwrap());

    fails(&["predict", "--model", ENCODER, "--adapter", b, "A fine film."], factor);
    fails(&["eval", "--model", ENCODER, "--adapter", b, "--data", ASSETS, "--limit", "8"], factor);
    fails(&["merge", "--model", ENCODER, "--adapter", b, "--out", o], factor);
    let [plain, half] = [format!("0.5={w}"), format!("0.5={b}")];
    fails(&["combine", "--model", ENCODER, "--adapter", &plain, "--adapter", &half, "--out", o], factor);

    fails(&["predict", "--model", n, "--adapter", w, "A fine film."], weight);
    fails(&["eval", "--model", n, "--adapter", w, "--data", ASSETS, "--limit", "8"], weight);
    fails(&["merge", "--model", n, "--adapter", w, "--out", o], weight);
    for method in ["lora", "head", "full"] {
        let train = ["train", "--model", n, "--data", ASSETS, "--no-cache", "--train-limit", "8", "--test-limit", "8", "--out", o];
        fails(&[&train[..], &["--method", method]].concat(), weight);
    }
    assert!(!out.exists());
}

#[test]
fn inspect_says_what_an_adapter_does_to_its_base() {
    let loaded = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/recorded/loaded");
    for (name, fact) in [
        ("pissa", "PiSSA"),
        ("exclude-names", "on q_lin, lin1 but layer.0.attention.q_lin, layer.1.ffn.lin1"),
        ("look-around", r"on .*layer\.(?!0)\d+\."),
        ("tokens", "2 rows of word_embeddings replaced"),
    ] {
        let said = ok(&["inspect", &format!("{loaded}/{name}")]);
        assert!(said.contains(fact), "{said} should say {fact}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_model.bin"), "a pickle").unwrap();
    fails(&["inspect", dir.path().to_str().unwrap()], "adapter_model.bin");
    fails(&["predict", "--model", ENCODER, "--adapter", dir.path().to_str().unwrap(), "Why?"], "adapter_model.bin");
}
