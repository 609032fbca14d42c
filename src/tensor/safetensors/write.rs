//! Writing safetensors files.

use super::header::Entry;
use crate::files::write_file;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use byteorder::{ByteOrder, LittleEndian, WriteBytesExt};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::path::Path;

/// The bytes of a safetensors file. The metadata come first, then the tensors sorted by name. Spaces pad the header to a multiple of 8 bytes.
///
/// # Errors
/// If two tensors have the same name.
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
    let mut bytes = Vec::with_capacity(8 + header.len() + data.len());
    bytes.write_u64::<LittleEndian>(header.len() as u64).map_err(Error::invalid)?;
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    Ok(bytes)
}

/// Appends the elements of a tensor in little-endian order.
fn append(tensor: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
    let tensor = tensor.to_host()?;
    let start = bytes.len();
    bytes.resize(start + tensor.bytes(), 0);
    let to = &mut bytes[start..];
    match tensor.dtype() {
        DType::F32 => LittleEndian::write_f32_into(tensor.host()?, to),
        DType::F64 => LittleEndian::write_f64_into(tensor.host()?, to),
        DType::BF16 => LittleEndian::write_u16_into(tensor.host::<bf16>()?.reinterpret_cast(), to),
        DType::F16 => LittleEndian::write_u16_into(tensor.host::<f16>()?.reinterpret_cast(), to),
        DType::U32 => LittleEndian::write_u32_into(tensor.host()?, to),
    }
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
