//! Products with a bias, with cuBLASLt. It adds the bias before it rounds and writes the sum. A kernel of its own for the bias would write the
//! result twice.
#![allow(unsafe_code)]

use super::DataType;
use super::gemm::{Matrix, compute_for, dims};
use crate::{Error, Result};
use cublas_sys::light::{Algorithm, Found, Handle, description, layout, preference};
use cublas_sys::{ComputeType, Status, Stream, light};
use std::collections::HashMap;
use std::ffi::c_void;

/// cuBLASLt and its handle, which one thread at a time may use, and the algorithms that it chose before.
pub(super) struct CublasLt {
    cublas: light::CublasLt,
    handle: Handle,
    compute: ComputeType,
    /// Address and bytes of memory that algorithms may use. cuBLAS uses it too, on the same stream.
    workspace: (u64, usize),
    /// The algorithm for each batch of products; `None` if cuBLASLt has none.
    chosen: HashMap<Product, Option<Algorithm>>,
}

/// What the choice of an algorithm depends on: the matrices as cuBLASLt takes them, and the number of products in the batch. The largest power of two that
/// divides the address in each product, at most 256, stands in place of the address.
type Product = ([Matrix; 3], usize);

/// An object of cuBLASLt, which is destroyed when this is dropped.
struct Own {
    pointer: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void) -> Status,
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: the same library created the object, and nothing uses it after this.
        unsafe { (self.destroy)(self.pointer) };
    }
}

fn check(status: Status) -> Result<()> {
    super::gemm::check("cuBLASLt", status)
}

impl CublasLt {
    /// cuBLASLt that fits a driver for CUDA `cuda`. `workspace`: address and bytes of memory that is never freed.
    pub(super) fn new(cuda: u32, workspace: (u64, usize), compute: ComputeType) -> Result<CublasLt> {
        let cublas = light::CublasLt::load(cuda).map_err(Error::invalid)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the call writes `handle`.
        check(unsafe { (cublas.create)(&mut handle) })?;
        Ok(CublasLt { cublas, handle, compute, workspace, chosen: HashMap::new() })
    }

    /// The layout of the matrices of a batch, `step` elements from one to the next. cuBLASLt is column-major: it sees a row-major matrix as its transpose, so
    /// rows and columns change places.
    fn layout(&self, of: Matrix, count: usize, step: usize) -> Result<Own> {
        let (mut pointer, [rows, cols], set) = (std::ptr::null_mut(), of.dims, self.cublas.layout_set);
        let (count, step) = (count as i32, step as i64);
        // SAFETY: the first call writes `pointer`. Each value has the type and size of its attribute.
        unsafe {
            check((self.cublas.layout_create)(&mut pointer, of.dtype, cols as u64, rows as u64, of.stride as i64))?;
            let own = Own { pointer, destroy: self.cublas.layout_destroy };
            if count > 1 {
                check(set(pointer, layout::BATCH_COUNT, std::ptr::from_ref(&count).cast(), 4))?;
                check(set(pointer, layout::STRIDED_BATCH_OFFSET, std::ptr::from_ref(&step).cast(), 8))?;
            }
            Ok(own)
        }
    }

    /// The description of products with biases that lie from address `bias` on, `step` elements from one to the next (0 if there is one).
    fn describe(&self, first: Matrix, second: Matrix, bias: u64, step: usize) -> Result<Own> {
        let (mut pointer, set) = (std::ptr::null_mut(), self.cublas.description_set);
        // SAFETY: the first call writes `pointer`. Each value has the type and size of its attribute.
        unsafe {
            check((self.cublas.description_create)(&mut pointer, compute_for(self.compute, first.dtype), DataType::F32))?;
            let own = Own { pointer, destroy: self.cublas.description_destroy };
            for (attribute, of) in [(description::TRANS_A, first), (description::TRANS_B, second)] {
                check(set(pointer, attribute, std::ptr::from_ref(&of.operation()).cast(), 4))?;
            }
            check(set(pointer, description::EPILOGUE, std::ptr::from_ref(&light::EPILOGUE_BIAS).cast(), 4))?;
            check(set(pointer, description::BIAS_POINTER, std::ptr::from_ref(&bias).cast(), 8))?;
            if step > 0 {
                check(set(pointer, description::BIAS_BATCH_STRIDE, std::ptr::from_ref(&(step as i64)).cast(), 8))?;
            }
            Ok(own)
        }
    }

