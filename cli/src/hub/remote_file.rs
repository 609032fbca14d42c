//! A file to download: its address, its size, and where it belongs.

use std::path::Path;

/// A file to download.
pub struct RemoteFile<'a> {
    /// Name shown in progress messages.
    pub name: &'a str,
    pub url: &'a str,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal digits, if it is known.
    pub sha256: Option<&'a str>,
    /// Where the finished file belongs.
    pub path: &'a Path,
    /// Lock file: one process at a time downloads this file.
    pub lock: &'a Path,
}

impl RemoteFile<'_> {
    /// Whether the finished file exists. Its content was checked before it got this name, so the size is enough here.
    pub fn exists(&self) -> bool {
        self.path.metadata().is_ok_and(|m| m.is_file() && m.len() == self.size)
    }
}
