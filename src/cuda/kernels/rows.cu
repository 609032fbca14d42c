// select_rows: y[b] = x[first row of sequence b]. x [T, cols], y [B, cols]; dx is dy in those rows, and was zeroed before. Grid [B], block 256.
//
// prepend_rows: the P rows of `extra` before those of each sequence. x [T, cols], extra [P, cols], y [T + B P, cols]. A row of y: sequence b =
// row_sequence[row], its row within that row - offsets[b], both of the longer packing. Grid [rows of y], block 256.
// Backward: dx as forward reads x; dextra [P, cols] f32 = Σ over the sequences, in order. Grid [rows of y] and [P], block 256.
// All bound by memory.
#include "common.cuh"

namespace rows {

template <typename T>
__device__ __forceinline__ void copy(const T* from, T* to, u32 cols) {
    for (u32 c = threadIdx.x; c < cols; c += 256) to[c] = from[c];
}

// The row of x that a row of y holds, or -1 if it is one of the P.
__device__ __forceinline__ long long own_row(const u32* row_sequence, const u32* offsets, u32 extra_rows) {
    const u32 b = row_sequence[blockIdx.x], within = blockIdx.x - offsets[b];
    return within < extra_rows ? -1 : (long long)blockIdx.x - (long long)(b + 1) * extra_rows;
}

template <typename T>
__device__ __forceinline__ void prepend(
    const T* x, const T* extra, T* y, const u32* row_sequence, const u32* offsets, u32 extra_rows, u32 cols) {
    const long long own = own_row(row_sequence, offsets, extra_rows);
    const u32 within = blockIdx.x - offsets[row_sequence[blockIdx.x]];
    copy(own < 0 ? extra + (u64)within * cols : x + (u64)own * cols, y + (u64)blockIdx.x * cols, cols);
}

template <typename T>
__device__ __forceinline__ void prepend_backward(const T* dy, T* dx, const u32* row_sequence, const u32* offsets, u32 extra_rows, u32 cols) {
    const long long own = own_row(row_sequence, offsets, extra_rows);
    if (own >= 0) copy(dy + (u64)blockIdx.x * cols, dx + (u64)own * cols, cols);
}

template <typename T>
__device__ __forceinline__ void prepend_backward_extra(const T* dy, float* dextra, const u32* offsets, u32 sequences, u32 cols) {
    for (u32 c = threadIdx.x; c < cols; c += 256) {
        float sum = 0.0f;
        for (u32 b = 0; b < sequences; b++) sum += widen(dy[(u64)(offsets[b] + blockIdx.x) * cols + c]);
        dextra[(u64)blockIdx.x * cols + c] = sum;
    }
}

}  // namespace rows

#define ROWS(TYPE, T)                                                                                                                     \
    KERNEL(select_rows_forward_##TYPE)(const T* x, T* y, const u32* offsets, u32 cols) {                                                  \
        rows::copy(x + (u64)offsets[blockIdx.x] * cols, y + (u64)blockIdx.x * cols, cols);                                                \
    }                                                                                                                                     \
    KERNEL(select_rows_backward_##TYPE)(const T* dy, T* dx, const u32* offsets, u32 cols) {                                               \
        rows::copy(dy + (u64)blockIdx.x * cols, dx + (u64)offsets[blockIdx.x] * cols, cols);                                              \
    }                                                                                                                                     \
    KERNEL(prepend_rows_forward_##TYPE)(const T* x, const T* extra, T* y, const u32* row_sequence, const u32* offsets, u32 extra_rows,    \
                                        u32 cols) {                                                                                       \
        rows::prepend(x, extra, y, row_sequence, offsets, extra_rows, cols);                                                              \
    }                                                                                                                                     \
    KERNEL(prepend_rows_backward_##TYPE)(const T* dy, T* dx, const u32* row_sequence, const u32* offsets, u32 extra_rows, u32 cols) {     \
        rows::prepend_backward(dy, dx, row_sequence, offsets, extra_rows, cols);                                                          \
    }                                                                                                                                     \
    KERNEL(prepend_rows_backward_extra_##TYPE)(const T* dy, float* dextra, const u32* offsets, u32 sequences, u32 cols) {                 \
        rows::prepend_backward_extra(dy, dextra, offsets, sequences, cols);                                                               \
    }
ROWS(f32, float)
ROWS(bf16, bf16)
