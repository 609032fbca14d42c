//! What is left beside a result when a process was killed.

use super::marker::{has_marker, remove_ours};
use super::replace::{OLD, followed, open_directory, remove_files};
use lowrank::files::{is_temporary, parent};
use lowrank::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// Repairs the state after writing the file or folder at `path` was interrupted: an old folder goes back to `path` if `path` is missing, and
/// the unfinished files and folders of dead processes are removed. Those of living processes stay. Of a folder with a marker, only what the
/// marker proves is removed; `tell` gets a sentence about what stays.
///
/// # Errors
/// If something cannot be moved or removed.
pub fn recover(path: &Path, tell: &mut dyn FnMut(&str)) -> Result<()> {
    let path = &followed(path)?;
    let parent = parent(path);
    if !parent.exists() {
        return Ok(());
    }
    let io = |e| Error::io(path, e);
    for entry in fs::read_dir(parent).map_err(io)? {
        let left = entry.map_err(io)?.path();
        let is_old = left.extension().is_some_and(|end| end == OLD);
        let name = if is_old { left.with_extension("") } else { left.clone() };
        if !is_temporary(&name, path) {
            continue;
        }
        if in_use(&left) {
            if is_old && !path.exists() {
                let advice = "if no other process of lowrank is at work there, give it its old name again";
                tell(&format!("{}: may be the old content of {}: {advice}", left.display(), path.display()));
            }
        } else if left.is_symlink() || left.is_file() {
            fs::remove_file(&left).map_err(io)?;
        } else if is_old && !path.exists() {
            fs::rename(&left, path).map_err(io)?;
        } else if has_marker(&left) {
            for other in remove_ours(&left)? {
                tell(&format!(
                    "{}: not written by lowrank, or changed since, so it stays in this hidden folder: move it away",
                    other.display()
                ));
            }
        } else {
            remove_unfinished(&left)?;
        }
    }
    Ok(())
}

/// Removes a folder that a process was filling. It holds only files: a folder in it would be somebody else's, and then nothing is removed.
fn remove_unfinished(left: &Path) -> Result<()> {
    let io = |e| Error::io(left, e);
    let files: Vec<_> = fs::read_dir(left).map_err(io)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(io)?;
    match files.iter().find(|file| !file.symlink_metadata().is_ok_and(|found| found.is_file())) {
        Some(other) => Err(Error::file(other, "entry", "is in a hidden folder of lowrank, but lowrank did not write it: move it away")),
        None => remove_files(left, files.into_iter()),
    }
}

/// Whether a living process may hold the lock of the file or folder: one that cannot be locked, too, as on a file system without locks.
fn in_use(path: &Path) -> bool {
    // Opening a named pipe would wait for ever, and lowrank makes none. A link leads to somebody else's file.
    let handle = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => open_directory(path),
        Ok(found) if found.is_file() => File::open(path).map(Some),
        _ => return true,
    };
    handle.is_ok_and(|file| may_be_held(file.map(|file| file.try_lock())))
}

/// Whether this answer leaves the possibility that another process holds the lock.
fn may_be_held(answer: Option<std::result::Result<(), TryLockError>>) -> bool {
    !matches!(answer, Some(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::super::write_directory;
    use super::*;
    use lowrank::files::temporary;

    #[test]
    fn leftovers_of_dead_processes_go_and_those_of_living_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let fill = |d: &Path| fs::write(d.join("a"), "1").map_err(|e| Error::io(d, e));
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // A folder that was moved aside, and not replaced.
        write_directory(&out, fill).unwrap();
        fs::rename(&out, format!("{}.{OLD}", temporary(&out).unwrap().display())).unwrap();
        // An unfinished folder, an unfinished file, and names of others that look alike.
        let staging = temporary(&out).unwrap();
        fs::create_dir(&staging).unwrap();
        fill(&staging).unwrap();
        fs::write(temporary(&out).unwrap(), "").unwrap();
        for other in [".out.partial-notes", ".out.lock", ".out2.partial-0123456789abcdef", "out.partial"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        recover(&out, &mut |text| panic!("{text}")).unwrap();
        assert_eq!(names(), [".out.lock", ".out.partial-notes", ".out2.partial-0123456789abcdef", "out", "out.partial"]);
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "1");
        write_directory(&out, |d| {
            fill(d)?;
            recover(&out, &mut |text| panic!("{text}"))?;
            assert!(d.join("a").exists());
            Ok(())
        })
        .unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_with_such_a_name_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let (out, pipe) = (dir.path().join("out"), dir.path().join(".out.partial-0123456789abcdef"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _ = recover(&out, &mut |_| {});
        assert!(pipe.symlink_metadata().is_ok(), "it is somebody else's");
    }

    #[test]
    fn an_old_folder_that_may_be_in_use_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let old = dir.path().join(format!(".out.partial-0123456789abcdef.{OLD}"));
        fs::create_dir(&old).unwrap();
        let mut told = Vec::new();
        if let Some(handle) = open_directory(&old).unwrap() {
            handle.lock().unwrap();
            recover(&out, &mut |text| told.push(text.to_string())).unwrap();
            assert!(old.exists() && !out.exists());
            assert!(told.len() == 1 && told[0].contains("0123456789abcdef") && told[0].contains("its old name"), "{told:?}");
            drop(handle);
            recover(&out, &mut |text| panic!("{text}")).unwrap();
            assert!(!old.exists() && out.exists());
        }
    }

    #[test]
    fn what_cannot_be_locked_may_be_in_use() {
        let unsupported = || TryLockError::Error(std::io::ErrorKind::Unsupported.into());
        assert!(may_be_held(Some(Err(unsupported()))) && may_be_held(Some(Err(TryLockError::WouldBlock))) && may_be_held(None));
        assert!(!may_be_held(Some(Ok(()))));
    }
}
