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

// Two floats, each rounded as by narrow; the first is in the lower half.
__device__ __forceinline__ u32 pack(float low, float high) {
#ifdef CUDA_SHIM
    return narrow<bf16>(low).bits | (u32)narrow<bf16>(high).bits << 16;
#else
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#endif
}

// Octets: a thread moves eight neighbours at a time, which are one access of 16 bytes in bf16 and two in f32. That needs addresses that are multiples
// of 16 and, in a matrix, columns that are multiples of 8; what lacks them moves element by element.
template <typename... P>
__device__ __forceinline__ bool aligned(const P*... p) {
    return ((u64)p | ...) % 16 == 0;
}

__device__ __forceinline__ void load(const bf16* from, float (&x)[8]) {
    const uint4 v = *(const uint4*)from;
    const u32 two[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(two[i] << 16);
        x[2 * i + 1] = __uint_as_float(two[i] & 0xFFFF0000u);
    }
}

__device__ __forceinline__ void load(const float* from, float (&x)[8]) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const uint4 v = ((const uint4*)from)[half];
        const u32 one[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) x[4 * half + i] = __uint_as_float(one[i]);
    }
}

__device__ __forceinline__ void store(bf16* to, const float (&x)[8]) {
    *(uint4*)to = uint4{pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
}

__device__ __forceinline__ void store(float* to, const float (&x)[8]) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const float* own = x + 4 * half;
        ((uint4*)to)[half] = uint4{__float_as_uint(own[0]), __float_as_uint(own[1]), __float_as_uint(own[2]), __float_as_uint(own[3])};
    }
}

// The first `count` of an octet, zeros after them; all eight if VECTOR.
template <bool VECTOR, typename T>
__device__ __forceinline__ void load_some(const T* from, u32 count, float (&x)[8]) {
    if constexpr (VECTOR) {
        load(from, x);
    } else {
#pragma unroll
        for (u32 j = 0; j < 8; j++) x[j] = j < count ? widen(from[j]) : 0.0f;
    }
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void store_some(T* to, u32 count, const float (&x)[8]) {
    if constexpr (VECTOR) {
        store(to, x);
    } else {
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            if (j < count) to[j] = narrow<T>(x[j]);
    }
}

// Octets of a row, and the elements in one of them.
__device__ __forceinline__ u32 octets_of(u32 cols) {
    return (cols + 7) / 8;
}

__device__ __forceinline__ u32 count_in(u32 octet, u32 cols) {
    return 8 * octet + 8 <= cols ? 8 : cols - 8 * octet;
}

// A matrix of either type. The host says which; it is the same for all threads.
struct Table {
    const void* values;
    u32 is_bf16;

    template <bool VECTOR>
    __device__ __forceinline__ void octet(u64 at, u32 count, float (&x)[8]) const {
        if (is_bf16) load_some<VECTOR>((const bf16*)values + at, count, x);
        else load_some<VECTOR>((const float*)values + at, count, x);
    }

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

// From 2 HALF sums to one. The bit HALF of a lane's number says which half of its sums the lane keeps. It adds what the lane with the other bit has of these
// sums, and goes on with half as many.
template <u32 HALF>
__device__ __forceinline__ void halve(float (&x)[32]) {
    const bool upper = threadIdx.x & HALF;
#pragma unroll
    for (u32 i = 0; i < HALF; i++) {
        const float sent = upper ? x[i] : x[i + HALF], kept = upper ? x[i + HALF] : x[i];
        x[i] = kept + __shfl_xor_sync(0xFFFFFFFFu, sent, HALF);
    }
    if constexpr (HALF > 1) halve<HALF / 2>(x);
}

// Lane i gets the sum of x[i] over the lanes of the warp, in an order that never changes. 31 shuffles make 32 sums.
__device__ __forceinline__ float warp_sums(float (&x)[32]) {
    halve<16>(x);
    return x[0];
}

// In a block of 8 warps, each lane holds eight columns: the sum of column threadIdx.x over the warps, in their order. All threads call it.
__device__ __forceinline__ float block_columns(const float (&x)[8]) {
    __align__(16) __shared__ float warps[8][256];
    __syncthreads();    // the sums before are read
    store(&warps[threadIdx.x / 32][threadIdx.x % 32 * 8], x);
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (u32 warp = 0; warp < 8; warp++) sum += warps[warp][threadIdx.x];
    return sum;
}

// Philox 4x32-10: four random words of a key and a counter. Salmon et al. 2011, section 4.3; the same words as on the host, which also computes the two
// keys of each round: as parameters of a kernel they are operands of its instructions, and cost none.
struct Keys {
    u32 x[20];
};

struct Words {
    u32 x[4];
};

__device__ __forceinline__ Words philox(const Keys& keys, u32 c0, u32 c1, u32 c2, u32 c3) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 p0 = (u64)c0 * 0xD2511F53u, p1 = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(p1 >> 32) ^ c1 ^ keys.x[2 * round];
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ keys.x[2 * round + 1];
        c3 = (u32)p0;
    }
    return {{c0, c1, c2, c3}};
}

// How packed rows lie, and what is dropped of them: kept where the word is at least `threshold`, and then times `keep` = 1/(1 - p).
struct Drop {
    const u32 *row_sequence, *offsets, *examples;
    Keys keys;
    u32 site, threshold;
    float keep;

    // A row's place in its sequence, and the ordinal of that.
    struct Row {
        u32 place, example;
    };

    __device__ __forceinline__ Row row(u32 row) const {
        if (threshold == 0) return {0, 0};
        const u32 b = row_sequence[row];
        return {row - offsets[b], examples[b]};
    }

    // Multiplies x, columns 8i..8i+7 of a row, by its factors.
    __device__ __forceinline__ void apply(const Row& row, u32 octet, float (&x)[8]) const {
        if (threshold == 0) return;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const Words words = philox(keys, 2 * octet + half, row.place, site, row.example);
#pragma unroll
            for (u32 j = 0; j < 4; j++) x[4 * half + j] *= words.x[j] >= threshold ? keep : 0.0f;
        }
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

// y = f(a, b) where a thread has an octet: grid [ceil(n / 2048)], block 256.
template <typename A, typename To, typename F>
__device__ __forceinline__ void each(const A* a, const A* b, To* y, u64 n, F f) {
    const u64 first = 8 * element();
    if (first + 8 <= n && aligned(a, b, y)) {
        float u[8], v[8];
        load(a + first, u);
        load(b + first, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) u[j] = f(u[j], v[j]);
        store(y + first, u);
        return;
    }
#pragma unroll 1
    for (u64 i = first; i < n && i < first + 8; i++) y[i] = narrow<To>(f(widen(a[i]), widen(b[i])));
}

// y = f(x) likewise.
template <typename A, typename To, typename F>
__device__ __forceinline__ void each(const A* x, To* y, u64 n, F f) {
    each(x, x, y, n, [f](float x, float) { return f(x); });
}

// Tiles: a block has 256 columns, eight to a lane, and 64 rows, ROWS to a warp. Grid [ceil(cols / 256), ceil(rows / 64)], block 256.
namespace tile {

constexpr u32 ROWS = 8;

// The octet of this lane.
__device__ __forceinline__ u32 octet() {
    return blockIdx.x * 32 + threadIdx.x % 32;
}

// The first row of this warp.
__device__ __forceinline__ u32 start() {
    return (blockIdx.y * 8 + threadIdx.x / 32) * ROWS;
}

}  // namespace tile

// An entry point. Those of an op are named after it and the type.
#define KERNEL(NAME) extern "C" __global__ void __launch_bounds__(256) NAME
