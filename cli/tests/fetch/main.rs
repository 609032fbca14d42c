//! `hub::fetch` against local servers that behave like the hub and its CDN, or fail in many ways.

mod download;
mod model;
mod server;

use lowrank_cli::hub::{Archive, DownloadProgress, Hub};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TOKEN: &str = "hf_secret";

/// Whether the tests cannot run here.
fn no_curl() -> bool {
    let none = Command::new("curl").arg("--version").output().is_err();
    if none {
        eprintln!("skipped: no curl");
    }
    none
}

/// Settings that store everything in `dir`, without pauses between retries.
fn hub(dir: &Path, endpoint: String, content: &[u8]) -> Hub {
    let imdb =
        Archive { url: format!("{endpoint}/reviews"), file: "reviews.tgz".into(), size: content.len() as u64, sha256: sha256(content) };
    Hub {
        endpoint,
        cache: dir.join("hub"),
        token: Some(TOKEN.into()),
        home: dir.join("home"),
        imdb,
        curl: "curl".into(),
        pause: Duration::from_millis(1),
    }
}

/// Bytes without a short period.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All files below a folder except locks; relative paths, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in next.read_dir().into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_none_or(|e| e != "lock"));
    found.sort();
    found.iter().map(|path| path.strip_prefix(folder).unwrap().to_path_buf()).collect()
}

/// Records the progress messages.
#[derive(Default)]
struct Told {
    bytes: Vec<(String, u64, u64)>,
    notes: Vec<String>,
}

impl DownloadProgress for Told {
    fn bytes(&mut self, name: &str, done: u64, total: u64) {
        self.bytes.push((name.into(), done, total));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
}
