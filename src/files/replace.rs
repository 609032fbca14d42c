//! Files and directories that are replaced whole: after a crash, the old content or the new one is there, never a part.
//!
//! New content goes to a hidden temporary name in the same directory, is flushed to the disk, and is renamed.

use crate::{Error, Result};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// If the file cannot be written. The old content of `path` is then still there.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = sibling(path, "partial")?;
    let written = File::create(&temporary)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        // The error above is reported, so an error here is dropped.
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

// The files of each kind of result.
const ADAPTER: &[&str] = &["adapter_config.json", "adapter_model.safetensors", "lowrank.json", "metrics.jsonl", "result.json"];
const MODEL: &[&str] = &["config.json", "lowrank.json", "metrics.jsonl", "model.safetensors", "result.json"];
const TOKENIZER: &[&str] = &["added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"];
const RUN: &[&str] = &["checkpoint.safetensors", "metrics.jsonl"];

/// The kinds of results: an adapter, a checkpoint, the saved state of a run. A directory with any other file is never replaced.
const KINDS: [[&[&str]; 2]; 3] = [[ADAPTER, &[]], [MODEL, TOKENIZER], [RUN, &[]]];

/// Refuses a directory that [`write_directory`] would not replace. Call it before long work.
///
/// # Errors
/// If `path` is not a directory, or contains a directory, a link, or a file that does not belong to a result of lowrank.
pub fn check_replaceable(path: &Path) -> Result<()> {
    sibling(path, "partial")?;
    let path = &followed(path)?;
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        return Err(Error::file(path, "directory", "is a file, and a directory is to be written here: choose another name"));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Error::io(path, e))? {
        let entry = entry.map_err(|e| Error::io(path, e))?;
        entries.push((entry.file_name(), entry.file_type().map_err(|e| Error::io(path, e))?.is_file()));
    }
    entries.sort();
    let misfits = |kind: &[&[&str]; 2]| {
        let fits = |name: &OsStr| name.to_str().is_some_and(|name| kind.iter().any(|names| names.contains(&name)));
        entries.iter().filter(|(name, is_file)| !is_file || !fits(name)).map(|(name, _)| name).collect::<Vec<_>>()
    };
    // The message names a file that keeps the directory from being the kind of result that it resembles most.
    let fewest = KINDS.iter().map(misfits).min_by_key(Vec::len).unwrap_or_default();
    let Some(name) = fewest.first() else { return Ok(()) };
    let problem = "is not a file that lowrank writes: choose another directory, this one is left as it is";
    Err(Error::file(path, format!("{name:?}"), problem))
}

/// `path`, or the target if it is a link: the link stays, and its target is replaced.
fn followed(path: &Path) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path.to_path_buf());
    }
    fs::canonicalize(path).map_err(|e| Error::file(path, "link", format!("leads nowhere ({e}): remove it, or choose another name")))
}

/// Removes a directory that contains only files. lowrank writes no deeper directories, so a deeper one belongs to somebody else.
///
/// # Errors
/// If it contains a directory, or something cannot be removed.
pub fn remove_flat(directory: &Path) -> Result<()> {
    let io = |e| Error::io(directory, e);
    if directory.is_symlink() {
        return fs::remove_file(directory).map_err(io);
    }
    for entry in fs::read_dir(directory).map_err(io)? {
        fs::remove_file(entry.map_err(io)?.path()).map_err(io)?;
    }
    fs::remove_dir(directory).map_err(io)
}

/// Flushes a file or a directory to the disk.
fn sync(path: &Path) -> std::io::Result<()> {
    // Other systems than Unix cannot open a directory as a file.
    if path.is_dir() && !cfg!(unix) { Ok(()) } else { File::open(path).and_then(|file| file.sync_all()) }
}

/// Fills a new directory with `fill`, and replaces the directory at `path` by it.
///
/// # Errors
/// If `fill` fails, or [`check_replaceable`] refuses. The old content of `path` is then still there.
pub fn write_directory(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_replaceable(path)?;
    let path = &followed(path)?;
    let (staging, old) = (sibling(path, "partial")?, sibling(path, "old")?);
    let io = |e| Error::io(path, e);
    let moved = (|| {
        if staging.exists() {
            remove_flat(&staging)?;
        }
        fs::create_dir_all(&staging).map_err(io)?;
        fill(&staging)?;
        for entry in fs::read_dir(&staging).map_err(io)? {
            sync(&entry.map_err(io)?.path()).map_err(io)?;
        }
        sync(&staging).map_err(io)?;
        if path.exists() {
            fs::rename(path, &old).map_err(io)?;
        }
        fs::rename(&staging, path).map_err(|e| {
            // Put the old directory back. The error above is reported, so an error here is dropped.
            let _ = fs::rename(&old, path);
            io(e)
        })
    })();
    if moved.is_err() {
        let _ = remove_flat(&staging);
        return moved;
    }
    if old.exists() {
        remove_flat(&old)?;
    }
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), |parent| sync(parent).map_err(io))
}

/// Repairs the state after [`write_directory`] was interrupted: an old directory goes back to `path` if `path` is missing, and unfinished
/// files and directories are removed. Nothing else may write there at the same time.
///
/// # Errors
/// If a directory cannot be moved or removed.
pub fn recover_directory(path: &Path) -> Result<()> {
    let path = &followed(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    if !parent.exists() {
        return Ok(());
    }
    let io = |e| Error::io(path, e);
    let prefix = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(parent).map_err(io)? {
        let left = entry.map_err(io)?.path();
        // The names that `sibling` makes: .{name}.{what}-{process}-{call}
        let found = left.file_name().unwrap_or_default().to_string_lossy();
        let parts = found.strip_prefix(&prefix).and_then(|rest| rest.split_once('-'));
        let Some((what, numbers)) = parts else { continue };
        if !numbers.chars().all(|c| c.is_ascii_digit() || c == '-') {
            continue;
        }
        match what {
            "old" if !path.exists() => fs::rename(&left, path).map_err(io)?,
            "partial" if left.is_file() => fs::remove_file(&left).map_err(io)?,
            "old" | "partial" => remove_flat(&left)?,
            _ => {}
        }
    }
    Ok(())
}

/// A hidden name in the same directory as `path`, which no other call uses.
fn sibling(path: &Path, what: &str) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::file(path, "name", "is not the name of a file or directory"))?;
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{}.{what}-{}-{call}", name.to_string_lossy(), std::process::id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let put = |text: &'static str| move |d: &Path| std::fs::write(d.join("config.json"), text).map_err(|e| crate::Error::io(d, e));
        write_directory(&out, put("1")).unwrap();
        write_directory(&out, put("2")).unwrap();
        let failed = write_directory(&out, |d| put("3")(d).and(Err(crate::Error::invalid("no"))));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(std::fs::read_to_string(out.join("config.json")).unwrap(), "2");
        std::fs::write(out.join("thesis.tex"), "mine").unwrap();
        assert!(write_directory(&out, put("4")).unwrap_err().to_string().contains("thesis.tex"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2);
    }
}
