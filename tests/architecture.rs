//! The plan of the house, held by tests: data flows one way between rooms, files of a room do not import each other in circles, and files and functions stay
//! short. `scripts/architecture` draws the result in docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms of the engine, in order: a room uses only the rooms before it. The launches of GPU kernels are a room of their own, because they know tensors
/// and the rest of `cuda` does not.
const ENGINE: [&str; 17] = [
    "assets",
    "text",
    "cut",
    "outputs",
    "error",
    "files",
    "cuda",
    "tensor",
    "cuda/launch",
    "autograd",
    "nn",
    "lora",
    "data",
    "metrics",
    "train",
    "explain",
    "classifier",
];

/// The rooms of the program, in order.
const PROGRAM: [&str; 9] = ["lost", "folder", "hub", "onnx", "study", "step", "table", "serve", "commands"];

/// Files that may use every room: the crate's root and the list of names for users.
const ABOVE_ALL: [&str; 3] = ["lib", "main", "prelude"];

/// Arrows that the order allows, but that are not wanted: text becomes batches without any knowledge of models.
const UNWANTED: [(&str, &str); 3] = [("data", "autograd"), ("data", "nn"), ("data", "lora")];

/// Files of more than 300 lines, and functions of more than 60, with the reason.
const LONG: [(&str, &str); 0] = [];

/// A source file: its module path, such as `autograd::ops::linear`, and its lines without comments and without its tests.
struct File {
    path: PathBuf,
    module: Vec<String>,
    /// Lines that are neither blank nor in a test module.
    lines: Vec<String>,
}

/// All files of a package's `src`.
fn files(package: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src");
    let is_test = |file: &PathBuf| {
        ["tests.rs", "testing.rs"].iter().any(|name| file.ends_with(name)) || file.components().any(|c| c.as_os_str() == "tests")
    };
    let mut found: Vec<File> = rust_files(&root).into_iter().filter(|file| !is_test(file)).map(|path| read(&root, path)).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inside = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    inside.filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

fn read(root: &Path, path: PathBuf) -> File {
    let relative = path.strip_prefix(root).unwrap().with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_string()).collect();
    module.pop_if(|last| last == "mod");
    let lines = without_tests(&std::fs::read_to_string(&path).unwrap());
    File { path, module, lines }
}

/// The lines that are not blank, without modules that are compiled for tests alone.
fn without_tests(text: &str) -> Vec<String> {
    let mut lines = text.lines().peekable();
    let mut kept = Vec::new();
    while let Some(line) = lines.next() {
        let starts_tests = line.trim().starts_with("#[cfg(test)]") || line.trim().starts_with("#[cfg(all(test");
        if starts_tests && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ") && next.ends_with('{')) {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            lines.by_ref().find(|line| *line == end);
        } else if !line.trim().is_empty() {
            kept.push(line.to_string());
        }
    }
    kept
}

/// The module paths that a file names, from the root of its crate. `use super::{a::B, c}` in `x::y` gives `x::a::B` and `x::c`.
fn named_paths(module: &[String], is_folder: bool, text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let parent = &module[..module.len() - usize::from(!module.is_empty())];
    for (start, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        // Longer names that end alike, and the second of two `super::`, are part of another path.
        if text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') || text[..start].ends_with("::") {
            continue;
        }
        let mut rest = &text[start..];
        let mut base = if is_folder { module } else { parent };
        if let Some(after) = rest.strip_prefix("crate::") {
            (rest, base) = (after, &[]);
        } else {
            base = if is_folder { parent } else { base };
            rest = &rest["super::".len()..];
            while let Some(after) = rest.strip_prefix("super::") {
                (rest, base) = (after, &base[..base.len().saturating_sub(1)]);
            }
        }
        tree(rest, base.to_vec(), &mut found);
    }
    found
}

/// Reads one use tree, and returns what follows it.
fn tree<'a>(mut rest: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    loop {
        if let Some(mut list) = rest.strip_prefix('{') {
            loop {
                list = tree(list.trim_start(), path.clone(), found).trim_start();
                match list.strip_prefix(',') {
                    Some(more) => list = more,
                    None => return list.strip_prefix('}').unwrap_or(list),
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            return rest;
        }
        path.push(rest[..end].to_string());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => {
                found.push(path);
                return rest;
            }
        }
    }
}

