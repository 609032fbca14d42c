//! The study as one command: its table; and a study that is killed at any moment ends with the results of an uninterrupted one.

use lowrank::tensor::philox::Stream;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");

fn study(out: &Path, more: &[&str]) -> Command {
    study_on(Path::new(ASSETS), out, &[&["--test-limit", "24"], more].concat())
}

fn study_on(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.args(["study", "--model", ENCODER, "--no-cache", "--train-limit", "48", "--data"]).arg(data);
    command.args(["--epochs", "1", "--batch", "4", "--device", "cpu", "--out"]).arg(out).args(more);
    command
}

/// The results that must not depend on interruptions: everything except times, memory and the command.
fn results(out: &Path) -> Vec<Value> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let mut rows = all["rows"].as_array().unwrap().clone();
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        assert!(row.remove("seconds").unwrap().as_f64().unwrap() > 0.0);
        row.remove("peak_memory");
        row["used"].as_object_mut().unwrap().remove("finished").unwrap();
    }
    rows
}

#[test]
fn shards_make_the_study_together() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, shared) = (dir.path().join("whole"), dir.path().join("shared"));
    let more = |last: &[&'static str]| [&["--rows", "head,qv4", "--seeds", "0,1"], last].concat();
    assert!(study(&whole, &more(&[])).output().unwrap().status.success());
    let run = |last: &[&'static str]| {
        let out = study(&shared, &more(last)).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (collected, said) = run(&["--collect"]);
    assert!(!collected && said.contains("none is finished"), "{said}");
    assert!(run(&["--shard", "1/2"]).0);
    // Seed 1 of both rows is there, seed 0 is not.
    let (collected, said) = run(&["--collect"]);
    assert!(collected && said.matches("missing: ").count() == 2 && said.contains("missing: qv4 (Q+V r=4), seed 0"), "{said}");
    // Two processes with the same shard.
    let both = [(); 2].map(|()| study(&shared, &more(&["--shard", "0/2"])).stderr(Stdio::null()).spawn().unwrap());
    assert!(both.into_iter().all(|mut process| process.wait().unwrap().success()));
    assert!(run(&["--collect"]).0);
    assert_eq!(results(&whole), results(&shared));
    let left: Vec<_> = std::fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
}

#[test]
fn a_study_that_is_killed_ends_as_one_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let more = ["--rows", "head,qv4,full", "--seeds", "0,1", "--checkpoint-every", "3"];
    let done = study(&whole, &more).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("| Q+V r=4 |") && said.contains("2 seeds") && said.contains("McNemar"), "{said}");
    // Each finished run is a line of the table at once.
    let filled = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((filled.matches("| configuration |").count(), filled.matches("| Q+V r=4 |").count()), (1, 2), "{filled}");
    let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("singular value") && page.contains("Latency of one text") && page.contains("weights, in cells"));
    mcnemars_tests_are_told(&whole, &said, &page);

    let mut random = Stream::new(1, "kills");
    let mut kills = 0;
    loop {
        let mut child = study(&killed, &more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Kill it twenty times, then let it finish.
        let patience = if kills < 20 { Duration::from_millis(20 + random.below(400) as u64) } else { Duration::from_secs(300) };
        let until = std::time::Instant::now() + patience;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if std::time::Instant::now() > until => break None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        if let Some(status) = status {
            assert!(status.success());
            break;
        }
        // SIGKILL: nothing can be saved.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills <= 20, "it did not end in five minutes");
    }
    assert!(kills > 0, "the study was over before it could be killed");
    assert_eq!(results(&whole), results(&killed), "after {kills} kills");
    let table = |out: &Path| std::fs::read_to_string(out.join("table.md")).unwrap();
    assert_eq!(table(&whole).lines().count(), table(&killed).lines().count());
    // No partly written file stays: of the hidden files, only the list of hashes.
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.') && name != ".lowrank-files.json";
    assert!(std::fs::read_dir(&killed).unwrap().all(|e| !hidden(&e.unwrap().file_name())));

    let other = study(&killed, &["--rows", "qv4", "--lr-scale", "2"]).output().unwrap();
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("other settings"));
    let unknown = study(&killed, &["--rows", "qv5"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--rows qv5: there are head, qv4"));
}

#[test]
fn a_row_is_trained_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // As a shard of the study, or `train --out`, in another process.
    let other = lowrank_cli::folder::lock(&out.join("qv4-seed0")).unwrap();
    let refused = study(&out, &["--rows", "head,qv4"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("qv4-seed0") && said.contains("another process"), "{said}");
    assert!(out.join("head-seed0/result.json").exists() && !out.join("qv4-seed0").exists());
    drop(other);
    let done = study(&out, &["--rows", "head,qv4"]).output().unwrap();
    assert!(done.status.success() && String::from_utf8_lossy(&done.stderr).contains("(done before)"));
}

/// `cp` truncates a file and writes it again. The state after the last good step is saved, though no checkpoint is due.
#[cfg(target_os = "linux")]
#[test]
fn a_base_that_changes_ends_the_study_and_its_state_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (first, model, out) = (dir.path().join("first"), dir.path().join("model"), dir.path().join("out"));
    // A model in f32, whose weights are mapped. The bundled one is in f16, so its weights are converted copies.
    assert!(study(&first, &["--rows", "qv8"]).output().unwrap().status.success());
    let program = || Command::new(env!("CARGO_BIN_EXE_lowrank"));
    let mut merge = program();
    merge.args(["merge", "--model", ENCODER, "--adapter"]).arg(first.join("qv8-seed0")).arg("--out").arg(&model);
    assert!(merge.output().unwrap().status.success());
    let begin = |every: &str| {
        let mut command = program();
        command.arg("study").arg("--model").arg(&model).args(["--data", ASSETS, "--no-cache", "--rows", "qv8", "--epochs", "4000"]);
        command.args(["--train-limit", "8", "--test-limit", "8", "--batch", "4", "--device", "cpu", "--checkpoint-every", every]);
        command.arg("--out").arg(&out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let state = || std::fs::metadata(out.join("qv8-seed0/checkpoint.safetensors")).and_then(|found| found.modified()).ok();
    let mut killed = begin("2");
    let until = std::time::Instant::now() + Duration::from_secs(120);
    while state().is_none() {
        assert!(std::time::Instant::now() < until, "no state was saved");
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = state();
    // It goes on after a step, so that there is something to save whenever the base changes.
    let mut child = begin("1000000");
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("going on after step") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    std::fs::write(model.join("model.safetensors"), "").unwrap();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("while it was in use") && said.contains("is saved to") && said.contains("the same command goes on"), "{said}");
    assert!(state().is_some() && state() != before);
}

#[cfg(target_os = "linux")]
#[test]
fn results_are_written_though_nobody_reads_what_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (name, wanted) in [("closed", 0), ("full", 1)] {
        let out = dir.path().join(name);
        let mut command = study(&out, &["--rows", "head"]);
        let printed = if name == "closed" { Stdio::piped() } else { full().into() };
        let mut child = command.stdout(printed).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(wanted), "{name}");
        assert_eq!(results(&out).len(), 1);
        assert!(out.join("report.html").exists() && out.join("table.md").exists());
    }
}

