//! The header, checked whole before any tensor is looked at.

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

/// What the header says of one tensor.
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

/// Longer headers are refused, as by the reference implementation.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bits of an element of each data type of the format that has whole bytes.
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub data_offsets: [usize; 2],
}

pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// The header of a file, or the place and what is wrong there.
pub(super) fn parse(file: &[u8]) -> Result<Header, (String, String)> {
    let header = |problem: &str| ("header".to_string(), problem.to_string());
    if super::other::is_lfs_pointer(file) {
        return Err(header(super::other::LFS_POINTER));
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

fn entry(value: &RawValue, data: usize, base: usize) -> Result<TensorInfo, String> {
    let Entry { dtype, shape, data_offsets: [start, end] } = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    let known = DTYPES.iter().find(|(name, _)| *name == dtype).map(|(_, size)| *size);
    let size = known.unwrap_or(1);
    // Zeros are counted as ones, so that no part of the shape overflows either.
    let most = shape.iter().try_fold(size, |n, &d| n.checked_mul(d.max(1)));
    most.ok_or_else(|| format!("the shape {shape:?} overflows"))?;
    // Of a data type that came after this program only the place is known; whoever needs the tensor is told.
    let bytes = known.map_or_else(|| end.saturating_sub(start), |size| size * shape.iter().product::<usize>());
    if start > end || end > data {
        return Err(format!("bytes {start}..{end} do not lie in the {data} bytes of data: the file is truncated or corrupt"));
    }
    if end - start != bytes {
        return Err(format!("{dtype} {shape:?} takes {bytes} bytes, but the header gives it {}", end - start));
    }
    Ok(TensorInfo { dtype, shape, bytes, start: base + start })
}

/// The tensors must follow one another without overlap or gap, to the end of the file.
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

/// A JSON object whose keys are all different: serde_json alone keeps the last of two silently.
pub(crate) struct Unique<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Unique<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
                let mut seen = HashSet::new();
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("the key {key:?} stands there twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}
