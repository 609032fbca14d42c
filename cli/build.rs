//! Tells the program which commit it is built from, for the reports that it writes. Nothing here is needed to build: without git it is "unknown".

use std::path::Path;
use std::process::Command;

/// What the program is made of. A change in one of these that is not committed is told.
const SOURCES: [&str; 8] = ["src", "build.rs", "Cargo.toml", "../src", "../assets", "../cublas-sys", "../Cargo.toml", "../Cargo.lock"];

fn main() {
    for source in SOURCES.iter().filter(|source| Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rustc-env=LOWRANK_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_string()));
}

/// The commit, with a note if the sources are not as committed.
fn commit() -> Option<String> {
    // A package of cargo's says itself what it was made from; its folder may lie in the repository of another project.
    if let Ok(package) = std::fs::read_to_string(".cargo_vcs_info.json") {
        println!("cargo::rerun-if-changed=.cargo_vcs_info.json");
        let hash = package.split("\"sha1\"").nth(1)?.split('"').nth(1)?.get(..7)?;
        return Some(with_note(hash, package.contains("\"dirty\": true")));
    }
    // Only a repository that tracks this file can tell.
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let hash = git(&["rev-parse", "--short", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    Some(with_note(&hash, !changes.is_empty()))
}

fn with_note(hash: &str, changed: bool) -> String {
    if changed { format!("{hash}, with changes that were not committed") } else { hash.to_string() }
}

/// What git prints, if it can.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
