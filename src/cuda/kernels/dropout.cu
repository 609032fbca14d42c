// y = f ⊙ x, f the factors of a mask; its own derivative. x and y [rows, cols]. row_sequence [rows], offsets [B + 1], examples [B].
// A warp has a row, a lane eight columns at a time, for which Philox draws twice: grid [ceil(rows / 8)], block 256. y may be x. Bound, by count, by memory,
// and close to it by the ten rounds of each draw.
#include "common.cuh"

namespace dropout {

template <bool VECTOR, typename T>
__device__ __forceinline__ void apply(const T* x, T* y, const Drop& drop, u32 row, u32 cols) {
    const Drop::Row own = drop.row(row);
#pragma unroll 1
    for (u32 octet = threadIdx.x % 32; octet < octets_of(cols); octet += 32) {
        const u64 at = (u64)row * cols + 8 * octet;
        float v[8];
        load_some<VECTOR>(x + at, count_in(octet, cols), v);
        drop.apply(own, octet, v);
        store_some<VECTOR>(y + at, count_in(octet, cols), v);
    }
}

}  // namespace dropout

#define DROPOUT(NAME, T)                                                                                                                      \
    KERNEL(NAME)(const T* x, T* y, const u32* row_sequence, const u32* offsets, const u32* examples, u32 rows, u32 cols, Keys keys, u32 site, \
                 u32 threshold, float keep) {                                                                                                 \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                     \
        const u32 row = blockIdx.x * 8 + threadIdx.x / 32;                                                                                    \
        if (row >= rows) return;                                                                                                              \
        if (cols % 8 == 0 && aligned(x, y)) dropout::apply<true>(x, y, drop, row, cols);                                                      \
        else dropout::apply<false>(x, y, drop, row, cols);                                                                                    \
    }
DROPOUT(dropout_f32, float)
DROPOUT(dropout_bf16, bf16)
