//! The marker of a folder: the files that lowrank wrote there, and the SHA-256 of each. Only what it proves may be replaced or removed.

use lowrank::data::hash_file;
use lowrank::files::{read_text, write_file};
use lowrank::text::hex;
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the marker in its folder.
pub const MARKER: &str = ".lowrank-files.json";

/// What a message says about a file that may not be replaced.
const NOT_OURS: &str = "choose another --out, or move it away; nothing was changed";

/// Content of the marker.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    /// SHA-256 of each file. While a single file is being replaced, it has two: that of the old content and that of the new one.
    files: BTreeMap<String, Vec<String>>,
}

impl Marker {
    /// Reads the marker of a folder. `None` if there is none.
    fn read(directory: &Path) -> Result<Option<Marker>> {
        let path = directory.join(MARKER);
        if !has_marker(directory) {
            return Ok(None);
        }
        serde_json::from_str(&read_text(&path)?).map(Some).map_err(|e| Error::file(&path, "json", e))
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MARKER);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, "json", e))?;
        write_file(&path, text.as_bytes())
    }

    /// Whether lowrank wrote this entry of the folder, and nobody changed it since.
    fn proves(&self, directory: &Path, name: &OsString) -> Result<bool> {
        let path = directory.join(name);
        let Some(hashes) = name.to_str().and_then(|name| self.files.get(name)) else { return Ok(false) };
        let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
        Ok(is_file && hashes.contains(&hex(&hash_file(&path)?)))
    }
}

/// Lists all files of a new folder in its marker.
///
/// # Errors
/// If a file cannot be read, or the marker cannot be written.
pub(super) fn mark(directory: &Path) -> Result<()> {
    let mut marker = Marker::default();
    for name in names(directory)? {
        let path = directory.join(&name);
        let text = name.to_str().ok_or_else(|| Error::file(&path, "name", "is not UTF-8"))?;
        marker.files.insert(text.to_string(), vec![hex(&hash_file(&path)?)]);
    }
    marker.write(directory)
}

/// Checks that lowrank wrote everything in a folder. Returns the names of its files, the marker last.
///
/// # Errors
/// If there is anything that the marker does not prove; the message names it.
pub(super) fn check_ours(directory: &Path) -> Result<Vec<OsString>> {
    let mut names = names(directory)?;
    if names.is_empty() {
        return Ok(names);
    }
    let Some(marker) = Marker::read(directory)? else {
        let problem = format!("was not written by lowrank, as the folder has no {MARKER}: {NOT_OURS}");
        return Err(Error::file(directory, format!("{:?}", names[0]), problem));
    };
    names.retain(|name| name != MARKER);
    for name in &names {
        if !marker.proves(directory, name)? {
            let problem = format!("is not as lowrank wrote it, or is from somebody else: {NOT_OURS}");
            return Err(Error::file(directory, format!("{name:?}"), problem));
        }
    }
    names.push(MARKER.into());
    Ok(names)
}

/// Whether the folder has a marker.
pub(super) fn has_marker(directory: &Path) -> bool {
    directory.join(MARKER).symlink_metadata().is_ok()
}

/// Removes the files that lowrank wrote in a folder, and the folder if nothing else is in it. Returns what else is there; the marker then
/// stays, so that the folder is known again as one with files of others.
///
/// # Errors
/// If something cannot be read or removed, or the marker cannot be read.
pub(super) fn remove_ours(directory: &Path) -> Result<Vec<PathBuf>> {
    let marker = Marker::read(directory)?;
    let mut others = Vec::new();
    for name in names(directory)?.into_iter().filter(|name| name != MARKER) {
        let path = directory.join(&name);
        match &marker {
            Some(marker) if marker.proves(directory, &name)? => fs::remove_file(&path).map_err(|e| Error::io(&path, e))?,
            _ => others.push(path),
        }
    }
    if !others.is_empty() {
        // The folder was empty before somebody put something into it.
        if marker.is_none() {
            Marker::default().write(directory)?;
        }
        return Ok(others);
    }
    if marker.is_some() {
        let path = directory.join(MARKER);
        fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
    }
    fs::remove_dir(directory).map_err(|e| Error::io(directory, e))?;
    Ok(others)
}

/// The sorted names of the entries of a folder.
fn names(directory: &Path) -> Result<Vec<OsString>> {
    let io = |e| Error::io(directory, e);
    let mut names: Vec<_> = fs::read_dir(directory).map_err(io)?.map(|e| Ok(e.map_err(io)?.file_name())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Checks that the file `name` of a folder is missing, or that lowrank wrote it. Other files of the folder do not matter.
///
/// # Errors
/// If somebody else wrote or changed it.
pub fn check_replaceable_file(directory: &Path, name: &str) -> Result<()> {
    if directory.join(name).symlink_metadata().is_err() || Marker::read(directory)?.unwrap_or_default().proves(directory, &name.into())? {
        return Ok(());
    }
    Err(Error::file(directory, format!("{name:?}"), format!("was not written by lowrank, or was changed since: {NOT_OURS}")))
}

/// Replaces one file of a folder, and lists it in the marker. A process that is killed at any moment leaves a file that the marker proves.
///
/// # Errors
/// As [`check_replaceable_file`], or if something cannot be written.
pub fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    check_replaceable_file(directory, name)?;
    let mut marker = Marker::read(directory)?.unwrap_or_default();
    let hash = hex(&Sha256::digest(bytes));
    marker.files.entry(name.to_string()).or_default().push(hash.clone());
    marker.write(directory)?;
    write_file(&directory.join(name), bytes)?;
    marker.files.insert(name.to_string(), vec![hash]);
    marker.write(directory)
}