/// The text of a file without comments.
fn code(file: &File) -> String {
    file.lines.iter().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn is_folder(file: &File) -> bool {
    file.path.ends_with("mod.rs")
}

/// Which files each file of a package imports from. A name that a folder's `mod.rs` only passes on counts as an import from the file that defines it.
fn imports(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<String> = files.iter().map(|f| f.module.join("::")).collect();
    let passed_on: BTreeMap<String, Vec<String>> = files.iter().filter(|f| is_folder(f)).flat_map(passes_on).collect();
    let owner = |path: &[String]| -> Option<String> {
        let mut path = path.to_vec();
        if let Some(real) = (1..=path.len()).rev().find_map(|n| passed_on.get(&path[..n].join("::"))) {
            path = real.clone();
        }
        (1..=path.len()).rev().map(|n| path[..n].join("::")).find(|name| names.contains(name))
    };
    let of = |file: &File| {
        let own = file.module.join("::");
        let named = named_paths(&file.module, is_folder(file), &code(file));
        let used = named.iter().filter_map(|path| owner(path)).filter(|used| *used != own).collect();
        (own, used)
    };
    files.iter().map(of).collect()
}

/// The names that a `mod.rs` re-exports, and where they are defined.
fn passes_on(file: &File) -> Vec<(String, Vec<String>)> {
    let mut result = Vec::new();
    for statement in code(file).split(';').filter_map(|s| s.split_once("use ")).map(|(_, s)| s.to_string()) {
        let mut found = Vec::new();
        tree(statement.trim_start_matches("self::"), file.module.clone(), &mut found);
        for path in found.into_iter().filter(|path| path.len() > file.module.len() + 1) {
            let name = [&file.module[..], &path[path.len() - 1..]].concat().join("::");
            result.push((name, path));
        }
    }
    result
}

/// The room of a module path; the longest name wins, so that `cuda/launch` is not `cuda`.
fn room<'a>(rooms: &[&'a str], module: &[String]) -> Option<&'a str> {
    let module = module.join("/");
    let inside = |room: &&&str| module == **room || module.starts_with(&format!("{room}/"));
    rooms.iter().filter(inside).max_by_key(|room| room.len()).copied()
}

