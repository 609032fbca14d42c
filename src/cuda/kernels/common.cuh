// What all kernels share. No header of CUDA's is included, so that NVRTC needs no include path; bf16 is a type of our own. With CUDA_SHIM the
// same sources are C++ that runs on a CPU: see tests/cuda.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

// bfloat16: the upper half of an f32.
struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float widen(float x) {
    return x;
}

__device__ __forceinline__ float widen(bf16 x) {
    return __uint_as_float((u32)x.bits << 16);
}

template <typename T>
__device__ __forceinline__ T narrow(float x);

template <>
__device__ __forceinline__ float narrow<float>(float x) {
    return x;
}

// Rounds to nearest, ties to even; a NaN stays one.
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float x) {
#ifdef CUDA_SHIM
    const u32 bits = __float_as_uint(x);
    if (x != x) return {(unsigned short)(bits >> 16 | 0x40)};
    return {(unsigned short)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
#else
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#endif
}

// A matrix of either type: it is told by the host, the same for all threads.
struct Table {
    const void* values;
    u32 is_bf16;

    __device__ __forceinline__ float at(u64 i) const {
        return is_bf16 ? widen(((const bf16*)values)[i]) : ((const float*)values)[i];
    }
};

// Sum and maximum over the lanes of a warp, the same in each, in an order that never changes. fmaxf leaves a NaN out; in a
// softmax that is no loss, since the exponential of the NaN stays NaN.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, distance));
    return x;
}

// Philox 4x32-10: four random words of a key and a counter. Salmon et al. 2011, section 4.3; the same words as on the host.
struct Words {
    u32 x[4];
};

__device__ __forceinline__ Words philox(u64 seed, u32 c0, u32 c1, u32 c2, u32 c3) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 p0 = (u64)c0 * 0xD2511F53u, p1 = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// How packed rows lie, and what is dropped of them: kept where the word is at least `threshold`, and then times `keep` = 1/(1 - p).
struct Drop {
    const u32 *row_sequence, *offsets, *examples;
    u64 seed;
    u32 site, threshold;
    float keep;

    // The factors of columns 4i..4i+3 of a packed row.
    __device__ __forceinline__ void factors(u32 row, u32 i, float (&f)[4]) const {
        if (threshold == 0) {
            for (int j = 0; j < 4; j++) f[j] = 1.0f;
            return;
        }
        const u32 b = row_sequence[row];
        const Words words = philox(seed, i, row - offsets[b], site, examples[b]);
#pragma unroll
        for (int j = 0; j < 4; j++) f[j] = words.x[j] >= threshold ? keep : 0.0f;
    }
};

// `extern __shared__` bytes.
#ifdef CUDA_SHIM
#define DYNAMIC_SHARED(name) unsigned char* name = shim::dynamic_shared()
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

// The element of this thread where a thread has one element: grid [ceil(n / 256)], block 256.
__device__ __forceinline__ u64 element() {
    return (u64)blockIdx.x * 256 + threadIdx.x;
}

// An entry point. Those of an op are named after it and the type.
#define KERNEL(NAME) extern "C" __global__ void __launch_bounds__(256) NAME
