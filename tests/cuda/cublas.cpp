// A stand-in for libcublas.so.13, for tests alone: column-major products of f32 and bf16, summed in f64, one element after another.
#include <cstdint>
#include <cstring>

#define API extern "C" __attribute__((visibility("default"))) int

enum { F32 = 0, BF16 = 14 };

static float load(const void* from, size_t i, int type) {
    if (type == F32) return ((const float*)from)[i];
    const uint32_t bits = (uint32_t)((const uint16_t*)from)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static void store(void* to, size_t i, int type, float x) {
    if (type == F32) {
        ((float*)to)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    ((uint16_t*)to)[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

API cublasCreate_v2(void** handle) { return *handle = (void*)1, 0; }
API cublasDestroy_v2(void*) { return 0; }
API cublasSetStream_v2(void*, void*) { return 0; }
API cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
API cublasGetVersion_v2(void*, int* version) { return *version = 130100, 0; }
API cublasGemmEx(void*, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda, const void* b, int type_b,
                 int ldb, const void* beta, void* c, int type_c, int ldc, int, int) {
    const float scale = *(const float*)alpha, keep = *(const float*)beta;
    if (lda < (trans_a ? k : m) || ldb < (trans_b ? n : k) || ldc < m) return 7;
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0.0;
            for (int p = 0; p < k; p++) {
                const size_t at_a = trans_a ? (size_t)i * lda + p : (size_t)p * lda + i;
                const size_t at_b = trans_b ? (size_t)p * ldb + j : (size_t)j * ldb + p;
                sum += (double)load(a, at_a, type_a) * load(b, at_b, type_b);
            }
            const size_t at = (size_t)j * ldc + i;
            // With beta 0, c is not read: it may hold NaNs.
            store(c, at, type_c, scale * (float)sum + (keep != 0.0f ? keep * load(c, at, type_c) : 0.0f));
        }
    }
    return 0;
}
