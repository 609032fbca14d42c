//! Whether the disk has room for a download, before the first byte of it.

use super::partial_file::incomplete;
use lowrank::{Error, Result};
use std::path::Path;

/// Checks that the disk has room for `files`: their final paths, and the lengths in bytes that the server promises. What an earlier run received
/// needs no more room. `name` is what is fetched, `from` the server. `folder` need not exist yet.
///
/// # Errors
/// If the file system of `folder` has less room.
pub fn check_room(name: &str, from: &str, folder: &Path, files: &[(&Path, u64)]) -> Result<()> {
    let needed = files.iter().fold(0, |sum: u64, (path, size)| sum.saturating_add(size.saturating_sub(received(path, *size))));
    match free(folder) {
        Some(free) if needed > free => Err(Error::invalid(format!(
            "{name}: {from} promises {needed} bytes, and {} has room for {free}; make room, or set HF_HOME and LOWRANK_HOME to folders on a \
             larger disk; do not trust this server if that size cannot be true",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Bytes of the file at `path` that are on the disk: all of them, or the part that an earlier run left.
fn received(path: &Path, size: u64) -> u64 {
    let length = |path: &Path| path.metadata().map_or(0, |found| found.len());
    // A part that is longer belongs to another file, and is discarded.
    [length(path), length(&incomplete(path))].into_iter().filter(|length| *length <= size).max().unwrap_or(0)
}

/// Bytes that this user may still write to the file system of `folder`, or of the nearest folder above it that exists. `None` if unknown.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let folder = std::path::absolute(folder).ok()?;
    let found = folder.ancestors().find_map(|folder| nix::sys::statvfs::statvfs(folder).ok())?;
    // The types of the two differ from system to system.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (u64::from(found.blocks_available()), u64::from(found.fragment_size()));
    Some(blocks.saturating_mul(size))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_compared_with_what_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("not/yet/there");
        let free = free(&new).unwrap();
        assert!(free > 1 << 20, "a temporary folder with a megabyte: {free}");
        let path = new.join("file");
        let check = |sizes: &[u64]| {
            let files: Vec<(&Path, u64)> = sizes.iter().map(|size| (path.as_path(), *size)).collect();
            check_room("owner/name", "http://mirror", &new, &files).map_err(|e| e.to_string())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[1 << 10]), Ok(()));
        let refused = check(&[1 << 62]).unwrap_err();
        let want = format!("owner/name: http://mirror promises {} bytes, and {} has room for ", 1_u64 << 62, new.display());
        assert!(refused.starts_with(&want) && refused.contains("HF_HOME"), "{refused}");
        // A sum beyond 64 bits does not wrap around to a small one.
        assert!(check(&[u64::MAX, 2]).unwrap_err().contains(&format!("promises {} bytes", u64::MAX)));
    }

    #[test]
    fn what_was_received_needs_no_more_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(received(&path, 10), 0);
        std::fs::write(incomplete(&path), "1234567").unwrap();
        assert_eq!((received(&path, 10), received(&path, 7), received(&path, 6)), (7, 7, 0));
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(received(&path, 10), 10);
    }
}
