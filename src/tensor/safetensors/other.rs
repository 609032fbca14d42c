//! What lies where a safetensors file or a text should be.

use crate::{Error, Result};
use std::path::Path;

/// What is said of a pointer of Git LFS.
pub(super) const LFS_POINTER: &str =
    "is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or download the file";

/// Whether these bytes are a pointer that Git LFS leaves where it did not fetch the file. <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}

/// The bytes of a small file of a checkpoint or an adapter.
///
/// # Errors
/// If it cannot be read, or is a Git LFS pointer.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    if is_lfs_pointer(&bytes) { Err(Error::file(path, "content", LFS_POINTER)) } else { Ok(bytes) }
}

/// The text of such a file.
///
/// # Errors
/// As [`read_bytes`], or if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|e| Error::file(path, "content", e))
}

/// Names of the pickles that PyTorch writes where safetensors are not asked for, and of their indices.
const PICKLES: [&str; 5] =
    ["adapter_model.bin", "adapter_model.pt", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.pt"];

/// The error for weights that `directory` holds as a pickle, if it does.
pub(super) fn pickle(directory: &Path) -> Option<Error> {
    let path = PICKLES.iter().map(|name| directory.join(name)).find(|path| path.exists())?;
    let library = if path.file_name()?.to_str()?.starts_with("adapter") { "peft" } else { "transformers" };
    let problem = format!(
        "is a pickle, which can run any program and is not read: load it in {library} and write it again with \
         save_pretrained(…, safe_serialization=True)"
    );
    Some(Error::file(path, "format", problem))
}
