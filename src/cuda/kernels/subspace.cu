// The image of a random subspace by Fastfood: y = y0 + P z, P in blocks of S rows, S a power of two: H G Π H B · scale, H of elements ±1. See
// src/autograd/ops/subspace.rs.
//
// subspace_image:      y [n] f32, y0 [n] of either type, z [d] f32.
// subspace_transposed: each block's part of Pᵀ g, [blocks, d] f32; their sum is a column sum: see linear.cu. g [n] f32.
// signs, permutation and gauss [blocks · S]; scratch [blocks, 2, S] f32, a few caches' worth for each block of threads.
//
// A block of threads has a block of P: grid [ceil(n / S)], block 256. Bound by the 2 log2(S) passes of the transforms over the scratch.
#include "common.cuh"

namespace subspace {

// x = H x.
__device__ __forceinline__ void hadamard(float* x, u32 size) {
    for (u32 half = 1; half < size; half *= 2) {
        for (u32 pair = threadIdx.x; pair < size / 2; pair += 256) {
            const u32 i = pair / half * 2 * half + pair % half;
            const float a = x[i], b = x[i + half];
            x[i] = a + b;
            x[i + half] = a - b;
        }
        __syncthreads();
    }
}

}  // namespace subspace

KERNEL(subspace_image)(const float* z, const void* origin, u32 origin_bf16, float* y, const signed char* signs, const unsigned short* permutation,
                       const float* gauss, float* scratch, u64 n, u32 d, u32 size, float scale) {
    const u64 at = (u64)blockIdx.x * size;
    float *first = scratch + 2 * at, *second = first + size;
    for (u32 i = threadIdx.x; i < size; i += 256) first[i] = i < d ? z[i] * (float)signs[at + i] : 0.0f;
    __syncthreads();
    subspace::hadamard(first, size);
    for (u32 i = threadIdx.x; i < size; i += 256) second[i] = first[permutation[at + i]] * gauss[at + i];
    __syncthreads();
    subspace::hadamard(second, size);
    const Table from = {origin, origin_bf16};
    for (u32 i = threadIdx.x; i < size && at + i < n; i += 256) y[at + i] = from.at(at + i) + scale * second[i];
}

KERNEL(subspace_transposed)(const float* g, float* parts, const signed char* signs, const unsigned short* permutation, const float* gauss,
                            float* scratch, u64 n, u32 d, u32 size, float scale) {
    const u64 at = (u64)blockIdx.x * size;
    float *first = scratch + 2 * at, *second = first + size;
    for (u32 i = threadIdx.x; i < size; i += 256) first[i] = at + i < n ? g[at + i] : 0.0f;
    __syncthreads();
    subspace::hadamard(first, size);
    for (u32 i = threadIdx.x; i < size; i += 256) second[permutation[at + i]] = first[i] * gauss[at + i];
    __syncthreads();
    subspace::hadamard(second, size);
    for (u32 i = threadIdx.x; i < d; i += 256) parts[(u64)blockIdx.x * d + i] = scale * (float)signs[at + i] * second[i];
}
