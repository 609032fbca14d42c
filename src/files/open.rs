//! Opening a file for reading.

use crate::{Error, Result};
use std::fs::{File, FileType};
use std::io::ErrorKind;
use std::path::Path;

/// Opens a regular file for reading. Another kind of file is refused before it is opened: a named pipe would wait for its writer for ever, and a device may
/// have no end.
///
/// # Errors
/// If it cannot be opened, or is no regular file; the message says what it is.
pub fn open_file(path: &Path) -> Result<File> {
    let io = |e| Error::io(path, e);
    check(path, std::fs::metadata(path).map_err(io)?.file_type())?;
    let file = File::open(path).map_err(io)?;
    // Another file may have come to its place in between.
    check(path, file.metadata().map_err(io)?.file_type())?;
    Ok(file)
}

/// Whether there is anything at `path`, even if it cannot be opened: a link that leads nowhere, or a file that nobody may read. What is there and cannot be
/// read must not be taken for absent.
pub fn is_there(path: &Path) -> bool {
    let absent = |e: &std::io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    path.symlink_metadata().err().is_none_or(|e| !absent(&e))
}

/// Refuses a named pipe and a socket at `path`: to open or to write one may wait for ever. A file that is not there is no error: it can be made.
///
/// # Errors
/// If one is there; the message says what it is.
pub fn check_no_pipe(path: &Path) -> Result<()> {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if may_wait(kind) => check(path, kind),
        _ => Ok(()),
    }
}

/// Opens a file that is read once and from its start to its end: a regular file, or what this process has open already, such as `/dev/stdin` and the pipe of
/// a shell's `<(…)`.
///
/// # Errors
/// As [`open_file`].
pub fn open_stream(path: &Path) -> Result<File> {
    match path == Path::new("/dev/stdin") || ["/dev/fd", "/proc/self/fd"].iter().any(|open| path.starts_with(open)) {
        true => File::open(path).map_err(|e| Error::io(path, e)),
        false => open_file(path),
    }
}

fn check(path: &Path, kind: FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let problem = format!("is {}, and only regular files are read: give a file with the content", name(kind));
    Err(Error::file(path, "file", problem))
}

/// What is no regular file, in words.
fn name(kind: FileType) -> &'static str {
    if kind.is_dir() { "a directory" } else { special(kind) }
}

/// Whether it is a named pipe or a socket.
#[cfg(unix)]
fn may_wait(kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_fifo() || kind.is_socket()
}

#[cfg(not(unix))]
fn may_wait(_: FileType) -> bool {
    false
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "a special file"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn regular_files_are_opened_and_directories_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "text").unwrap();
        for open in [open_file, open_stream] {
            let mut text = String::new();
            open(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
            assert!(matches!(open(&dir.path().join("none")), Err(Error::Io { .. })));
            check_no_pipe(&dir.path().join("none")).and_then(|()| check_no_pipe(&path)).unwrap();
            let message = open(dir.path()).unwrap_err().to_string();
            assert!(message.ends_with("file: is a directory, and only regular files are read: give a file with the content"), "{message}");
        }
    }

    #[test]
    #[cfg(unix)]
    #[cfg_attr(miri, ignore = "sockets and programs")]
    fn pipes_sockets_and_devices_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        crate::testing::make_pipe(&at("pipe"));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        for (name, words) in [("pipe", "is a named pipe"), ("socket", "is a socket"), ("zero", "is a device")] {
            let message = open_file(&at(name)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(words), "{message}");
            assert!(open_stream(&at(name)).is_err() && check_no_pipe(&at(name)).is_ok() == (name == "zero"), "{name}");
        }
    }
}
