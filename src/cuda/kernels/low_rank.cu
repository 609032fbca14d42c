// A low-rank term on its way through what is large, with its dropout drawn on the way: f are the factors of the mask, all 1 if nothing is dropped.
//
// low_rank_hidden: h = (f ⊙ x) Aᵀ. x [rows, cols], A [rank, cols] f32, h [rows, rank]. A warp has a row: grid [ceil(rows / 8)], block 256.
// low_rank_output: y = sum + b + scale · h Bᵀ. sum [rows, cols] f32, b [cols] of either type or null, h [rows, rank], B [cols, rank] f32, y [rows, cols].
//                  A thread has a column of 16 rows, and 8 ranks of B for them at a time: grid [ceil(cols / 256), ceil(rows / 16)], block 256.
// low_rank_input:  y = sum + f ⊙ (dh A). dh [rows, rank], A [rank, cols] f32. A thread has four columns of a row: grid
//                  [ceil(rows · ceil(cols / 4) / 256)], block 256.
// In both, sum null: it is in y.
// low_rank_weight: dA = dhᵀ (f ⊙ x), in parts of `part` rows: partial [parts, rank, cols] f32, to be summed by column_sums_finish of linear.cu. A thread
//                  has four columns of a part, and 8 ranks at a time: grid [ceil(parts · ceil(cols / 4) / 256)], block 256.
//
// A and B, of a few kB, are read from the caches by all. Bound by memory while the rank is small: one reads x, the others read sum and write y, and
// round what cuBLAS summed on the way.
#include "common.cuh"

namespace low_rank {

// Ranks whose sums a lane holds at a time; the mask is drawn once for each such block.
constexpr u32 BLOCK = 8;

template <typename T>
__device__ __forceinline__ void hidden(const T* x, const float* a, T* h, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    for (u32 first = 0; first < rank; first += BLOCK) {
        float sums[BLOCK] = {};
        for (u32 quad = lane; 4 * quad < cols; quad += 32) {
            float f[4];
            drop.factors(row, quad, f);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 c = 4 * quad + j;
                if (c >= cols) break;
                const float v = f[j] * widen(x[(u64)row * cols + c]);
#pragma unroll
                for (u32 k = 0; k < BLOCK; k++)
                    if (first + k < rank) sums[k] += v * a[(u64)(first + k) * cols + c];
            }
        }
#pragma unroll
        for (u32 k = 0; k < BLOCK; k++) {
            const float sum = warp_sum(sums[k]);
            if (lane == 0 && first + k < rank) h[(u64)row * rank + first + k] = narrow<T>(sum);
        }
    }
}

// Rows of a thread of `output`.
constexpr u32 ROWS = 16;

template <typename T, typename To>
__device__ __forceinline__ void output(
    const float* sum, const Table& b, const T* h, const float* factor, To* y, u32 rows, u32 cols, u32 rank, float scale) {
    const u32 c = (u32)element(), start = blockIdx.y * ROWS;
    if (c >= cols) return;
    float low[ROWS] = {};
    for (u32 first = 0; first < rank; first += BLOCK) {
        float own[BLOCK];
#pragma unroll
        for (u32 k = 0; k < BLOCK; k++) own[k] = first + k < rank ? factor[(u64)c * rank + first + k] : 0.0f;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            if (start + r >= rows) break;
#pragma unroll
            for (u32 k = 0; k < BLOCK; k++)
                if (first + k < rank) low[r] += widen(h[(u64)(start + r) * rank + first + k]) * own[k];
        }
    }
    const float bias = b.values ? b.at(c) : 0.0f;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        if (start + r >= rows) break;
        const u64 at = (u64)(start + r) * cols + c;
        y[at] = narrow<To>((sum ? sum[at] : widen(y[at])) + bias + scale * low[r]);
    }
}

