//! Nothing on the disk is lost: bases, results, foreign files, and the state of a run that is stopped or killed.

#[path = "program/resume.rs"]
mod resume;

use resume::{begin, program, result, stop_and_resume};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

fn run(folder: &Path, arguments: &str) -> Output {
    program(folder, arguments).output().unwrap()
}

fn ok(folder: &Path, arguments: &str) -> String {
    let out = run(folder, arguments);
    assert!(out.status.success(), "{arguments}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The command fails with an error that contains each of `messages`.
fn refused(folder: &Path, arguments: &str, messages: &[&str]) {
    let out = run(folder, arguments);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(matches!(out.status.code(), Some(1 | 2)), "{arguments}: {:?} {said}", out.status);
    for message in messages {
        assert!(said.contains(message) && !said.contains("panicked"), "{arguments} should say {message}: {said}");
    }
}

/// A short training run. Later arguments override earlier ones.
fn train(more: &str) -> String {
    let limits = "--train-limit 8 --test-limit 8 --epochs 1 --max-length 16 --threads 1";
    format!("train --model {ENCODER} --data {ASSETS} --no-cache {limits} {more}")
}

fn copy(from: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Names and bytes of the files in a folder.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entry = |e: std::io::Result<fs::DirEntry>| {
        let e = e.unwrap();
        (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap_or_default())
    };
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(entry).collect();
    all.sort();
    all
}

#[test]
fn what_is_read_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    copy(ENCODER, &at.join("m/model"));
    copy(ASSETS, &at.join("data"));
    ok(at, &train("--out adapter"));
    let (model, adapter) = (content(&at.join("m/model")), content(&at.join("adapter")));
    for overwrite in ["", " --overwrite"] {
        for (arguments, how) in [
            (train("--model m/model --out m/model"), "is the model"),
            (train("--model m/model --out m/model/"), "is the model"),
            (train("--model m/model --out m/../m/model --method full"), "is the model"),
            (train("--model m/model --out m"), "contains the model"),
            (train("--model m/model --out m/model/adapter"), "lies inside the model"),
            (train("--model m/model --data data --out data"), "is the data"),
            (train("--data data/train.tsv --out data"), "contains the data"),
            (format!("merge --model m/model --adapter adapter --out adapter{overwrite}"), "is the adapter"),
            (format!("merge --model m/model --adapter adapter --out m/model{overwrite}"), "is the model"),
            (format!("combine --model m/model --adapter 0.5=adapter --out adapter{overwrite}"), "is the adapter"),
            (format!("combine --model m/model --adapter adapter --out adapter/x{overwrite}"), "lies inside the adapter"),
            (format!("init --like distilbert-base --vocab m/model/vocab.txt --out m/model{overwrite}"), "contains the vocabulary"),
            (format!("study --model m/model --data {ASSETS} --no-cache --out m/model"), "is the model"),
            (format!("study --model m/model --data {ASSETS} --no-cache --out m"), "contains the model"),
            (format!("study --model m/model --data {ASSETS} --no-cache --out m/model/study"), "lies inside the model"),
        ] {
            refused(at, &arguments, &["--out", how]);
        }
    }
    assert_eq!(content(&at.join("m/model")), model);
    assert_eq!(content(&at.join("adapter")), adapter);
    assert_eq!(fs::read_dir(at).unwrap().count(), 3, "nothing else was written");
    // A result beside the data is allowed.
    ok(at, &train("--data data --out data/adapter"));
    assert!(at.join("data/train.tsv").is_file() && at.join("data/adapter/lowrank.json").is_file());
}

#[cfg(unix)]
#[test]
fn links_lead_to_what_is_read_and_to_what_is_replaced() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    copy(ENCODER, &at.join("model"));
    symlink(at.join("model"), at.join("alias")).unwrap();
    let before = content(&at.join("model"));
    refused(at, &train("--model alias --out model"), &["is the model"]);
    refused(at, &train("--model model --out alias"), &["is the model"]);
    assert_eq!(content(&at.join("model")), before);
    fs::create_dir(at.join("results")).unwrap();
    symlink(at.join("results"), at.join("out")).unwrap();
    ok(at, &train("--out out"));
    assert!(at.join("out").is_symlink() && at.join("results/adapter_model.safetensors").is_file());
}

