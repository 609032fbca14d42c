// What a linear layer needs beside cuBLAS.
//
// fill_rows: y = b in every row, for a product to be added to. y [rows, cols], b [cols] f32. A lane has eight columns and a warp 8 rows:
//   grid [ceil(cols / 256), ceil(rows / 64)], block 256.
// column_sums: Σ over the rows of x, or of x ⊙ t if t is not null. x, t [rows, cols]. In two steps with a fixed order, without atomics:
//   column_sums         partial [ceil(rows / 64), cols] f32. A block has 64 rows, 8 to a warp: grid [ceil(cols / 256), ceil(rows / 64)], block 256.
//   column_sums_finish  out [cols] = Σ partial / divisor [cols], or without a divisor if it is null; partial [parts, cols]. A warp has every eighth part:
//                       grid [ceil(cols / 256)], block 256.
// Bound by memory.
#include "common.cuh"

namespace linear {

template <bool VECTOR, typename T>
__device__ __forceinline__ void fill(const float* b, T* y, u32 rows, u32 cols) {
    const u32 octet = tile::octet(), start = tile::start();
    if (octet >= octets_of(cols)) return;
    float v[8];
    load_some<VECTOR>(b + 8 * octet, count_in(octet, cols), v);
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) store_some<VECTOR>(y + (u64)row * cols + 8 * octet, count_in(octet, cols), v);
}

template <typename T>
__device__ __forceinline__ void fill_rows(const float* b, T* y, u32 rows, u32 cols) {
    if (cols % 8 == 0 && aligned(b, y)) fill<true>(b, y, rows, cols);
    else fill<false>(b, y, rows, cols);
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void sum_rows(const T* x, const T* times, float (&sum)[8], u32 rows, u32 cols) {
    const u32 octet = tile::octet(), start = tile::start();
    if (octet >= octets_of(cols)) return;
#pragma unroll 2
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        const u64 at = (u64)row * cols + 8 * octet;
        float v[8], t[8];
        load_some<VECTOR>(x + at, count_in(octet, cols), v);
        if (times) load_some<VECTOR>(times + at, count_in(octet, cols), t);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum[j] += times ? v[j] * t[j] : v[j];
    }
}

template <typename T>
__device__ __forceinline__ void column_sums(const T* x, const T* times, float* partial, u32 rows, u32 cols) {
    float sum[8] = {};
    if (cols % 8 == 0 && aligned(x, times)) sum_rows<true>(x, times, sum, rows, cols);
    else sum_rows<false>(x, times, sum, rows, cols);
    const float total = block_columns(sum);
    const u32 column = blockIdx.x * 256 + threadIdx.x;
    if (column < cols) partial[(u64)blockIdx.y * cols + column] = total;
}

template <bool VECTOR>
__device__ __forceinline__ void sum_parts(const float* partial, float (&sum)[8], u32 parts, u32 cols) {
    const u32 octet = tile::octet();
    if (octet >= octets_of(cols)) return;
#pragma unroll 4
    for (u32 part = threadIdx.x / 32; part < parts; part += 8) {
        float v[8];
        load_some<VECTOR>(partial + (u64)part * cols + 8 * octet, count_in(octet, cols), v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum[j] += v[j];
    }
}

}  // namespace linear

KERNEL(fill_rows_f32)(const float* b, float* y, u32 rows, u32 cols) { linear::fill_rows(b, y, rows, cols); }
KERNEL(fill_rows_bf16)(const float* b, bf16* y, u32 rows, u32 cols) { linear::fill_rows(b, y, rows, cols); }
KERNEL(column_sums_f32)(const float* x, const float* times, float* partial, u32 rows, u32 cols) {
    linear::column_sums(x, times, partial, rows, cols);
}
KERNEL(column_sums_bf16)(const bf16* x, const bf16* times, float* partial, u32 rows, u32 cols) {
    linear::column_sums(x, times, partial, rows, cols);
}
KERNEL(column_sums_finish)(const float* partial, const float* divisor, float* out, u32 parts, u32 cols) {
    float sum[8] = {};
    if (cols % 8 == 0 && aligned(partial)) linear::sum_parts<true>(partial, sum, parts, cols);
    else linear::sum_parts<false>(partial, sum, parts, cols);
    const float total = block_columns(sum);
    const u32 column = blockIdx.x * 256 + threadIdx.x;
    if (column < cols) out[column] = divisor ? total / divisor[column] : total;
}
