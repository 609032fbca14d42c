//! The JSON header of a safetensors file. All of it is checked before any tensor is read.

use crate::files::{LFS_POINTER, Unique, is_lfs_pointer};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The header's entry of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Data type as written in the file: `F32`, `I64`, …
    pub dtype: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub bytes: Range<usize>,
}

/// Bytes. The reference implementation refuses longer headers too.
const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes of one element. `None` for unknown data types, and for those smaller than a byte.
fn size(dtype: &str) -> Option<usize> {
    match dtype {
        "F64" | "I64" | "U64" => Some(8),
        "F32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "I8" | "U8" | "BOOL" | "F8_E5M2" | "F8_E4M3" => Some(1),
        _ => None,
    }
}

/// One tensor as it stands in the JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub dtype: String,
    pub shape: Vec<usize>,
    /// First byte, and the byte after the last, counted from the end of the header.
    pub data_offsets: [usize; 2],
}

/// A whole header.
pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// Parses the header at the start of `file`, whose path is `path`.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Header> {
    let header = |problem: &str| Error::file(path, "header", problem);
    if is_lfs_pointer(file) {
        return Err(header(LFS_POINTER));
    }
    if file.is_empty() {
        return Err(header("the file is empty: it was not written to its end, or not downloaded"));
    }
    let (length, rest) =
        file.split_first_chunk::<8>().ok_or_else(|| header("the file is shorter than the 8 bytes of its header's length"))?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(header(&format!("a length of {length} bytes is more than the {LONGEST_HEADER} allowed: this is no safetensors file")));
    }
    let json = rest
        .get(..length as usize)
        .ok_or_else(|| header(&format!("the file ends within its header of {length} bytes: it is truncated")))?;
    let (data, base) = (&rest[length as usize..], 8 + length as usize);
    // A copy: the file is mapped, and another program could change it while it is parsed.
    let json = String::from_utf8(json.to_vec()).map_err(|_| header("not UTF-8"))?;
    let Unique::<Box<RawValue>>(entries) =
        serde_json::from_str(&json).map_err(|e| header(&format!("not the JSON of a safetensors header: {e}")))?;
    let mut result = Header { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
    for (name, value) in entries {
        if name == "__metadata__" {
            let not_texts = |e| Error::file(path, "__metadata__", format!("not a map of texts: {e}"));
            let Unique(texts) = serde_json::from_str(value.get()).map_err(not_texts)?;
            result.metadata = texts.into_iter().collect();
            continue;
        }
        let info = entry(&value, data.len(), base).map_err(|problem| Error::file(path, format!("tensor {name:?}"), problem))?;
        result.tensors.insert(name, info);
    }
    covers(path, &result.tensors, base, file.len())?;
    Ok(result)
}

/// Checks the entry of one tensor against the `data` bytes of data, which start at byte `base` of the file.
fn entry(value: &RawValue, data: usize, base: usize) -> std::result::Result<TensorInfo, String> {
    let Entry { dtype, shape, data_offsets: [start, end] } = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    let size = size(&dtype);
    // A size of 0 counts as 1 here, so that the product of the other sizes is checked too.
    let most = shape.iter().try_fold(size.unwrap_or(1), |n, &d| n.checked_mul(d.max(1)));
    most.ok_or_else(|| format!("the shape {shape:?} overflows"))?;
    if start > end || end > data {
        return Err(format!("bytes {start}..{end} do not lie in the {data} bytes of data: the file is truncated or corrupt"));
    }
    // The size of an unknown data type cannot be checked. Reading such a tensor is an error later.
    let bytes = size.map_or(end - start, |size| size * shape.iter().product::<usize>());
    if end - start != bytes {
        return Err(format!("{dtype} {shape:?} takes {bytes} bytes, but the header gives it {}", end - start));
    }
    Ok(TensorInfo { dtype, shape, bytes: base + start..base + end })
}

/// Checks that the tensors cover the data: one after another, without overlap or gap, to the end of the file.
fn covers(path: &Path, tensors: &BTreeMap<String, TensorInfo>, base: usize, file: usize) -> Result<()> {
    let mut by_start: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, info)| (name, &info.bytes)).collect();
    by_start.sort_by_key(|(_, bytes)| (bytes.start, bytes.end));
    let mut end = base;
    for (name, bytes) in by_start {
        if bytes.start != end {
            let what = if bytes.start < end { "overlaps another tensor" } else { "leaves a gap before it" };
            let problem = format!("{what} at byte {} of the data", bytes.start.min(end) - base);
            return Err(Error::file(path, format!("tensor {name:?}"), problem));
        }
        end = bytes.end;
    }
    if end != file {
        return Err(Error::file(path, "data", format!("{} bytes belong to no tensor", file - end)));
    }
    Ok(())
}