#[test]
fn files_of_others_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::create_dir_all(at.join("mine/vocab.txt")).unwrap();
    fs::write(at.join("mine/README.md"), "thesis").unwrap();
    fs::write(at.join("mine/vocab.txt/chapter.tex"), "precious").unwrap();
    // File names that lowrank uses, in a folder that it did not write.
    copy(ENCODER, &at.join("downloaded"));
    fs::create_dir(at.join("table")).unwrap();
    fs::write(at.join("table/table.md"), "mine").unwrap();
    let before = content(&at.join("downloaded"));
    ok(at, &train("--out adapter"));
    for out in ["mine", "downloaded"] {
        for overwrite in ["", "--overwrite", "--restart"] {
            refused(at, &train(&format!("--out {out} {overwrite}")), &[out]);
        }
        refused(at, &format!("merge --model {ENCODER} --adapter adapter --overwrite --out {out}"), &[out]);
        refused(at, &format!("init --like distilbert-base --overwrite --out {out}"), &[out]);
    }
    refused(at, &format!("study --model {ENCODER} --data {ASSETS} --no-cache --out table"), &["table.md", "not written by lowrank"]);
    assert_eq!(fs::read_to_string(at.join("mine/README.md")).unwrap(), "thesis");
    assert_eq!(fs::read_to_string(at.join("mine/vocab.txt/chapter.tex")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(at.join("table/table.md")).unwrap(), "mine");
    assert_eq!(content(&at.join("downloaded")), before);
}

#[test]
fn a_finished_result_is_replaced_on_request_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--out a"));
    let first = content(&at.join("a"));
    refused(at, &train("--out a --seed 1"), &["finished result", "--overwrite"]);
    refused(at, &train("--out a --seed 1 --restart"), &["--overwrite"]);
    refused(at, &train("--out a --resume"), &["nothing to --resume", "finished"]);
    refused(at, &train("--out b --resume"), &["nothing to --resume", "no saved state"]);
    ok(at, &format!("merge --model {ENCODER} --adapter a --out merged"));
    refused(at, &format!("merge --model {ENCODER} --adapter a --out merged"), &["finished result"]);
    refused(at, &format!("combine --model {ENCODER} --adapter a --out merged"), &["finished result"]);
    assert_eq!(content(&at.join("a")), first);
    ok(at, &format!("merge --model {ENCODER} --adapter a --out merged --overwrite"));
    ok(at, &train("--out a --seed 1 --overwrite"));
    assert_ne!(content(&at.join("a")), first);
}

