// A low-rank term on its way through what is large, with its dropout drawn on the way: f are the factors of the mask, all 1 if nothing is dropped.
//
// Forward is one product y = [x | h] [W | scale · B]ᵀ + b for all linears of a group. Its inner side has `stride` columns: those of x or W, then those of each
// term, each filled up with zeros to a multiple of 8. The columns of a term that another linear of the group has are zeros in [W | scale · B].
// low_rank_hidden:  h = (f ⊙ x) Aᵀ. x [rows, cols], A [rank, cols] f32, h [rows, rank]. Writes h also to the columns of the term in wide [rows, stride], and
//                   copies x there if `copies`. A warp has 4 rows, for which it reads A once: grid [ceil(rows / 32)], block 256.
// low_rank_stacked: wide = [W | scale · B] [rows, stride], and bias = b, or zeros if b is null. W [rows, cols] and b [rows] of either type, B [rows, rank] f32.
//                   W is null for a further term of the same linear: only the columns of the term are written. Grid [ceil(stride / 256), ceil(rows / 64)], block 256.
//
// low_rank_input:   y = sum + f ⊙ (dh A). dh [rows, rank], A [rank, cols] f32. sum may be null: y then holds it. A lane has eight columns, a warp 8 rows, and A's
//                   columns of the lane stay in registers: grid [ceil(cols / 256), ceil(rows / 64)], block 256.
// low_rank_weight:  dA = dhᵀ (f ⊙ x), in parts of 64 rows: partial [ceil(rows / 64), rank, cols] f32, to be summed by column_sums_finish of linear.cu. A lane has
//                   eight columns and a warp 8 rows of a part; the warps' sums meet in shared memory. The same grid.
//
// 8 ranks at a time; with more, the mask is drawn and x is read again for the next 8, and so is A. Bound, by count at rank 8: hidden and weight by
// the instructions of the draws and the sums, but hidden by memory where it copies x; stacked and input by memory.
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

// [x | h] or [W | scale · B]. A row has `stride` columns. The columns of a term start at `column`.
template <typename T>
struct Wide {
    T* values;
    u32 stride, column;
};

template <bool VECTOR, typename T>
__device__ __forceinline__ void hidden(
    const T* x, const float* a, T* h, const Wide<T>& wide, bool copies, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 lane = threadIdx.x % 32, start = (blockIdx.x * 8 + threadIdx.x / 32) * ROWS_HIDDEN;
    if (start >= rows) return;
    // Past the end, the last row once more: nothing is stored of it.
    u32 row[ROWS_HIDDEN];
    Drop::Row own[ROWS_HIDDEN];
#pragma unroll
    for (u32 r = 0; r < ROWS_HIDDEN; r++) {
        row[r] = start + r < rows ? start + r : rows - 1;
        own[r] = drop.row(row[r]);
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
                load_some<VECTOR>(x + (u64)row[r] * cols + c, count, v[r]);
                if (copies && first == 0) store(wide.values + (u64)row[r] * wide.stride + c, v[r]);
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
        const T sum = narrow<T>(warp_sums(sums));
        const u32 own_row = start + lane / RANKS, k = first + lane % RANKS;
        if (own_row < rows) {
            if (k < rank) h[(u64)own_row * rank + k] = sum;
            wide.values[(u64)own_row * wide.stride + wide.column + k] = k < rank ? sum : narrow<T>(0.0f);
        }
    }
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void stacked(
    const Table& w, const Table& b, const float* factor, const Wide<T>& wide, T* bias, u32 rows, u32 cols, u32 rank, float scale) {
    const u32 octet = tile::octet(), start = tile::start(), c = 8 * octet;
    const bool of_term = c >= wide.column && c < wide.column + 8 * octets_of(rank);
    if (c >= wide.stride || (!w.values && !of_term)) return;
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        float v[8] = {};
        if (c < cols) {
            w.octet<VECTOR>((u64)row * cols + c, count_in(octet, cols), v);
        } else if (of_term) {
            load_ranks(factor + (u64)row * rank, c - wide.column, rank, rank % 8 == 0 && aligned(factor), v);
#pragma unroll
            for (u32 j = 0; j < 8; j++) v[j] *= scale;
        }
        store(wide.values + (u64)row * wide.stride + c, v);
        if (w.values && octet == 0) bias[row] = narrow<T>(b.values ? b.at(row) : 0.0f);
    }
}

