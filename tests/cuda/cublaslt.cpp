// A stand-in for libcublasLt.so.13, for tests alone: products with a bias, see products.h. Attributes that it does not know are refused, and what
// cuBLASLt would have to be told is checked. SHIM_LT=every: it has no algorithm for anything, and says so in every way that there is, in turn.
#define LIBRARY "cuBLASLt"
#include <atomic>

#include "products.h"

struct Description {
    int compute, scale, trans_a = 0, trans_b = 0;
    uint32_t epilogue = 1;
    const void* bias = nullptr;
    int64_t bias_step = 0;
};
struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t ld;
    // The products of a batch, and the elements from one matrix to the next.
    int32_t count = 1;
    int64_t step = 0;
};
struct Preference {
    uint64_t workspace = 0;
    // Which reduction schemes of split-K are allowed, beside none: 1 in place, 2 in the compute type, 4 in the output's type.
    uint32_t reductions = 7;
    uint32_t alignments[4] = {256, 256, 256, 256};
};
// cublasLtMatmulAlgo_t, of which we use a mark and the alignments that it was asked for.
struct Algorithm {
    uint64_t mark, workspace;
    uint32_t alignments[4];
    uint64_t rest[4];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Found) == 96, "as in cublasLt.h");
static const uint64_t MARK = 0x57A2D1;

template <typename T>
static int set(T& to, const void* value, size_t bytes) {
    if (bytes != sizeof(T)) return INVALID_VALUE;
    memcpy(&to, value, bytes);
    return SUCCESS;
}

API cublasLtCreate(void** handle) { return *handle = (void*)1, has_context() ? SUCCESS : NOT_INITIALIZED; }
API cublasLtMatmulDescCreate(Description** to, int compute, int scale) { return *to = new Description{compute, scale}, SUCCESS; }
API cublasLtMatmulDescDestroy(Description* of) { return delete of, SUCCESS; }
API cublasLtMatrixLayoutCreate(Layout** to, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (ld < (int64_t)rows) return INVALID_VALUE;
    return *to = new Layout{type, rows, cols, ld}, SUCCESS;
}
API cublasLtMatrixLayoutSetAttribute(Layout* of, int attribute, const void* value, size_t bytes) {
    if (attribute == 5) return set(of->count, value, bytes);
    if (attribute == 6) return planted("batch") ? SUCCESS : set(of->step, value, bytes);
    return INVALID_VALUE;
}
API cublasLtMatrixLayoutDestroy(Layout* of) { return delete of, SUCCESS; }
API cublasLtMatmulPreferenceCreate(Preference** to) { return *to = new Preference, SUCCESS; }
API cublasLtMatmulPreferenceDestroy(Preference* of) { return delete of, SUCCESS; }

API cublasLtMatmulDescSetAttribute(Description* of, int attribute, const void* value, size_t bytes) {
    switch (attribute) {
        case 3: return set(of->trans_a, value, bytes);
        case 4: return set(of->trans_b, value, bytes);
        case 7: return set(of->epilogue, value, bytes);
        case 8: return set(of->bias, value, bytes);
        case 10: return planted("biases") ? SUCCESS : set(of->bias_step, value, bytes);
        default: return INVALID_VALUE;
    }
}

API cublasLtMatmulPreferenceSetAttribute(Preference* of, int attribute, const void* value, size_t bytes) {
    if (attribute == 1) return set(of->workspace, value, bytes);
    if (attribute == 3) return planted("reduction") ? SUCCESS : set(of->reductions, value, bytes);
    if (attribute >= 5 && attribute <= 8) return set(of->alignments[attribute - 5], value, bytes);
    return INVALID_VALUE;
}

// Every way to say that there is no algorithm: each status, no result, and a result that cannot be used.
static int refuse(Found* found, int* count) {
    static const int statuses[] = {1, 3, 7, 8, 11, 13, 14, 15, 16};
    static const unsigned known = sizeof statuses / sizeof *statuses;
    static std::atomic<unsigned> calls{0};
    const unsigned way = calls++ % (known + 2);
    *found = Found();
    // As if the program did not look at the status.
    if (planted("status")) return *count = 1, SUCCESS;
    if (way < known) return statuses[way];
    *count = way == known ? 0 : 1;
    found->state = NOT_SUPPORTED;
    return SUCCESS;
}

API cublasLtMatmulAlgoGetHeuristic(void*, Description* of, Layout* a, Layout*, Layout*, Layout*, Preference* preference, int wanted, Found* found,
                                   int* count) {
    *count = 0;
    if (wanted < 1) return INVALID_VALUE;
    if (const char* lt = getenv("SHIM_LT"); lt && !strcmp(lt, "every")) return refuse(found, count);
    // Nothing else would tell that parts are summed in bf16: the program falls back if there is no algorithm.
    if (!sums_in_f32(of->compute, a->type) || preference->reductions & ~2u) {
        fprintf(stderr, "stand-in: cuBLASLt may choose an algorithm that does not sum in f32\n");
        abort();
    }
    *found = Found();
    found->algorithm.mark = MARK;
    found->algorithm.workspace = preference->workspace;
    memcpy(found->algorithm.alignments, preference->alignments, sizeof preference->alignments);
    return *count = 1, SUCCESS;
}

API cublasLtMatmul(void*, Description* of, const void* alpha, const void* a, Layout* la, const void* b, Layout* lb, const void* beta, const void* c,
                   Layout* lc, void* d, Layout* ld, Algorithm* algorithm, void* workspace, size_t bytes, void* stream) {
    if (!has_context()) return NOT_INITIALIZED;
    const uint64_t m = of->trans_a ? la->cols : la->rows, k = of->trans_a ? la->rows : la->cols;
    const uint64_t n = of->trans_b ? lb->rows : lb->cols, k_b = of->trans_b ? lb->cols : lb->rows;
    // Scales of f32, CUBLASLT_EPILOGUE_BIAS.
    if (!sums_in_f32(of->compute, la->type) || of->scale != F32 || of->epilogue != 4 || !of->bias) return INVALID_VALUE;
    if (k != k_b || lc->rows != m || lc->cols != n || ld->rows != m || ld->cols != n || c != d) return INVALID_VALUE;
    if (algorithm->mark != MARK || bytes < algorithm->workspace || (bytes && !workspace)) return INVALID_VALUE;
    const int count = la->count;
    if (lb->count != count || lc->count != count || ld->count != count || lc->step != ld->step) return INVALID_VALUE;
    const auto bytes_of = [](int type) { return type == F32 ? 4 : 2; };
    for (int i = 0; i < count; i++) {
        const auto own = [&](const void* first, Layout* of) { return (char*)first + i * of->step * bytes_of(of->type); };
        const char *own_a = own(a, la), *own_b = own(b, lb), *bias = (const char*)of->bias + i * of->bias_step * bytes_of(ld->type);
        char* own_d = own(d, ld);
        const void* matrices[4] = {own_a, own_b, own_d, own_d};
        for (int j = 0; j < 4; j++)
            if ((uintptr_t)matrices[j] % algorithm->alignments[j]) return INVALID_VALUE;
        if ((uintptr_t)bias % algorithm->alignments[3]) return INVALID_VALUE;
        const Product one = {of->trans_a, of->trans_b, (int)m, (int)n, (int)k, *(const float*)alpha, own_a, la->type, la->ld, own_b, lb->type,
                             lb->ld, *(const float*)beta, own_d, ld->type, ld->ld, bias};
        if (const int status = product(one, stream)) return status;
    }
    // A batch is one call.
    products.count -= count - 1;
    return SUCCESS;
}
