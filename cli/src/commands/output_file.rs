//! A file that a command writes, such as the table of `predict --out`.

use super::output::{Input, check_apart};
use super::ranks::is_first;
use crate::folder::{Lock, followed, lock};
use lowrank::files::{parent, write_file, write_with};
use lowrank::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The place of a file that is to be written. No other process of lowrank writes there meanwhile.
pub struct OutputFile {
    /// As the user gave it.
    pub given: PathBuf,
    /// Where the content goes: if `given` is a link, its target.
    place: PathBuf,
    /// Of several ranks, the first has it.
    _lock: Option<Lock>,
}

impl OutputFile {
    /// Checks, before anything is computed, that a file can be written to `path`, which `option` names.
    ///
    /// # Errors
    /// If an input or another file would be lost, or another process writes there.
    pub fn check(option: &str, path: &Path, overwrite: bool, inputs: &[Input]) -> Result<OutputFile> {
        check_apart(option, path, inputs)?;
        if path.exists() && !path.is_file() {
            return Err(Error::file(path, option, "is a folder or a device, and a file is to be written here: choose another name"));
        }
        if !parent(path).is_dir() {
            return Err(Error::file(path, option, "lies in a folder that does not exist: create it first"));
        }
        let lock = is_first().then(|| lock(path)).transpose()?;
        if path.symlink_metadata().is_ok() && !overwrite {
            let problem = format!("exists already: give --overwrite to replace it, or choose another {option}");
            return Err(Error::file(path, option, problem));
        }
        Ok(OutputFile { given: path.to_path_buf(), place: followed(path)?, _lock: lock })
    }

    /// Replaces the file by `bytes`.
    ///
    /// # Errors
    /// If it cannot be written. The old content is then still there.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        write_file(&self.place, bytes)
    }

    /// Replaces the file by what `fill` writes, unless `fill` returns `None`.
    ///
    /// # Errors
    /// Those of `fill`, and if the file cannot be written. The old content is then still there.
    pub fn write_with<T>(&self, fill: impl FnOnce(&File) -> Result<Option<T>>) -> Result<Option<T>> {
        write_with(&self.place, fill)
    }
}
