//! The JSON header of a safetensors file. All of it is checked before any tensor is read.

use crate::files::{LFS_POINTER, Unique, is_lfs_pointer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The header's entry of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Data type as written in the file: `F32`, `I64`, …
    pub dtype: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Number of bytes.
    pub bytes: usize,
    /// First byte, counted from the start of the file.
    pub(super) start: usize,
}

/// Bytes. The reference implementation refuses longer headers too.
const LONGEST_HEADER: u64 = 100_000_000;

/// The data types of the format and the bytes of one element. Types smaller than a byte are missing: their entries are checked as unknown types.
const DTYPES: [(&str, usize); 15] = [
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("I64", 8),
    ("U64", 8),
    ("I32", 4),
    ("U32", 4),
    ("I16", 2),
    ("U16", 2),
    ("I8", 1),
    ("U8", 1),
    ("BOOL", 1),
    ("F8_E5M2", 1),
    ("F8_E4M3", 1),
];

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

/// Parses the header at the start of `file`. An error is a pair: the place, and what is wrong there.
pub(super) fn parse(file: &[u8]) -> Result<Header, (String, String)> {
    let header = |problem: &str| ("header".to_string(), problem.to_string());
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
    let data = &rest[length as usize..];
    let json = std::str::from_utf8(json).map_err(|_| header("not UTF-8"))?;
    let Unique::<Box<RawValue>>(entries) =
        serde_json::from_str(json).map_err(|e| header(&format!("not the JSON of a safetensors header: {e}")))?;
    let mut result = Header { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
    for (name, value) in entries {
        if name == "__metadata__" {
            let texts = serde_json::from_str::<Unique<String>>(value.get())
                .map_err(|e| ("__metadata__".to_string(), format!("not a map of texts: {e}")))?;
            result.metadata = texts.0.into_iter().collect();
            continue;
        }
        let info = entry(&value, data.len(), 8 + length as usize).map_err(|problem| (format!("tensor {name:?}"), problem))?;
        result.tensors.insert(name, info);
    }
    covers(&result.tensors, 8 + length as usize, file.len())?;
    Ok(result)
}

/// Checks the entry of one tensor against the `data` bytes of data, which start at byte `base` of the file.
fn entry(value: &RawValue, data: usize, base: usize) -> Result<TensorInfo, String> {
    let Entry { dtype, shape, data_offsets: [start, end] } = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    let known = DTYPES.iter().find(|(name, _)| *name == dtype).map(|(_, size)| *size);
    let size = known.unwrap_or(1);
    // A size of 0 counts as 1 here, so that the product of the other sizes is checked too.
    let most = shape.iter().try_fold(size, |n, &d| n.checked_mul(d.max(1)));
    most.ok_or_else(|| format!("the shape {shape:?} overflows"))?;
    // The size of an unknown data type cannot be checked. Reading such a tensor is an error later.
    let bytes = known.map_or_else(|| end.saturating_sub(start), |size| size * shape.iter().product::<usize>());
    if start > end || end > data {
        return Err(format!("bytes {start}..{end} do not lie in the {data} bytes of data: the file is truncated or corrupt"));
    }
    if end - start != bytes {
        return Err(format!("{dtype} {shape:?} takes {bytes} bytes, but the header gives it {}", end - start));
    }
    Ok(TensorInfo { dtype, shape, bytes, start: base + start })
}

/// Checks that the tensors cover the data: one after another, without overlap or gap, to the end of the file.
fn covers(tensors: &BTreeMap<String, TensorInfo>, base: usize, file: usize) -> Result<(), (String, String)> {
    let mut by_start: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    by_start.sort_by_key(|(_, info)| (info.start, info.bytes));
    let mut end = base;
    for (name, info) in by_start {
        if info.start != end {
            let what = if info.start < end { "overlaps another tensor" } else { "leaves a gap before it" };
            return Err((format!("tensor {name:?}"), format!("{what} at byte {} of the data", info.start.min(end) - base)));
        }
        end = info.start + info.bytes;
    }
    if end != file {
        return Err(("data".to_string(), format!("{} bytes belong to no tensor", file - end)));
    }
    Ok(())
}
