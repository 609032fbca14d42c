//! Tensors, and the arithmetic on them that needs no gradient.
//!
//! ```text
//! Tensor { shape [2, 3], offset 6 } ───┐
//! Tensor { shape [4, 3], offset 0 } ──►│ Arc<Storage>: 12 elements of one DType in host memory, a mapped file or a GPU
//! ```
//!
//! A [`Tensor`] is an array in row-major order, without gaps. Its elements do not change: an operation gives a new tensor. It knows its
//! shape and the place of its first element in a shared [`Storage`], so a clone, a reshape or a row copies no element. Functions on slices
//! borrow the elements with [`Tensor::host`]. Their results are new tensors, made from a [`Pooled`] buffer: a vector whose memory is used
//! again (`pool.rs`). The values in a buffer from [`alloc`] are arbitrary, and each must be written; [`zeroed`] gives zeros.
//! The number of columns of a shape is its last size, and that of rows the product of all others.
//!
//! The data type of a tensor is a value ([`DType`]), not a type parameter. Three macros of `dispatch.rs` go from the value to the Rust
//! type: `dispatch!` for f32, f64 and bf16, `dispatch_float!` for f32 and f64, `dispatch_any!` for all five types. For example, `dispatch!`
//! goes from the value `DType::BF16` to the type [`BF16`]. `on_device!(tensor, |device| on GPU, on host)` runs the second argument if the
//! tensor is on a GPU, else the third.

mod arguments;
mod convert;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
mod device_sequences;
mod dispatch;
mod element;
mod finite;
pub mod gemm;
mod mapped_file;
mod mask;
mod mask_columns;
pub mod math;
pub mod philox;
mod philox_columns;
mod philox_row;
mod pool;
mod processor;
pub mod rows;
pub mod safetensors;
pub mod scratch;
mod sequences;
mod shape;
pub mod simd;
mod special;
mod storage;
pub mod svd;

// What linear, attention and layer norm (step 8 of the reading order) give to their code for the host and for a GPU.
pub(crate) use arguments::{AttentionInputs, LinearGradients, LowRankCotangent, LowRankLinear, LowRankTerm, NormRows};
pub(crate) use dispatch::{dispatch_any, on_device};
pub use element::{Accum, DType, Element, Scalar};
pub use half::bf16 as BF16;
pub use mapped_file::MappedFile;
pub use mask::Mask;
pub use mask_columns::MaskColumns;
pub use pool::{Pooled, alloc, zeroed};
pub use sequences::Sequences;
pub use shape::Shape;
pub use storage::{Place, Storage};

use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// An array in row-major order, without gaps. Its elements do not change.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Storage>,
    /// Index of the first element in the storage.
    offset: usize,
}

impl Tensor {
    /// A tensor in host memory, from its elements in row-major order.
    ///
    /// # Errors
    /// If the number of elements is not that of `shape`.
    pub fn new<T: Element>(data: impl Into<Pooled<T>>, shape: impl Into<Shape>) -> Result<Tensor> {
        let (data, shape) = (data.into(), shape.into());
        if shape.checked_len() != Some(data.len()) {
            return Err(Error::shape("tensor", "as many elements as the shape has", &[&[data.len()].into(), &shape]));
        }
        Ok(Tensor::whole(Storage::host(data), shape))
    }

    /// A tensor of zeros in host memory.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        Tensor::whole(dispatch_any!(dtype, T => Storage::host(zeroed::<T>(shape.len()))), shape)
    }

    /// A tensor of all elements of `storage`.
    fn whole(storage: Storage, shape: Shape) -> Tensor {
        Tensor { shape, storage: Arc::new(storage), offset: 0 }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The sizes of the shape, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The data type.
    pub fn dtype(&self) -> DType {
        self.storage.dtype
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype().size()
    }

    /// The memory behind the tensor.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// A number that identifies the storage among all storages alive at this time: tensors that share one have the same number.
    pub fn storage_id(&self) -> usize {
        Arc::as_ptr(&self.storage).addr()
    }

    /// The elements.
    ///
    /// # Errors
    /// If the data type is not that of `T`, or the tensor is on a GPU.
    pub fn host<T: Element>(&self) -> Result<&[T]> {
        if !self.on_host() {
            return Err(Error::OnGpu);
        }
        let all = self.storage.elements::<T>();
        let all = all.ok_or_else(|| Error::dtype("host", "the tensor's own data type", &[T::DTYPE, self.dtype()]))?;
        Ok(&all[self.offset..self.offset + self.shape.len()])
    }

    /// The elements in a buffer that the caller may change. Takes the tensor: if no other tensor shares its storage, and it has all of it,
    /// nobody else can see the change, so this is the storage's own buffer. Otherwise it is a copy.
    ///
    /// # Errors
    /// If the data type is not that of `T`, or the tensor is on a GPU.
    pub fn into_host<T: Element>(mut self) -> Result<Pooled<T>> {
        let all = size_of_val(self.host::<T>()?) == self.storage.bytes;
        if all
            && let Some(Storage { place: Place::Host(buffer), .. }) = Arc::get_mut(&mut self.storage)
            && let Some(buffer) = buffer.downcast_mut::<Pooled<T>>()
        {
            return Ok(std::mem::replace(buffer, Vec::new().into()));
        }
        let from = self.host::<T>()?;
        let mut copy = alloc(from.len());
        copy.copy_from_slice(from);
        Ok(copy)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.checked_len() != Some(self.shape.len()) {
            return Err(Error::shape("reshape", "the same number of elements", &[&self.shape, &shape]));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// Slice `i` along the first dimension: `[n, ..]` gives `[..]`. No element is copied.
    ///
    /// # Errors
    /// If `i` is not below n.
    pub fn index(&self, i: usize) -> Result<Tensor> {
        match self.dims() {
            [n, rest @ ..] if i < *n => {
                let shape = Shape::from(rest);
                let offset = self.offset + i * shape.len();
                Ok(Tensor { shape, offset, storage: self.storage.clone() })
            }
            _ => Err(Error::shape("index", "an index below the first size", &[&[i].into(), &self.shape])),
        }
    }

    /// The same elements in host memory. Waits for the GPU if they are there; makes no copy if they are on the host.
    ///
    /// # Errors
    /// If an earlier kernel failed on the GPU.
    pub fn to_host(&self) -> Result<Tensor> {
        on_device!(self, |_device| self.download(), Ok(self.clone()))
    }

    /// True if the elements can be read without waiting for a GPU.
    pub fn on_host(&self) -> bool {
        on_device!(self, |_device| false, true)
    }

    /// The same elements where `other` is: on its GPU, or unchanged if `other` is on the host.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub fn to_device_of(&self, other: &Tensor) -> Result<Tensor> {
        let _ = other; // Without the feature "cuda", `on_device!` ignores its first argument.
        on_device!(other, |device| self.to_device(device), Ok(self.clone()))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype(), self.shape)
    }
}
