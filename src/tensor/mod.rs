//! Tensors: immutable, contiguous, row-major arrays that share their storage, and the arithmetic on them that needs no gradient.
//!
//! Kernels borrow plain slices with [`Tensor::host`] and return new tensors, or reuse a buffer with [`Tensor::into_host`].

#[cfg(feature = "cuda")]
pub mod cuda;
mod element;
mod finite;
pub mod gemm;
mod hex;
mod mask;
pub mod math;
pub mod philox;
pub mod rows;
pub mod safetensors;
pub mod scratch;
mod sequences;
mod shape;
pub mod simd;
mod storage;
pub mod svd;

pub use element::{Accum, DType, Element, Scalar};
pub use hex::hex;
pub use mask::Mask;
pub use sequences::Sequences;
pub use shape::Shape;
pub use storage::{Host, Mapped, Pooled, Storage, alloc, zeroed};

use crate::{Error, Result};
pub use half::bf16 as BF16;
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::FromBytes;

/// An immutable, contiguous, row-major tensor. Cloning and taking rows share the storage.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Storage>,
    /// First element within the storage.
    offset: usize,
}

impl Tensor {
    /// A host tensor from `data`, in row-major order.
    ///
    /// # Errors
    /// If `data` does not have `shape`'s number of elements.
    pub fn new<T: Element>(data: impl Into<Pooled<T>>, shape: impl Into<Shape>) -> Result<Tensor> {
        let (data, shape) = (data.into(), shape.into());
        if data.len() != shape.len() {
            return Err(Error::shape("tensor", "as many elements as the shape has", &[&[data.len()].into(), &shape]));
        }
        Ok(Tensor { shape, storage: Arc::new(Storage::Host(T::wrap(data))), offset: 0 })
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let n = shape.len();
        let host = match dtype {
            DType::F32 => Host::F32(zeroed(n)),
            DType::F64 => Host::F64(zeroed(n)),
            DType::BF16 => Host::BF16(zeroed(n)),
            DType::F16 => Host::F16(zeroed(n)),
            DType::U32 => Host::U32(zeroed(n)),
        };
        Tensor { shape, storage: Arc::new(Storage::Host(host)), offset: 0 }
    }

    /// A tensor over `bytes` of a mapped file, without a copy; `None` if the place is not aligned for `dtype` or the length is not `shape`'s.
    pub(crate) fn mapped(map: &Arc<memmap2::Mmap>, bytes: Range<usize>, dtype: DType, shape: Shape) -> Option<Tensor> {
        let place = map.get(bytes.clone())?;
        let aligned = place.as_ptr().addr() % dtype.size() == 0;
        if !aligned || Some(bytes.len()) != shape.len().checked_mul(dtype.size()) || cfg!(target_endian = "big") {
            return None;
        }
        let storage = Storage::Mapped(Mapped { map: map.clone(), bytes, dtype });
        Some(Tensor { shape, storage: Arc::new(storage), offset: 0 })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The sizes of the shape.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The data type.
    pub fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype().size()
    }

    /// Tells the tensor's storage from others that are alive: tensors that share one have the same.
    pub fn storage_id(&self) -> usize {
        Arc::as_ptr(&self.storage).addr()
    }

    /// Where the elements live.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// The elements.
    ///
    /// # Errors
    /// If the data type is not `T`'s.
    pub fn host<T: Element>(&self) -> Result<&[T]> {
        let all: Option<&[T]> = match &*self.storage {
            Storage::Host(host) => T::peek(host).map(|v| &**v),
            Storage::Mapped(m) if m.dtype == T::DTYPE => <[T]>::ref_from_bytes(&m.map[m.bytes.clone()]).ok(),
            Storage::Mapped(_) => None,
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => return Err(Error::invalid("host: the tensor is on a GPU")),
        };
        let all = all.ok_or_else(|| Error::dtype("host", "the tensor's own data type", &[T::DTYPE, self.dtype()]))?;
        Ok(&all[self.offset..self.offset + self.shape.len()])
    }

    /// The elements as a buffer of one's own: the tensor's, if nothing else shares it, else a copy.
    ///
    /// # Errors
    /// If the data type is not `T`'s.
    pub fn into_host<T: Element>(self) -> Result<Pooled<T>> {
        self.host::<T>()?;
        let (offset, len) = (self.offset, self.shape.len());
        match Arc::try_unwrap(self.storage) {
            Ok(Storage::Host(mut host)) if offset == 0 => match T::peek_mut(&mut host) {
                Some(v) if v.len() == len => Ok(std::mem::replace(v, Vec::new().into())),
                _ => Tensor { shape: self.shape, storage: Arc::new(Storage::Host(host)), offset }.copied(),
            },
            Ok(storage) => Tensor { shape: self.shape, storage: Arc::new(storage), offset }.copied(),
            Err(storage) => Tensor { shape: self.shape, storage, offset }.copied(),
        }
    }

