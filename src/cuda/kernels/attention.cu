// Scaled dot-product attention over packed sequences, forward and backward, after Dao 2023, "FlashAttention-2",
// <https://arxiv.org/abs/2307.08691>, algorithms 1 and 2: scores are made tile by tile and never stored.
//
// For each sequence and head, with queries q [nq, K] and keys and values k, v [nk, K]:
//
//   S = q kᵀ / √K      P = softmax(S) = exp(S - lse)      y = (f ⊙ P) v
//   δ = Σ dy ⊙ y over a row      dS = P ⊙ (f ⊙ dy vᵀ - δ)      dq = dS k / √K      dk = dSᵀ q / √K      dv = (f ⊙ P)ᵀ dy
//
// f is 0 or 1/(1 - p), drawn from a counter wherever it is needed: row = head · 2¹⁶ + query, column = key. Each sequence sees `extra` more keys
// and values before its own; its key j is row j of those if j < extra, and row j - extra of its own otherwise.
//
// Two families of kernels:
//   plain        f32, and bf16 of any head width up to 128: sums in f32, one product after another. The oracle of the other.
//   tensor_core  bf16 of head width 32 or 64. Against the plain kernels on the same bf16 inputs, P and dS are rounded to bf16 before they are
//                multiplied on (relative error 2⁻⁹ each, independent), and exp2 is approximate (2⁻²²).
//
// Sums have a fixed order: dq has one owner per query, dk and dv one per key; no atomics. All lengths may differ; blocks past the end of
// their sequence return at once.
//
// Parameters that all share:
//   q                 [Tq, ldq], head h in columns hK..(h+1)K. ldq and ld are in elements, at least heads · K.
//   k, v              [T, ld]
//   extra_k, extra_v  [extra, heads · K], null if extra is 0
//   y, dy             [Tq, heads · K]
//   lse, delta        [heads, Tq], f32; lse is that of S, to base e
//   q_offsets         [B + 1], the first row of each sequence among the queries; k_offsets [B + 1] among the keys and values
//   examples          [B], the ordinals that dropout counts by
//   live_sequences    [1], or null: sequences from this one on are left out, and their rows of every output are left as they were
//   tq, width         Tq, and K (the tensor-core kernels know it: it stands in their names)
//   scale             1 / √K
//   seed, site        of the dropout; a weight is kept where its random word is at least `threshold`, and then times `keep` = 1/(1 - p).
//                     threshold 0: no dropout, and keep = 1.
// The tensor-core kernels copy 16 bytes at a time: their bf16 addresses are multiples of 16, ldq and ld of 8.
#include "common.cuh"
#include "mma.cuh"

namespace attention {

template <typename T>
struct Inputs {
    const T *q, *k, *v, *extra_k, *extra_v;
    const u32 *q_offsets, *k_offsets, *examples, *live_sequences;
    u32 tq, width, ldq, ld, extra;
    float scale;
    u64 seed;
    u32 site, threshold;
    float keep;
};

// Rows of one head in one sequence: the extra ones first, if there are any.
template <typename T>
struct Rows {
    T *extra, *own;
    u32 extras, ld_extra, ld;

    // Selects and one multiplication, where two branches would stand.
    __device__ __forceinline__ T* operator()(u32 row) const {
        const bool is_extra = row < extras;
        return (is_extra ? extra : own) + (size_t)(is_extra ? row : row - extras) * (is_extra ? ld_extra : ld);
    }
};

// The sequence and head of this block.
struct Task {
    u32 sequence, head, heads;
    u32 q_first, nq;    // its queries are rows q_first.. of q
    u32 k_first, nk;    // its own keys are rows k_first.. of k; nk counts the extra ones
    u32 example;
};

// False if the block's sequence is not live.
template <typename T>
__device__ __forceinline__ bool find_task(const Inputs<T>& in, Task& task) {
    const u32 b = blockIdx.z;
    if (in.live_sequences && b >= *in.live_sequences) return false;
    task.sequence = b;
    task.head = blockIdx.y;
    task.heads = gridDim.y;
    task.q_first = in.q_offsets[b];
    task.nq = in.q_offsets[b + 1] - task.q_first;
    task.k_first = in.k_offsets[b];
    task.nk = in.k_offsets[b + 1] - task.k_first + in.extra;
    task.example = in.examples[b];
    return true;
}

template <typename T>
__device__ __forceinline__ Rows<T> query_rows(T* q, u32 ld, u32 width, const Task& task) {
    return {nullptr, q + (size_t)task.q_first * ld + task.head * width, 0, 0, ld};
}

template <typename T>
__device__ __forceinline__ Rows<T> key_rows(T* k, T* extra, const Task& task, u32 extras, u32 ld, u32 width) {
    const u32 column = task.head * width;
    // Without extra rows their address is null, and nothing is added to it.
    return {extras ? extra + column : nullptr, k + (size_t)task.k_first * ld + column, extras, task.heads * width, ld};
}

__device__ __forceinline__ float infinity() {
    return __uint_as_float(0x7F800000);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
namespace plain {

// A block of WARPS warps owns OWN rows, OWN_WARP to a warp, and meets the rows of the other side OTHER at a time: a lane has one of them when
// scores are made, and every 32nd column when rows are summed. Launch: block 128, grid [ceil(longest sequence / 16), heads, B].
constexpr u32 WARPS = 4, OWN_WARP = 4, OWN = WARPS * OWN_WARP, OTHER = 32;
// Columns of a lane: head widths up to 128.
constexpr u32 PARTS = 4;

// Floats from one staged row to the next: odd, so that 32 lanes that read one column of 32 rows meet 32 banks.
__device__ __forceinline__ u32 stride_of(u32 width) {
    return width | 1;
}

// Rows first.. of `rows`, widened; zeros past `count`.
template <u32 ROWS, typename T>
__device__ __forceinline__ void stage(float* to, const Rows<T>& rows, u32 first, u32 count, u32 width) {
    for (u32 i = threadIdx.x; i < ROWS * width; i += WARPS * 32) {
        const u32 row = i / width, column = i % width;
        to[row * stride_of(width) + column] = first + row < count ? widen(rows(first + row)[column]) : 0.0f;
    }
}

// products[r] = a row of the lane · row r of the warp.
__device__ __forceinline__ void dot(float (&products)[OWN_WARP], const float* own, const float* other, u32 width) {
    const u32 stride = stride_of(width), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 r = 0; r < OWN_WARP; r++) products[r] = 0.0f;
#pragma unroll 4
    for (u32 c = 0; c < width; c++) {
        const float x = other[lane * stride + c];
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) products[r] += own[(warp * OWN_WARP + r) * stride + c] * x;
    }
}

// sum += Σ over the lanes of weight · row of that lane; each lane sums its own columns.
__device__ __forceinline__ void add_rows(float (&sum)[PARTS], float weight, const float* other, u32 width) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll 4
    for (u32 i = 0; i < OTHER; i++) {
        const float w = __shfl_sync(0xFFFFFFFFu, weight, i);
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
            const u32 column = part * 32 + lane;
            if (column < width) sum[part] += w * other[i * stride_of(width) + column];
        }
    }
}

