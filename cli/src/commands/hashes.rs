//! Hashes by which a run knows its data and its base again.

use lowrank::data::{Tokenized, hash_file};
use lowrank::text::hex;
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// SHA-256 of the weights in `folder`, one for each file.
pub fn checkpoint_hash(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut files: Vec<PathBuf> = entries.map(|f| Ok(f.map_err(|e| Error::io(folder, e))?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    Ok(files.iter().map(|file| Ok(hex(&hash_file(file)?))).collect::<Result<Vec<_>>>()?.join(" "))
}

/// SHA-256 of ids, labels and offsets.
pub fn digest(data: &Tokenized) -> String {
    let mut hash = Sha256::new();
    data.ids.iter().chain(&data.labels).for_each(|id| hash.update(id.to_le_bytes()));
    data.offsets.iter().for_each(|offset| hash.update((*offset as u64).to_le_bytes()));
    hex(&hash.finalize())
}
