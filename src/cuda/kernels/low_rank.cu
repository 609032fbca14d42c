// A low-rank term on its way through what is large, with its dropout drawn on the way: f are the factors of the mask, all 1 if nothing is dropped.
//
// low_rank_hidden: h = (f ⊙ x) Aᵀ. x [rows, cols], A [rank, cols] f32, h [rows, rank]. A warp has 4 rows, for which it reads A once: grid [ceil(rows / 32)],
//                  block 256.
// low_rank_output: y = sum + b + scale · h Bᵀ. sum [rows, cols] f32, b [cols] of either type or null, h [rows, rank], B [cols, rank] f32, y [rows, cols].
// low_rank_input:  y = sum + f ⊙ (dh A). dh [rows, rank], A [rank, cols] f32.
// In both, sum may be null: y then holds it. A lane has eight columns, a warp 8 rows, and the factor of the lane's columns stays in registers: grid
//                  [ceil(cols / 256), ceil(rows / 64)], block 256.
// low_rank_weight: dA = dhᵀ (f ⊙ x), in parts of 64 rows: partial [ceil(rows / 64), rank, cols] f32, to be summed by column_sums_finish of linear.cu. A lane has
//                  eight columns and a warp 8 rows of a part; the warps' sums meet in shared memory. The same grid.
//
// 8 ranks at a time; with more, the mask is drawn and x is read again for the next 8, and so are the factors. Bound, by count at rank 8: hidden and weight by
// the instructions of the draws and the sums, more than by reading x; output and input by memory, which is sum and y.
#include "common.cuh"

namespace low_rank {

// Ranks whose sums a thread holds at a time; rows of a warp in hidden.
constexpr u32 RANKS = 8, ROWS_HIDDEN = 4;

// Ranks first.. + 8 of a row of h or of B; zeros past the last.
template <typename T>
__device__ __forceinline__ void load_ranks(const T* row, u32 first, u32 rank, bool in_octets, float (&x)[8]) {
    if (in_octets) load(row + first, x);
    else load_some<false>(row + first, rank - first < 8 ? rank - first : 8, x);
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void hidden(const T* x, const float* a, T* h, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 lane = threadIdx.x % 32, start = (blockIdx.x * 8 + threadIdx.x / 32) * ROWS_HIDDEN;
    if (start >= rows) return;
    // Past the end, the last row once more: nothing is stored of it.
    u64 at[ROWS_HIDDEN];
    Drop::Row own[ROWS_HIDDEN];
#pragma unroll
    for (u32 r = 0; r < ROWS_HIDDEN; r++) {
        const u32 row = start + r < rows ? start + r : rows - 1;
        at[r] = (u64)row * cols;
        own[r] = drop.row(row);
    }
#pragma unroll 1
    for (u32 first = 0; first < rank; first += RANKS) {
        float sums[ROWS_HIDDEN * RANKS] = {};
#pragma unroll 1
        for (u32 octet = lane; octet < octets_of(cols); octet += 32) {
            const u32 c = 8 * octet, count = count_in(octet, cols);
            float v[ROWS_HIDDEN][8];
#pragma unroll
            for (u32 r = 0; r < ROWS_HIDDEN; r++) {
                load_some<VECTOR>(x + at[r] + c, count, v[r]);
                drop.apply(own[r], octet, v[r]);
            }
#pragma unroll
            for (u32 k = 0; k < RANKS; k++) {
                // Past the last rank, that one again: nothing is stored of it.
                float w[8];
                load_some<VECTOR>(a + (u64)(first + k < rank ? first + k : rank - 1) * cols + c, count, w);
#pragma unroll
                for (u32 r = 0; r < ROWS_HIDDEN; r++)
#pragma unroll
                    for (u32 j = 0; j < 8; j++) sums[RANKS * r + k] += v[r][j] * w[j];
            }
        }
        const float sum = warp_sums(sums);
        const u32 row = start + lane / RANKS, k = first + lane % RANKS;
        if (row < rows && k < rank) h[(u64)row * rank + k] = narrow<T>(sum);
    }
}

// What output and input share: rows of y = sum + what `more` gives of a row.
template <bool VECTOR, typename To, typename More>
__device__ __forceinline__ void add_rows(const float* sum, To* y, u32 rows, u32 cols, u32 octet, More more) {
    const u32 start = tile::start(), count = count_in(octet, cols);
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        const u64 at = (u64)row * cols + 8 * octet;
        float v[8], low[8] = {};
        if (sum) load_some<VECTOR>(sum + at, count, v);
        else load_some<VECTOR>((const To*)y + at, count, v);
        more(row, low);
#pragma unroll
        for (u32 j = 0; j < 8; j++) v[j] += low[j];
        store_some<VECTOR>(y + at, count, v);
    }
}

// ONCE: there are at most 8 ranks, and the factor is read once.
template <bool VECTOR, bool ONCE, typename T, typename To>
__device__ __forceinline__ void output(
    const float* sum, const Table& b, const T* h, const float* factor, To* y, u32 rows, u32 cols, u32 rank, float scale) {
    const u32 octet = tile::octet();
    if (octet >= octets_of(cols)) return;
    const bool in_octets = rank % 8 == 0 && aligned(h, factor);
    float bias[8] = {}, own[8][RANKS];
    if (b.values) b.octet<VECTOR>(8 * octet, count_in(octet, cols), bias);
    const auto load_own = [&](u32 first) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            const u32 c = j < count_in(octet, cols) ? 8 * octet + j : cols - 1;
            load_ranks(factor + (u64)c * rank, first, rank, in_octets, own[j]);
        }
    };
    if (ONCE) load_own(0);
    add_rows<VECTOR>(sum, y, rows, cols, octet, [&](u32 row, float (&low)[8]) {
#pragma unroll 1
        for (u32 first = 0; first < (ONCE ? 1 : rank); first += RANKS) {
            if (!ONCE) load_own(first);
            float g[RANKS];
            load_ranks(h + (u64)row * rank, first, rank, in_octets, g);
#pragma unroll
            for (u32 j = 0; j < 8; j++)
#pragma unroll
                for (u32 k = 0; k < RANKS; k++) low[j] += g[k] * own[j][k];
        }
#pragma unroll
        for (u32 j = 0; j < 8; j++) low[j] = bias[j] + scale * low[j];
    });
}

