//! Conversions between data types.

use super::gemm::Mat;
use super::{Accum, DType, Pooled, Scalar, Shape, Tensor, alloc, rows, simd};
use crate::{Error, Result};
use half::{bf16, f16};

impl Tensor {
    /// The same values in another data type, rounded to nearest even. No copy is made if the tensor already has this type.
    ///
    /// # Errors
    /// If one of the two types is an integer and the other is not.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        if !self.on_host() {
            return self.to_host()?.to_dtype(dtype)?.to_device_of(self);
        }
        if (self.dtype(), dtype) == (DType::F32, DType::BF16) {
            let (from, mut rounded) = (self.host()?, alloc(self.shape.len()));
            rows::for_each(&mut rounded, 1, |at, to: &mut [bf16]| {
                simd::vectorised(|| to.iter_mut().zip(&from[at..]).for_each(|(to, &x)| *to = bf16::narrow(x)));
            });
            return Tensor::new(rounded, &self.shape);
        }
        // f64 holds every value of the other types, so each value is rounded once.
        let wide = self.to_f64()?;
        let shape = &self.shape;
        match dtype {
            DType::F64 => Tensor::new(wide, shape),
            DType::F32 => Tensor::new(wide.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape),
            DType::BF16 => Tensor::new(wide.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>(), shape),
            DType::F16 => Tensor::new(wide.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>(), shape),
            DType::U32 => Err(Error::dtype("to_dtype", "a floating-point type", &[self.dtype(), dtype])),
        }
    }

    /// The elements as f64. This is exact for every floating-point type.
    ///
    /// # Errors
    /// If the elements are integers.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let host = self.to_host()?;
        Ok(match self.dtype() {
            DType::F32 => host.host::<f32>()?.iter().map(|&x| x.into()).collect(),
            DType::F64 => host.host::<f64>()?.to_vec(),
            DType::BF16 => host.host::<bf16>()?.iter().map(|&x| x.into()).collect(),
            DType::F16 => host.host::<f16>()?.iter().map(|&x| x.into()).collect(),
            DType::U32 => return Err(Error::dtype("to_f64", "a floating-point type", &[DType::U32])),
        })
    }

    /// A tensor of `dtype` from f64 values, each rounded once.
    ///
    /// # Errors
    /// If the number of values is not that of `shape`, or `dtype` is an integer.
    pub fn from_f64(values: Vec<f64>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::new(values, shape)?.to_dtype(dtype)
    }

    /// The single element of a tensor of one element.
    ///
    /// # Errors
    /// If the number of elements is not 1, or the element is an integer.
    pub fn item(&self) -> Result<f64> {
        match self.to_f64()?[..] {
            [x] => Ok(x),
            _ => Err(Error::shape("item", "one element", &[&self.shape])),
        }
    }

    /// The elements in the accumulator type `S`.
    ///
    /// # Errors
    /// If the data type is neither `S` nor, for S = f32, bf16.
    pub fn to_accum<S: Accum>(&self) -> Result<Pooled<S>> {
        Ok(Mat::of(self)?.to_accum())
    }
}