#[test]
fn the_wrong_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["one", "other"] {
        copy(ENCODER, &at.join(name));
    }
    // One tensor with other signs.
    let path = at.join("other/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    fs::write(&path, &bytes).unwrap();
    ok(at, &train("--model one --out a"));
    let about =
        |adapter: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(at.join(adapter).join("lowrank.json")).unwrap()).unwrap() };
    assert_eq!((about("a")["format"].as_u64(), about("a")["base_hash"].as_str().unwrap().len()), (Some(1), 64));
    let hash = about("a")["base_hash"].as_str().unwrap()[..12].to_string();
    let eval = format!("--data {ASSETS} --no-cache --limit 4");
    for (command, rest) in [("predict", "good"), ("eval", &eval), ("merge", "--out m"), ("combine", "--out c")] {
        refused(at, &format!("{command} --model other --adapter a {rest}"), &["another base, one", &hash, "--any-base", "other"]);
        ok(at, &format!("{command} --model other --any-base --adapter a {rest}"));
        ok(at, &format!("{command} --model one --adapter a {rest} {}", if rest.starts_with("--out") { "--overwrite" } else { "" }));
    }
    // The same weights with another number of heads give other answers.
    copy(ENCODER, &at.join("heads"));
    let config = fs::read_to_string(at.join("heads/config.json")).unwrap().replace("\"n_heads\": 4", "\"n_heads\": 2");
    fs::write(at.join("heads/config.json"), config).unwrap();
    for (command, rest) in [("predict", "good"), ("eval", &eval), ("merge", "--out h"), ("combine", "--out h")] {
        refused(
            at,
            &format!("{command} --model heads --adapter a {rest}"),
            &["a: lowrank.json: it was trained with 4 heads", "says 2 and"],
        );
    }
    ok(at, "predict --model heads --any-base --adapter a good");
    refused(at, &train("--model heads --init-from a --out h"), &["4 heads"]);
    let config = fs::read_to_string(at.join("m/config.json")).unwrap().replace("\"n_heads\": 4", "\"n_heads\": 2");
    copy(at.join("m").to_str().unwrap(), &at.join("merged"));
    fs::write(at.join("merged/config.json"), config).unwrap();
    refused(at, "predict --model merged good", &["4 heads"]);
    // A combined adapter belongs to the base on which it was combined.
    refused(at, "predict --model other --adapter c good", &["another base"]);
    assert_eq!(about("m")["base_hash"], about("a")["base_hash"]);

    let write = |about: &serde_json::Value| fs::write(at.join("a/lowrank.json"), about.to_string()).unwrap();
    let mut old = about("a");
    let fields = old.as_object_mut().unwrap();
    ["format", "base_hash"].iter().for_each(|field| drop(fields.remove(*field)));
    write(&old);
    ok(at, "predict --model other --adapter a good");
    write(&serde_json::json!({ "format": 2, "anything": [] }));
    refused(at, "predict --model one --adapter a good", &["lowrank.json", "newer lowrank"]);

    // Numbers that are not finite are never used, with any options.
    bytes[last] = 0x7f;
    bytes[last - 1] = 0xc0;
    fs::write(&path, &bytes).unwrap();
    write(&old);
    let not_finite = ["model.safetensors", "tensor \"", "NaN"];
    refused(at, "predict --model other --adapter a --any-base good", &not_finite);
    refused(at, &train("--model other --out b"), &not_finite);
    refused(at, "explain --model other", &not_finite);
    refused(at, &format!("study --model other --data {ASSETS} --no-cache --out s"), &not_finite);
}

#[cfg(unix)]
#[test]
fn a_stopped_or_killed_run_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let more = "--train-limit 40 --epochs 12 --batch 8 --lr 1e-2 --dev-fraction 0.4 --patience 12 --metric macro-f1 --eval-every-epoch --checkpoint-every 2";
    ok(at, &train(&format!("{more} --out whole")));
    let whole = result(&at.join("whole"));
    assert_eq!(String::from_utf8_lossy(&whole[1]).matches("held-out").count(), 12);
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let out = format!("out{signal}");
        stop_and_resume(at, &train(&format!("{more} --out {out}")), &out, signal);
        assert!(result(&at.join(&out)) == whole, "{signal}: other bytes");
    }
    assert!(fs::read_dir(at).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.')), "left-overs");
}

