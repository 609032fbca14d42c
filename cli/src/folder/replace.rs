//! Replacing a folder by a new one, whole or not at all.

use super::marker::{check_ours, mark, remove_ours};
use lowrank::files::{parent, temporary};
use lowrank::{Error, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// End of the hidden name of an old folder between two renames.
pub(super) const OLD: &str = "old";

/// Refuses a folder that [`write_directory`] would not replace. Call it before long work. Reading all files to check their hashes is most of it.
///
/// # Errors
/// If `path` is not a folder, or holds anything that lowrank did not write.
pub fn check_replaceable(path: &Path) -> Result<()> {
    temporary(path)?;
    let path = &followed(path)?;
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        return Err(Error::file(path, "directory", "is a file, and a directory is to be written here: choose another name"));
    }
    if is_mount_point(path) {
        let problem = "is a mount point, and a folder is replaced as a whole: give a folder inside it, which need not exist";
        return Err(Error::file(path, "directory", problem));
    }
    check_ours(path).map(drop)
}

/// Whether another file system begins at the folder `path`. Nothing can be renamed to its place.
#[cfg(unix)]
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|found| found.dev());
    matches!((device(path), device(parent(path))), (Ok(own), Ok(above)) if own != above)
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// `path`, or the target if it is a link: the link stays, and its target is replaced.
///
/// # Errors
/// If it is a link that leads nowhere.
pub fn followed(path: &Path) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path.to_path_buf());
    }
    fs::canonicalize(path).map_err(|e| Error::file(path, "link", format!("leads nowhere ({e}): remove it, or choose another name")))
}

/// Fills a new folder with `fill`, and puts it in the place of the folder at `path`.
///
/// # Errors
/// If `fill` fails, or [`check_replaceable`] refuses. The old content of `path` is then still there.
pub fn write_directory(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_replaceable(path)?;
    let path = &followed(path)?;
    let staging = temporary(path)?;
    let io = |e| Error::io(path, e);
    fs::create_dir_all(&staging).map_err(io)?;
    let moved = (|| {
        // As long as this process lives, the lock says that the folder is not a leftover.
        let handle = open_directory(&staging).map_err(io)?;
        handle.iter().try_for_each(|handle| if_supported(handle.lock())).map_err(io)?;
        fill(&staging)?;
        mark(&staging)?;
        for entry in fs::read_dir(&staging).map_err(io)? {
            File::open(entry.map_err(io)?.path()).and_then(|file| file.sync_all()).map_err(io)?;
        }
        handle.iter().try_for_each(File::sync_all).map_err(io)?;
        if path.exists() { exchange(&staging, path).map_err(io) } else { fs::rename(&staging, path).map_err(io) }
    })();
    // After an exchange, the old folder has the hidden name.
    let removed = match (staging.exists(), &moved) {
        (false, _) => Ok(()),
        (true, Ok(())) => remove_old(&staging, path),
        (true, Err(_)) => remove_files(&staging, fs::read_dir(&staging).into_iter().flatten().flatten().map(|entry| entry.path())),
    };
    moved.and(removed)?;
    open_directory(parent(path)).and_then(|parent| parent.iter().try_for_each(File::sync_all)).map_err(io)
}

/// Removes the old folder after an exchange. A file that came into it since the check stays, and is named.
fn remove_old(old: &Path, path: &Path) -> Result<()> {
    let Some(other) = remove_ours(old)?.into_iter().next() else { return Ok(()) };
    let problem = format!(
        "came into {}, or was changed there, while the folder was replaced: it stays here, and the new result is in place; move it away",
        path.display()
    );
    Err(Error::file(other, "entry", problem))
}

/// Removes a folder that lowrank wrote.
///
/// # Errors
/// If it holds anything that lowrank did not write, or something cannot be removed.
pub fn remove(directory: &Path) -> Result<()> {
    let directory = &followed(directory)?;
    remove_files(directory, check_ours(directory)?.into_iter().map(|name| directory.join(name)))
}

/// Removes these files of a folder, and the folder itself, which must be empty then.
pub(super) fn remove_files(directory: &Path, files: impl Iterator<Item = PathBuf>) -> Result<()> {
    for file in files {
        fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
    }
    fs::remove_dir(directory).map_err(|e| Error::io(directory, e))
}

/// The result of locking a file. A file system without locks is no error: the program goes on without one.
pub fn if_supported(locked: io::Result<()>) -> io::Result<()> {
    match locked {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        locked => locked,
    }
}

