//! Writing: a file or a directory appears whole under its name, or not at all.

use super::header::Entry;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a safetensors file: metadata first, tensors by name, the header padded to eight bytes.
///
/// # Errors
/// If a name stands there twice.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let by_name: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    if by_name.len() != tensors.len() {
        return Err(Error::invalid("safetensors: a tensor name stands there twice"));
    }
    let json = |e: serde_json::Error| Error::invalid(format!("safetensors: {e}"));
    let mut header = Vec::new();
    if !metadata.is_empty() {
        header.push(format!("\"__metadata__\":{}", serde_json::to_string(metadata).map_err(json)?));
    }
    let mut data = Vec::new();
    for (name, tensor) in by_name {
        let start = data.len();
        append(tensor, &mut data)?;
        let entry = Entry { dtype: tensor.dtype().to_string(), shape: tensor.dims().to_vec(), data_offsets: [start, data.len()] };
        header.push(format!("{}:{}", serde_json::to_string(name).map_err(json)?, serde_json::to_string(&entry).map_err(json)?));
    }
    let mut header = format!("{{{}}}", header.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    Ok(bytes)
}

fn append(tensor: &Tensor, to: &mut Vec<u8>) -> Result<()> {
    let tensor = tensor.to_host()?;
    match tensor.dtype() {
        DType::F32 => tensor.host::<f32>()?.iter().for_each(|x| to.extend(x.to_le_bytes())),
        DType::F64 => tensor.host::<f64>()?.iter().for_each(|x| to.extend(x.to_le_bytes())),
        DType::BF16 => tensor.host::<bf16>()?.iter().for_each(|x| to.extend(x.to_le_bytes())),
        DType::F16 => tensor.host::<f16>()?.iter().for_each(|x| to.extend(x.to_le_bytes())),
        DType::U32 => tensor.host::<u32>()?.iter().for_each(|x| to.extend(x.to_le_bytes())),
    }
    Ok(())
}

/// Writes a safetensors file whole or not at all.
///
/// # Errors
/// If a name stands there twice, a tensor holds a NaN or an infinity, or the file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    for (name, tensor) in tensors {
        tensor.check_finite(|what| Error::invalid(format!("tensor {name:?} {what}: such a model answers nothing; it was not written")))?;
    }
    write_file(path, &to_bytes(tensors, metadata)?)
}

/// Writes `bytes` under a temporary name beside `path`, flushes them to the disk and renames.
///
/// # Errors
/// If the file cannot be written; whatever was at `path` is then still there.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = sibling(path, "partial")?;
    let written = File::create(&temporary)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

/// The files of each kind of result: an adapter, a checkpoint, the saved state of a run. A directory that holds anything else is not replaced.
const KINDS: [&[&str]; 3] = [
    &["adapter_config.json", "adapter_model.safetensors", "lowrank.json", "metrics.jsonl", "result.json"],
    &[
        "added_tokens.json",
        "config.json",
        "lowrank.json",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ],
    &["checkpoint.safetensors", "metrics.jsonl"],
];

/// Refuses a directory that [`write_directory`] would not replace: ask before long work.
///
/// # Errors
/// If `path` is no directory, or holds a directory, a link, or a file that is not one of a result of lowrank.
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
    let misfits = |kind: &&[&str]| {
        let fits = |name: &OsStr| name.to_str().is_some_and(|name| kind.contains(&name));
        entries.iter().filter(|(name, is_file)| !is_file || !fits(name)).map(|(name, _)| name).collect::<Vec<_>>()
    };
    match KINDS.iter().map(misfits).min_by_key(Vec::len).and_then(|misfits| misfits.into_iter().next()) {
        Some(name) => Err(Error::file(
            path,
            format!("{name:?}"),
            "is not a file that lowrank writes: choose another directory, this one is left as it is",
        )),
        None => Ok(()),
    }
}

/// The place that a link stands for: the link stays, and what it leads to is replaced.
fn followed(path: &Path) -> Result<PathBuf> {
    match path.is_symlink() {
        true => {
            fs::canonicalize(path).map_err(|e| Error::file(path, "link", format!("leads nowhere ({e}): remove it, or choose another name")))
        }
        false => Ok(path.to_path_buf()),
    }
}

/// Removes a directory of files, and nothing that lies deeper: that is not lowrank's.
///
/// # Errors
/// If it holds a directory, or something cannot be removed.
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

/// Fills a new directory beside `path` and renames it into place.
///
/// # Errors
/// If `fill` fails, or [`check_replaceable`] refuses; what was at `path` is then still there.
pub fn write_directory(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_replaceable(path)?;
    let path = &followed(path)?;
    let staging = sibling(path, "partial")?;
    let old = sibling(path, "old")?;
    let io = |e| Error::io(path, e);
    let moved = (|| {
        if staging.exists() {
            remove_flat(&staging)?;
        }
        fs::create_dir_all(&staging).map_err(io)?;
        fill(&staging)?;
        for entry in fs::read_dir(&staging).map_err(io)? {
            File::open(entry.map_err(io)?.path()).and_then(|f| f.sync_all()).map_err(io)?;
        }
        #[cfg(unix)]
        File::open(&staging).and_then(|f| f.sync_all()).map_err(io)?;
        if path.exists() {
            fs::rename(path, &old).map_err(io)?;
        }
        fs::rename(&staging, path).map_err(|e| {
            // Put back what was there; the first error is the one to report.
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
    #[cfg(unix)]
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent).and_then(|f| f.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// Mends what a stop in the middle of [`write_directory`] left, when nothing else writes there: what was at `path` is put back if nothing is there,
/// and what was not finished goes.
///
/// # Errors
/// If a directory cannot be moved or removed.
pub fn recover_directory(path: &Path) -> Result<()> {
    let path = &followed(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let io = |e| Error::io(path, e);
    if !parent.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(parent).map_err(io)? {
        let entry = entry.map_err(io)?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let kind = found.strip_prefix(&format!(".{}.", name.to_string_lossy()));
        // As `sibling` makes them: process and call.
        let numbers = |kind: &&str| kind.split_once('-').is_some_and(|(_, rest)| rest.chars().all(|c| c.is_ascii_digit() || c == '-'));
        let left = kind.filter(numbers).map(String::from);
        match left {
            Some(kind) if kind.starts_with("old-") && !path.exists() => fs::rename(entry.path(), path).map_err(io)?,
            Some(kind) if kind.starts_with("partial-") && entry.path().is_file() => fs::remove_file(entry.path()).map_err(io)?,
            Some(kind) if kind.starts_with("old-") || kind.starts_with("partial-") => remove_flat(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

/// A hidden name beside `path`, of this call alone.
fn sibling(path: &Path, what: &str) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::file(path, "name", "is not the name of a file or directory"))?;
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{}.{what}-{}-{call}", name.to_string_lossy(), std::process::id())))
}
