//! Matrix products with cuBLAS.
#![allow(unsafe_code)]

use crate::{Error, Result};
use cublas_sys::{
    ComputeType, Cublas, DataType, GEMM_DEFAULT, Handle, MATH_WITHOUT_REDUCED_PRECISION, Operation, Status, Stream, status_name, wheel,
};
use std::ffi::{c_int, c_void};
use std::fmt::Display;

/// cuBLAS and its handle, which one thread at a time may use.
pub(super) struct Blas {
    cublas: Cublas,
    handle: Handle,
    compute: ComputeType,
}

impl Blas {
    /// cuBLAS that fits a driver for CUDA `cuda`, on `stream` of the current context. `workspace`: address and bytes of memory that is never freed.
    pub(super) fn new(cuda: u32, stream: Stream, (workspace, bytes): (u64, usize), compute: ComputeType) -> Result<Blas> {
        let cublas = Cublas::load(cuda).map_err(Error::invalid)?;
        // A library without a version in its name may be newer than the driver.
        let remedy = format!("cuBLAS does not start (`pip install {}` gives the one that fits the driver)", wheel("nvidia-cublas", cuda));
        let check = |status| check(&remedy, status);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the first call writes `handle`. The stream belongs to the current context. The caller's workspace has these bytes.
        unsafe {
            check((cublas.create)(&mut handle))?;
            check((cublas.set_stream)(handle, stream))?;
            check((cublas.set_workspace)(handle, workspace as *mut c_void, bytes))?;
            check((cublas.set_math_mode)(handle, MATH_WITHOUT_REDUCED_PRECISION))?;
        }
        Ok(Blas { cublas, handle, compute })
    }

    /// c = alpha · a · b + beta · c, in the current context.
    pub(super) fn gemm(&self, alpha: f32, a: Matrix, b: Matrix, beta: f32, c: Matrix) -> Result<()> {
        let [m, k, n] = dims(a, b, c)?;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let int = |x: usize| c_int::try_from(x).map_err(|_| Error::invalid(format!("cuda: gemm: a size of {x} is too large")));
        // cuBLAS is column-major: it sees each row-major matrix as its transpose. So it computes cᵀ = bᵀ·aᵀ.
        // SAFETY: the callers take addresses, sizes and strides from tensors on this device (`Tensor::matrix`), which live until after the launch.
        // Memory that is freed later is used again only by later work of the same stream.
        let status = unsafe {
            (self.cublas.gemm_ex)(
                self.handle,
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
                compute_for(self.compute, a.dtype),
                GEMM_DEFAULT,
            )
        };
        check(format_args!("gemm [{m}, {k}] x [{k}, {n}]"), status)
    }
}

/// Turns a status of cuBLAS other than success into an error that begins with `what`.
pub(super) fn check(what: impl Display, status: Status) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Error::invalid(format!("cuda: {what}: {}", status_name(status)))) }
}

/// A row-major matrix on a device, or its transpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Matrix {
    /// The address of the first element.
    pub address: u64,
    /// The type of the elements.
    pub dtype: DataType,
    /// Rows and columns in memory.
    pub dims: [usize; 2],
    /// Elements from one row to the next in memory.
    pub stride: usize,
    /// Whether the transpose is meant.
    pub transposed: bool,
}

impl Matrix {
    /// The transpose.
    pub fn t(self) -> Matrix {
        Matrix { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, transposed if so meant.
    fn shape(&self) -> [usize; 2] {
        let [rows, cols] = self.dims;
        if self.transposed { [cols, rows] } else { [rows, cols] }
    }

    pub(super) fn operation(&self) -> Operation {
        if self.transposed { Operation::T } else { Operation::N }
    }
}

/// m, k and n of c `[m, n]` = a `[m, k]` · b `[k, n]`.
pub(super) fn dims(a: Matrix, b: Matrix, c: Matrix) -> Result<[usize; 3]> {
    let ([m, k], [k_b, n], [m_c, n_c]) = (a.shape(), b.shape(), c.shape());
    if k != k_b || m != m_c || n != n_c || c.transposed || a.dtype != b.dtype {
        return Err(Error::invalid(format!("cuda: gemm: {a:?} {b:?} and {c:?} do not fit")));
    }
    Ok([m, k, n])
}

/// `asked`, which may be TF32, for operands of f32; f32 for others.
pub(super) fn compute_for(asked: ComputeType, operands: DataType) -> ComputeType {
    if operands == DataType::F32 { asked } else { ComputeType::F32 }
}
