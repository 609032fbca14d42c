// y = x ∘ m / n + b: DoRA's magnitude. x, y [rows, cols]; m, n, b [cols] f32; b null: none. dx is the same of dy without b; dm = Σ dy ∘ x / n and
// db = Σ dy are column sums: see linear.cu. Grid [ceil(rows · cols / 256)], block 256. Bound by memory.
//
// row_norms: n = the length of each row of x. x [rows, cols] f32, n [rows] f32. A warp has a row: grid [ceil(rows / 8)], block 256. Bound by memory.
#include "common.cuh"

namespace magnitude {

template <typename T>
__device__ __forceinline__ void apply(const T* x, const float* m, const float* norms, const float* b, T* y, u64 n, u32 cols) {
    const u64 i = element();
    if (i >= n) return;
    const u32 c = (u32)(i % cols);
    y[i] = narrow<T>(widen(x[i]) * (m[c] / norms[c]) + (b ? b[c] : 0.0f));
}

}  // namespace magnitude

KERNEL(magnitude_f32)(const float* x, const float* m, const float* norms, const float* b, float* y, u64 n, u32 cols) {
    magnitude::apply(x, m, norms, b, y, n, cols);
}
KERNEL(magnitude_bf16)(const bf16* x, const float* m, const float* norms, const float* b, bf16* y, u64 n, u32 cols) {
    magnitude::apply(x, m, norms, b, y, n, cols);
}
KERNEL(row_norms)(const float* x, float* norms, u32 rows, u32 cols) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    float squares = 0.0f;
    for (u32 c = lane; c < cols; c += 32) squares += x[(u64)row * cols + c] * x[(u64)row * cols + c];
    squares = warp_sum(squares);
    if (lane == 0) norms[row] = sqrtf(squares);
}