/// McNemar's tests on standard output, in the page and in `results.json` agree.
fn mcnemars_tests_are_told(out: &Path, said: &str, page: &str) {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let tests = all["mcnemar"].as_array().unwrap();
    // Two pairs of neighbours, two seeds.
    assert_eq!(tests.len(), 4);
    for test in tests {
        let p = test["p"].as_f64().unwrap();
        let p = if p < 0.001 { "p < 0.001".to_string() } else { format!("p = {p:.3}") };
        let [a, b] = ["a", "b"].map(|side| test[side].as_str().unwrap());
        let [seed, only_a, only_b] = ["seed", "only_a", "only_b"].map(|name| test[name].as_u64().unwrap());
        let line = format!("{a} against {b}, seed {seed}: {only_a} and {only_b} reviews that one alone has right, {p} (McNemar)");
        assert!(said.contains(&line), "{line}: {said}");
        let cells = [seed.to_string(), only_a.to_string(), only_b.to_string(), p.replace('<', "&lt;")];
        let cells: Vec<String> = cells.iter().map(|cell| format!(">{cell}</td>")).collect();
        let row = page.lines().find(|line| cells.iter().all(|cell| line.contains(cell))).unwrap_or_default();
        assert!(!row.is_empty(), "{cells:?}");
    }
}