// ONCE: there are at most 8 ranks, and A is read once.
template <bool VECTOR, bool ONCE, typename T, typename To>
__device__ __forceinline__ void input(const float* sum, const T* dh, const float* a, To* y, const Drop& drop, u32 rows, u32 cols, u32 rank) {
    const u32 octet = tile::octet(), start = tile::start();
    if (octet >= octets_of(cols)) return;
    const u32 count = count_in(octet, cols);
    const bool in_octets = rank % 8 == 0 && aligned(dh);
    float own[RANKS][8];
    const auto load_own = [&](u32 first) {
#pragma unroll
        for (u32 k = 0; k < RANKS; k++)
            load_some<VECTOR>(a + (u64)(first + k < rank ? first + k : rank - 1) * cols + 8 * octet, count, own[k]);
    };
    if (ONCE) load_own(0);
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        const u64 at = (u64)row * cols + 8 * octet;
        float v[8], low[8] = {};
        if (sum) load_some<VECTOR>(sum + at, count, v);
        else load_some<VECTOR>((const To*)y + at, count, v);
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
#pragma unroll
        for (u32 j = 0; j < 8; j++) v[j] += low[j];
        store_some<VECTOR>(y + at, count, v);
    }
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
    KERNEL(low_rank_hidden_##NAME)(const T* x, const float* a, T* h, T* wide, const u32* row_sequence, const u32* offsets, const u32* examples, \
                                   u32 rows, u32 cols, u32 rank, u32 stride, u32 column, u32 copies, Keys keys, u32 site, u32 threshold,        \
                                   float keep) {                                                                                                \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                       \
        const low_rank::Wide<T> to = {wide, stride, column};                                                                                    \
        if (cols % 8 == 0 && aligned(x, a)) low_rank::hidden<true>(x, a, h, to, copies, drop, rows, cols, rank);                                \
        else low_rank::hidden<false>(x, a, h, to, copies, drop, rows, cols, rank);                                                              \
    }                                                                                                                                           \
    KERNEL(low_rank_stacked_##NAME)(const void* w, u32 w_bf16, const void* b, u32 b_bf16, const float* factor, T* wide, T* bias, u32 rows,      \
                                    u32 cols, u32 rank, u32 stride, u32 column, float scale) {                                                  \
        const low_rank::Wide<T> to = {wide, stride, column};                                                                                    \
        const Table weight = {w, w_bf16}, own_bias = {b, b_bf16};                                                                               \
        if (cols % 8 == 0 && aligned((const char*)w)) low_rank::stacked<true>(weight, own_bias, factor, to, bias, rows, cols, rank, scale);     \
        else low_rank::stacked<false>(weight, own_bias, factor, to, bias, rows, cols, rank, scale);                                             \
    }                                                                                                                                           \
    KERNEL(low_rank_weight_##NAME)(const T* x, const T* dh, float* partial, const u32* row_sequence, const u32* offsets, const u32* examples,   \
                                   u32 rows, u32 cols, u32 rank, Keys keys, u32 site, u32 threshold, float keep) {                              \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                       \
        low_rank::weight(x, dh, partial, drop, rows, cols, rank);                                                                               \
    }
LOW_RANK_OF_X(float, f32)
LOW_RANK_OF_X(bf16, bf16)

// Named by the types of dh and of y.
#define LOW_RANK(T, To, NAME)                                                                                                                   \
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
