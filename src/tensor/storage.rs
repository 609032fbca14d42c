//! Where the elements of a tensor are: in host memory, in a mapped file, or in the memory of a GPU.

use super::{DType, Element, Pooled};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::FromBytes;

/// The memory behind one or more tensors.
pub enum Storage {
    /// Host memory.
    Host(Host),
    /// Part of a mapped file.
    Mapped(Mapped),
    /// Memory of a GPU.
    #[cfg(feature = "cuda")]
    Cuda(OnDevice),
}

/// Host memory of one element type.
pub struct Host {
    /// A [`Pooled`] of the Rust type that belongs to `dtype`.
    pub(super) buffer: Box<dyn Any + Send + Sync>,
    bytes: usize,
    dtype: DType,
}

/// A range of bytes of a mapped file, aligned for its data type.
pub struct Mapped {
    pub(super) map: Arc<memmap2::Mmap>,
    pub(super) bytes: Range<usize>,
    pub(super) dtype: DType,
}

/// Memory of a GPU, of one element type.
#[cfg(feature = "cuda")]
pub struct OnDevice {
    pub(super) buffer: crate::cuda::Buffer,
    pub(super) dtype: DType,
}

impl Storage {
    pub(super) fn host<T: Element>(buffer: Pooled<T>) -> Storage {
        Storage::Host(Host { bytes: size_of_val(&*buffer), dtype: T::DTYPE, buffer: Box::new(buffer) })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Storage::Host(h) => h.bytes,
            Storage::Mapped(m) => m.bytes.len(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(c) => c.buffer.bytes(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        match self {
            Storage::Host(h) => h.dtype,
            Storage::Mapped(m) => m.dtype,
            #[cfg(feature = "cuda")]
            Storage::Cuda(c) => c.dtype,
        }
    }

    /// All elements; `None` if their type is not `T`, or they are on a GPU.
    pub(super) fn elements<T: Element>(&self) -> Option<&[T]> {
        match self {
            Storage::Host(h) => h.buffer.downcast_ref::<Pooled<T>>().map(|v| &**v),
            Storage::Mapped(m) if m.dtype == T::DTYPE => <[T]>::ref_from_bytes(&m.map[m.bytes.clone()]).ok(),
            _ => None,
        }
    }
}