#[test]
fn eval_gives_the_tables_figure_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    // Shorter than the default, so that eval must read the length; several rows, and one of them writes a checkpoint.
    let done = study(&out, &["--rows", "head,qv8,full", "--max-length", "20", "--lr-scale", "5"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    for row in all["rows"].as_array().unwrap() {
        let key = row["row"].as_str().unwrap();
        let folder = out.join(format!("{key}-seed0"));
        let about: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("lowrank.json")).unwrap()).unwrap();
        assert_eq!((&about["max_length"], about["labels"].to_string()), (&Value::from(20), r#"["negative","positive"]"#.to_string()));
        let mut eval = Command::new(env!("CARGO_BIN_EXE_lowrank"));
        eval.args(["eval", "--json", "--no-cache", "--limit", "24", "--device", "cpu", "--data", ASSETS, "--model"]);
        if key == "full" {
            eval.arg(&folder);
        } else {
            let config: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap();
            let base = config["base_model_name_or_path"].as_str().unwrap();
            assert!(Path::new(base).join("config.json").exists(), "{base}");
            eval.arg(base).arg("--adapter").arg(&folder);
        }
        let again = eval.output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        let again: Value = serde_json::from_slice(&again.stdout).unwrap();
        assert_eq!(again["test"], row["test"], "{key}");
        let figure = format!("{:.2} (", 100.0 * again["test"]["accuracy"].as_f64().unwrap());
        assert!(std::fs::read_to_string(out.join("table.md")).unwrap().contains(&figure), "{figure}");
        // 5 · 3e-4, rounded for people.
        if key == "qv8" {
            assert_eq!(row["used"]["recipe"]["lr"].to_string(), "0.0015");
        }
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("1.5e-3 (Q+V r=8)") && page.contains("<th scope=\"row\">LoRA dropout</th><td>0.1</td>"));
    // The header of the page has date, version and machine.
    let head = page.split("</header>").next().unwrap();
    assert!(head.contains("Finished 20") && head.contains(", commit ") && head.contains(" cores, "), "{head}");
}

#[test]
fn a_result_of_an_older_version_is_read_and_one_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let head = || study(&out, &["--rows", "head"]).output().unwrap();
    assert!(head().status.success());
    let path = out.join("head-seed0/result.json");
    let new: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut old = new.clone();
    old["result"].as_object_mut().unwrap().remove("used").unwrap();
    std::fs::write(&path, old.to_string()).unwrap();
    let done = head();
    assert!(done.status.success() && String::from_utf8_lossy(&done.stderr).contains("(done before)"));
    // The settings are equal, so they are known. Date and commit are not known.
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let used = &all["rows"][0]["used"];
    assert_eq!(used["recipe"], new["result"]["used"]["recipe"]);
    assert_eq!((&used["finished"], &used["commit"]), (&Value::from("unknown"), &Value::from("unknown")));
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("Finished unknown"));

    for (name, wrong) in [("confusion", serde_json::json!([])), ("accuracy", serde_json::json!(2.0))] {
        let mut damaged = new.clone();
        damaged["result"]["test"][name] = wrong;
        std::fs::write(&path, damaged.to_string()).unwrap();
        let refused = head();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains("does not fit its answers"), "{name}: {said}");
    }
    old["result"].as_object_mut().unwrap().remove("answers").unwrap();
    std::fs::write(&path, old.to_string()).unwrap();
    let refused = head();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("result.json") && said.contains("another version of lowrank"), "{said}");
}

#[test]
fn a_study_goes_on_with_the_same_data_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    let texts = ["train.tsv", "test.tsv"].map(|name| std::fs::read_to_string(Path::new(ASSETS).join(name)).unwrap());
    std::fs::write(data.join("train.tsv"), &texts[0]).unwrap();
    std::fs::write(data.join("test.tsv"), &texts[1]).unwrap();
    let head = || study_on(&data, &out, &["--rows", "head"]).output().unwrap();
    let done = head();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&head().stderr).contains("(done before)"));
    let made = std::fs::read_to_string(out.join("results.json")).unwrap();
    let made: Value = serde_json::from_str::<Value>(&made).unwrap()["made"].take();
    assert_eq!(made["SHA-256 of the training tokens"].as_str().unwrap().len(), 64);
    assert!(made["learning rate"] == "1e-3");
    // The same reviews with other labels: the saved answers do not belong to them.
    let other: String = texts[1]
        .lines()
        .map(|line| match line.split_once('\t') {
            Some(("positive", text)) => format!("negative\t{text}\n"),
            Some(("negative", text)) => format!("positive\t{text}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(data.join("test.tsv"), other).unwrap();
    let refused = head();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("other settings"));
}

#[test]
fn claims_are_judged_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let done = study(&out, &["--claims", "--max-length", "64"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let claims = all["claims"].as_array().unwrap();
    let verdict = |of: &str| claims.iter().find(|c| c["claim"].as_str().unwrap().contains(of)).unwrap()["verdict"].as_str().unwrap();
    assert_eq!(claims.len(), 14);
    // Two claims that do not depend on the accuracy of a model after a dozen steps.
    assert_eq!(verdict("665,858"), "supported", "the counts at the size of DistilBERT-base");
    assert_eq!(verdict("exactly at the base"), "supported");
    assert_eq!(verdict("A100"), "not measured");
    let judged = ["supported", "not supported", "undecided"];
    for claim in claims.iter().filter(|c| !c["claim"].as_str().unwrap().contains("A100")) {
        assert!(judged.contains(&claim["verdict"].as_str().unwrap()), "{claim}");
    }

    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for text in
        ["classification head only", "full fine-tuning", "cross-entropy (nats)", "trainable parameters", "singular value", "SHA-256"]
    {
        assert!(page.contains(text), "{text}");
    }
    // The page keeps a number and its % on one line.
    assert!(claims.iter().all(|c| page.contains(&c["claim"].as_str().unwrap().replace(" %", "\u{a0}%"))));
    assert!(!page.contains("NaN") && !page.contains("<script"));
    // All tables and figures exist: seven plots, those of the claims, and three tables.
    assert!(page.matches("<svg").count() >= 9 && page.matches("<table").count() >= 3);
}
