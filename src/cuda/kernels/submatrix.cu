// submatrix_forward: y = x[..m, ..n]; x [rows, cols], y [m, n]. Grid [ceil(m n / 256)], block 256.
// submatrix_backward: dx is dy there, and 0 elsewhere. Grid [ceil(rows · cols / 256)], block 256. Bound by memory, and small.
#include "common.cuh"

namespace submatrix {

template <typename T>
__device__ __forceinline__ void forward(const T* x, T* y, u32 m, u32 n, u32 cols) {
    const u64 i = element();
    if (i < (u64)m * n) y[i] = x[i / n * cols + i % n];
}

template <typename T>
__device__ __forceinline__ void backward(const T* dy, T* dx, u32 rows, u32 cols, u32 m, u32 n) {
    const u64 i = element();
    if (i >= (u64)rows * cols) return;
    const u64 row = i / cols, column = i % cols;
    dx[i] = row < m && column < n ? dy[row * n + column] : narrow<T>(0.0f);
}

}  // namespace submatrix

KERNEL(submatrix_forward_f32)(const float* x, float* y, u32 m, u32 n, u32 cols) { submatrix::forward(x, y, m, n, cols); }
KERNEL(submatrix_forward_bf16)(const bf16* x, bf16* y, u32 m, u32 n, u32 cols) { submatrix::forward(x, y, m, n, cols); }
KERNEL(submatrix_backward_f32)(const float* dy, float* dx, u32 rows, u32 cols, u32 m, u32 n) { submatrix::backward(dy, dx, rows, cols, m, n); }
KERNEL(submatrix_backward_bf16)(const bf16* dy, bf16* dx, u32 rows, u32 cols, u32 m, u32 n) { submatrix::backward(dy, dx, rows, cols, m, n); }