#[cfg(unix)]
#[test]
fn a_run_goes_on_with_the_same_arguments_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    copy(ASSETS, &at.join("data"));
    copy(ENCODER, &at.join("model"));
    let more = "--model model --data data --train-limit 16 --epochs 4000 --batch 8 --checkpoint-every 2 --out out";
    let mut child = begin(at, &train(more), "out");
    child.kill().unwrap();
    child.wait().unwrap();
    let saved = content(&at.join("out"));
    for (changed, says) in [
        ("--dtype bf16", "dtype was \"F32\", and is \"BF16\""),
        ("--lr 1e-5", "lr was"),
        ("--epochs 3", "epochs was 4000, and is 3"),
        ("--seed 1", "seed was 0"),
        ("--max-length 15", "max_length was 16"),
        ("--truncate tail", "truncate was not known, and is \"tail\""),
        ("--windows 2", "windows was not known, and is 2"),
        ("--rank 4", "method was"),
        ("--lora-plus-ratio 4", "lora_plus_ratio was"),
        ("--dev-fraction 0.25", "dev_fraction was"),
        ("--dev-fraction 0.25 --keep-best", "keep_best was"),
        ("--test-limit 7", "test data was"),
        ("--schedule cosine", "schedule was not known, and is \"cosine\""),
        ("--class-weights balanced", "class_weights was not known"),
        ("--label-smoothing 0.1", "label_smoothing was not known, and is 0.1"),
        ("--no-bias-decay", "no_bias_decay was not known, and is true"),
        ("--dev-fraction 0.25 --patience 2 --metric loss", "metric was not known, and is \"loss\"; patience was not known, and is 2"),
        ("--train-limit 15", "training data was"),
    ] {
        refused(at, &train(&format!("{more} --resume {changed}")), &["other settings", says, "--restart"]);
    }
    // Other labels, then other numbers of the base.
    let table = fs::read_to_string(at.join("data/train.tsv")).unwrap();
    let swapped = |line: &str| match line.strip_prefix("positive") {
        Some(rest) => format!("negative{rest}"),
        None => line.replacen("negative", "positive", 1),
    };
    fs::write(at.join("data/train.tsv"), table.lines().map(|line| swapped(line) + "\n").collect::<String>()).unwrap();
    refused(at, &train(&format!("{more} --resume")), &["training data was"]);
    fs::write(at.join("data/train.tsv"), table).unwrap();
    let mut bytes = fs::read(at.join("model/model.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 0x80;
    fs::write(at.join("model/model.safetensors"), bytes).unwrap();
    refused(at, &train(&format!("{more} --resume")), &["base was"]);
    copy(ENCODER, &at.join("model"));
    let config = fs::read_to_string(at.join("model/config.json")).unwrap();
    for (from, to, says) in [
        ("\"n_heads\": 4", "\"n_heads\": 2", "n_heads was 4, and is 2"),
        ("\"dropout\": 0.1", "\"dropout\": 0.3", "dropouts was [0.1,0.1,0.2]"),
    ] {
        fs::write(at.join("model/config.json"), config.replace(from, to)).unwrap();
        refused(at, &train(&format!("{more} --resume")), &["other settings", says]);
    }
    fs::write(at.join("model/config.json"), config).unwrap();
    // Other commands and other runs do not touch the saved state.
    ok(at, &train("--out adapter"));
    refused(at, &format!("merge --model {ENCODER} --adapter adapter --out out --overwrite"), &["not finished"]);
    refused(at, &train(&format!("{more} --overwrite")), &["--resume", "--restart"]);
    assert_eq!(content(&at.join("out")), saved);
    // A wrong batch fails at the first step, a wrong end at the last.
    ok(at, &train(&format!("{more} --restart --epochs 1")));
    assert!(at.join("out/adapter_model.safetensors").exists());
}

/// `cp` truncates a file and writes it again. The step that reads it meanwhile is thrown away.
#[cfg(target_os = "linux")]
#[test]
fn a_base_that_changes_ends_the_run_and_its_state_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    // A model in f32, whose weights are mapped. The bundled one is in f16, so its weights are converted copies.
    ok(at, &train("--out adapter"));
    ok(at, &format!("merge --model {ENCODER} --adapter adapter --out model"));
    let weights = at.join("model/model.safetensors");
    let arguments = train("--model model --epochs 4000 --batch 4 --checkpoint-every 2 --out out");
    for change in ["truncated", "written again"] {
        let resume = if change == "truncated" { "" } else { "--resume" };
        let command = format!("{arguments} {resume}");
        let child = program(at, &command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        let state = || fs::metadata(at.join("out/checkpoint.safetensors")).and_then(|found| found.modified()).ok();
        let before = state();
        while state() == before {
            assert!(Instant::now() < until, "no state was saved");
            std::thread::sleep(Duration::from_millis(2));
        }
        // The place is taken as long as the run lives.
        refused(at, &train("--out out --restart"), &["another process"]);
        let bytes = fs::read(&weights).unwrap();
        let kept = if change == "truncated" { 0 } else { bytes.len() };
        fs::write(&weights, &bytes[..kept]).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{change}: {said}");
        assert!(said.contains("model.safetensors") && said.contains("while it was in use") && said.contains("--resume"), "{said}");
        assert!(at.join("out/checkpoint.safetensors").exists());
        fs::write(&weights, bytes).unwrap();
    }
}

/// `mv` gives the name of the base to another file. The run reads the old one to its end, and must not mix them.
#[cfg(target_os = "linux")]
#[test]
fn a_base_that_is_replaced_is_not_mixed_with_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for seed in 0..2 {
        ok(at, &train(&format!("--method full --lr 1e-3 --seed {seed} --out base{seed}")));
    }
    let arguments = train("--model base0 --method selective --frozen-layers 1 --epochs 400 --batch 4 --checkpoint-every 2 --out out");
    let child = program(at, &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while !at.join("out/checkpoint.safetensors").exists() {
        assert!(Instant::now() < until, "no state was saved");
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::rename(at.join("base1/model.safetensors"), at.join("base0/model.safetensors")).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("was replaced meanwhile") && said.contains("--resume"), "{said}");
    assert!(at.join("out/checkpoint.safetensors").exists() && !at.join("out/model.safetensors").exists());
}

/// The hash of the data, which an adapter keeps, is taken before the training.
#[test]
fn data_that_go_away_do_not_lose_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::copy(Path::new(ASSETS).join("train.tsv"), at.join("t.tsv")).unwrap();
    let mut child = begin(at, &train("--data t.tsv --epochs 100 --batch 4 --checkpoint-every 2 --out out"), "out");
    fs::remove_file(at.join("t.tsv")).unwrap();
    assert!(child.wait().unwrap().success());
    let about: serde_json::Value = serde_json::from_slice(&fs::read(at.join("out/lowrank.json")).unwrap()).unwrap();
    assert_eq!(about["trained_on"]["data"].as_str().map(str::len), Some(64), "{about}");
}

