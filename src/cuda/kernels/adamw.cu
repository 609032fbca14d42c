// AdamW: Loshchilov & Hutter 2017, algorithm 2, as on the host. Loops over n elements of one parameter, f32:
//   g ← clip g;  m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ shrink - rate m / (√v root + eps)
// with shrink = 1 - lr · decay, rate = lr / (1 - β₁ᵗ), root = 1 / √(1 - β₂ᵗ). Grid [ceil(n / 256)], block 256. Bound by memory: 28 bytes an element.
//
// sum_squares: partial [64] f64 of Σ x², of which the host adds the 64: a fixed order, and exact enough for a norm over millions. Grid [64], block 256.
#include "common.cuh"

KERNEL(adamw)(float* value, float* m, float* v, const float* g, u64 n, float clip, float b1, float b2, float c1, float c2, float shrink, float rate,
              float root, float eps) {
    const u64 i = element();
    if (i >= n) return;
    const float gradient = g[i] * clip;
    m[i] = b1 * m[i] + c1 * gradient;
    v[i] = b2 * v[i] + c2 * gradient * gradient;
    value[i] = value[i] * shrink - rate * m[i] / (sqrtf(v[i]) * root + eps);
}

KERNEL(sum_squares)(const float* x, double* partial, u64 n) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < n; i += 64 * 256) sum += (double)x[i] * x[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    double total = 0.0;
    for (u32 i = 0; i < 256; i++) total += sums[i];
    partial[blockIdx.x] = total;
}
