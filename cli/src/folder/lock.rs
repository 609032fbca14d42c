//! One writer at a time: a lock on the place of a result.

use super::replace::followed;
use lowrank::files::parent;
use lowrank::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The right to write a result. Other processes are refused until it is dropped, or the process ends in any way.
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Takes the place `path`, of a file or a folder, for this process.
///
/// # Errors
/// If another process has locked the place, or the lock file cannot be written.
pub fn lock(path: &Path) -> Result<Lock> {
    let problem = "is being written by another process of lowrank: wait until it ends, or choose another --out";
    try_lock(path)?.ok_or_else(|| Error::file(path, "--out", problem))
}

/// [`lock`], or `None` if another process has locked the place.
///
/// # Errors
/// If the lock file cannot be written.
pub fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let path = &followed(path)?;
    let name = path.file_name().ok_or_else(|| Error::file(path, "name", "is not the name of a file or directory"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".lock");
    let place = path.with_file_name(hidden);
    let io = |e| Error::io(&place, e);
    fs::create_dir_all(parent(path)).map_err(io)?;
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(&place).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            // A file system without locks: go on without one.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        // The process that had the lock may have removed the file after it was opened here.
        if same_file(&file, &place) {
            return Ok(Some(Lock { file, path: place }));
        }
    }
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed before it is unlocked: whoever opened it in between sees that it is gone, and makes a new one.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/out");
        let first = lock(&out).unwrap();
        assert!(lock(&out).is_err_and(|e| e.to_string().contains("another process")));
        drop(first);
        drop(lock(&out).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
    }
}