#[test]
fn a_page_never_replaces_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    copy(ENCODER, &at.join("m"));
    let before = content(&at.join("m"));
    for out in ["m/model.safetensors", "m/config.json", "m/page.html"] {
        refused(at, &format!("explain --model m --html {out} --overwrite"), &["--html", "lies inside the model"]);
    }
    refused(at, "explain --model m --html no/page.html", &["--html", "folder that does not exist"]);
    assert_eq!(content(&at.join("m")), before);
}

#[test]
fn long_names_of_results_work() {
    let dir = tempfile::tempdir().unwrap();
    let name = "a".repeat(240);
    ok(dir.path(), &train(&format!("--out {name}")));
    assert!(dir.path().join(name).join("lowrank.json").is_file());
}

#[test]
fn json_is_json_whatever_the_texts_are() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--out adapter"));
    let said = ok(at, &format!("predict --model {ENCODER} --adapter adapter --json fine\u{200e}film"));
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(answer.to_string().contains("fine\u{200e}film") && !said.contains('\u{200e}'), "{said}");
}

#[cfg(unix)]
#[test]
fn file_names_that_are_not_utf8_work() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let [model, out] = [b"m\xff", b"o\xff"].map(|name| Path::new(OsStr::from_bytes(name)));
    copy(ENCODER, &at.join(model));
    let with = |arguments: &str, more: [&OsStr; 4]| {
        let ended = program(at, arguments).args(more).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    with(&train(""), ["--model".as_ref(), model.as_ref(), "--out".as_ref(), out.as_ref()]);
    assert!(at.join(out).join("adapter_model.safetensors").exists());
    with("predict good", ["--model".as_ref(), model.as_ref(), "--adapter".as_ref(), out.as_ref()]);
    with(&train("--json --overwrite"), ["--model".as_ref(), model.as_ref(), "--out".as_ref(), out.as_ref()]);
    assert!(program(at, "inspect --json").arg(model).output().unwrap().status.success());
}

