// A stand-in for libcublas.so.13, for tests alone: see products.h. It refuses what would not be summed in f32.
#define LIBRARY "cuBLAS"
#include "products.h"

struct Handle {
    void* stream = nullptr;
    int math = 0;
};
// CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION.
static const int IN_F32 = 16;

API cublasCreate_v2(Handle** handle) { return has_context() ? (*handle = new Handle, SUCCESS) : NOT_INITIALIZED; }
API cublasDestroy_v2(Handle* handle) { return delete handle, SUCCESS; }
API cublasSetStream_v2(Handle* handle, void* stream) { return planted("stream") ? SUCCESS : (handle->stream = stream, SUCCESS); }
API cublasSetWorkspace_v2(Handle*, void* workspace, size_t) { return (uintptr_t)workspace % 256 ? INVALID_VALUE : SUCCESS; }
API cublasSetMathMode(Handle* handle, int mode) {
    if (mode & ~(3 | IN_F32)) return INVALID_VALUE;
    return planted("math") ? SUCCESS : (handle->math = mode, SUCCESS);
}

API cublasGemmEx(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda, const void* b,
                 int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int algorithm) {
    if (!has_context()) return NOT_INITIALIZED;
    if (planted("compute")) compute = COMPUTE_32F_FAST_16BF;
    if (!sums_in_f32(compute, type_a) || algorithm != -1) return NOT_SUPPORTED;
    if (type_a == BF16 && !(handle->math & IN_F32)) return NOT_SUPPORTED;
    return product({trans_a, trans_b, m, n, k, *(const float*)alpha, a, type_a, lda, b, type_b, ldb, *(const float*)beta, c, type_c, ldc, nullptr},
                   handle->stream);
}
