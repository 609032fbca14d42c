// A stand-in for libcublas.so.13, for tests alone: column-major products of f32 and bf16, summed in f32 in one fixed order. With
// SHIM_IDLE=1 nothing is computed: see driver.cpp.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

// Of cudaDataType and cublasStatus_t.
enum { F32 = 0, BF16 = 14 };
enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

static float load(const void* from, size_t i, int type) {
    if (type == F32) return ((const float*)from)[i];
    const uint32_t bits = (uint32_t)((const uint16_t*)from)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Rounds to nearest, ties to even; a NaN stays one.
static void store(void* to, size_t i, int type, float x) {
    if (type == F32) {
        ((float*)to)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    ((uint16_t*)to)[i] = (uint16_t)(x != x ? bits >> 16 | 0x40 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Columns of k numbers: rows of op(a), or columns of op(b).
static std::vector<float> columns(const void* from, int type, size_t offset, bool contiguous, int count, int k, int ld) {
    std::vector<float> all((size_t)count * k);
    for (int i = 0; i < count; i++) {
        for (int p = 0; p < k; p++) {
            const size_t at = contiguous ? (size_t)i * ld + p : (size_t)p * ld + i;
            all[(size_t)i * k + p] = load(from, offset + at, type);
        }
    }
    return all;
}

// Products asked for in an idle run, told at its end.
static struct Products {
    const bool idle = getenv("SHIM_IDLE");
    size_t count = 0;
    ~Products() {
        if (idle) fprintf(stderr, "cuBLAS: %zu products\n", count);
    }
} products;

API cublasCreate_v2(void** handle) { return *handle = (void*)1, SUCCESS; }
API cublasDestroy_v2(void*) { return SUCCESS; }
API cublasSetStream_v2(void*, void*) { return SUCCESS; }
API cublasSetMathMode(void*, int) { return SUCCESS; }
API cublasSetWorkspace_v2(void*, void*, size_t) { return SUCCESS; }
API cublasGetVersion_v2(void*, int* version) { return *version = 130100, SUCCESS; }
// Major, minor, patch.
API cublasGetProperty(int which, int* value) {
    if (which < 0 || which > 2) return INVALID_VALUE;
    return *value = which == 0 ? 13 : which == 1 ? 1 : 0, SUCCESS;
}

API cublasGemmStridedBatchedEx(void*, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
                               long long stride_a, const void* b, int type_b, int ldb, long long stride_b, const void* beta, void* c, int type_c,
                               int ldc, long long stride_c, int batch, int, int) {
    const auto at_least_one = [](int x) { return x > 1 ? x : 1; };
    if (m < 0 || n < 0 || k < 0 || batch < 0) return INVALID_VALUE;
    if (lda < at_least_one(trans_a ? k : m) || ldb < at_least_one(trans_b ? n : k) || ldc < at_least_one(m)) return INVALID_VALUE;
    // Of the pairs that cuBLAS takes with sums in f32, those with one type for a and b, and c of that type or f32.
    const auto known = [](int type) { return type == F32 || type == BF16; };
    if (!known(type_a) || type_b != type_a || (type_c != type_a && type_c != F32)) return NOT_SUPPORTED;
    products.count++;
    if (products.idle) return SUCCESS;
    const float scale = *(const float*)alpha, keep = *(const float*)beta;
    for (int q = 0; q < batch; q++) {
        const std::vector<float> rows = columns(a, type_a, q * stride_a, trans_a, m, k, lda);
        const std::vector<float> cols = columns(b, type_b, q * stride_b, !trans_b, n, k, ldb);
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < m; i++) {
                const float *x = &rows[(size_t)i * k], *y = &cols[(size_t)j * k];
                // Eight sums side by side, which the compiler makes one vector of.
                float lanes[8] = {}, sum = 0.0f;
                int p = 0;
                for (; p + 8 <= k; p += 8)
                    for (int lane = 0; lane < 8; lane++) lanes[lane] += x[p + lane] * y[p + lane];
                for (; p < k; p++) sum += x[p] * y[p];
                for (float lane : lanes) sum += lane;
                // With beta 0, c is not read: it may hold NaNs.
                const size_t at = q * stride_c + (size_t)j * ldc + i;
                store(c, at, type_c, scale * sum + (keep != 0.0f ? keep * load(c, at, type_c) : 0.0f));
            }
        }
    }
    return SUCCESS;
}

API cublasGemmEx(void* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda, const void* b,
                 int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, trans_a, trans_b, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c, type_c, ldc, 0, 1,
                                      compute, algorithm);
}
