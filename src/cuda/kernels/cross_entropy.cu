// loss = Σ over the rows of (log Σ exp(z) - z[label]) / divisor; dz = (softmax(z) - onehot(label)) dloss / divisor.
// z, dz [rows, classes] f32; labels [rows]; loss, dloss [1]. Small: one block of 256 threads, each with every 256th row; the sum has a fixed order.
#include "common.cuh"

namespace cross_entropy {

__device__ __forceinline__ float log_sum_exp(const float* z, u32 classes) {
    float most = z[0], sum = 0.0f;
    for (u32 c = 1; c < classes; c++) most = fmaxf(most, z[c]);
    for (u32 c = 0; c < classes; c++) sum += expf(z[c] - most);
    return most + logf(sum);
}

}  // namespace cross_entropy

KERNEL(cross_entropy_forward)(const float* z, const u32* labels, float* loss, u32 rows, u32 classes, float divisor) {
    __shared__ float sums[256];
    float sum = 0.0f;
    for (u32 row = threadIdx.x; row < rows; row += 256) {
        const float* own = z + (u64)row * classes;
        sum += cross_entropy::log_sum_exp(own, classes) - own[labels[row]];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    float total = 0.0f;
    for (u32 i = 0; i < 256; i++) total += sums[i];
    *loss = total / divisor;
}

KERNEL(cross_entropy_backward)(const float* z, const u32* labels, const float* dloss, float* dz, u32 rows, u32 classes, float divisor) {
    const float scale = *dloss / divisor;
    for (u32 row = threadIdx.x; row < rows; row += 256) {
        const float* own = z + (u64)row * classes;
        const float lse = cross_entropy::log_sum_exp(own, classes);
        for (u32 c = 0; c < classes; c++) dz[(u64)row * classes + c] = (expf(own[c] - lse) - (c == labels[row] ? 1.0f : 0.0f)) * scale;
    }
}
