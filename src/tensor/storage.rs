//! Where the elements of a tensor are: in host memory, in a mapped file, or in the memory of a GPU.

use super::{DType, Element, MappedFile, Pooled, Shape, Tensor};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::FromBytes;

/// The memory behind one or more tensors.
pub struct Storage {
    /// The data type of the elements.
    pub dtype: DType,
    /// Size in bytes.
    pub bytes: usize,
    /// Where the elements are.
    pub place: Place,
}

/// The places where elements can be.
pub enum Place {
    /// Host memory: a [`Pooled`] of the Rust type that belongs to the data type.
    Host(Box<dyn Any + Send + Sync>),
    /// A range of bytes of a mapped file, aligned for the data type.
    Mapped(Arc<MappedFile>, Range<usize>),
    /// Memory of a GPU.
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Buffer),
}

impl Tensor {
    /// A view of the bytes of a mapped file. `None` if they are not aligned for `dtype`, or their number is not that of `shape`.
    pub(crate) fn mapped(map: &Arc<MappedFile>, bytes: Range<usize>, dtype: DType, shape: Shape) -> Option<Tensor> {
        let aligned = map.get(bytes.clone())?.as_ptr().addr() % dtype.size() == 0;
        if !aligned || Some(bytes.len()) != shape.checked_len().and_then(|len| len.checked_mul(dtype.size())) || cfg!(target_endian = "big")
        {
            return None;
        }
        Some(Tensor::whole(Storage { dtype, bytes: bytes.len(), place: Place::Mapped(map.clone(), bytes) }, shape))
    }

    /// The mapped file with the elements. `None` if they are elsewhere.
    pub(crate) fn mapped_file(&self) -> Option<&MappedFile> {
        if let Place::Mapped(file, _) = &self.storage.place { Some(file) } else { None }
    }
}

impl Storage {
    pub(super) fn host<T: Element>(buffer: Pooled<T>) -> Storage {
        Storage { dtype: T::DTYPE, bytes: size_of_val(&*buffer), place: Place::Host(Box::new(buffer)) }
    }

    /// All elements; `None` if their type is not `T`, or they are on a GPU.
    pub(super) fn elements<T: Element>(&self) -> Option<&[T]> {
        match &self.place {
            Place::Host(buffer) => buffer.downcast_ref::<Pooled<T>>().map(|v| &**v),
            Place::Mapped(map, bytes) if self.dtype == T::DTYPE => <[T]>::ref_from_bytes(&map[bytes.clone()]).ok(),
            _ => None,
        }
    }
}
