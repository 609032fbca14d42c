//! Reading small files, and JSON objects without duplicate keys.

use super::open::{open_file, open_stream};
use crate::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The message for a file that is a pointer of Git LFS.
pub(crate) const LFS_POINTER: &str =
    "is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or download the file";

/// True for the short text that Git LFS leaves in place of a file that it did not fetch.
/// <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}

/// The bytes of a file that is read once: see [`open_stream`].
///
/// # Errors
/// If it cannot be read, or is no regular file and no stream.
pub fn read_stream(path: &Path) -> Result<Vec<u8>> {
    read_all(path, open_stream(path)?)
}

/// What is left of `file`, which is at `path`.
fn read_all(path: &Path, mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

/// The bytes of a small file of a checkpoint or an adapter.
///
/// # Errors
/// If it cannot be read, is no regular file, or is a Git LFS pointer.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_all(path, open_file(path)?)?;
    if is_lfs_pointer(&bytes) { Err(Error::file(path, "content", LFS_POINTER)) } else { Ok(bytes) }
}

/// The text of a small file.
///
/// # Errors
/// As [`read_bytes`], or if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|e| Error::file(path, "content", e))
}

/// A JSON object whose keys must all differ. serde_json alone would silently keep the last of two equal keys.
pub(crate) struct Unique<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Unique(Vec::new()))
    }
}

/// Appends the entries of an object.
impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} stands there twice")));
            }
            self.0.push((key, value));
        }
        Ok(self)
    }
}
