// y[b] = x[first row of sequence b]. x [T, cols], y [B, cols]; dx is dy in those rows, and was zeroed before. Grid [B], block 256. Bound by memory.
#include "common.cuh"

namespace first_row {

template <bool VECTOR, typename T>
__device__ __forceinline__ void octets(const T* from, T* to, u32 cols) {
#pragma unroll 1
    for (u32 octet = threadIdx.x; octet < octets_of(cols); octet += 256) {
        float x[8];
        load_some<VECTOR>(from + 8 * octet, count_in(octet, cols), x);
        store_some<VECTOR>(to + 8 * octet, count_in(octet, cols), x);
    }
}

template <typename T>
__device__ __forceinline__ void copy(const T* from, T* to, u32 cols) {
    if (aligned(from, to) && cols % 8 == 0) octets<true>(from, to, cols);
    else octets<false>(from, to, cols);
}

}  // namespace first_row

#define ROWS(TYPE, T)                                                                                                                     \
    KERNEL(first_row_forward_##TYPE)(const T* x, T* y, const u32* offsets, u32 cols) {                                                    \
        first_row::copy(x + (u64)offsets[blockIdx.x] * cols, y + (u64)blockIdx.x * cols, cols);                                           \
    }                                                                                                                                     \
    KERNEL(first_row_backward_##TYPE)(const T* dy, T* dx, const u32* offsets, u32 cols) {                                                 \
        first_row::copy(dy + (u64)blockIdx.x * cols, dx + (u64)offsets[blockIdx.x] * cols, cols);                                         \
    }
ROWS(f32, float)
ROWS(bf16, bf16)
