//! Replays inputs of the fuzz targets (`fuzz/`): the seeds, and every input that once made a target panic.
#![cfg(feature = "data")]

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

/// The inputs of a target in a folder.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_none_or(|e| e != "open")).collect();
    files.sort();
    files
}

#[test]
fn no_known_input_breaks_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, run) in targets::ALL {
        let seeds = inputs(&root.join("fuzz/seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for file in seeds.into_iter().chain(inputs(&root.join("tests/fuzz_findings").join(target))) {
            let data = fs::read(&file).unwrap();
            let ended = std::panic::catch_unwind(|| run(&data));
            assert!(ended.is_ok(), "the input {} breaks the target {target}", file.display());
        }
    }
}

#[test]
fn every_folder_belongs_to_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["fuzz/seeds", "tests/fuzz_findings"] {
        for entry in root.join(folder).read_dir().into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(targets::ALL.iter().any(|(target, _)| *target == name), "{folder}/{name} belongs to no target");
        }
    }
}

/// What the engine makes of the seeds: most are valid, so that fuzzing starts behind the first checks.
#[test]
fn the_seeds_reach_the_engine() {
    use lowrank::train::{AdamW, load_checkpoint};
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let seed = |name: &str| fs::read(root.join(name)).unwrap();
    let state = targets::input::safetensors_file(&seed("checkpoint/whole"));
    let ok = targets::input::with_files(&[("a", &state)], |folder| {
        load_checkpoint(&folder.join("a"), &mut targets::checkpoint::model(), &mut AdamW::new(0.0), targets::checkpoint::SETTINGS)
            .map(|_| ())
    });
    ok.unwrap();
    for name in ["lora", "dora", "tokens", "head", "bitfit", "prompt"] {
        let data = seed(&format!("adapter/{name}"));
        let [config, tensors] = targets::input::parts(&data);
        let tensors = targets::input::safetensors_file(tensors);
        let files = [("adapter_config.json", config), ("adapter_model.safetensors", &tensors)];
        let loaded = targets::input::with_files(&files, |folder| {
            lowrank::lora::adapter::load_with(&mut targets::input::small_model(), folder, true).map(|_| ())
        });
        loaded.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