    fn copied<T: Element>(&self) -> Result<Pooled<T>> {
        let from = self.host::<T>()?;
        let mut to = alloc(from.len());
        to.copy_from_slice(from);
        Ok(to)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.len() != self.shape.len() {
            return Err(Error::shape("reshape", "the same number of elements", &[&self.shape, &shape]));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// The `i`-th slice along the first dimension, without a copy: `[n, ..]` gives `[..]`.
    ///
    /// # Errors
    /// If there is no such slice.
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

    /// Converts to another data type, rounding to nearest even. Without a copy if it already has it.
    ///
    /// # Errors
    /// If one of the two types is an integer and the other is not.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        #[cfg(feature = "cuda")]
        if let Some(device) = self.device() {
            return self.to_host()?.to_dtype(dtype)?.to_device(device);
        }
        if (self.dtype(), dtype) == (DType::F32, DType::BF16) {
            return Tensor::new(<bf16 as Scalar>::narrow_all(self.to_accum()?), &self.shape);
        }
        let wide: Vec<f64> = self.to_f64()?;
        let shape = self.shape.clone();
        match dtype {
            DType::F64 => Tensor::new(wide, shape),
            DType::F32 => Tensor::new(wide.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape),
            DType::BF16 => Tensor::new(wide.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>(), shape),
            DType::F16 => Tensor::new(wide.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>(), shape),
            DType::U32 => Err(Error::dtype("to_dtype", "a floating-point type", &[self.dtype(), dtype])),
        }
    }

    /// The elements as f64: exact for every floating-point type.
    ///
    /// # Errors
    /// If the elements are integers.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if self.device().is_some() {
            return self.to_host()?.to_f64();
        }
        Ok(match self.dtype() {
            DType::F32 => self.host::<f32>()?.iter().map(|&x| x.into()).collect(),
            DType::F64 => self.host::<f64>()?.to_vec(),
            DType::BF16 => self.host::<bf16>()?.iter().map(|&x| x.into()).collect(),
            DType::F16 => self.host::<f16>()?.iter().map(|&x| x.into()).collect(),
            DType::U32 => return Err(Error::dtype("to_f64", "a floating-point type", &[DType::U32])),
        })
    }

    /// A tensor of `dtype` from f64 values, each rounded once.
    ///
    /// # Errors
    /// If the number of values is not `shape`'s, or `dtype` is an integer.
    pub fn from_f64(values: Vec<f64>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::new(values, shape)?.to_dtype(dtype)
    }

    /// The elements in the type of sums, row by row.
    ///
    /// # Errors
    /// If the data type is neither `S` nor, where sums are f32, bf16.
    pub fn to_accum<S: Accum>(&self) -> Result<Pooled<S>> {
        Ok(gemm::Mat::of(self)?.to_accum())
    }

    /// The same elements on the host; waits for a device. Without a copy if they are there.
    ///
    /// # Errors
    /// If something that was launched on the device before failed.
    pub fn to_host(&self) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self.device().is_some() {
            return self.download();
        }
        Ok(self.clone())
    }

    /// Whether its elements can be read without waiting for a device.
    pub fn on_host(&self) -> bool {
        #[cfg(feature = "cuda")]
        if self.device().is_some() {
            return false;
        }
        true
    }

    /// The same elements where `other` is: on its device, or on the host.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn to_device_of(&self, other: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(device) = other.device() {
            return self.to_device(device);
        }
        let _ = other;
        Ok(self.clone())
    }

    /// The single element of a tensor of one element.
    ///
    /// # Errors
    /// If there is not exactly one, or it is an integer.
    pub fn item(&self) -> Result<f64> {
        match self.to_f64()?[..] {
            [x] => Ok(x),
            _ => Err(Error::shape("item", "one element", &[&self.shape])),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype(), self.shape)
    }
}

/// Evaluates `$cuda` with the `$device` that holds `$tensor`, or `$host` if it is host memory. This is the only switch between devices: an op
/// checks its inputs and decides what to save outside of it, once for both.
macro_rules! on_device {
    ($tensor:expr, |$device:ident| $cuda:expr, $host:expr) => {{
        #[cfg(feature = "cuda")]
        let result = match $tensor.device() {
            Some($device) => $cuda,
            None => $host,
        };
        #[cfg(not(feature = "cuda"))]
        let result = $host;
        result
    }};
}
pub(crate) use on_device;

/// Runs `$body` with the [`Scalar`] type `$T` that fits a tensor's data type, or returns an error that names the op.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::BF16 => {
                type $T = $crate::tensor::BF16;
                $body
            }
            other => $crate::dispatch_float!($op, other, $T => $body),
        }
    };
}

/// [`dispatch!`] for what is kept in the type of sums: [`Accum`] types alone.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch_float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::tensor::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err($crate::Error::dtype($op, "a floating-point type that one can compute in", &[other])),
        }
    };
}
