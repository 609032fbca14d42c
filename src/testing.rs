//! What the tests of several rooms share.

use crate::autograd::gradcheck::Suite;
use std::path::PathBuf;

/// The gradient checks of every op of the engine.
pub fn suites() -> Vec<Suite> {
    crate::lora::all_suites()
}

/// A file or folder of the reference material, which is in `../shared` or in `LOWRANK_SHARED`. `None` if it is absent; then it prints a notice.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOWRANK_SHARED").map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into(), PathBuf::from);
    let full = root.join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: {} is not here", full.display());
    None
}
