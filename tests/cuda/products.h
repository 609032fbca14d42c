// The products of the stand-ins for cuBLAS and cuBLASLt: column-major, of f32 and bf16, summed in f32 in one fixed order. They run in the stream of
// the driver's stand-in. With SHIM_IDLE=1 nothing is computed: see driver.cpp. SHIM_FAULT: see stream.h.
#pragma once
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

// Of cudaDataType and cublasStatus_t.
enum { F32 = 0, BF16 = 14 };
enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15 };
// Of cublasComputeType_t.
enum { COMPUTE_32F = 68, COMPUTE_32F_FAST_16BF = 75, COMPUTE_32F_FAST_TF32 = 77 };

// Whether this fault is planted.
static bool planted(const char* fault) {
    static const char* const name = getenv("SHIM_FAULT");
    return name && !strcmp(name, fault);
}

// A function of the driver's stand-in.
static void* of_driver(const char* name) {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    return driver ? dlsym(driver, name) : nullptr;
}

// Whether this thread has a context. (The real libraries would bind one of their own choice.)
static bool has_context() {
    static const auto current = (int (*)(void**))of_driver("cuCtxGetCurrent");
    void* context = nullptr;
    return current && current(&context) == SUCCESS && context;
}

// Puts work into a stream.
static int enqueue(void* stream, std::function<void()> work) {
    static const auto put = (void (*)(void*, void (*)(void*), void*))of_driver("shim_enqueue");
    if (!put) return INTERNAL_ERROR;
    const auto run = [](void* kept) {
        (*(std::function<void()>*)kept)();
        delete (std::function<void()>*)kept;
    };
    put(stream, run, new std::function<void()>(std::move(work)));
    return SUCCESS;
}

// Whether products of this type are summed in f32, of operands that are not rounded unless the program was told to.
static bool sums_in_f32(int compute, int operands) {
    return compute == COMPUTE_32F || (compute == COMPUTE_32F_FAST_TF32 && operands == F32 && getenv("LOWRANK_TF32"));
}

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

struct Product {
    int trans_a, trans_b, m, n, k;
    float alpha;
    const void* a;
    int type_a;
    long long lda;
    const void* b;
    int type_b;
    long long ldb;
    float beta;
    void* c;
    int type_c;
    long long ldc;
    const void* bias;
};

static void compute(const Product& of) {
    const auto [trans_a, trans_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, bias] = of;
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
}

// Puts C = alpha op(A) op(B) + beta C + bias in each column into a stream; no bias if it is null.
static int product(const Product& of, void* stream) {
    const auto at_least_one = [](int x) { return x > 1 ? x : 1; };
    if (of.m < 0 || of.n < 0 || of.k < 0) return INVALID_VALUE;
    if (of.lda < at_least_one(of.trans_a ? of.k : of.m) || of.ldb < at_least_one(of.trans_b ? of.n : of.k) || of.ldc < at_least_one(of.m))
        return INVALID_VALUE;
    // Of the pairs that cuBLAS takes with sums in f32, those with one type for a and b, and c of that type or f32.
    const auto known = [](int type) { return type == F32 || type == BF16; };
    if (!known(of.type_a) || of.type_b != of.type_a || (of.type_c != of.type_a && of.type_c != F32)) return NOT_SUPPORTED;
    // Each operand is aligned to its elements.
    const auto aligned = [](const void* p, int type) { return (uintptr_t)p % (type == F32 ? 4 : 2) == 0; };
    if (!aligned(of.a, of.type_a) || !aligned(of.b, of.type_b) || !aligned(of.c, of.type_c)) return INVALID_VALUE;
    products.count++;
    if (products.idle) return SUCCESS;
    return enqueue(stream, [of] { compute(of); });
}
