//! What the tests of several rooms share.

use crate::autograd::gradcheck::Suite;
use crate::nn::{Config, DistilBert};
use crate::tensor::DType;
use std::path::{Path, PathBuf};

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

/// Makes a named pipe.
#[cfg(unix)]
pub fn make_pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A random model with one layer, 8 wide, for 40 tokens and two classes.
pub fn small_model(dtype: DType) -> DistilBert {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 1, 40);
    DistilBert::random(&config, 2, dtype, 1).unwrap()
}
