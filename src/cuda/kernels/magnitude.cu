// y = x ∘ m / n + b: DoRA's magnitude. x, y [rows, cols]; m, n, b [cols] f32; b null: none. dx is the same of dy without b; dm = Σ dy ∘ x / n and
// db = Σ dy are column sums: see linear.cu. A lane has eight columns and a warp 8 rows: grid [ceil(cols / 256), ceil(rows / 64)], block 256. Bound by memory.
//
// row_norms: n = the length of each row of x. x [rows, cols] f32, n [rows] f32. A warp has a row: grid [ceil(rows / 8)], block 256. Bound by memory.
#include "common.cuh"

namespace magnitude {

template <bool VECTOR, typename T>
__device__ __forceinline__ void apply(const T* x, const float* m, const float* norms, const float* b, T* y, u32 rows, u32 cols) {
    const u32 octet = tile::octet(), start = tile::start(), c = 8 * octet;
    if (octet >= octets_of(cols)) return;
    const u32 count = count_in(octet, cols);
    float times[8], norm[8], plus[8] = {};
    load_some<VECTOR>(m + c, count, times);
    load_some<VECTOR>(norms + c, count, norm);
    if (b) load_some<VECTOR>(b + c, count, plus);
#pragma unroll
    for (u32 j = 0; j < 8; j++) times[j] /= norm[j];
#pragma unroll 1
    for (u32 row = start; row < rows && row < start + tile::ROWS; row++) {
        const u64 at = (u64)row * cols + c;
        float v[8];
        load_some<VECTOR>(x + at, count, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) v[j] = v[j] * times[j] + plus[j];
        store_some<VECTOR>(y + at, count, v);
    }
}

template <bool VECTOR>
__device__ __forceinline__ float squares(const float* x, u32 cols) {
    float sum = 0.0f;
#pragma unroll 1
    for (u32 octet = threadIdx.x % 32; octet < octets_of(cols); octet += 32) {
        float v[8];
        load_some<VECTOR>(x + 8 * octet, count_in(octet, cols), v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum += v[j] * v[j];
    }
    return warp_sum(sum);
}

}  // namespace magnitude

#define MAGNITUDE(NAME, T)                                                                                                            \
    KERNEL(NAME)(const T* x, const float* m, const float* norms, const float* b, T* y, u32 rows, u32 cols) {                          \
        if (cols % 8 == 0 && aligned(x, m, norms, b, y)) magnitude::apply<true>(x, m, norms, b, y, rows, cols);                       \
        else magnitude::apply<false>(x, m, norms, b, y, rows, cols);                                                                  \
    }
MAGNITUDE(magnitude_f32, float)
MAGNITUDE(magnitude_bf16, bf16)

KERNEL(row_norms)(const float* x, float* norms, u32 rows, u32 cols) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const float* own = x + (u64)row * cols;
    const float sum = cols % 8 == 0 && aligned(x) ? magnitude::squares<true>(own, cols) : magnitude::squares<false>(own, cols);
    if (threadIdx.x % 32 == 0) norms[row] = sqrtf(sum);
}