/// Opens a folder, to lock it or to flush it to the disk. `None` on systems that cannot open a folder as a file.
pub(super) fn open_directory(path: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) { File::open(path).map(Some) } else { Ok(None) }
}

/// Exchanges two folders. At every moment a folder is at `path` where the system can exchange in one step (Linux, on most file systems).
fn exchange(staging: &Path, path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, staging, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
            // This file system, or an old kernel, cannot do it.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP) => {}
            done => return Ok(done?),
        }
    }
    // `recover` finds the old folder under this name if the process is killed between two renames.
    let mut old = staging.as_os_str().to_owned();
    old.push(format!(".{}", OLD));
    let old = Path::new(&old);
    fs::rename(path, old)?;
    fs::rename(staging, path).inspect_err(|_| {
        // The error is reported, so an error here is dropped.
        let _ = fs::rename(old, path);
    })?;
    fs::rename(old, staging)
}

#[cfg(test)]
mod tests {
    use super::super::{MARKER, recover};
    use super::*;

    fn put(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |d| fs::write(d.join("README.md"), text).map_err(|e| Error::io(d, e))
    }

    fn entries(of: &Path) -> usize {
        fs::read_dir(of).unwrap().count()
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        write_directory(&out, put("1")).unwrap();
        write_directory(&out, put("2")).unwrap();
        let failed = write_directory(&out, |d| put("3")(d).and(Err(Error::invalid("no"))));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_to_string(out.join("README.md")).unwrap(), "2");
        assert_eq!((entries(dir.path()), entries(&out)), (1, 2));
    }

    #[test]
    fn what_comes_into_a_folder_while_it_is_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        // The folder was written before, and it was empty before.
        for before in [true, false] {
            fs::create_dir_all(&out).unwrap();
            if before {
                write_directory(&out, put("old")).unwrap();
            }
            let written = write_directory(&out, |d| {
                fs::write(out.join("thesis.tex"), "mine").unwrap();
                put("new")(d)
            });
            let error = written.unwrap_err().to_string();
            assert!(error.contains("thesis.tex") && error.contains("move it away"), "{error}");
            let mut told = Vec::new();
            for _ in 0..2 {
                recover(&out, &mut |text| told.push(text.to_string())).unwrap();
            }
            assert!(told.len() == 2 && told.iter().all(|text| text.contains("thesis.tex")), "{told:?}");
            let hidden = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| *path != out).unwrap();
            assert_eq!(fs::read_to_string(hidden.join("thesis.tex")).unwrap(), "mine");
            assert_eq!((entries(&hidden), fs::read_to_string(out.join("README.md")).unwrap().as_str()), (2, "new"));
            // Without it, the folder goes.
            fs::remove_file(hidden.join("thesis.tex")).unwrap();
            recover(&out, &mut |text| panic!("{text}")).unwrap();
            assert!(!hidden.exists());
            fs::remove_dir_all(&out).unwrap();
        }
    }

    #[test]
    fn what_the_marker_does_not_prove_stays() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let refused = |says: &str| {
            let error = write_directory(&out, put("new")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(remove(&out).is_err());
        };
        // A file with a name of ours, but no marker.
        fs::create_dir(&out).unwrap();
        fs::write(out.join("README.md"), "thesis").unwrap();
        refused("no .lowrank-files.json");
        fs::remove_dir_all(&out).unwrap();
        write_directory(&out, put("ours")).unwrap();
        // A file more, a changed file, a folder and a link in place of a file.
        fs::write(out.join("thesis.tex"), "mine").unwrap();
        refused("thesis.tex");
        fs::remove_file(out.join("thesis.tex")).unwrap();
        fs::write(out.join("README.md"), "edited").unwrap();
        refused("README.md");
        fs::remove_file(out.join("README.md")).unwrap();
        fs::create_dir_all(out.join("README.md/deep")).unwrap();
        refused("README.md");
        fs::remove_dir_all(out.join("README.md")).unwrap();
        #[cfg(unix)]
        {
            fs::write(dir.path().join("elsewhere"), "ours").unwrap();
            std::os::unix::fs::symlink(dir.path().join("elsewhere"), out.join("README.md")).unwrap();
            refused("README.md");
            fs::remove_file(out.join("README.md")).unwrap();
        }
        fs::write(out.join("README.md"), "ours").unwrap();
        write_directory(&out, put("new")).unwrap();
        fs::write(out.join(MARKER), "{}").unwrap();
        refused("json");
    }

    #[test]
    fn a_file_system_without_locks_is_no_error() {
        assert!(if_supported(Err(io::ErrorKind::Unsupported.into())).is_ok());
        assert!(if_supported(Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }
}