/// The rooms that a file must not use but does.
fn wrong_arrows(rooms: &[&str], module: &[String], is_folder: bool, text: &str) -> Vec<String> {
    let place = |name: &str| rooms.iter().position(|r| *r == name);
    let Some(own) = room(rooms, module) else { return Vec::new() };
    let used = named_paths(module, is_folder, text).into_iter().filter_map(|path| room(rooms, &path));
    let wrong = |used: &&str| place(used) > place(own) || UNWANTED.contains(&(own, used));
    used.filter(wrong).map(str::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn no_arrow_points_back() {
    for (package, rooms, least) in [(".", &ENGINE[..], 80), ("cli", &PROGRAM[..], 40)] {
        let files = files(package);
        for file in &files {
            let above = file.module.first().is_some_and(|name| ABOVE_ALL.contains(&name.as_str()));
            assert!(above || room(rooms, &file.module).is_some(), "{}: say where in the order this room stands", file.path.display());
            let wrong = wrong_arrows(rooms, &file.module, is_folder(file), &code(file));
            assert!(wrong.is_empty(), "{}: must not use {wrong:?}", file.path.display());
        }
        assert!(files.len() > least, "only {} files were read", files.len());
    }
}

#[test]
fn a_wrong_arrow_is_seen() {
    let wrong = |module: &str, text: &str| wrong_arrows(&ENGINE, &module.split("::").map(str::to_string).collect::<Vec<_>>(), false, text);
    for (module, planted, found) in [
        ("tensor::shape", "use crate::autograd::Tape;", "autograd"),
        ("tensor::shape", "use crate::{Error, Result};\nfn f() { crate::nn::site::ffn(0); }", "nn"),
        ("nn::linear", "use crate::{Result, lora};", "lora"),
        ("nn::linear", "use crate::{\n    Error, Result,\n    autograd::{Tape, Var},\n    lora::peft,\n};", "lora"),
        ("lora::peft", "use super::super::train::AdamW;", "train"),
        ("data::batch", "use crate::nn::Pass;", "nn"),
        ("error", "use crate::autograd::Var;", "autograd"),
        ("cuda::device", "use crate::tensor::Tensor;", "tensor"),
        ("cuda::launch::norm", "use crate::autograd::Var;", "autograd"),
    ] {
        assert_eq!(wrong(module, planted), [found], "{planted}");
    }
    let right = "use crate::nn::{DistilBert, data};\nuse crate::{Error, Result, tensor::{train, Tensor}};\nuse super::train;";
    assert!(wrong("lora::peft", right).is_empty());
    assert!(wrong("cuda::launch::norm", "use crate::tensor::Tensor;").is_empty());
}

/// A circle of imports, if there is one. The `mod.rs` of a folder is its face: it names its files, and they may use what it defines.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>, faces: &BTreeSet<String>) -> Option<Vec<String>> {
    fn visit<'a>(
        at: &'a str,
        imports: &'a BTreeMap<String, BTreeSet<String>>,
        faces: &BTreeSet<String>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|name| *name == at) {
            return Some(path[start..].iter().map(|name| name.to_string()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        path.push(at);
        let next = imports.get(at).into_iter().flatten().filter(|name| !faces.contains(*name));
        let found = next.into_iter().find_map(|name| visit(name, imports, faces, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().filter(|name| !faces.contains(*name)).find_map(|name| visit(name, imports, faces, &mut Vec::new(), &mut done))
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    for package in [".", "cli"] {
        let files = files(package);
        let faces = files.iter().filter(|f| is_folder(f)).map(|f| f.module.join("::")).chain(ABOVE_ALL.map(String::from)).collect();
        assert_eq!(circle(&imports(&files), &faces), None, "{package}");
    }
    let edges = |pairs: &[(&str, &str)]| -> BTreeMap<String, BTreeSet<String>> {
        pairs.iter().map(|(from, to)| (from.to_string(), BTreeSet::from([to.to_string()]))).collect()
    };
    assert!(circle(&edges(&[("a", "b"), ("b", "c"), ("c", "a")]), &BTreeSet::new()).is_some());
    assert!(circle(&edges(&[("a", "b"), ("b", "c")]), &BTreeSet::new()).is_none());
}

/// Functions of a file, and their lines of code and comments.
fn functions(lines: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (n, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if let Some((start, end, name)) = &open {
            if line == end {
                found.push((name.clone(), n - start + 1));
                open = None;
            }
        } else if let Some((before, after)) = line.split_once("fn ")
            && before
                .trim()
                .split(' ')
                .all(|word| word.is_empty() || word.starts_with("pub") || word.ends_with(')') || ["const", "unsafe"].contains(&word))
            && !line.trim_end().ends_with(['}', ';'])
        {
            open = Some((n, format!("{indent}}}"), after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()));
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for file in [".", "cli"].into_iter().flat_map(files) {
        let name = file.path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string().replace("./", "");
        if file.lines.len() > 300 {
            long.push((name.clone(), format!("{name} has {} lines", file.lines.len())));
        }
        let functions = functions(&file.lines).into_iter().filter(|(_, lines)| *lines > 60);
        long.extend(functions.map(|(function, lines)| (format!("{name} {function}"), format!("{name}: {function} has {lines} lines"))));
    }
    let unexcused: Vec<_> =
        long.iter().filter(|(name, _)| !LONG.iter().any(|(excused, _)| excused == name)).map(|(_, what)| what).collect();
    assert!(unexcused.is_empty(), "split by meaning, or give the reason in LONG: {unexcused:#?}");
    let stale: Vec<_> = LONG.iter().filter(|(excused, _)| !long.iter().any(|(name, _)| name == excused)).collect();
    assert!(stale.is_empty(), "no longer long: {stale:?}");
}
