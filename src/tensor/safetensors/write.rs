//! Writing safetensors files.

use super::header::Entry;
use super::little_endian;
use crate::files::write_file;
use crate::tensor::{Tensor, dispatch_any};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use zerocopy::IntoBytes;

/// The bytes of a safetensors file. The metadata come first, then the tensors sorted by name. Spaces pad the header to a multiple of 8 bytes.
///
/// # Errors
/// If two tensors have the same name.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let by_name: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    if by_name.len() != tensors.len() {
        return Err(Error::invalid("safetensors: a tensor name stands there twice"));
    }
    let mut data = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in by_name {
        let start = data.len();
        append(tensor, &mut data)?;
        let (dtype, shape) = (tensor.dtype().to_string(), tensor.dims().to_vec());
        tensors.insert(name, Entry { dtype, shape, data_offsets: [start, data.len()] });
    }
    let header = serde_json::to_string(&Header { metadata, tensors });
    let mut header = header.map_err(|e| Error::invalid(format!("safetensors: {e}")))?;
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    Ok([&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat())
}

/// A header as JSON.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__", skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, Entry>,
}

/// Appends the elements of a tensor in little-endian order.
fn append(tensor: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
    let tensor = tensor.to_host()?;
    let start = bytes.len();
    dispatch_any!(tensor.dtype(), T => bytes.extend(tensor.host::<T>()?.as_bytes()));
    little_endian(&mut bytes[start..], tensor.dtype());
    Ok(())
}

/// Writes a safetensors file. It appears whole under its name, or not at all.
///
/// # Errors
/// If two tensors have the same name, a tensor contains a NaN or an infinity, or the file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    for (name, tensor) in tensors {
        tensor.check_finite(|what| Error::invalid(format!("tensor {name:?} {what}: such a model answers nothing; it was not written")))?;
    }
    write_file(path, &to_bytes(tensors, metadata)?)
}
