// What a linear layer needs beside cuBLAS.
//
// fill_rows: y = b in every row, for a product to be added to. y [rows, cols], b [cols] f32. Grid [ceil(rows · cols / 256)], block 256.
// column_sums: Σ over the rows of x, or of x ⊙ t if t is not null. x, t [rows, cols]. In two steps with a fixed order, without atomics:
//   column_sums         partial [parts, cols] f32, each of `rows_per_part` rows. Grid [ceil(cols / 256), parts], block 256.
//   column_sums_finish  out [cols] = Σ partial / divisor [cols], or without a divisor if it is null. Grid [ceil(cols / 256)], block 256.
// Bound by memory.
#include "common.cuh"

namespace linear {

template <typename T>
__device__ __forceinline__ void fill_rows(const float* b, T* y, u64 n, u32 cols) {
    const u64 i = element();
    if (i < n) y[i] = narrow<T>(b[i % cols]);
}

template <typename T>
__device__ __forceinline__ void column_sums(const T* x, const T* times, float* partial, u32 rows, u32 cols, u32 rows_per_part) {
    const u32 column = (u32)element();
    if (column >= cols) return;
    const u32 first = blockIdx.y * rows_per_part;
    float sum = 0.0f;
    for (u32 row = first; row < rows && row < first + rows_per_part; row++) {
        const u64 at = (u64)row * cols + column;
        sum += widen(x[at]) * (times ? widen(times[at]) : 1.0f);
    }
    partial[(u64)blockIdx.y * cols + column] = sum;
}

}  // namespace linear

KERNEL(fill_rows_f32)(const float* b, float* y, u64 n, u32 cols) { linear::fill_rows(b, y, n, cols); }
KERNEL(fill_rows_bf16)(const float* b, bf16* y, u64 n, u32 cols) { linear::fill_rows(b, y, n, cols); }
KERNEL(column_sums_f32)(const float* x, const float* times, float* partial, u32 rows, u32 cols, u32 rows_per_part) {
    linear::column_sums(x, times, partial, rows, cols, rows_per_part);
}
KERNEL(column_sums_bf16)(const bf16* x, const bf16* times, float* partial, u32 rows, u32 cols, u32 rows_per_part) {
    linear::column_sums(x, times, partial, rows, cols, rows_per_part);
}
KERNEL(column_sums_finish)(const float* partial, const float* divisor, float* out, u32 parts, u32 cols) {
    const u32 column = (u32)element();
    if (column >= cols) return;
    float sum = 0.0f;
    for (u32 part = 0; part < parts; part++) sum += partial[(u64)part * cols + column];
    out[column] = divisor ? sum / divisor[column] : sum;
}
