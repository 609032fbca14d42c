//! What the tests of several rooms share.

use crate::autograd::gradcheck::Suite;
use std::path::PathBuf;

/// The gradient checks of every op of the engine.
pub fn suites() -> Vec<Suite> {
    crate::lora::all_suites()
}

/// A file or folder of the reference material beside the repository (or in `LOWRANK_SHARED`); `None`, with a notice, where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOWRANK_SHARED").map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into(), PathBuf::from);
    let full = root.join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: {} is not here", full.display());
    None
}
