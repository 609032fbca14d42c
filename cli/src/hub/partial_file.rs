//! A file to download, and the part of it that has arrived. When it is complete and correct it gets its final name.

use super::trouble::Trouble;
use super::url;
use lowrank::files::check_no_pipe;
use lowrank::text::hex;
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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

/// Where the bytes of a file are before it is complete.
pub fn incomplete(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_os_string();
    path.push(".incomplete");
    PathBuf::from(path)
}

/// The bytes received so far, in the file `<name>.incomplete`.
pub struct PartialFile {
    path: PathBuf,
    file: File,
    /// Bytes received so far.
    pub length: u64,
    hash: Sha256,
}

impl PartialFile {
    /// Opens the part that an earlier run left, or an empty one.
    pub fn open(wanted: &RemoteFile) -> Result<PartialFile> {
        let path = incomplete(wanted.path);
        check_no_pipe(&path)?;
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let mut part = PartialFile { path, file, length: 0, hash: Sha256::new() };
        part.read_back().map_err(|e| Error::io(&part.path, e))?;
        if part.length > wanted.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn read_back(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        // Bounded by the length: reading a device would never end.
        while self.length < self.file.metadata()?.len() {
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            self.hash.update(&buffer[..n]);
            self.length += n as u64;
        }
        Ok(())
    }

    /// Discards all received bytes.
    pub fn restart(&mut self) -> Result<()> {
        if self.length > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|e| Error::io(&self.path, e))?;
        }
        (self.length, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8], wanted: &RemoteFile) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let problem = format!("{e}; make room for {} bytes and run again: it goes on from here", wanted.size - self.length);
                Error::file(&self.path, format_args!("byte {}", self.length), problem)
            }
            _ => Error::io(&self.path, e),
        })?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// Whether the content has the expected SHA-256; true if none is known.
    pub fn agrees(&self, wanted: &RemoteFile) -> bool {
        wanted.sha256.is_none_or(|want| want.eq_ignore_ascii_case(&self.sha256()))
    }

    /// Deletes the part and returns the error for a server whose file has another size.
    pub fn wrong_size(&self, wanted: &RemoteFile, from: &str, got: std::fmt::Arguments) -> Trouble {
        // If removing fails too, the wrong size is still the error to report.
        let _ = fs::remove_file(&self.path);
        Error::invalid(format!("{from}: expected {} bytes, got {got}; nothing was kept", wanted.size)).into()
    }

    /// Deletes the part if nothing was received.
    pub fn remove_if_empty(&self) {
        if self.length == 0 {
            // The error of the download is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Checks the content and gives the file its final name.
    pub fn finish(self, wanted: &RemoteFile) -> Result<()> {
        if !self.agrees(wanted) {
            let _ = fs::remove_file(&self.path);
            let (want, got) = (wanted.sha256.unwrap_or_default(), self.sha256());
            let problem = "the download is damaged or another file, and was deleted; try again, perhaps from another network";
            return Err(Error::invalid(format!("{}: expected the SHA-256 {want}, got {got}: {problem}", url::shown(wanted.url))));
        }
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        // Windows cannot rename an open file.
        drop(self.file);
        fs::rename(&self.path, wanted.path).map_err(|e| Error::io(wanted.path, e))
    }
}
