//! Sets the commit that the program is built from, for its reports. Without git the commit is "unknown" and the build still works.

use std::path::Path;
use std::process::Command;

/// Sources of the program. Reports mention uncommitted changes in these.
const SOURCES: [&str; 8] = ["src", "build.rs", "Cargo.toml", "../src", "../assets", "../cublas-sys", "../Cargo.toml", "../Cargo.lock"];

fn main() {
    for source in SOURCES.iter().filter(|source| Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rustc-env=LOWRANK_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_string()));
}

/// The commit, with a note if the sources are not as committed.
fn commit() -> Option<String> {
    // A published package contains its commit. Its folder may be inside the repository of another project, so git is not asked.
    if let Ok(package) = std::fs::read_to_string(".cargo_vcs_info.json") {
        println!("cargo::rerun-if-changed=.cargo_vcs_info.json");
        let hash = package.split("\"sha1\"").nth(1)?.split('"').nth(1)?.get(..7)?;
        return Some(with_note(hash, package.contains("\"dirty\": true")));
    }
    // Only a repository that tracks this file knows the commit.
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

/// The output of git; `None` if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
