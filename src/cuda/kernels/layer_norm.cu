// Layer normalisation, alone or at the end of a sublayer: s = x, or s = f ⊙ x + r with f the factors of a dropout and r the residual.
//
//   h = (s - mean) rstd      y = h γ + β      rstd = 1 / √(variance + eps), the variance by the centred sum over n
//   ds = rstd (q - mean(q) - h mean(q h)),  q = dy γ
//
// x, r, y, h, dy, ds [rows, cols]; γ, β [cols] f32; rstd [rows] f32. r null: no residual; h and rstd null: not wanted.
// A warp has a row, held in shared memory: grid [ceil(rows / 8)], block 256, shared 8 · cols · 4 bytes. dγ = Σ dy h and dβ = Σ dy over the rows
// are column sums: see linear.cu. Bound by memory: forward reads x and r and writes y and h, backward reads dy and h and writes ds.
#include "common.cuh"

namespace layer_norm {

template <typename T>
__device__ __forceinline__ void forward(
    const T* x, const T* residual, const float* gamma, const float* beta, T* y, T* h, float* rstd, const Drop& drop, u32 rows, u32 cols,
    float eps) {
    DYNAMIC_SHARED(memory);
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    float* s = (float*)memory + threadIdx.x / 32 * cols;
    if (row >= rows) return;
    const u64 at = (u64)row * cols;
    float sum = 0.0f;
    for (u32 quad = lane; 4 * quad < cols; quad += 32) {
        float f[4];
        drop.factors(row, quad, f);
        for (u32 c = 4 * quad; c < 4 * quad + 4 && c < cols; c++) {
            float v = widen(x[at + c]) * f[c % 4];
            if (residual) v += widen(residual[at + c]);
            s[c] = v;
            sum += v;
        }
    }
    const float mean = warp_sum(sum) / (float)cols;
    // A lane reads what other lanes wrote from here on.
    __syncwarp();
    float squares = 0.0f;
    for (u32 c = lane; c < cols; c += 32) squares += (s[c] - mean) * (s[c] - mean);
    const float r = 1.0f / sqrtf(warp_sum(squares) / (float)cols + eps);
    for (u32 c = lane; c < cols; c += 32) {
        const float normal = (s[c] - mean) * r;
        y[at + c] = narrow<T>(normal * gamma[c] + beta[c]);
        if (h) h[at + c] = narrow<T>(normal);
    }
    if (rstd && lane == 0) rstd[row] = r;
}

template <typename T>
__device__ __forceinline__ void backward(const T* h, const float* rstd, const float* gamma, const T* dy, T* ds, u32 rows, u32 cols) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const u64 at = (u64)row * cols;
    float q = 0.0f, qh = 0.0f;
    for (u32 c = lane; c < cols; c += 32) {
        q += widen(dy[at + c]) * gamma[c];
        qh += widen(dy[at + c]) * gamma[c] * widen(h[at + c]);
    }
    q = warp_sum(q) / (float)cols;
    qh = warp_sum(qh) / (float)cols;
    for (u32 c = lane; c < cols; c += 32) {
        ds[at + c] = narrow<T>(rstd[row] * (widen(dy[at + c]) * gamma[c] - q - widen(h[at + c]) * qh));
    }
}

}  // namespace layer_norm

#define LAYER_NORM(FORWARD, BACKWARD, T)                                                                                                      \
    KERNEL(FORWARD)(const T* x, const T* residual, const float* gamma, const float* beta, T* y, T* h, float* rstd, const u32* row_sequence,   \
                    const u32* offsets, const u32* examples, u32 rows, u32 cols, float eps, u64 seed, u32 site, u32 threshold, float keep) {  \
        const Drop drop = {row_sequence, offsets, examples, seed, site, threshold, keep};                                                     \
        layer_norm::forward(x, residual, gamma, beta, y, h, rstd, drop, rows, cols, eps);                                                     \
    }                                                                                                                                         \
    KERNEL(BACKWARD)(const T* h, const float* rstd, const float* gamma, const T* dy, T* ds, u32 rows, u32 cols) {                             \
        layer_norm::backward(h, rstd, gamma, dy, ds, rows, cols);                                                                             \
    }
LAYER_NORM(layer_norm_forward_f32, layer_norm_backward_f32, float)
LAYER_NORM(layer_norm_forward_bf16, layer_norm_backward_bf16, bf16)
