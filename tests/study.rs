//! The study in one command: its table, and that a study killed at any moment ends as one that was not.
#![cfg(feature = "cli")]

use lowrank::tensor::philox::Stream;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/encoder");
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");

fn study(out: &Path, more: &[&str]) -> Command {
    study_on(Path::new(ASSETS), out, &[&["--test-limit", "24"], more].concat())
}

fn study_on(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.args(["study", "--model", ENCODER, "--no-cache", "--train-limit", "48", "--data"]).arg(data);
    command.args(["--epochs", "1", "--batch", "4", "--device", "cpu", "--out"]).arg(out).args(more);
    command
}

/// What must not depend on stops: all but times, memory and the command.
fn results(out: &Path) -> Vec<Value> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let mut rows = all["rows"].as_array().unwrap().clone();
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        assert!(row.remove("seconds").unwrap().as_f64().unwrap() > 0.0);
        row.remove("peak_memory");
    }
    rows
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
    // Every run is a line of the table as soon as it is done.
    let filled = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((filled.matches("| configuration |").count(), filled.matches("| Q+V r=4 |").count()), (1, 2), "{filled}");
    let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("singular value") && page.contains("Latency of one text") && page.contains("weights, in cells"));

    let mut random = Stream::new(1, "kills");
    let mut kills = 0;
    loop {
        let mut child = study(&killed, &more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Twenty times, then it may end.
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
    // Nothing half-written stays.
    assert!(std::fs::read_dir(&killed).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.')));

    let other = study(&killed, &["--rows", "qv4", "--lr-scale", "2"]).output().unwrap();
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("other settings"));
    let unknown = study(&killed, &["--rows", "qv5"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--rows qv5: there are head, qv4"));
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
    assert!(made["learning rates"].as_str().unwrap().contains("1e-3"));
    // As many reviews of as many tokens, but every label is another: answers of before do not belong to them.
    let other: String = texts[1]
        .lines()
        .map(|line| if line.starts_with('1') { line.replacen('1', "0", 1) } else { line.replacen('0', "1", 1) } + "\n")
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
    // Two that do not depend on how well a model of a dozen steps does.
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
    // Each table and figure is there: seven plots beside the claims' own, three tables.
    assert!(page.matches("<svg").count() >= 9 && page.matches("<table").count() >= 3);
}
