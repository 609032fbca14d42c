// The products of the stand-ins for cuBLAS and cuBLASLt: column-major, of f32 and bf16, summed in f32 in one fixed order. With SHIM_IDLE=1
// nothing is computed: see driver.cpp.
#pragma once
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
static std::vector<float> columns(const void* from, int type, bool contiguous, int count, int k, long long ld) {
    std::vector<float> all((size_t)count * k);
    for (int i = 0; i < count; i++) {
        for (int p = 0; p < k; p++) {
            const size_t at = contiguous ? (size_t)i * ld + p : (size_t)p * ld + i;
            all[(size_t)i * k + p] = load(from, at, type);
        }
    }
    return all;
}

// Products asked for in an idle run, told at its end.
static struct Products {
    const bool idle = getenv("SHIM_IDLE");
    size_t count = 0;
    ~Products() {
        if (idle) fprintf(stderr, "%s: %zu products\n", LIBRARY, count);
    }
} products;

// C = alpha op(A) op(B) + beta C + bias in each column; no bias if it is null.
static int product(int trans_a, int trans_b, int m, int n, int k, float alpha, const void* a, int type_a, long long lda, const void* b, int type_b,
                   long long ldb, float beta, void* c, int type_c, long long ldc, const void* bias) {
    const auto at_least_one = [](int x) { return x > 1 ? x : 1; };
    if (m < 0 || n < 0 || k < 0) return INVALID_VALUE;
    if (lda < at_least_one(trans_a ? k : m) || ldb < at_least_one(trans_b ? n : k) || ldc < at_least_one(m)) return INVALID_VALUE;
    // Of the pairs that cuBLAS takes with sums in f32, those with one type for a and b, and c of that type or f32.
    const auto known = [](int type) { return type == F32 || type == BF16; };
    if (!known(type_a) || type_b != type_a || (type_c != type_a && type_c != F32)) return NOT_SUPPORTED;
    products.count++;
    if (products.idle) return SUCCESS;
    const std::vector<float> rows = columns(a, type_a, trans_a, m, k, lda);
    const std::vector<float> cols = columns(b, type_b, !trans_b, n, k, ldb);
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
            const size_t at = (size_t)j * ldc + i;
            sum = alpha * sum + (beta != 0.0f ? beta * load(c, at, type_c) : 0.0f);
            store(c, at, type_c, sum + (bias ? load(bias, i, type_c) : 0.0f));
        }
    }
    return SUCCESS;
}
