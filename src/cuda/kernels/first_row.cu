// y[b] = x[first row of sequence b]. x [T, cols], y [B, cols]; dx is dy in those rows, and was zeroed before. Grid [B], block 256. Bound by memory.
#include "common.cuh"

namespace first_row {

template <typename T>
__device__ __forceinline__ void copy(const T* from, T* to, u32 cols) {
    for (u32 c = threadIdx.x; c < cols; c += 256) to[c] = from[c];
}

}  // namespace first_row

#define ROWS(TYPE, T)                                                                                                                     \
    KERNEL(first_row_forward_##TYPE)(const T* x, T* y, const u32* offsets, u32 cols) {                                                  \
        first_row::copy(x + (u64)offsets[blockIdx.x] * cols, y + (u64)blockIdx.x * cols, cols);                                                \
    }                                                                                                                                     \
    KERNEL(first_row_backward_##TYPE)(const T* dy, T* dx, const u32* offsets, u32 cols) {                                               \
        first_row::copy(dy + (u64)blockIdx.x * cols, dx + (u64)offsets[blockIdx.x] * cols, cols);                                              \
    }
ROWS(f32, float)
ROWS(bf16, bf16)