template <typename T>
__device__ __forceinline__ void store(T* row, const float (&sum)[PARTS], float factor, u32 width) {
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
        const u32 column = part * 32 + threadIdx.x % 32;
        if (column < width) row[column] = narrow<T>(sum[part] * factor);
    }
}

// The dropout factor of one weight. Four neighbours draw the same words: simple, and four times the work.
template <typename T>
__device__ __forceinline__ float factor(const Inputs<T>& in, const Task& task, u32 query, u32 key) {
    if (in.threshold == 0) return 1.0f;
    const Words words = philox(in.seed, key / 4, task.head << 16 | query, in.site, task.example);
    return words.x[key % 4] >= in.threshold ? in.keep : 0.0f;
}

// y and lse. Owns queries, meets keys. Shared memory: (OWN + 2 OTHER) (K | 1) floats. Bound by loads from shared memory: 5 for 4 products.
template <typename T>
__device__ __forceinline__ void forward(const Inputs<T>& in, T* y, float* lse) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nq) return;
    float* q = (float*)memory;
    float* k = q + OWN * stride_of(width);
    float* v = k + OTHER * stride_of(width);
    const Rows<const T> q_rows = query_rows(in.q, in.ldq, width, task);
    const Rows<const T> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, width);
    const Rows<const T> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, width);
    stage<OWN>(q, q_rows, first, task.nq, width);

    // The softmax of what was met so far: its greatest score, Σ exp(score - greatest), and that sum with the values as weights.
    float greatest[OWN_WARP], total[OWN_WARP], sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++) {
        greatest[r] = -infinity();
        total[r] = 0.0f;
        for (u32 part = 0; part < PARTS; part++) sum[r][part] = 0.0f;
    }
    for (u32 j0 = 0; j0 < task.nk; j0 += OTHER) {
        __syncthreads();
        stage<OTHER>(k, k_rows, j0, task.nk, width);
        stage<OTHER>(v, v_rows, j0, task.nk, width);
        __syncthreads();
        const u32 j = j0 + lane;
        float scores[OWN_WARP];
        dot(scores, q, k, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const float score = j < task.nk ? scores[r] * in.scale : -infinity();
            const float top = fmaxf(greatest[r], warp_max(score));
            const float shrink = expf(greatest[r] - top), p = expf(score - top);
            greatest[r] = top;
            total[r] = total[r] * shrink + warp_sum(p);
            for (u32 part = 0; part < PARTS; part++) sum[r][part] *= shrink;
            add_rows(sum[r], p * factor(in, task, first + warp * OWN_WARP + r, j), v, width);
        }
    }
    const Rows<T> y_rows = query_rows(y, task.heads * width, width, task);
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 i = first + warp * OWN_WARP + r;
        if (i >= task.nq) break;
        store(y_rows(i), sum[r], 1.0f / total[r], width);
        if (lse && lane == 0) lse[task.head * (size_t)in.tq + task.q_first + i] = greatest[r] + logf(total[r]);
    }
}

