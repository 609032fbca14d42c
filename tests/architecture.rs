//! Data flows one way: a room uses only the rooms before it.

use std::path::{Path, PathBuf};

/// In order: an arrow points from a room to those after it.
const ROOMS: [&str; 10] = ["assets", "error", "cuda", "tensor", "autograd", "nn", "lora", "data", "train", "classifier"];

/// Arrows that the order allows, but that are not wanted: text is turned to batches without a thought of models.
const UNWANTED: [(&str, &str); 3] = [("data", "autograd"), ("data", "nn"), ("data", "lora")];

/// Arrows that point back on purpose: messages show shapes and types.
const EXCUSED: [(&str, &str); 1] = [("error", "tensor")];

/// The rooms that `text`, a file of `room`, must not use but does.
fn wrong_arrows(room: &str, text: &str) -> Vec<String> {
    let place = |name: &str| ROOMS.iter().position(|r| *r == name);
    let wrong = |used: &str| {
        let arrow = (room, used);
        (place(used) > place(room) || UNWANTED.contains(&arrow)) && !EXCUSED.contains(&arrow)
    };
    let roots = ["crate::", "super::super::"];
    let uses = roots.iter().flat_map(|root| text.split(root).skip(1)).flat_map(first_names);
    uses.filter(|name| place(name).is_some() && wrong(name)).collect()
}

/// The names that a path can go on with: one, or several in braces. `{Error, nn::{Linear, Pass}}` gives Error and nn.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(list) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut names) = (0, vec![word(list)]);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&list[at + 1..])),
            _ => {}
        }
    }
    names
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let inside = std::fs::read_dir(path).unwrap().flat_map(|entry| rust_files(&entry.unwrap().path()));
    inside.filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

#[test]
fn no_arrow_points_back() {
    let mut files = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_str().unwrap();
        if ["lib", "testing", "prelude"].contains(&room) {
            continue;
        }
        assert!(ROOMS.contains(&room), "{}: say where in the order this room stands", path.display());
        for file in rust_files(&path) {
            let wrong = wrong_arrows(room, &std::fs::read_to_string(&file).unwrap());
            assert!(wrong.is_empty(), "{}: {room} must not use {wrong:?}", file.display());
            files += 1;
        }
    }
    assert!(files > 40, "only {files} files were read");
}

#[test]
fn a_wrong_arrow_is_seen() {
    for (room, planted, found) in [
        ("tensor", "use crate::autograd::Tape;", "autograd"),
        ("tensor", "use crate::{Error, Result};\nfn f() { crate::nn::site::ffn(0); }", "nn"),
        ("nn", "use crate::{Result, lora};", "lora"),
        ("nn", "use crate::{\n    Error, Result,\n    autograd::{Tape, Var},\n    lora::peft,\n};", "lora"),
        ("lora", "use super::super::train::AdamW;", "train"),
        ("data", "use crate::nn::Pass;", "nn"),
        ("error", "use crate::autograd::Var;", "autograd"),
        ("data", "use crate::train::fit;", "train"),
    ] {
        assert_eq!(wrong_arrows(room, planted), [found], "{planted}");
    }
    let right = "use crate::nn::{DistilBert, data};\nuse crate::{Error, Result, tensor::{train, Tensor}};\nuse super::train;";
    assert!(wrong_arrows("lora", right).is_empty());
}
