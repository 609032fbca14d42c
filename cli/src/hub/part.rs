//! The part of a file that has come, and its end: a name of its own, or none.

use super::download::Wanted;
use super::trouble::Trouble;
use super::url;
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// What has come so far, `<name>.incomplete`.
pub struct Part {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are here.
    pub length: u64,
    hash: Sha256,
}

impl Part {
    /// What an earlier run left, or nothing.
    pub fn open(wanted: &Wanted) -> Result<Part> {
        let mut path = wanted.path.as_os_str().to_os_string();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let mut part = Part { path, file, length: 0, hash: Sha256::new() };
        part.read_back().map_err(|e| Error::io(&part.path, e))?;
        if part.length > wanted.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn read_back(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        // A device has no length.
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

    /// Forgets what has come.
    pub fn restart(&mut self) -> Result<()> {
        if self.length > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|e| Error::io(&self.path, e))?;
        }
        (self.length, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Adds `bytes` at the end.
    pub fn write(&mut self, bytes: &[u8], wanted: &Wanted) -> Result<()> {
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
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the content is what was promised, as far as that is known.
    pub fn agrees(&self, wanted: &Wanted) -> bool {
        wanted.sha256.is_none_or(|want| want.eq_ignore_ascii_case(&self.sha256()))
    }

    /// The error for a server whose file has another size; deletes the part.
    pub fn wrong_size(&self, wanted: &Wanted, from: &str, got: std::fmt::Arguments) -> Trouble {
        // The error that comes is the one to report.
        let _ = fs::remove_file(&self.path);
        Error::invalid(format!("{from}: expected {} bytes, got {got}; nothing was kept", wanted.size)).into()
    }

    /// Leaves no empty file behind.
    pub fn tidy(&self) {
        if self.length == 0 {
            // The error that brings us here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Gives the file its name, if it is what it should be.
    pub fn finish(self, wanted: &Wanted) -> Result<()> {
        if !self.agrees(wanted) {
            let _ = fs::remove_file(&self.path);
            let (want, got) = (wanted.sha256.unwrap_or_default(), self.sha256());
            let problem = "the download is damaged or another file, and was deleted; try again, perhaps from another network";
            return Err(Error::invalid(format!("{}: expected the SHA-256 {want}, got {got}: {problem}", url::shown(wanted.url))));
        }
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        // Windows renames no open file.
        drop(self.file);
        fs::rename(&self.path, wanted.path).map_err(|e| Error::io(wanted.path, e))
    }
}
