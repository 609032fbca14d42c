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