// dq. Owns queries, meets keys. Shared memory: 2 (OWN + OTHER) (K | 1) floats. Bound as forward is.
template <typename T>
__device__ __forceinline__ void backward_queries(const Inputs<T>& in, const T* dy, const float* lse, const float* delta, T* dq) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nq) return;
    float* q = (float*)memory;
    float* g = q + OWN * stride_of(width);
    float* k = g + OWN * stride_of(width);
    float* v = k + OTHER * stride_of(width);
    const Rows<const T> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, width);
    const Rows<const T> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, width);
    stage<OWN>(q, query_rows(in.q, in.ldq, width, task), first, task.nq, width);
    stage<OWN>(g, query_rows(dy, task.heads * width, width, task), first, task.nq, width);

    float sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++)
        for (u32 part = 0; part < PARTS; part++) sum[r][part] = 0.0f;
    for (u32 j0 = 0; j0 < task.nk; j0 += OTHER) {
        __syncthreads();
        stage<OTHER>(k, k_rows, j0, task.nk, width);
        stage<OTHER>(v, v_rows, j0, task.nk, width);
        __syncthreads();
        const u32 j = j0 + lane;
        float scores[OWN_WARP], dp[OWN_WARP];
        dot(scores, q, k, width);
        dot(dp, g, v, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const u32 i = first + warp * OWN_WARP + r;
            float ds = 0.0f;
            if (i < task.nq && j < task.nk) {
                const size_t row = task.head * (size_t)in.tq + task.q_first + i;
                ds = expf(scores[r] * in.scale - lse[row]) * (factor(in, task, i, j) * dp[r] - delta[row]);
            }
            add_rows(sum[r], ds, k, width);
        }
    }
    const Rows<T> dq_rows = query_rows(dq, in.ldq, width, task);
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 i = first + warp * OWN_WARP + r;
        if (i < task.nq) store(dq_rows(i), sum[r], in.scale, width);
    }
}

// dk and dv; of the extra rows this sequence's share, which attention_backward_extra sums. Owns keys, meets queries. Shared memory as for dq.
template <typename T>
__device__ __forceinline__ void backward_keys(const Inputs<T>& in, const T* dy, const float* lse, const float* delta, T* dk, T* dv,
                                              float* extra_dk, float* extra_dv) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nk) return;
    float* k = (float*)memory;
    float* v = k + OWN * stride_of(width);
    float* q = v + OWN * stride_of(width);
    float* g = q + OTHER * stride_of(width);
    const Rows<const T> q_rows = query_rows(in.q, in.ldq, width, task);
    const Rows<const T> g_rows = query_rows(dy, task.heads * width, width, task);
    stage<OWN>(k, key_rows(in.k, in.extra_k, task, in.extra, in.ld, width), first, task.nk, width);
    stage<OWN>(v, key_rows(in.v, in.extra_v, task, in.extra, in.ld, width), first, task.nk, width);

    float k_sum[OWN_WARP][PARTS], v_sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++)
        for (u32 part = 0; part < PARTS; part++) k_sum[r][part] = v_sum[r][part] = 0.0f;
    for (u32 i0 = 0; i0 < task.nq; i0 += OTHER) {
        __syncthreads();
        stage<OTHER>(q, q_rows, i0, task.nq, width);
        stage<OTHER>(g, g_rows, i0, task.nq, width);
        __syncthreads();
        const u32 i = i0 + lane;
        const size_t row = task.head * (size_t)in.tq + task.q_first + i;
        float scores[OWN_WARP], dp[OWN_WARP];
        dot(scores, k, q, width);
        dot(dp, v, g, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const u32 j = first + warp * OWN_WARP + r;
            float p = 0.0f, ds = 0.0f;
            if (i < task.nq && j < task.nk) {
                const float f = factor(in, task, i, j);
                p = expf(scores[r] * in.scale - lse[row]);
                ds = p * (f * dp[r] - delta[row]);
                p *= f;
            }
            add_rows(k_sum[r], ds, q, width);
            add_rows(v_sum[r], p, g, width);
        }
    }
    const Rows<T> dk_rows = key_rows(dk, (T*)nullptr, task, 0, in.ld, width), dv_rows = key_rows(dv, (T*)nullptr, task, 0, in.ld, width);
    const size_t d = (size_t)task.heads * width;
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 j = first + warp * OWN_WARP + r;
        if (j >= task.nk) break;
        if (j >= in.extra) {
            store(dk_rows(j - in.extra), k_sum[r], in.scale, width);
            store(dv_rows(j - in.extra), v_sum[r], 1.0f, width);
        } else if (extra_dk) {
            const size_t at = ((size_t)task.sequence * in.extra + j) * d + task.head * width;
            store(extra_dk + at, k_sum[r], in.scale, width);
            store(extra_dv + at, v_sum[r], 1.0f, width);
        }
    }
}

}  // namespace plain

// ---------------------------------------------------------------------------------------------------------------------------------------
namespace tensor_core {

using mma::FragmentA;
using mma::FragmentB;
using mma::FragmentC;

// A block owns 64 rows, 16 to a warp (the height of a fragment), and meets the rows of the other side tile by tile: while one tile is worked on,
// the next is copied. Launch: block 128, grid [ceil(longest sequence / 64), heads, B].
constexpr u32 THREADS = 128, OWN = 64;
// Rows of the other side in a tile, in forward and in the two passes of backward.
constexpr u32 KEYS_FORWARD = 64, KEYS_BACKWARD = 32, QUERIES_BACKWARD = 32;

constexpr float LOG2_E = 1.4426950408889634f;

// Where 16-byte chunk `chunk` of row `row` lies in a tile [rows, K]. ldmatrix reads the same chunk of eight rows at once; the exclusive or puts
// those into eight different chunks of 128 bytes, which are all 32 banks.
template <u32 K>
__device__ __forceinline__ u32 swizzle(u32 row, u32 chunk) {
    static_assert(K == 32 || K == 64, "a row is half of or all of 128 bytes");
    return (row * (K / 8) + (K == 64 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3))) * 16;
}