    /// The algorithm for a product; `None` if cuBLASLt has none, whatever it gives as the reason. It is asked once for each product.
    fn choose(&mut self, product: Product, description: &Own, layouts: [&Own; 3]) -> Result<Option<Algorithm>> {
        if let Some(&known) = self.chosen.get(&product) {
            return Ok(known);
        }
        let (mut pointer, set) = (std::ptr::null_mut(), self.cublas.preference_set);
        let (mut found, mut count) = (Found::default(), 0);
        let [a, b, c] = layouts.map(|l| l.pointer);
        // SAFETY: the calls write `pointer`, `found` and `count`. Each value has the type and size of its attribute.
        let status = unsafe {
            check((self.cublas.preference_create)(&mut pointer))?;
            let own = Own { pointer, destroy: self.cublas.preference_destroy };
            let bytes = self.workspace.1 as u64;
            check(set(pointer, preference::MAX_WORKSPACE_BYTES, std::ptr::from_ref(&bytes).cast(), 8))?;
            check(set(pointer, preference::REDUCTION_SCHEME_MASK, std::ptr::from_ref(&light::REDUCTION_IN_COMPUTE_TYPE).cast(), 4))?;
            let [of_a, of_b, of_c] = product.0.map(|m| m.address as u32);
            for (attribute, alignment) in preference::MIN_ALIGNMENT_BYTES.into_iter().zip([of_a, of_b, of_c, of_c]) {
                check(set(pointer, attribute, std::ptr::from_ref(&alignment).cast(), 4))?;
            }
            (self.cublas.find_algorithm)(self.handle, description.pointer, a, b, c, c, own.pointer, 1, &mut found, &mut count)
        };
        // What else is wrong, the product without cuBLASLt will tell.
        let chosen = (status == 0 && count > 0 && found.state == 0).then_some(found.algorithm);
        self.chosen.insert(product, chosen);
        Ok(chosen)
    }

    /// cᵢ = a · bᵢ + biasᵢ in each row for `count` products, on `stream` of the current context. The bᵢ, the biases and the cᵢ each lie one after another, from
    /// `b`, `bias` and `c` on. False, and nothing computed, if cuBLASLt has no algorithm for it.
    pub(super) fn gemm_bias(&mut self, a: Matrix, b: Matrix, bias: u64, c: Matrix, count: usize, stream: Stream) -> Result<bool> {
        let [m, _, n] = dims(a, b, c)?;
        if m == 0 || n == 0 {
            return Ok(true);
        }
        // Elements from one product of the batch to the next.
        let [step_b, step_bias, step_c] = [b.dims[0] * b.stride, n, c.dims[0] * c.stride].map(|step| if count > 1 { step } else { 0 });
        // As in `gemm`: cᵀ = bᵀ·aᵀ, column-major.
        let description = self.describe(b, a, bias, step_bias)?;
        let [of_b, of_a, of_c] = [self.layout(b, count, step_b)?, self.layout(a, count, 0)?, self.layout(c, count, step_c)?];
        // What divides an address and a step in bytes divides the address in each product.
        let aligned = |m: Matrix, address: u64, step: usize| {
            let step = step as u64 * if m.dtype == DataType::F32 { 4 } else { 2 };
            Matrix { address: 1 << (address | step).trailing_zeros().min(8), ..m }
        };
        // The bias is read in vectors too.
        let matrices = [aligned(b, b.address, step_b), aligned(a, a.address, 0), aligned(c, c.address | bias, step_c | step_bias)];
        let product = (matrices, count);
        let Some(algorithm) = self.choose(product, &description, [&of_b, &of_a, &of_c])? else { return Ok(false) };
        let (alpha, beta) = (1.0f32, 0.0f32);
        let to = c.address as *mut c_void;
        // SAFETY: as in `gemm` for the matrices and the bias. The layouts were made from the same matrices. The workspace is never freed.
        let status = unsafe {
            (self.cublas.matmul)(
                self.handle,
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
                self.workspace.0 as *mut c_void,
                self.workspace.1,
                stream,
            )
        };
        check(status).map(|()| true)
    }
}