template <bool VECTOR, bool ONCE, typename T, typename To>
__device__ __forceinline__ void input(const float* sum, const T* dh, const float* a, To* y, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 octet = tile::octet();
    if (octet >= octets_of(cols)) return;
    const bool in_octets = rank % 8 == 0 && aligned(dh);
    float own[RANKS][8];
    const auto load_own = [&](u32 first) {
#pragma unroll
        for (u32 k = 0; k < RANKS; k++)
            load_some<VECTOR>(a + (u64)(first + k < rank ? first + k : rank - 1) * cols + 8 * octet, count_in(octet, cols), own[k]);
    };
    if (ONCE) load_own(0);
    add_rows<VECTOR>(sum, y, rows, cols, octet, [&](u32 row, float (&low)[8]) {
#pragma unroll 1
        for (u32 first = 0; first < (ONCE ? 1 : rank); first += RANKS) {
            if (!ONCE) load_own(first);
            float g[RANKS];
            load_ranks(dh + (u64)row * rank, first, rank, in_octets, g);
#pragma unroll
            for (u32 k = 0; k < RANKS; k++)
#pragma unroll
                for (u32 j = 0; j < 8; j++) low[j] += g[k] * own[k][j];
        }
        drop.apply(drop.row(row), octet, low);
    });
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void sum_rows(
    const T* x, const T* dh, float (&sums)[RANKS][8], const Drop& drop, u32 rows, u32 cols, u32 rank, u32 first, bool in_octets) {
    const u32 octet = tile::octet(), start = tile::start();
    if (octet >= octets_of(cols)) return;
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        float v[8], g[RANKS];
        load_some<VECTOR>(x + (u64)row * cols + 8 * octet, count_in(octet, cols), v);
        load_ranks(dh + (u64)row * rank, first, rank, in_octets, g);
        drop.apply(drop.row(row), octet, v);
#pragma unroll
        for (u32 k = 0; k < RANKS; k++)
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[k][j] += g[k] * v[j];
    }
}