// Starts copying rows first.. into a tile; zeros past `count`. `first` is less than `count`.
template <u32 K, u32 ROWS>
__device__ __forceinline__ void load_tile(unsigned char* tile, const Rows<const bf16>& rows, u32 first, u32 count) {
    static_assert(ROWS * (K / 8) % THREADS == 0, "each thread copies the same number of chunks");
#pragma unroll
    for (u32 n = 0; n < ROWS * (K / 8) / THREADS; n++) {
        const u32 i = n * THREADS + threadIdx.x, row = i / (K / 8), chunk = i % (K / 8);
        const bool valid = first + row < count;
        mma::copy_async(tile + swizzle<K>(row, chunk), rows(valid ? first + row : first) + 8 * chunk, valid);
    }
}

// Starts copying what a step meets, if there is any: a tile of each side, into that of its two places which the step before does not read.
template <u32 K, u32 ROWS>
__device__ __forceinline__ void load_step(
    unsigned char* a_tiles, const Rows<const bf16>& a_rows, unsigned char* b_tiles, const Rows<const bf16>& b_rows, u32 step, u32 count) {
    constexpr u32 TILE = ROWS * K * 2;
    const u32 first = step * ROWS;
    if (first < count) {
        load_tile<K, ROWS>(a_tiles + step % 2 * TILE, a_rows, first, count);
        load_tile<K, ROWS>(b_tiles + step % 2 * TILE, b_rows, first, count);
    }
    mma::copy_commit();
}

// Rows row.. + 16 of a tile as left operands.
template <u32 K>
__device__ __forceinline__ void load_left(FragmentA (&a)[K / 16], const unsigned char* tile, u32 row) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < K / 16; kk++) mma::load_matrices<false>(a[kk].x, tile + swizzle<K>(row + lane % 16, 2 * kk + lane / 16));
}

// c [16, 8 TILES] += a [16, K] · (the tile's rows [8 TILES, K])ᵀ.
template <u32 K, u32 TILES>
__device__ __forceinline__ void multiply_transposed(FragmentC (&c)[TILES], const FragmentA (&a)[K / 16], const unsigned char* tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < K / 16; kk++) {
#pragma unroll
        for (u32 n = 0; n < TILES; n += 2) {
            // Matrices: rows 0..8 and their next eight columns, then rows 8..16.
            u32 x[4];
            mma::load_matrices<false>(x, tile + swizzle<K>(8 * n + lane % 8 + lane / 16 * 8, 2 * kk + lane / 8 % 2));
            mma::multiply(c[n], a[kk], FragmentB{{x[0], x[1]}});
            mma::multiply(c[n + 1], a[kk], FragmentB{{x[2], x[3]}});
        }
    }
}

// c [16, K] += a [16, 8 TILES] · the tile's rows [8 TILES, K].
template <u32 K, u32 TILES>
__device__ __forceinline__ void multiply(FragmentC (&c)[K / 8], const FragmentA (&a)[TILES / 2], const unsigned char* tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < TILES / 2; kk++) {
#pragma unroll
        for (u32 n = 0; n < K / 8; n += 2) {
            // Matrices: columns 0..8 of rows 0..8 and 8..16, then columns 8..16.
            u32 x[4];
            mma::load_matrices<true>(x, tile + swizzle<K>(16 * kk + lane % 16, n + lane / 16));
            mma::multiply(c[n], a[kk], FragmentB{{x[0], x[1]}});
            mma::multiply(c[n + 1], a[kk], FragmentB{{x[2], x[3]}});
        }
    }
}

// Sums become left operands without leaving their lanes: two fragments C side by side hold the same elements as one A.
template <u32 TILES>
__device__ __forceinline__ void to_left(FragmentA (&a)[TILES / 2], const FragmentC (&c)[TILES]) {
#pragma unroll
    for (u32 n = 0; n < TILES; n++) {
        a[n / 2].x[n % 2 * 2] = mma::pack(c[n].x[0], c[n].x[1]);
        a[n / 2].x[n % 2 * 2 + 1] = mma::pack(c[n].x[2], c[n].x[3]);
    }
}

template <u32 TILES>
__device__ __forceinline__ void clear(FragmentC (&c)[TILES]) {
#pragma unroll
    for (u32 n = 0; n < TILES; n++) c[n] = FragmentC{{0.0f, 0.0f, 0.0f, 0.0f}};
}

// Writes sums c · factor[0 or 1: upper or lower half of the rows] to rows first + row.. of `to` where they are in from..until. They go through the
// warp's rows row.. of a tile that nobody else reads any more, so that a lane writes 16 bytes.
template <u32 K>
__device__ __forceinline__ void store(const Rows<bf16>& to, unsigned char* tile, u32 row, u32 first, u32 from, u32 until,
                                      const FragmentC (&c)[K / 8], float factor0, float factor1) {
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (u32 n = 0; n < K / 8; n++) {
        *(u32*)(tile + swizzle<K>(row + g, n) + 4 * t) = mma::pack(c[n].x[0] * factor0, c[n].x[1] * factor0);
        *(u32*)(tile + swizzle<K>(row + g + 8, n) + 4 * t) = mma::pack(c[n].x[2] * factor1, c[n].x[3] * factor1);
    }
    __syncwarp();
#pragma unroll
    for (u32 i = lane; i < 16 * (K / 8); i += 32) {
        const u32 r = row + i / (K / 8), chunk = i % (K / 8), at = first + r;
        if (at >= from && at < until) *(uint4*)(to(at) + 8 * chunk) = *(const uint4*)(tile + swizzle<K>(r, chunk));
    }
}