template <typename T, typename To>
__device__ __forceinline__ void input(const float* sum, const T* dh, const float* a, To* y, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 quads = (cols + 3) / 4;
    const u64 i = element();
    const u32 row = (u32)(i / quads), quad = (u32)(i % quads);
    if (row >= rows) return;
    float f[4], sums[4] = {};
    drop.factors(row, quad, f);
    for (u32 k = 0; k < rank; k++) {
        const float g = widen(dh[(u64)row * rank + k]);
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (4 * quad + j < cols) sums[j] += g * a[(u64)k * cols + 4 * quad + j];
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        const u64 at = (u64)row * cols + 4 * quad + j;
        if (4 * quad + j < cols) y[at] = narrow<To>((sum ? sum[at] : widen(y[at])) + f[j] * sums[j]);
    }
}

template <typename T>
__device__ __forceinline__ void weight(const T* x, const T* dh, float* partial, const Drop& drop, u32 rows, u32 cols, u32 rank, u32 part) {
    const u32 quads = (cols + 3) / 4;
    const u64 i = element();
    const u32 number = (u32)(i / quads), quad = (u32)(i % quads), start = number * part;
    if (start >= rows) return;
    const u32 end = start + part < rows ? start + part : rows;
    for (u32 first = 0; first < rank; first += BLOCK) {
        float sums[BLOCK][4] = {};
        for (u32 row = start; row < end; row++) {
            float f[4];
            drop.factors(row, quad, f);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                if (4 * quad + j >= cols) break;
                const float v = f[j] * widen(x[(u64)row * cols + 4 * quad + j]);
#pragma unroll
                for (u32 k = 0; k < BLOCK; k++)
                    if (first + k < rank) sums[k][j] += widen(dh[(u64)row * rank + first + k]) * v;
            }
        }
#pragma unroll
        for (u32 k = 0; k < BLOCK; k++)
#pragma unroll
            for (u32 j = 0; j < 4; j++)
                if (first + k < rank && 4 * quad + j < cols) partial[((u64)number * rank + first + k) * cols + 4 * quad + j] = sums[k][j];
    }
}

}  // namespace low_rank

#define LOW_RANK_OF_X(T, NAME)                                                                                                                  \
    KERNEL(low_rank_hidden_##NAME)(const T* x, const float* a, T* h, const u32* row_sequence, const u32* offsets, const u32* examples,          \
                                   u32 rows, u32 cols, u32 rank, u64 seed, u32 site, u32 threshold, float keep) {                               \
        low_rank::hidden(x, a, h, {row_sequence, offsets, examples, seed, site, threshold, keep}, rows, cols, rank);                            \
    }                                                                                                                                           \
    KERNEL(low_rank_weight_##NAME)(const T* x, const T* dh, float* partial, const u32* row_sequence, const u32* offsets, const u32* examples,   \
                                   u32 rows, u32 cols, u32 rank, u64 seed, u32 site, u32 threshold, float keep, u32 part) {                     \
        low_rank::weight(x, dh, partial, {row_sequence, offsets, examples, seed, site, threshold, keep}, rows, cols, rank, part);               \
    }
LOW_RANK_OF_X(float, f32)
LOW_RANK_OF_X(bf16, bf16)

// Named by the types of h and of y.
#define LOW_RANK(T, To, NAME)                                                                                                                   \
    KERNEL(low_rank_output_##NAME)(const float* sum, const void* b, u32 b_bf16, const T* h, const float* factor, To* y, u32 rows, u32 cols,     \
                                   u32 rank, float scale) {                                                                                     \
        low_rank::output(sum, {b, b_bf16}, h, factor, y, rows, cols, rank, scale);                                                              \
    }                                                                                                                                           \
    KERNEL(low_rank_input_##NAME)(const float* sum, const T* dh, const float* a, To* y, const u32* row_sequence, const u32* offsets,            \
                                  const u32* examples, u32 rows, u32 cols, u32 rank, u64 seed, u32 site, u32 threshold, float keep) {           \
        low_rank::input(sum, dh, a, y, {row_sequence, offsets, examples, seed, site, threshold, keep}, rows, cols, rank);                       \
    }
LOW_RANK(float, float, f32_f32)
LOW_RANK(bf16, float, bf16_f32)
LOW_RANK(bf16, bf16, bf16_bf16)
