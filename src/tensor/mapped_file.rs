//! A file that is mapped into memory, and what is promised about it.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(not(miri))]
type Map = memmap2::Mmap;
/// Miri can map memory, but no files.
#[cfg(miri)]
type Map = memmap2::MmapMut;

/// The bytes of a file, read from it when they are needed. Other programs must not change the file; [`MappedFile::check_unchanged`] finds out if one
/// did.
pub struct MappedFile {
    map: Map,
    file: File,
    path: PathBuf,
    /// Size and time of the last change when it was mapped.
    stamp: (u64, SystemTime),
}

impl MappedFile {
    /// Maps an open file. `path` is for messages.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn new(file: File, path: &Path) -> Result<MappedFile> {
        let io = |e| Error::io(path, e);
        let stamp = stamp(&file).map_err(io)?;
        // SAFETY: the map is read-only, and lives as long as its bytes are borrowed. Its bytes change if another program writes to the file, which
        // no operating system prevents, and which Rust's rules for `&[u8]` exclude. This is what we rely on instead: any bytes are valid numbers of
        // the types that a tensor has; the header, which has a form, is copied before it is parsed; and the users of weights throw away what they
        // computed if `check_unchanged` fails afterwards. A file that gets shorter raises SIGBUS where the program installs no handler.
        #[cfg(not(miri))]
        let map = unsafe { Map::map(&file) }.map_err(io)?;
        #[cfg(miri)]
        let map = copy(&file).map_err(io)?;
        Ok(MappedFile { map, file, path: path.to_path_buf(), stamp })
    }

    /// Checks that nobody wrote to the file since it was mapped. A file that was renamed or removed is unchanged: its content stays.
    ///
    /// # Errors
    /// If its size or the time of its last change differ; the message names the file.
    pub fn check_unchanged(&self) -> Result<()> {
        match stamp(&self.file).map_err(|e| Error::io(&self.path, e))? == self.stamp {
            true => Ok(()),
            false => {
                let advice = "what was computed since is thrown away; replace such a file by renaming a new one over it";
                Err(Error::file(&self.path, "content", format!("was changed by another program while it was in use: {advice}")))
            }
        }
    }

    /// Frees the memory of these bytes. A later access reads them from the file again. Does nothing on systems that cannot do this.
    ///
    /// # Panics
    /// If the file does not have these bytes.
    pub fn release(&self, bytes: Range<usize>) {
        assert!(bytes.start <= bytes.end && bytes.end <= self.map.len(), "release: {bytes:?} of a file of {} bytes", self.map.len());
        #[cfg(all(unix, not(miri)))]
        // SAFETY: the bytes lie in the map, as just checked. The map is backed by a file and read-only, so the dropped pages are only copies: a later
        // access reads the same bytes from the file. If the system refuses, nothing changes.
        let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
        #[cfg(any(not(unix), miri))]
        let _ = bytes;
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(miri)]
fn copy(mut file: &File) -> std::io::Result<Map> {
    let mut map = Map::map_anon(file.metadata()?.len() as usize)?;
    std::io::Read::read_exact(&mut file, &mut map)?;
    Ok(map)
}

/// Size and time of the last change of a file.
fn stamp(file: &File) -> std::io::Result<(u64, SystemTime)> {
    let found = file.metadata()?;
    Ok((found.len(), found.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "release: 5..9 of a file of 8 bytes")]
    fn bytes_behind_the_map_are_not_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, [0; 8]).unwrap();
        let file = MappedFile::new(File::open(&path).unwrap(), &path).unwrap();
        file.release(0..8);
        file.release(5..9);
    }

    #[test]
    fn a_change_is_found_and_a_new_file_in_its_place_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mapped = |text: &str| {
            std::fs::write(&path, text).unwrap();
            MappedFile::new(File::open(&path).unwrap(), &path).unwrap()
        };
        let changed = |file: &MappedFile| file.check_unchanged().is_err_and(|e| e.to_string().contains("while it was in use"));
        let file = mapped("1234");
        assert!(&file[..] == b"1234" && !changed(&file));
        std::fs::write(dir.path().join("new"), "5678").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(&file[..] == b"1234" && !changed(&file));
        // The same size, written in place. The clock of a file system has steps of some milliseconds.
        let file = mapped("1234");
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, "5678").unwrap();
        assert!(changed(&file));
        let file = mapped("1234");
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        assert!(changed(&file));
    }
}