#[test]
fn control_characters_of_others_do_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let rows: String = (0..8).map(|i| format!("good {i}\t\u{1b}]0;evil\u{7}{}\n", i % 2)).collect();
    fs::write(at.join("t.tsv"), format!("text\tlabel\n{rows}")).unwrap();
    let trained = run(at, &format!("train --model {ENCODER} --data t.tsv --no-cache --epochs 1 --max-length 16 --threads 1 --out a"));
    let predicted = run(at, &format!("predict --model {ENCODER} --adapter a x\u{1b}[2J"));
    let wrong = run(at, "predict --modle\u{1b}[2J");
    for said in [&trained.stdout, &trained.stderr, &predicted.stdout, &predicted.stderr, &wrong.stderr] {
        assert!(!said.contains(&0x1b) && !said.contains(&7), "{}", String::from_utf8_lossy(said));
    }
    assert!(predicted.status.success() && String::from_utf8_lossy(&predicted.stdout).contains("\\u{1b}[2J"));
}

#[test]
fn what_a_diverging_run_advises_works() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let more = "--train-limit 64 --out out --clip 1e30";
    refused(at, &train(&format!("{more} --lr 1e30")), &["training stopped at step", "a learning rate lower than 1e30", "--restart"]);
    assert!(at.join("out/checkpoint.safetensors").exists() && !at.join("out/adapter_model.safetensors").exists());
    refused(at, &train(&format!("{more} --lr 1e-3")), &["--restart"]);
    refused(at, &train(&format!("{more} --lr 1e-3 --resume")), &["(lr was 1e+30, and is 0.001)", "--restart"]);
    ok(at, &train(&format!("{more} --lr 1e-3 --restart")));
    assert!(at.join("out/adapter_model.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn a_hang_up_that_is_ignored_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let arguments = train("--train-limit 16 --epochs 12 --batch 4 --checkpoint-every 4 --out out");
    let script = format!("trap '' HUP; exec {} {arguments}", env!("CARGO_BIN_EXE_lowrank"));
    let mut child = Command::new("sh").args(["-c", &script]).current_dir(at).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !at.join("out/checkpoint.safetensors").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "as under nohup");
}

#[test]
fn numbers_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let most = usize::MAX;
    for (more, says) in [
        ("--batch 0".to_string(), "batch"),
        ("--accumulate 0".into(), "accumulate"),
        ("--batch 4294967296 --accumulate 4294967296".into(), "batch"),
        (format!("--accumulate {most}"), "accumulate"),
        ("--epochs 0".into(), "epochs"),
        (format!("--epochs {most}"), "epochs"),
        (format!("--rank {most}"), "rank"),
        ("--rank 4294967296".into(), "rank"),
        ("--rank-pattern q_lin=4294967296".into(), "rank"),
        ("--alpha nan".into(), "alpha"),
        ("--alpha 1e300".into(), "alpha"),
        ("--lora-dropout 1".into(), "dropout"),
        ("--lora-plus-ratio nan".into(), "ratio"),
        ("--layers 9".into(), "the model has the layers 0 to 3"),
        ("--method adapter --adapter-size 1000000000000".into(), "size"),
        ("--method prefix --virtual-tokens 10000000000".into(), "virtual tokens"),
        (format!("--method prompt --virtual-tokens {most}"), "virtual tokens"),
        ("--method intrinsic --dimension 65537".into(), "dimension"),
        (format!("--method selective --frozen-layers {most}"), "the model has 4"),
        ("--lr nan".into(), "learning rate"),
        ("--lr inf".into(), "learning rate"),
        ("--weight-decay inf".into(), "weight decay"),
        ("--warmup 1.5".into(), "warm-up"),
        ("--clip nan".into(), "clip"),
        ("--checkpoint-every 0".into(), "--checkpoint-every"),
        ("--train-limit 0".into(), "--train-limit"),
        ("--test-limit 0".into(), "--test-limit"),
        (format!("--max-length {most}"), "--max-length"),
        ("--dev-fraction nan".into(), "--dev-fraction"),
        ("--seed=-1".into(), "--seed"),
        ("--threads 0".into(), "--threads"),
        (format!("--threads {most}"), "--threads"),
    ] {
        // The last value counts, and 0 threads is an error.
        let arguments =
            if more.contains("--threads") { train("--out out").replace("--threads 1", &more) } else { train(&format!("--out out {more}")) };
        refused(at, &arguments, &[says]);
    }
    let bench = format!("bench latency --model {ENCODER} --methods lora --length 9 --rounds 1");
    for (more, says) in [
        ("--batch 0", "--batch"),
        ("--batch 10000000000", "--batch"),
        ("--length 18446744073709551615", "positions"),
        ("--rank 10000000000", "rank"),
    ] {
        refused(at, &format!("{} {more}", bench.replace(if more.starts_with("--length") { "--length 9" } else { "!" }, "")), &[says]);
    }
    refused(at, &format!("explain --model {ENCODER} --rank 10000000000"), &["rank"]);
    refused(at, "gradcheck Gelu --cases 0", &["--cases"]);
    refused(at, &format!("study --model {ENCODER} --data {ASSETS} --no-cache --out s --checkpoint-every 0"), &["--checkpoint-every"]);
    refused(at, &format!("study --model {ENCODER} --data {ASSETS} --no-cache --out s --batch 0"), &["batch"]);
    assert_eq!(fs::read_dir(at).unwrap().count(), 0, "nothing was written");
}

