//! One writer at a time: a lock on the place of a result.

use super::replace::{followed, if_supported};
use lowrank::files::parent;
use lowrank::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::path::{Path, PathBuf};

/// The right to write a result. Other processes are refused until it is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Takes the place `path`, of a file or a folder, for this process.
///
/// # Errors
/// If another process has locked the place, if the lock file cannot be written, or if somebody else has a file of its name.
pub fn lock(path: &Path) -> Result<Lock> {
    let problem = "is being written by another process of lowrank: wait until it ends, or choose another --out";
    try_lock(path)?.ok_or_else(|| Error::file(path, "--out", problem))
}

/// [`lock`], or `None` if another process has locked the place.
///
/// # Errors
/// If the lock file cannot be written, or if somebody else has a file of its name.
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
        let file = open(&place)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => if_supported(Err(e)).map_err(io)?,
        }
        // The process that had the lock may have removed the file after it was opened here.
        if same_file(&file, &place) {
            return Ok(Some(Lock { file, path: place }));
        }
    }
}

/// Opens the lock file, or makes it. A link is not followed, and a FIFO does not block.
fn open(place: &Path) -> Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use nix::fcntl::OFlag;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    }
    let opened = options.open(place).and_then(|file| Ok((file.metadata()?, file)));
    let foreign = match &opened {
        Ok((found, _)) => !may_be_ours(found),
        Err(_) => place.symlink_metadata().is_ok_and(|found| !may_be_ours(&found)),
    };
    if foreign {
        let problem = "is not the empty file that lowrank makes here: move it away, or choose another --out; nothing was changed";
        return Err(Error::file(place, "lock file", problem));
    }
    opened.map(|(_, file)| file).map_err(|e| Error::io(place, e))
}

/// Whether it may be a lock file: an empty regular file.
fn may_be_ours(found: &Metadata) -> bool {
    found.is_file() && found.len() == 0
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: &Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), path.symlink_metadata()), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed before it is unlocked: whoever opened it in between sees that it is gone, and makes a new one.
        if same_file(&self.file, &self.path) && self.path.symlink_metadata().is_ok_and(|found| may_be_ours(&found)) {
            let _ = fs::remove_file(&self.path);
        }
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

    #[test]
    fn a_file_of_others_with_the_name_of_the_lock_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (out, place) = (dir.path().join("out"), dir.path().join(".out.lock"));
        let refused = || {
            let error = lock(&out).map(drop).unwrap_err().to_string();
            assert!(error.contains(".out.lock") && error.contains("move it away"), "{error}");
        };
        fs::write(&place, "precious").unwrap();
        refused();
        assert_eq!(fs::read_to_string(&place).unwrap(), "precious");
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        refused();
        fs::remove_dir(&place).unwrap();
        #[cfg(unix)]
        {
            use nix::sys::stat::Mode;
            // Neither a link to nothing nor one to an empty file, and a FIFO does not hang.
            let target = dir.path().join("target");
            std::os::unix::fs::symlink(&target, &place).unwrap();
            refused();
            assert!(!target.exists());
            fs::write(&target, "").unwrap();
            refused();
            assert!(place.is_symlink() && target.exists());
            fs::remove_file(&place).unwrap();
            nix::unistd::mkfifo(&place, Mode::S_IRWXU).unwrap();
            refused();
            fs::remove_file(&place).unwrap();
        }
        // What a killed process left is taken, and what somebody wrote there meanwhile is not removed.
        fs::write(&place, "").unwrap();
        let taken = lock(&out).unwrap();
        fs::write(&place, "mine").unwrap();
        drop(taken);
        assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
    }
}
