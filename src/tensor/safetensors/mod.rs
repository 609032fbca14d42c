//! The safetensors format: the header's length in eight bytes, a JSON header, the bytes of the tensors.
//! <https://github.com/huggingface/safetensors>
//!
//! Files are mapped into memory. A tensor is read without a copy where its bytes are aligned. A file may be hostile, so its header is
//! checked before use: lengths, offsets, overlaps, gaps, data types and duplicate keys.

mod header;
mod pickle;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use header::TensorInfo;
pub use read::SafeTensors;
pub use write::{to_bytes, write};

use super::DType;

/// Turns elements from the byte order of the file to that of this machine, or back.
fn little_endian(bytes: &mut [u8], dtype: DType) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
}
