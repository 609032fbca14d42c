//! Products with a bias, by cuBLASLt: the bias is added before the sum is rounded and written, where a launch of its own would write the result
//! once more and cuBLAS read it.
#![allow(unsafe_code)]

use super::gemm::{Matrix, compute_for, dims};
use super::{DataType, Device};
use crate::{Error, Result};
use cublas_sys::light::{Algorithm, Found, Handle, description, preference};
use cublas_sys::{ComputeType, Status, light, status_name};
use std::collections::HashMap;
use std::ffi::c_void;

/// cuBLASLt and its handle, which one thread may use at a time, and what it chose before.
pub(super) struct CublasLt {
    cublas: light::CublasLt,
    handle: Handle,
    compute: ComputeType,
    /// Memory that algorithms may use; cuBLAS uses it too, on the same stream.
    workspace: (u64, usize),
    /// What computes a product; none where cuBLASLt knows nothing.
    chosen: HashMap<Product, Option<Algorithm>>,
}

/// All that the choice depends on: sizes, strides, which operands are transposed, the types, and the powers of two that the addresses are multiples of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Product {
    sizes: [usize; 3],
    strides: [usize; 3],
    transposed: [bool; 2],
    dtypes: [DataType; 2],
    alignments: [u32; 3],
}

/// Something of cuBLASLt's that is destroyed when dropped.
struct Own {
    pointer: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void) -> Status,
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: it was created by the library of this function, and nothing uses it any more.
        unsafe { (self.destroy)(self.pointer) };
    }
}

/// `CUBLAS_STATUS_NOT_SUPPORTED`.
const NOT_SUPPORTED: Status = 15;

fn check(status: Status) -> Result<()> {
    match status {
        0 => Ok(()),
        other => Err(Error::invalid(format!("cuda: cuBLASLt: {}", status_name(other)))),
    }
}

impl CublasLt {
    pub(super) fn new(workspace: (u64, usize), compute: ComputeType) -> Result<CublasLt> {
        let cublas = light::CublasLt::load().map_err(Error::invalid)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is written to.
        check(unsafe { (cublas.create)(&mut handle) })?;
        Ok(CublasLt { cublas, handle, compute, workspace, chosen: HashMap::new() })
    }

    /// What a matrix is to cuBLASLt: a row-major one is the transpose of a column-major one.
    fn layout(&self, of: Matrix) -> Result<Own> {
        let (mut pointer, [rows, cols]) = (std::ptr::null_mut(), of.dims);
        // SAFETY: `pointer` is written to.
        check(unsafe { (self.cublas.layout_create)(&mut pointer, of.dtype, cols as u64, rows as u64, of.stride as i64) })?;
        Ok(Own { pointer, destroy: self.cublas.layout_destroy })
    }

    fn describe(&self, first: Matrix, second: Matrix, bias: u64) -> Result<Own> {
        let (mut pointer, set) = (std::ptr::null_mut(), self.cublas.description_set);
        // SAFETY: `pointer` is written to; each value has the type that its attribute states.
        unsafe {
            check((self.cublas.description_create)(&mut pointer, compute_for(self.compute, first.dtype), DataType::F32))?;
            let own = Own { pointer, destroy: self.cublas.description_destroy };
            for (attribute, of) in [(description::TRANS_A, first), (description::TRANS_B, second)] {
                check(set(pointer, attribute, std::ptr::from_ref(&of.operation()).cast(), 4))?;
            }
            check(set(pointer, description::EPILOGUE, std::ptr::from_ref(&light::EPILOGUE_BIAS).cast(), 4))?;
            check(set(pointer, description::BIAS_POINTER, std::ptr::from_ref(&bias).cast(), 8))?;
            Ok(own)
        }
    }

    /// The algorithm for a product, asked for once.
    fn choose(&mut self, product: Product, description: &Own, layouts: [&Own; 3]) -> Result<Option<Algorithm>> {
        if let Some(&known) = self.chosen.get(&product) {
            return Ok(known);
        }
        let (mut pointer, set) = (std::ptr::null_mut(), self.cublas.preference_set);
        let (mut found, mut count) = (Found::default(), 0);
        let [a, b, c] = layouts.map(|l| l.pointer);
        // SAFETY: `pointer`, `found` and `count` are written to; each value has the type that its attribute states.
        let status = unsafe {
            check((self.cublas.preference_create)(&mut pointer))?;
            let own = Own { pointer, destroy: self.cublas.preference_destroy };
            let bytes = self.workspace.1 as u64;
            check(set(pointer, preference::MAX_WORKSPACE_BYTES, std::ptr::from_ref(&bytes).cast(), 8))?;
            let [of_a, of_b, of_c] = product.alignments;
            for (attribute, alignment) in preference::MIN_ALIGNMENT_BYTES.into_iter().zip([of_a, of_b, of_c, of_c]) {
                check(set(pointer, attribute, std::ptr::from_ref(&alignment).cast(), 4))?;
            }
            (self.cublas.find_algorithm)(self.handle, description.pointer, a, b, c, c, own.pointer, 1, &mut found, &mut count)
        };
        let chosen = match status {
            NOT_SUPPORTED => None,
            other => check(other).map(|()| (count > 0 && found.state == 0).then_some(found.algorithm))?,
        };
        self.chosen.insert(product, chosen);
        Ok(chosen)
    }
}

impl Device {
    /// c = a b + bias in each row, summed in f32 and rounded once; the address of `bias` `[n]`, of c's type. False, and nothing done, if cuBLASLt has no
    /// algorithm for it.
    ///
    /// # Errors
    /// If the shapes do not fit, or cuBLASLt fails.
    pub fn gemm_bias(&self, a: Matrix, b: Matrix, bias: u64, c: Matrix) -> Result<bool> {
        let [m, k, n] = dims(a, b, c)?;
        if m == 0 || n == 0 {
            return Ok(true);
        }
        self.enter()?;
        let mut light = self.light();
        // As in `gemm`: cᵀ = bᵀ aᵀ, column-major.
        let description = light.describe(b, a, bias)?;
        let [of_b, of_a, of_c] = [light.layout(b)?, light.layout(a)?, light.layout(c)?];
        let alignment = |address: u64| 1 << address.trailing_zeros().min(8);
        let product = Product {
            sizes: [m, k, n],
            strides: [a.stride, b.stride, c.stride],
            transposed: [a.operation(), b.operation()].map(|o| o == cublas_sys::Operation::T),
            dtypes: [a.dtype, c.dtype],
            // A bias is read as vectors too.
            alignments: [b.address, a.address, c.address | bias].map(alignment),
        };
        let Some(algorithm) = light.choose(product, &description, [&of_b, &of_a, &of_c])? else { return Ok(false) };
        let (alpha, beta) = (1.0f32, 0.0f32);
        let to = c.address as *mut c_void;
        // SAFETY: the matrices lie within buffers of this device that the caller keeps until after the launch; their layouts are theirs, and the
        // workspace is never given back.
        let status = unsafe {
            (light.cublas.matmul)(
                light.handle,
                description.pointer,
                std::ptr::from_ref(&alpha).cast(),
                b.address as *const c_void,
                of_b.pointer,
                a.address as *const c_void,
                of_a.pointer,
                std::ptr::from_ref(&beta).cast(),
                to,
                of_c.pointer,
                to,
                of_c.pointer,
                &algorithm,
                light.workspace.0 as *mut c_void,
                light.workspace.1,
                self.stream(),
            )
        };
        check(status).map(|()| true)
    }
}
