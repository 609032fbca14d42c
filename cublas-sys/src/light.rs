//! cuBLASLt: products with an epilogue. <https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api>.

use super::{ComputeType, DataType, LIGHT_NAMES, Stream, Wanted, find, folders, functions};
use std::ffi::{c_int, c_void};

/// A context: `cublasLtHandle_t`.
pub type Handle = *mut c_void;
/// What a product is: `cublasLtMatmulDesc_t`.
pub type Description = *mut c_void;
/// How a matrix lies: `cublasLtMatrixLayout_t`.
pub type Layout = *mut c_void;
/// What an algorithm must fit: `cublasLtMatmulPreference_t`.
pub type Preference = *mut c_void;

/// `cublasLtMatmulDescAttributes_t`, with the type of the value.
pub mod description {
    /// `CUBLASLT_MATMUL_DESC_TRANSA`: an [`crate::Operation`].
    pub const TRANS_A: i32 = 3;
    /// `CUBLASLT_MATMUL_DESC_TRANSB`: an [`crate::Operation`].
    pub const TRANS_B: i32 = 4;
    /// `CUBLASLT_MATMUL_DESC_EPILOGUE`: u32.
    pub const EPILOGUE: i32 = 7;
    /// `CUBLASLT_MATMUL_DESC_BIAS_POINTER`: a device address; as many elements as D has rows, of D's type.
    pub const BIAS_POINTER: i32 = 8;
    /// `CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE`: i64, elements from the bias of one product of a batch to that of the next.
    pub const BIAS_BATCH_STRIDE: i32 = 10;
}

/// `cublasLtMatrixLayoutAttribute_t`, with the type of the value.
pub mod layout {
    /// `CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT`: i32, the products of a batch, 1 if not set.
    pub const BATCH_COUNT: i32 = 5;
    /// `CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET`: i64, elements from the matrix of one product of a batch to that of the next.
    pub const STRIDED_BATCH_OFFSET: i32 = 6;
}

/// `CUBLASLT_EPILOGUE_BIAS`: the bias is added to each column of D.
pub const EPILOGUE_BIAS: u32 = 4;

/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`: parts of a sum lie in the workspace, and are added, in the compute type.
pub const REDUCTION_IN_COMPUTE_TYPE: u32 = 2;

/// `cublasLtMatmulPreferenceAttributes_t`, with the type of the value.
pub mod preference {
    /// `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`: u64, 0 if not set.
    pub const MAX_WORKSPACE_BYTES: i32 = 1;
    /// `CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK`: u32, the reduction schemes that are allowed beside none; all if not set.
    pub const REDUCTION_SCHEME_MASK: i32 = 3;
    /// `CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES` and those of B, C and D: u32, 256 if not set.
    pub const MIN_ALIGNMENT_BYTES: [i32; 4] = [5, 6, 7, 8];
}

/// `cublasLtMatmulAlgo_t`: opaque, and may be copied.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Algorithm {
    data: [u64; 8],
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Found {
    /// What [`CublasLt::matmul`] takes.
    pub algorithm: Algorithm,
    /// Bytes that it needs.
    pub workspace: usize,
    /// 0 if it can be used.
    pub state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

functions! {
    /// cuBLASLt's functions. The library stays loaded as long as this lives.
    CublasLt, "cuBLASLt";
    /// `cublasLtCreate`.
    create = b"cublasLtCreate": fn(handle: *mut Handle);
    /// `cublasLtMatmulDescCreate`.
    description_create = b"cublasLtMatmulDescCreate": fn(description: *mut Description, compute: ComputeType, scale: DataType);
    /// `cublasLtMatmulDescSetAttribute`.
    description_set = b"cublasLtMatmulDescSetAttribute": fn(description: Description, attribute: c_int, value: *const c_void, bytes: usize);
    /// `cublasLtMatmulDescDestroy`.
    description_destroy = b"cublasLtMatmulDescDestroy": fn(description: Description);
    /// `cublasLtMatrixLayoutCreate`: column-major, `ld` elements from one column to the next.
    layout_create = b"cublasLtMatrixLayoutCreate": fn(layout: *mut Layout, dtype: DataType, rows: u64, cols: u64, ld: i64);
    /// `cublasLtMatrixLayoutSetAttribute`.
    layout_set = b"cublasLtMatrixLayoutSetAttribute": fn(layout: Layout, attribute: c_int, value: *const c_void, bytes: usize);
    /// `cublasLtMatrixLayoutDestroy`.
    layout_destroy = b"cublasLtMatrixLayoutDestroy": fn(layout: Layout);
    /// `cublasLtMatmulPreferenceCreate`.
    preference_create = b"cublasLtMatmulPreferenceCreate": fn(preference: *mut Preference);
    /// `cublasLtMatmulPreferenceSetAttribute`.
    preference_set = b"cublasLtMatmulPreferenceSetAttribute": fn(preference: Preference, attribute: c_int, value: *const c_void, bytes: usize);
    /// `cublasLtMatmulPreferenceDestroy`.
    preference_destroy = b"cublasLtMatmulPreferenceDestroy": fn(preference: Preference);
    /// `cublasLtMatmulAlgoGetHeuristic`: the best `wanted` algorithms or fewer. If there is none, `CUBLAS_STATUS_NOT_SUPPORTED`, or another failure.
    find_algorithm = b"cublasLtMatmulAlgoGetHeuristic": fn(
        handle: Handle, description: Description, a: Layout, b: Layout, c: Layout, d: Layout,
        preference: Preference, wanted: c_int, found: *mut Found, count: *mut c_int
    );
    /// `cublasLtMatmul`: D = alpha op(A) op(B) + beta C, and the epilogue.
    matmul = b"cublasLtMatmul": fn(
        handle: Handle, description: Description, alpha: *const c_void, a: *const c_void, layout_a: Layout, b: *const c_void, layout_b: Layout,
        beta: *const c_void, c: *const c_void, layout_c: Layout, d: *mut c_void, layout_d: Layout,
        algorithm: *const Algorithm, workspace: *mut c_void, bytes: usize, stream: Stream
    );
}

impl CublasLt {
    /// Finds and loads cuBLASLt, as [`super::Cublas::load`] does cuBLAS, which needs it too.
    ///
    /// # Errors
    /// A sentence that says where was looked and what to install.
    pub fn load(cuda: u32) -> Result<CublasLt, String> {
        find(&Wanted { called: "cuBLASLt", names: LIGHT_NAMES, beside: &[], wheel: "nvidia-cublas" }, cuda, &folders())
            .and_then(CublasLt::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_header() {
        assert_eq!((size_of::<Algorithm>(), size_of::<Found>()), (64, 96));
    }
}