// Which of four random words are kept, as four bits.
template <typename T>
__device__ __forceinline__ u32 draw(const Inputs<T>& in, const Task& task, u32 query, u32 keys) {
    const Words words = philox(in.seed, keys, task.head << 16 | query, in.site, task.example);
    u32 bits = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) bits |= (words.x[i] >= in.threshold ? 1u : 0u) << i;
    return bits;
}

// Which weights are kept of scores whose rows are queries query.. + 16 and whose columns are keys key.. + 8 TILES: bit 4n + i tells of
// c[n].x[i]. One draw gives four neighbouring keys of a query, which two lanes hold, two each, in rows g and g + 8: one draws for
// row g, the other for row g + 8, and they exchange. key is a multiple of 4.
template <u32 TILES>
__device__ __forceinline__ u32 kept_by_query(const Inputs<bf16>& in, const Task& task, u32 query, u32 key) {
    static_assert(TILES <= 8, "4 bits a tile");
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, odd = lane % 2;
    u32 own = 0;
#pragma unroll
    for (u32 n = 0; n < TILES; n++) own |= draw(in, task, query + g + 8 * odd, key / 4 + 2 * n + t / 2) << 4 * n;
    const u32 other = __shfl_xor_sync(0xFFFFFFFFu, own, 1);
    const u32 low = 0x33333333, high = 0xCCCCCCCC;
    return odd ? (other >> 2 & low) | (own & high) : (own & low) | (other & low) << 2;
}

// The same for scores whose rows are keys key.. + 16 and whose columns are queries query.. + 8 TILES. The four keys of a draw are in four lanes
// (those with the same t and g / 4), and each of these holds four draws' weights: lane i of the four draws what is x[i] for all.
template <u32 TILES>
__device__ __forceinline__ u32 kept_by_key(const Inputs<bf16>& in, const Task& task, u32 key, u32 query) {
    static_assert(TILES <= 8, "4 bits a tile");
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, one = g % 4;
    u32 own = 0, kept = 0;
#pragma unroll
    for (u32 n = 0; n < TILES; n++) own |= draw(in, task, query + 8 * n + 2 * t + one % 2, (key + one / 2 * 8) / 4 + g / 4) << 4 * n;
#pragma unroll
    for (u32 i = 0; i < 4; i++) kept |= (__shfl_sync(0xFFFFFFFFu, own, (lane & 0x13) | i << 2) >> one & 0x11111111) << i;
    return kept;
}

// y and lse. Owns queries, meets keys. Shared memory: 5 tiles of 64 · 2K bytes. Bound by instructions issued, not by the tensor cores: a tile of
// K = 64 takes a warp (compiled for sm_80) about 260 for copies, loads and 64 products, 240 for the softmax and 610 to draw dropout.
// 128 registers: 4 blocks share an SM.
template <u32 K>
__device__ __forceinline__ void forward(const Inputs<bf16>& in, bf16* y, float* lse) {
    constexpr u32 TILES = KEYS_FORWARD / 8, TILE = KEYS_FORWARD * K * 2;
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nq) return;
    unsigned char* q_tile = memory;
    unsigned char* k_tiles = q_tile + OWN * K * 2;
    unsigned char* v_tiles = k_tiles + 2 * TILE;
    const Rows<const bf16> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, K);
    const Rows<const bf16> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, K);
    const auto load = [&](u32 step) { load_step<K, KEYS_FORWARD>(k_tiles, k_rows, v_tiles, v_rows, step, task.nk); };
    load_tile<K, OWN>(q_tile, query_rows(in.q, in.ldq, K, task), first, task.nq);
    load(0);

    // Of rows g and g + 8: the greatest product, and the lane's share of Σ exp(score - greatest).
    float greatest[2] = {-infinity(), -infinity()}, total[2] = {0.0f, 0.0f};
    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nq;    // a warp without queries only copies
    FragmentA q[K / 16];
    FragmentC sum[K / 8];
    clear(sum);
    for (u32 step = 0; step * KEYS_FORWARD < task.nk; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        if (step == 0) load_left<K>(q, q_tile, row);
        if (busy) {
            const u32 j0 = step * KEYS_FORWARD;
            FragmentC s[TILES];
            clear(s);
            multiply_transposed<K, TILES>(s, q, k_tiles + step % 2 * TILE);
            if (j0 + KEYS_FORWARD > task.nk) {
#pragma unroll
                for (u32 n = 0; n < TILES; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++)
                        if (j0 + 8 * n + lane % 4 * 2 + i % 2 >= task.nk) s[n].x[i] = -infinity();
            }
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float top = greatest[half];
#pragma unroll
                for (u32 n = 0; n < TILES; n++) top = fmaxf(top, fmaxf(s[n].x[2 * half], s[n].x[2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
                const float shrink = mma::exp2_approximate((greatest[half] - top) * scale);
                greatest[half] = top;
                total[half] *= shrink;
#pragma unroll
                for (u32 n = 0; n < K / 8; n++) {
                    sum[n].x[2 * half] *= shrink;
                    sum[n].x[2 * half + 1] *= shrink;
                }
#pragma unroll
                for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                    for (u32 i = 2 * half; i < 2 * half + 2; i++) {
                        s[n].x[i] = mma::exp2_approximate(s[n].x[i] * scale - top * scale);
                        total[half] += s[n].x[i];
                    }
                }
            }
            if (in.threshold) {
                const u32 kept = kept_by_query<TILES>(in, task, first + row, j0);
#pragma unroll
                for (u32 n = 0; n < TILES; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++) s[n].x[i] = kept >> (4 * n + i) & 1 ? s[n].x[i] : 0.0f;
            }
            FragmentA p[TILES / 2];
            to_left(p, s);
            multiply<K, TILES>(sum, p, v_tiles + step % 2 * TILE);
        }
    }
    if (!busy) return;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(0xFFFFFFFFu, total[half], 1);
        total[half] += __shfl_xor_sync(0xFFFFFFFFu, total[half], 2);
        const u32 i = first + row + lane / 4 + 8 * half;
        if (lse && lane % 4 == 0 && i < task.nq)
            lse[task.head * (size_t)in.tq + task.q_first + i] = greatest[half] * in.scale + logf(total[half]);
    }
    const Rows<bf16> y_rows = query_rows(y, task.heads * K, K, task);
    store<K>(y_rows, q_tile, row, first, 0, task.nq, sum, in.keep / total[0], in.keep / total[1]);
}

