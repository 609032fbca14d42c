//! Writing files whole or not at all: after a crash, the old content or the new one is there, never a part.
//!
//! New content goes to a hidden temporary name in the same directory, is flushed to the disk, and is renamed.

use super::read::read_bytes;
use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// If the file cannot be written. The old content of `path` is then still there.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |mut file| file.write_all(bytes).map(Some).map_err(|e| Error::io(path, e))).map(drop)
}

/// Replaces the file at `to` by a copy of `from`.
///
/// # Errors
/// If `from` cannot be read or `to` cannot be written; the message names that file.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    write_file(to, &read_bytes(from)?)
}

/// Replaces the file at `path` by what `fill` writes, unless `fill` returns `None`.
///
/// # Errors
/// Those of `fill`, and if the file cannot be written. The old content of `path` is then still there.
pub fn write_with<T>(path: &Path, fill: impl FnOnce(&File) -> Result<Option<T>>) -> Result<Option<T>> {
    let temporary = temporary(path)?;
    remove_leftovers(path);
    let io = |e| Error::io(path, e);
    let write = || {
        let file = File::create_new(&temporary).map_err(io)?;
        // While it is locked, it is not taken for the leftover of a dead process. A file system without locks is no error.
        let _ = file.lock();
        let Some(done) = fill(&file)? else { return Ok(None) };
        file.sync_all().map_err(io)?;
        fs::rename(&temporary, path).map_err(io)?;
        Ok(Some(done))
    };
    let done = write();
    if !matches!(done, Ok(Some(_))) {
        // If there is an error, it is reported, so an error here is dropped.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Removes the temporary files that dead writers of `path` left: those that nobody holds locked, and links, which need a lock of the caller.
/// An error is dropped: a leftover does no harm.
pub fn remove_leftovers(path: &Path) {
    for entry in fs::read_dir(parent(path)).into_iter().flatten().flatten() {
        let left = entry.path();
        let is_dead = || match entry.file_type() {
            Ok(kind) if kind.is_file() => File::open(&left).is_ok_and(|file| file.try_lock().is_ok()),
            Ok(kind) => kind.is_symlink(),
            Err(_) => false,
        };
        if is_temporary(&left, path) && is_dead() {
            let _ = fs::remove_file(&left);
        }
    }
}

/// A hidden name in the directory of `path` that nobody else uses: `.{name}.partial-{16 hexadecimal digits}`. The digits are random, as in a
/// container every process has the same number.
///
/// # Errors
/// If `path` does not end with a name.
pub fn temporary(path: &Path) -> Result<PathBuf> {
    let mut name = prefix(path).ok_or_else(|| Error::file(path, "name", "is not the name of a file or directory"))?;
    // Each `RandomState` has other keys.
    name.push(format!("{:016x}", RandomState::new().hash_one(0)));
    Ok(path.with_file_name(name))
}

/// Whether `other` has a name that [`temporary`] makes for `path`.
pub fn is_temporary(other: &Path, path: &Path) -> bool {
    let (Some(prefix), Some(name)) = (prefix(path), other.file_name()) else { return false };
    let digits = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Most bytes of a name that stands in a temporary name. File systems allow 255 in all.
const LONGEST: usize = 200;

/// The hidden names of `path` up to their digits. A name that is too long is replaced by its hash.
fn prefix(path: &Path) -> Option<OsString> {
    let own = path.file_name()?;
    let mut name = OsString::from(".");
    if own.len() > LONGEST {
        // The keys of this hasher are fixed: another process finds the same name.
        name.push(format!("{:016x}", BuildHasherDefault::<DefaultHasher>::default().hash_one(own)));
    } else {
        name.push(own);
    }
    name.push(".partial-");
    Some(name)
}

/// The directory of `path`: `.` if it has no other.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_file(&path, b"1").unwrap();
        write_file(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A directory cannot be replaced by a file, and nothing is left behind.
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write_file(&dir.path().join("d"), b"3").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_file(&path, b"1").unwrap();
        let fill = |answer: Result<Option<u8>>| {
            write_with(&path, |mut file| {
                file.write_all(b"half").unwrap();
                answer
            })
        };
        assert_eq!(fill(Ok(None)).unwrap(), None);
        assert!(fill(Err(Error::invalid("no"))).is_err());
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"1".to_vec(), 1));
        assert_eq!(fill(Ok(Some(7))).unwrap(), Some(7));
        assert_eq!(fs::read(&path).unwrap(), b"half");
    }

    #[test]
    fn leftovers_of_dead_writers_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (dead, alive) = (temporary(&path).unwrap(), temporary(&path).unwrap());
        fs::write(&dead, "").unwrap();
        let writer = File::create_new(&alive).unwrap();
        writer.lock().unwrap();
        write_file(&path, b"1").unwrap();
        assert_eq!((dead.exists(), alive.exists()), (false, true));
    }

    #[test]
    fn temporary_names_are_known_again() {
        let out = Path::new("x/out");
        let (a, b) = (temporary(out).unwrap(), temporary(out).unwrap());
        assert!(a != b && is_temporary(&a, out) && !is_temporary(&a, Path::new("x/out2")));
        assert!(!is_temporary(Path::new("x/.out.partial-notes"), out));
        assert!(temporary(Path::new("x/..")).is_err());
        let long = Path::new("x").join("a".repeat(255));
        let other = Path::new("x").join("b".repeat(255));
        let name = temporary(&long).unwrap();
        assert!(name.file_name().unwrap().len() < 255 && is_temporary(&name, &long) && !is_temporary(&name, &other));
        assert_eq!((parent(out), parent(Path::new("out"))), (Path::new("x"), Path::new(".")));
    }
}
