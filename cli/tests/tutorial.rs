//! docs/tutorial.md, executed: each `sh` block is run by a shell in a temporary folder, and its output is compared with the block that follows.
//!
//! A block `text` must be the output, letter for letter: standard output, then standard error. The output of training depends on the instruction
//! set and on the clock. So in a block `text measured` every number matches every other number, and three of four lines must be in the output, in any
//! order: which of two texts is the more doubtful can depend on the last bit. What the figures must reach is asserted at the end. In such a block, a line `…` stands
//! for lines that are left out.
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder");

/// A block of the document: its kind, and its text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let (mut blocks, mut open): (Vec<(String, String)>, bool) = (Vec::new(), false);
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                blocks.push((kind.to_string(), String::new()));
                open = true;
            }
            None if open => blocks.last_mut().unwrap().1 += &format!("{line}\n"),
            None => {}
        }
    }
    assert!(!open, "the last block is not closed");
    blocks
}

/// The output of a script in `folder`, with `lowrank` on the path.
fn output(folder: &Path, script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_lowrank")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder).env("PATH", path).env("XDG_CACHE_HOME", folder.join("cache"));
    let out = command.output().unwrap();
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(out.status.success(), "{script}\n{text}");
    text
}

/// The line with `#` for every number.
fn masked(line: &str) -> String {
    let (mut out, mut in_number) = (String::new(), false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let continues = in_number && matches!(c, '.' | ',' | 'e') && rest.peek().is_some_and(char::is_ascii_digit);
        if c.is_ascii_digit() && !in_number {
            out.push('#');
        } else if !c.is_ascii_digit() && !continues {
            out.push(c);
        }
        in_number = c.is_ascii_digit() || continues;
    }
    out
}

fn assert_measured(shown: &str, found: &str, script: &str) {
    let mut there: Vec<String> = found.lines().map(masked).collect();
    let wanted: Vec<String> = shown.lines().filter(|line| *line != "…").map(masked).collect();
    let mut same = 0;
    for line in &wanted {
        if let Some(at) = there.iter().position(|found| found == line) {
            there.swap_remove(at);
            same += 1;
        }
    }
    assert!(4 * same >= 3 * wanted.len(), "{script}\nshould print something like\n{shown}\nand prints\n{found}");
}

#[test]
fn the_tutorial_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for file in ["tickets.csv", "new.csv"] {
        fs::copy(Path::new(DOCS).join("tutorial").join(file), at.join(file)).unwrap();
    }
    std::os::unix::fs::symlink(ENCODER, at.join("encoder")).unwrap();
    let blocks = blocks(&fs::read_to_string(Path::new(DOCS).join("tutorial.md")).unwrap());
    let mut commands = 0;
    for (i, (_, script)) in blocks.iter().enumerate().filter(|(_, (kind, _))| kind == "sh") {
        commands += script.matches("lowrank ").count();
        let found = output(at, script);
        match blocks.get(i + 1).map(|(kind, text)| (kind.as_str(), text)) {
            Some(("text", shown)) => assert_eq!(*shown, found, "{script}"),
            Some(("text measured", shown)) => assert_measured(shown, &found, script),
            _ => panic!("no output is shown after {script}"),
        }
    }
    assert!(commands >= 5, "the tutorial has only {commands} commands");
    let summary: Value = serde_json::from_slice(&fs::read(at.join("queues/summary.json")).unwrap()).unwrap();
    let figure = |name: &str| summary["metrics"][name]["value"].as_f64().unwrap();
    assert!(figure("macro_f1") > 0.6, "macro F1 {}", figure("macro_f1"));
    assert!(summary["suspects"]["found"].as_u64().unwrap() >= 5);
}

#[test]
fn the_comparison_would_notice_a_difference() {
    assert_eq!(masked("accuracy 86.20 % (84–87) on 2,000 texts, lr 3e-3"), "accuracy # % (#–#) on # texts, lr #e-#");
    assert_measured("x 1\n…\ny 2\n", "y 7\nx 9.5\n", "");
    assert!(std::panic::catch_unwind(|| assert_measured("x 1\nz 1\n", "x 1\ny 2\n", "")).is_err());
    assert_eq!(
        blocks("a\n```sh\nls\n```\nb\n```text measured\nx\n```\n").iter().map(|b| b.0.as_str()).collect::<Vec<_>>(),
        ["sh", "text measured"]
    );
}