// dq. Owns queries, meets keys. Shared memory: 2 tiles of 64 · 2K bytes and 4 of 32 · 2K. Bound as forward is. A key tile is half as long, since
// two kinds of scores and two left operands stay in registers: at most 168, 3 blocks to an SM (4 if K = 32).
template <u32 K>
__device__ __forceinline__ void backward_queries(const Inputs<bf16>& in, const bf16* dy, const float* lse, const float* delta, bf16* dq) {
    constexpr u32 TILES = KEYS_BACKWARD / 8, TILE = KEYS_BACKWARD * K * 2;
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nq) return;
    unsigned char* q_tile = memory;
    unsigned char* g_tile = q_tile + OWN * K * 2;
    unsigned char* k_tiles = g_tile + OWN * K * 2;
    unsigned char* v_tiles = k_tiles + 2 * TILE;
    const Rows<const bf16> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, K);
    const Rows<const bf16> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, K);
    const auto load = [&](u32 step) { load_step<K, KEYS_BACKWARD>(k_tiles, k_rows, v_tiles, v_rows, step, task.nk); };
    load_tile<K, OWN>(q_tile, query_rows(in.q, in.ldq, K, task), first, task.nq);
    load_tile<K, OWN>(g_tile, query_rows(dy, task.heads * K, K, task), first, task.nq);
    load(0);

    // lse (to base 2) and δ of rows g and g + 8. An infinite lse makes every weight of a row past the end 0.
    float lse2[2], shift[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + row + lane / 4 + 8 * half;
        const size_t at = task.head * (size_t)in.tq + task.q_first + i;
        lse2[half] = i < task.nq ? lse[at] * LOG2_E : infinity();
        shift[half] = i < task.nq ? delta[at] : 0.0f;
    }
    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nq;
    FragmentA q[K / 16], g[K / 16];
    FragmentC sum[K / 8];
    clear(sum);
    for (u32 step = 0; step * KEYS_BACKWARD < task.nk; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        if (step == 0) {
            load_left<K>(q, q_tile, row);
            load_left<K>(g, g_tile, row);
        }
        if (busy) {
            const u32 j0 = step * KEYS_BACKWARD;
            FragmentC s[TILES], dp[TILES];
            clear(s);
            clear(dp);
            multiply_transposed<K, TILES>(s, q, k_tiles + step % 2 * TILE);
            multiply_transposed<K, TILES>(dp, g, v_tiles + step % 2 * TILE);
            const u32 kept = in.threshold ? kept_by_query<TILES>(in, task, first + row, j0) : ~0u;
            const bool last = j0 + KEYS_BACKWARD > task.nk;
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float p = mma::exp2_approximate(s[n].x[i] * scale - lse2[i / 2]);
                    const float dropped = kept >> (4 * n + i) & 1 ? dp[n].x[i] * in.keep : 0.0f;
                    s[n].x[i] = p * (dropped - shift[i / 2]);
                    if (last && j0 + 8 * n + lane % 4 * 2 + i % 2 >= task.nk) s[n].x[i] = 0.0f;
                }
            }
            FragmentA ds[TILES / 2];
            to_left(ds, s);
            multiply<K, TILES>(sum, ds, k_tiles + step % 2 * TILE);
        }
    }
    if (busy) store<K>(query_rows(dq, in.ldq, K, task), q_tile, row, first, 0, task.nq, sum, in.scale, in.scale);
}

// This sequence's share of the gradients of the extra rows: partial [B, extra, heads · K].
template <u32 K>
__device__ __forceinline__ void store_extra(float* partial, const Task& task, u32 extra, u32 first, const FragmentC (&c)[K / 8], float factor) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 j = first + lane / 4 + 8 * half;
        if (!partial || j >= extra) continue;
        float* to = partial + (((size_t)task.sequence * extra + j) * task.heads + task.head) * K + lane % 4 * 2;
#pragma unroll
        for (u32 n = 0; n < K / 8; n++) {
            to[8 * n] = c[n].x[2 * half] * factor;
            to[8 * n + 1] = c[n].x[2 * half + 1] * factor;
        }
    }
}