#[test]
fn an_option_that_the_method_does_not_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for (method, option, value, users) in [
        ("head", "--rank", "4", "lora, rslora, dora, dylora, lora-fa"),
        ("head", "--alpha", "8", "lora"),
        ("full", "--targets", "q_lin", "lora"),
        ("bitfit", "--layers", "0", "lora"),
        ("prefix", "--lora-dropout", "0.1", "lora"),
        ("selective", "--lora-plus-ratio", "2", "lora"),
        ("adapter", "--bias", "all", "lora"),
        ("lora", "--frozen-layers", "1", "selective"),
        ("lora", "--adapter-size", "8", "adapter, adapter-pfeiffer"),
        ("dora", "--virtual-tokens", "8", "prefix, prompt"),
        ("full", "--dimension", "8", "intrinsic"),
        ("lora", "--train-pre-classifier", "", "head"),
    ] {
        let says = [&format!("{option} is not used by --method {method}")[..], users];
        refused(at, &train(&format!("--out out --method {method} {option} {value}")), &says);
    }
    refused(at, &format!("combine --model {ENCODER} --adapter a --how cat --rank 4 --out out"), &["--rank", "svd"]);
    assert_eq!(fs::read_dir(at).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_table_of_answers_goes_where_a_link_leads_and_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--out adapter"));
    fs::create_dir(at.join("deep")).unwrap();
    fs::write(at.join("deep/answers.csv"), "old").unwrap();
    std::os::unix::fs::symlink("deep/answers.csv", at.join("link.csv")).unwrap();
    fs::write(at.join("t.csv"), "text\na good film\n").unwrap();
    let model = format!("--model {ENCODER} --adapter adapter");
    for command in [format!("predict {model} --data t.csv"), format!("eval {model} --data {ASSETS} --no-cache --limit 4")] {
        let held = lowrank_cli::folder::lock(&at.join("deep/answers.csv")).unwrap();
        refused(at, &format!("{command} --out link.csv --overwrite"), &["another process"]);
        drop(held);
        refused(at, &format!("{command} --out link.csv"), &["exists already"]);
        assert_eq!(fs::read_to_string(at.join("deep/answers.csv")).unwrap(), "old");
        ok(at, &format!("{command} --out link.csv --overwrite"));
        assert!(at.join("link.csv").is_symlink() && fs::read_to_string(at.join("deep/answers.csv")).unwrap().starts_with("text,"));
        assert_eq!(fs::read_dir(at.join("deep")).unwrap().count(), 1, "neither a lock nor a part stays");
        fs::write(at.join("deep/answers.csv"), "old").unwrap();
    }
}

#[test]
fn a_label_cannot_write_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, &train("--out adapter"));
    let path = at.join("adapter/lowrank.json");
    let mut about: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    about["labels"] = serde_json::json!(["bad\n0.99", "good\tgood"]);
    fs::write(&path, about.to_string()).unwrap();
    let said = ok(at, &format!("predict --model {ENCODER} --adapter adapter fine dull"));
    assert!(said.lines().count() == 2 && said.lines().all(|line| line.split('\t').count() == 3), "{said}");
    assert!(said.contains("bad\\n0.99") || said.contains("good\\tgood"), "{said}");
}
