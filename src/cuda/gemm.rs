//! Matrix products by cuBLAS.
#![allow(unsafe_code)]

use super::Device;
use crate::{Error, Result};
use cublas_sys::{ComputeType, DataType, GEMM_DEFAULT, Operation, status_name};
use std::ffi::{c_int, c_void};

/// A row-major matrix on a device, perhaps taken transposed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Address of its first element.
    pub address: u64,
    /// Type of its elements.
    pub dtype: DataType,
    /// Rows and columns as it lies in memory.
    pub dims: [usize; 2],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Whether it is taken transposed.
    pub transposed: bool,
}

impl Matrix {
    /// The transposed matrix.
    pub fn t(self) -> Matrix {
        Matrix { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as it is taken.
    fn shape(&self) -> [usize; 2] {
        let [rows, cols] = self.dims;
        if self.transposed { [cols, rows] } else { [rows, cols] }
    }

    pub(super) fn operation(&self) -> Operation {
        if self.transposed { Operation::T } else { Operation::N }
    }
}

/// m, k and n of c `[m, n]` = a `[m, k]` b `[k, n]`, if they fit.
pub(super) fn dims(a: Matrix, b: Matrix, c: Matrix) -> Result<[usize; 3]> {
    let ([m, k], [k_b, n], [m_c, n_c]) = (a.shape(), b.shape(), c.shape());
    if k != k_b || m != m_c || n != n_c || c.transposed || a.dtype != b.dtype {
        return Err(Error::invalid(format!("cuda: gemm: {a:?} {b:?} and {c:?} do not fit")));
    }
    Ok([m, k, n])
}

/// TF32 is for operands of f32 alone.
pub(super) fn compute_for(asked: ComputeType, operands: DataType) -> ComputeType {
    if operands == DataType::F32 { asked } else { ComputeType::F32 }
}

impl Device {
    /// c = alpha a b + beta c, summed in f32. A product of f32 is exact to f32: TF32 is used only if LOWRANK_TF32 asks for it.
    ///
    /// # Errors
    /// If the shapes do not fit, or cuBLAS refuses.
    pub fn gemm(&self, alpha: f32, a: Matrix, b: Matrix, beta: f32, c: Matrix) -> Result<()> {
        let [m, k, n] = dims(a, b, c)?;
        if m == 0 || n == 0 {
            return Ok(());
        }
        self.enter()?;
        let int = |x: usize| c_int::try_from(x).map_err(|_| Error::invalid(format!("cuda: gemm: a size of {x} is too large")));
        // To column-major cuBLAS a row-major matrix is its transpose, so it is asked for cᵀ = bᵀ aᵀ.
        // SAFETY: the matrices lie within buffers of this device that the caller keeps until after the launch; sizes and strides are theirs.
        let blas = self.blas();
        let status = unsafe {
            (blas.cublas.gemm_ex)(
                blas.handle,
                b.operation(),
                a.operation(),
                int(n)?,
                int(m)?,
                int(k)?,
                std::ptr::from_ref(&alpha).cast(),
                b.address as *const c_void,
                b.dtype,
                int(b.stride)?,
                a.address as *const c_void,
                a.dtype,
                int(a.stride)?,
                std::ptr::from_ref(&beta).cast(),
                c.address as *mut c_void,
                c.dtype,
                int(c.stride)?,
                compute_for(blas.compute, a.dtype),
                GEMM_DEFAULT,
            )
        };
        match status {
            0 => Ok(()),
            other => Err(Error::invalid(format!("cuda: gemm [{m}, {k}] x [{k}, {n}]: {}", status_name(other)))),
        }
    }
}
