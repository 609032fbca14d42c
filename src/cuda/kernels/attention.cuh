// Scaled dot-product attention over packed sequences, forward and backward, after Dao 2023, "FlashAttention-2",
// <https://arxiv.org/abs/2307.08691>, algorithms 1 and 2: scores are made tile by tile and never stored.
//
// For each sequence and head, with queries q [nq, K] and keys and values k, v [nk, K]:
//
//   S = q kᵀ / √K      P = softmax(S) = exp(S - lse)      y = (f ⊙ P) v
//   δ = Σ dy ⊙ y over a row      dS = P ⊙ (f ⊙ dy vᵀ - δ)      dq = dS k / √K      dk = dSᵀ q / √K      dv = (f ⊙ P)ᵀ dy
//
// f is 0 or 1/(1 - p), drawn from a counter: row = head · 2¹⁶ + query, column = key. Each sequence sees `extra` more keys
// and values before its own; its key j is row j of those if j < extra, and row j - extra of its own otherwise.
//
// Two families of kernels, each in a file of its own; this one has what they share:
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
//   keys, site        of the dropout; a weight is kept where its random word is at least `threshold`, and then times `keep` = 1/(1 - p).
//                     threshold 0: no dropout, and keep = 1.
//   kept, kept_tiles  [heads, Tq / 16 + B + 1, kept_tiles, 32], or null: a bit for each weight, whether the tensor-core forward kept it. Backward reads these
//                     bits. A row has 16 queries of one sequence, and 32 words for each 64 keys; a sequence uses the first ceil(nk / 64) tiles of its rows. Its
//                     queries begin in row q_offsets[b] / 16 + b, so that no two sequences share a row. The plain kernels draw again, and take null.
// The tensor-core kernels copy 16 bytes at a time: their bf16 addresses are multiples of 16, ldq and ld of 8.
#pragma once
#include "common.cuh"

namespace attention {

template <typename T>
struct Inputs {
    const T *q, *k, *v, *extra_k, *extra_v;
    const u32 *q_offsets, *k_offsets, *examples, *live_sequences;
    u32 tq, width, ldq, ld, extra;
    float scale;
    Keys keys;
    u32 site, threshold;
    float keep;
    u32* kept;
    u32 kept_tiles;
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

}  // namespace attention

// The entry points. Grids are for the longest sequence of the batch, in queries or in keys, these with the extra ones. BLOCKS is how many blocks
// are to share an SM, which bounds the registers.

// y = drop(softmax(q kᵀ / √K)) v, and lse unless it is null.
//   plain        grid [ceil(longest queries / 16), heads, B], block 128, shared 4 · 80 · (K | 1) bytes
//   tensor cores grid [ceil(longest queries / 64), heads, B], block 128, shared 640 K bytes (20 480 or 40 960)
#define ATTENTION_FORWARD(NAME, T, BLOCKS, FUNCTION)                                                                                           \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, T* y, float* lse, const u32* q_offsets,                        \
        const u32* k_offsets, const u32* examples, const u32* live_sequences, u32 tq, u32 width, u32 ldq, u32 ld, u32 extra, float scale,      \
        Keys keys, u32 site, u32 threshold, float keep, u32* kept, u32 kept_tiles) {                                                           \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     keys,      site,     threshold,      keep, kept, kept_tiles};\
        attention::FUNCTION(in, y, lse);                                                                                                       \
    }

// dq = dS k / √K [Tq, ldq].
//   plain        grid [ceil(longest queries / 16), heads, B], block 128, shared 4 · 96 · (K | 1) bytes
//   tensor cores grid [ceil(longest queries / 64), heads, B], block 128, shared 512 K bytes (16 384 or 32 768)
#define ATTENTION_BACKWARD_QUERIES(NAME, T, BLOCKS, FUNCTION)                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, const T* dy, const float* lse, const float* delta, T* dq,      \
        const u32* q_offsets, const u32* k_offsets, const u32* examples, const u32* live_sequences, u32 tq, u32 width, u32 ldq, u32 ld,        \
        u32 extra, float scale, Keys keys, u32 site, u32 threshold, float keep, u32* kept, u32 kept_tiles) {                                   \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     keys,      site,     threshold,      keep, kept, kept_tiles};\
        attention::FUNCTION(in, dy, lse, delta, dq);                                                                                           \
    }

// dk = dSᵀ q / √K and dv = (f ⊙ P)ᵀ dy [T, ld]. extra_dk, extra_dv: each sequence's share of the extra rows' gradients, f32
// [B, extra, heads · K], or null if they are not wanted.
//   plain        grid [ceil(longest keys / 16), heads, B], block 128, shared 4 · 96 · (K | 1) bytes
//   tensor cores grid [ceil(longest keys / 64), heads, B], block 128, shared 512 K + 512 bytes (16 896 or 33 280)
#define ATTENTION_BACKWARD_KEYS(NAME, T, BLOCKS, FUNCTION)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) NAME(                                                                            \
        const T* q, const T* k, const T* v, const T* extra_k, const T* extra_v, const T* dy, const float* lse, const float* delta, T* dk,      \
        T* dv, float* extra_dk, float* extra_dv, const u32* q_offsets, const u32* k_offsets, const u32* examples, const u32* live_sequences,   \
        u32 tq, u32 width, u32 ldq, u32 ld, u32 extra, float scale, Keys keys, u32 site, u32 threshold, float keep, u32* kept,                 \
        u32 kept_tiles) {                                                                                                                      \
        const attention::Inputs<T> in = {q,  k,     v,   extra_k, extra_v, q_offsets, k_offsets, examples, live_sequences,                     \
                                         tq, width, ldq, ld,      extra,   scale,     keys,      site,     threshold,      keep, kept, kept_tiles};\
        attention::FUNCTION(in, dy, lse, delta, dk, dv, extra_dk, extra_dv);                                                                   \
    }