// dk and dv; of the extra rows this sequence's share, which attention_backward_extra sums. Owns keys, meets queries: the scores are made
// transposed, with keys as rows, so that they become left operands of both sums. Shared memory: 2 tiles of 64 · 2K bytes, 4 of 32 · 2K, and
// 2 · 2 · 32 floats. Bound as forward is. At most 168 registers: 3 blocks to an SM.
template <u32 K>
__device__ __forceinline__ void backward_keys(const Inputs<bf16>& in, const bf16* dy, const float* lse, const float* delta, bf16* dk, bf16* dv,
                                              float* extra_dk, float* extra_dv) {
    constexpr u32 ROWS = QUERIES_BACKWARD, TILES = ROWS / 8, TILE = ROWS * K * 2;
    static_assert(2 * ROWS <= THREADS, "a thread brings one lse or δ");
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nk) return;
    unsigned char* k_tile = memory;
    unsigned char* v_tile = k_tile + OWN * K * 2;
    unsigned char* q_tiles = v_tile + OWN * K * 2;
    unsigned char* g_tiles = q_tiles + 2 * TILE;
    float* statistics = (float*)(g_tiles + 2 * TILE);    // [2 tiles][lse to base 2, δ][ROWS]
    const Rows<const bf16> q_rows = query_rows(in.q, in.ldq, K, task);
    const Rows<const bf16> g_rows = query_rows(dy, task.heads * K, K, task);
    const auto load = [&](u32 step) { load_step<K, ROWS>(q_tiles, q_rows, g_tiles, g_rows, step, task.nq); };
    // The thread's lse or δ of a tile. An infinite lse makes every weight of a query past the end 0.
    const auto statistic = [&](u32 step) {
        const u32 i = step * ROWS + threadIdx.x % ROWS;
        const bool is_lse = threadIdx.x < ROWS;
        if (threadIdx.x >= 2 * ROWS || i >= task.nq) return is_lse ? infinity() : 0.0f;
        const size_t at = task.head * (size_t)in.tq + task.q_first + i;
        return is_lse ? lse[at] * LOG2_E : delta[at];
    };
    load_tile<K, OWN>(k_tile, key_rows(in.k, in.extra_k, task, in.extra, in.ld, K), first, task.nk);
    load_tile<K, OWN>(v_tile, key_rows(in.v, in.extra_v, task, in.extra, in.ld, K), first, task.nk);
    load(0);
    if (threadIdx.x < 2 * ROWS) statistics[threadIdx.x] = statistic(0);

    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nk;
    FragmentA k[K / 16], v[K / 16];
    FragmentC k_sum[K / 8], v_sum[K / 8];
    clear(k_sum);
    clear(v_sum);
    for (u32 step = 0; step * ROWS < task.nq; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        const float next = statistic(step + 1);    // read now and stored after the sums: the read takes long
        if (step == 0) {
            load_left<K>(k, k_tile, row);
            load_left<K>(v, v_tile, row);
        }
        if (busy) {
            const unsigned char *q_tile = q_tiles + step % 2 * TILE, *g_tile = g_tiles + step % 2 * TILE;
            const float *lse2 = statistics + step % 2 * 2 * ROWS, *shift = lse2 + ROWS;
            FragmentC p[TILES], ds[TILES];
            clear(p);
            clear(ds);
            multiply_transposed<K, TILES>(p, k, q_tile);
            multiply_transposed<K, TILES>(ds, v, g_tile);
            const u32 kept = in.threshold ? kept_by_key<TILES>(in, task, first + row, step * ROWS) : ~0u;
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u32 query = 8 * n + lane % 4 * 2 + i % 2;
                    const bool keep = kept >> (4 * n + i) & 1;
                    const float weight = mma::exp2_approximate(p[n].x[i] * scale - lse2[query]);
                    ds[n].x[i] = weight * ((keep ? ds[n].x[i] * in.keep : 0.0f) - shift[query]);
                    p[n].x[i] = keep ? weight : 0.0f;
                }
            }
            FragmentA left[TILES / 2];
            to_left(left, p);
            multiply<K, TILES>(v_sum, left, g_tile);
            to_left(left, ds);
            multiply<K, TILES>(k_sum, left, q_tile);
        }
        if (threadIdx.x < 2 * ROWS) statistics[(step + 1) % 2 * 2 * ROWS + threadIdx.x] = next;
    }
    if (!busy) return;
    store_extra<K>(extra_dk, task, in.extra, first + row, k_sum, in.scale);
    store_extra<K>(extra_dv, task, in.extra, first + row, v_sum, in.keep);
    // The rows of dk and dv are counted with the extra ones, which are not written here.
    const Rows<bf16> dk_rows = key_rows(dk, dk, task, in.extra, in.ld, K), dv_rows = key_rows(dv, dv, task, in.extra, in.ld, K);
    store<K>(dk_rows, k_tile, row, first, in.extra, task.nk, k_sum, in.scale, in.scale);
    store<K>(dv_rows, v_tile, row, first, in.extra, task.nk, v_sum, in.keep, in.keep);
}

}  // namespace tensor_core

// δ [heads, Tq]: a warp for each row and head. Bound by memory: reads dy and y once.
template <typename T>
__device__ __forceinline__ void backward_delta(const T* y, const T* dy, float* delta, u32 tq, u32 width) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, head = blockIdx.y;
    if (row >= tq) return;
    const size_t at = ((size_t)row * gridDim.y + head) * width;
    float sum = 0.0f;
    for (u32 c = threadIdx.x % 32; c < width; c += 32) sum += widen(dy[at + c]) * widen(y[at + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[(size_t)head * tq + row] = sum;
}

// Σ over the live sequences, in their order: partial [sequences, elements], out [elements]. A thread for each element. Bound by memory.
template <typename T>
__device__ __forceinline__ void backward_extra(const float* partial, T* out, const u32* live_sequences, u32 sequences, u32 elements) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const u32 live = live_sequences && *live_sequences < sequences ? *live_sequences : sequences;
    float sum = 0.0f;
    for (u32 b = 0; b < live; b++) sum += partial[(size_t)b * elements + i];
    out[i] = narrow<T>(sum);
}

}  // namespace attention

