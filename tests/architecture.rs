//! Data flows one way: a room uses only the rooms before it.

use std::path::Path;

const ROOMS: [&str; 8] = ["error", "tensor", "autograd", "nn", "lora", "data", "train", "cli"];

/// The rooms that `text`, a file of `room`, must not use but does.
fn wrong_arrows<'a>(room: &str, text: &'a str) -> Vec<&'a str> {
    let own = ROOMS.iter().position(|r| *r == room).unwrap();
    let uses = text.split("crate::").skip(1).flat_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = if text.contains("use crate::{") { rest.find(';').unwrap_or(rest.len()) } else { rest.len() };
        rest[..end].split(|c: char| !c.is_alphanumeric() && c != '_').take(12)
    });
    uses.filter(|word| ROOMS.iter().position(|r| r == word).is_some_and(|at| at > own) && text.contains(&format!("{word}::"))).collect()
}

fn check(folder: &Path, room: &str, files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path, room, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            *files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(wrong_arrows(room, &text).is_empty(), "{}: {room} uses {:?}", path.display(), wrong_arrows(room, &text));
        }
    }
}

#[test]
fn no_arrow_points_back() {
    let mut files = 0;
    for room in &ROOMS[1..] {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), room, &mut files);
    }
    assert!(files > 40);
}

#[test]
fn a_wrong_arrow_is_seen() {
    assert_eq!(wrong_arrows("tensor", "use crate::autograd::Tape;"), ["autograd"]);
    assert_eq!(wrong_arrows("nn", "use crate::{Result, lora::peft};"), ["lora"]);
    assert!(wrong_arrows("lora", "use crate::nn::DistilBert;\nuse crate::{Error, Result};").is_empty());
}
