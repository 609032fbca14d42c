// AdamW over all parameters at once: Loshchilov & Hutter 2017, algorithm 2, as on the host, after clipping to a global norm (Pascanu et al. 2013):
//   norm = √Σ g² over all gradients;  clip = min(1, most / (norm + 1e-6))
//   g ← clip g;  m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ shrink - rate m / (√v root + eps)
// with shrink = 1 - lr · decay and rate = lr / (1 - β₁ᵗ) of each parameter, and root = 1 / √(1 - β₂ᵗ). All f32, the norm in f64.
//
// A table holds an entry for each parameter; a block of 256 threads takes CHUNK elements of one. Three launches a step: adamw_squares and
// adamw_update on [blocks], adamw_norm on [1] between them. The host reads nothing: where the norm is not finite, clip becomes NaN, and with it
// nothing is changed any more. Bound by memory: 4 and 28 bytes an element.
#include "common.cuh"

const u32 CHUNK = 4096;

struct Entry {
    float *value, *m, *v;
    const float* g;
    // Elements, and the first block that takes some.
    u64 n, first;
    float shrink, rate;
};

// The entry of this block: the last that starts at or before it.
__device__ __forceinline__ const Entry& entry_of_block(const Entry* entries, u32 count) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (entries[middle].first <= blockIdx.x) low = middle;
        else high = middle;
    }
    return entries[low];
}

// The first `left` elements of an octet, or all eight if the parameter has more left; zeros after them.
__device__ __forceinline__ void load_up_to(const float* from, u64 left, float (&x)[8]) {
    if (left >= 8 && aligned(from)) load(from, x);
    else load_some<false>(from, left < 8 ? (u32)left : 8, x);
}

__device__ __forceinline__ void store_up_to(float* to, u64 left, const float (&x)[8]) {
    if (left >= 8 && aligned(to)) store(to, x);
    else store_some<false>(to, left < 8 ? (u32)left : 8, x);
}

// The sum of each thread's x in thread 0, in an order that never changes.
__device__ __forceinline__ double block_sum(double x) {
    __shared__ double sums[256];
    sums[threadIdx.x] = x;
    for (u32 half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    return threadIdx.x == 0 ? sums[0] : 0.0;
}

// partial [blocks] f64: Σ g² of each block's elements.
KERNEL(adamw_squares)(const Entry* entries, double* partial, u32 count) {
    const Entry& e = entry_of_block(entries, count);
    const u64 start = (blockIdx.x - e.first) * CHUNK, end = start + CHUNK < e.n ? start + CHUNK : e.n;
    double sum = 0.0;
#pragma unroll 1
    for (u64 i = start + 8 * threadIdx.x; i < end; i += 2048) {
        float g[8];
        load_up_to(e.g + i, end - i, g);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum += (double)g[j] * g[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// norm [1] f64 of `blocks` partial sums, and clip [1]; a clip that is NaN stays so.
KERNEL(adamw_norm)(const double* partial, double* norm, float* clip, u32 blocks, float most) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < blocks; i += 256) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x > 0) return;
    norm[0] = sqrt(sum);
    const double factor = most / (norm[0] + 1e-6);
    const bool finite = norm[0] <= 1.7976931348623157e308 && clip[0] == clip[0];
    clip[0] = !finite ? __uint_as_float(0x7FC00000u) : factor < 1.0 ? (float)factor : 1.0f;
}

KERNEL(adamw_update)(const Entry* entries, const float* clip, u32 count, float b1, float b2, float c1, float c2, float root, float eps) {
    const float factor = clip[0];
    if (factor != factor) return;
    const Entry& e = entry_of_block(entries, count);
    const u64 start = (blockIdx.x - e.first) * CHUNK, end = start + CHUNK < e.n ? start + CHUNK : e.n;
#pragma unroll 1
    for (u64 i = start + 8 * threadIdx.x; i < end; i += 2048) {
        float value[8], g[8], m[8], v[8];
        load_up_to(e.value + i, end - i, value);
        load_up_to(e.g + i, end - i, g);
        load_up_to(e.m + i, end - i, m);
        load_up_to(e.v + i, end - i, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            const float gradient = g[j] * factor;
            m[j] = b1 * m[j] + c1 * gradient;
            v[j] = b2 * v[j] + c2 * gradient * gradient;
            value[j] = value[j] * e.shrink - e.rate * m[j] / (sqrtf(v[j]) * root + eps);
        }
        store_up_to(e.m + i, end - i, m);
        store_up_to(e.v + i, end - i, v);
        store_up_to(e.value + i, end - i, value);
    }
}