// ---------------------------------------------------------------------------------------------------------------------------------------
// The entry points. Grids are for the longest sequence of the batch, in queries or in keys, these with the extra ones. BLOCKS is how many blocks
// are to share an SM, which bounds the registers.

// y = drop(softmax(q kᵀ / √K)) v, and lse unless it is null.
//   plain        grid [ceil(longest queries / 16), heads, B], block 128, shared 4 · 80 · (K | 1) bytes
//   tensor cores grid [ceil(longest queries / 64), heads, B], block 128, shared 640 K bytes (20 480 or 40 960)
#define ATTENTION_FORWARD(NAME, T, BLOCKS, FUNCTION)                                                                                           \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, T* y, float* lse, const u32* q_offsets,                        \
        const u32* k_offsets, const u32* examples, const u32* live_sequences, u32 tq, u32 width, u32 ldq, u32 ld, u32 extra, float scale,      \
        u64 seed, u32 site, u32 threshold, float keep) {                                                                                       \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     seed,      site,     threshold,      keep};              \
        attention::FUNCTION(in, y, lse);                                                                                                       \
    }
ATTENTION_FORWARD(attention_forward_f32, float, 4, plain::forward)
ATTENTION_FORWARD(attention_forward_bf16, bf16, 4, plain::forward)
ATTENTION_FORWARD(attention_forward_bf16_w32, bf16, 4, tensor_core::forward<32>)
ATTENTION_FORWARD(attention_forward_bf16_w64, bf16, 4, tensor_core::forward<64>)

// delta = Σ dy ⊙ y over the columns of a head, before the other two: grid [ceil(Tq / 8), heads], block 256, no shared memory.
#define ATTENTION_BACKWARD_DELTA(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T* y, const T* dy, float* delta, u32 tq, u32 width) {                         \
        attention::backward_delta(y, dy, delta, tq, width);                                                                                    \
    }
ATTENTION_BACKWARD_DELTA(attention_backward_delta_f32, float)
ATTENTION_BACKWARD_DELTA(attention_backward_delta_bf16, bf16)

// dq = dS k / √K [Tq, ldq].
//   plain        grid [ceil(longest queries / 16), heads, B], block 128, shared 4 · 96 · (K | 1) bytes
//   tensor cores grid [ceil(longest queries / 64), heads, B], block 128, shared 512 K bytes (16 384 or 32 768)
#define ATTENTION_BACKWARD_QUERIES(NAME, T, BLOCKS, FUNCTION)                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, const T* dy, const float* lse, const float* delta, T* dq,      \
        const u32* q_offsets, const u32* k_offsets, const u32* examples, const u32* live_sequences, u32 tq, u32 width, u32 ldq, u32 ld,        \
        u32 extra, float scale, u64 seed, u32 site, u32 threshold, float keep) {                                                               \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     seed,      site,     threshold,      keep};              \
        attention::FUNCTION(in, dy, lse, delta, dq);                                                                                           \
    }
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_f32, float, 4, plain::backward_queries)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16, bf16, 4, plain::backward_queries)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16_w32, bf16, 4, tensor_core::backward_queries<32>)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16_w64, bf16, 3, tensor_core::backward_queries<64>)

// dk = dSᵀ q / √K and dv = (f ⊙ P)ᵀ dy [T, ld]. extra_dk, extra_dv: each sequence's share of the extra rows' gradients, f32
// [B, extra, heads · K], or null if they are not wanted.
//   plain        grid [ceil(longest keys / 16), heads, B], block 128, shared 4 · 96 · (K | 1) bytes
//   tensor cores grid [ceil(longest keys / 64), heads, B], block 128, shared 512 K + 512 bytes (16 896 or 33 280)
#define ATTENTION_BACKWARD_KEYS(NAME, T, BLOCKS, FUNCTION)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, const T* dy, const float* lse, const float* delta, T* dk,      \
        T* dv, float* extra_dk, float* extra_dv, const u32* q_offsets, const u32* k_offsets, const u32* examples, const u32* live_sequences,   \
        u32 tq, u32 width, u32 ldq, u32 ld, u32 extra, float scale, u64 seed, u32 site, u32 threshold, float keep) {                           \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     seed,      site,     threshold,      keep};              \
        attention::FUNCTION(in, dy, lse, delta, dk, dv, extra_dk, extra_dv);                                                                   \
    }
ATTENTION_BACKWARD_KEYS(attention_backward_keys_f32, float, 4, plain::backward_keys)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16, bf16, 4, plain::backward_keys)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16_w32, bf16, 3, tensor_core::backward_keys<32>)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16_w64, bf16, 3, tensor_core::backward_keys<64>)

// The gradient of the extra keys, or of the extra values: out [elements] = Σ over the sequences of partial [sequences, elements], with
// elements = extra · heads · K. Grid [ceil(elements / 256)], block 256, no shared memory.
#define ATTENTION_BACKWARD_EXTRA(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) NAME(const float* partial, T* out, const u32* live_sequences, u32 sequences,             \
                                                           u32 elements) {                                                                     \
        attention::backward_extra(partial, out, live_sequences, sequences, elements);                                                          \
    }
ATTENTION_BACKWARD_EXTRA(attention_backward_extra_f32, float)
ATTENTION_BACKWARD_EXTRA(attention_backward_extra_bf16, bf16)