template <typename T>
__device__ __forceinline__ void weight(const T* x, const T* dh, float* partial, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const bool in_octets = rank % 8 == 0 && aligned(dh), vector = cols % 8 == 0 && aligned(x);
    const u32 column = blockIdx.x * 256 + threadIdx.x;
#pragma unroll 1
    for (u32 first = 0; first < rank; first += RANKS) {
        float sums[RANKS][8] = {};
        if (vector) sum_rows<true>(x, dh, sums, drop, rows, cols, rank, first, in_octets);
        else sum_rows<false>(x, dh, sums, drop, rows, cols, rank, first, in_octets);
#pragma unroll
        for (u32 k = 0; k < RANKS; k++) {
            const float total = block_columns(sums[k]);
            if (first + k < rank && column < cols) partial[((u64)blockIdx.y * rank + first + k) * cols + column] = total;
        }
    }
}

}  // namespace low_rank

#define LOW_RANK_OF_X(T, NAME)                                                                                                                  \
    KERNEL(low_rank_hidden_##NAME)(const T* x, const float* a, T* h, const u32* row_sequence, const u32* offsets, const u32* examples,          \
                                   u32 rows, u32 cols, u32 rank, Keys keys, u32 site, u32 threshold, float keep) {                              \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                       \
        if (cols % 8 == 0 && aligned(x, a)) low_rank::hidden<true>(x, a, h, drop, rows, cols, rank);                                            \
        else low_rank::hidden<false>(x, a, h, drop, rows, cols, rank);                                                                          \
    }                                                                                                                                           \
    KERNEL(low_rank_weight_##NAME)(const T* x, const T* dh, float* partial, const u32* row_sequence, const u32* offsets, const u32* examples,   \
                                   u32 rows, u32 cols, u32 rank, Keys keys, u32 site, u32 threshold, float keep) {                              \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                       \
        low_rank::weight(x, dh, partial, drop, rows, cols, rank);                                                                               \
    }
LOW_RANK_OF_X(float, f32)
LOW_RANK_OF_X(bf16, bf16)

// Named by the types of h and of y.
#define LOW_RANK(T, To, NAME)                                                                                                                   \
    KERNEL(low_rank_output_##NAME)(const float* sum, const void* b, u32 b_bf16, const T* h, const float* factor, To* y, u32 rows, u32 cols,     \
                                   u32 rank, float scale) {                                                                                     \
        const Table bias = {b, b_bf16};                                                                                                         \
        const bool vector = cols % 8 == 0 && aligned(sum, (const char*)b, y);                                                                   \
        if (vector && rank <= 8) low_rank::output<true, true>(sum, bias, h, factor, y, rows, cols, rank, scale);                                \
        else if (vector) low_rank::output<true, false>(sum, bias, h, factor, y, rows, cols, rank, scale);                                       \
        else low_rank::output<false, false>(sum, bias, h, factor, y, rows, cols, rank, scale);                                                  \
    }                                                                                                                                           \
    KERNEL(low_rank_input_##NAME)(const float* sum, const T* dh, const float* a, To* y, const u32* row_sequence, const u32* offsets,            \
                                  const u32* examples, u32 rows, u32 cols, u32 rank, Keys keys, u32 site, u32 threshold, float keep) {          \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                       \
        const bool vector = cols % 8 == 0 && aligned(sum, a, y);                                                                                \
        if (vector && rank <= 8) low_rank::input<true, true>(sum, dh, a, y, drop, rows, cols, rank);                                            \
        else if (vector) low_rank::input<true, false>(sum, dh, a, y, drop, rows, cols, rank);                                                   \
        else low_rank::input<false, false>(sum, dh, a, y, drop, rows, cols, rank);                                                              \
    }
LOW_RANK(float, float, f32_f32)
LOW_RANK(bf16, float, bf16_f32)
LOW_RANK(bf16, bf16, bf16_bf16)
