// A stand-in for libcublas.so.13, for tests alone: see products.h.
#define LIBRARY "cuBLAS"
#include "products.h"

API cublasCreate_v2(void** handle) { return *handle = (void*)1, SUCCESS; }
API cublasDestroy_v2(void*) { return SUCCESS; }
API cublasSetStream_v2(void*, void*) { return SUCCESS; }
API cublasSetWorkspace_v2(void*, void*, size_t) { return SUCCESS; }

API cublasGemmEx(void*, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda, const void* b,
                 int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int, int) {
    return product(trans_a, trans_b, m, n, k, *(const float*)alpha, a, type_a, lda, b, type_b, ldb, *(const float*)beta, c, type_c, ldc, nullptr);
}
