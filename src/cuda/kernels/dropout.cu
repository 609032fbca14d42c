// y = f ⊙ x, f the factors of a mask; its own derivative. x and y [rows, cols]. row_sequence [rows], offsets [B + 1], examples [B].
// A thread has four columns, which one draw of Philox serves: grid [ceil(rows · ceil(cols / 4) / 256)], block 256. y may be x. Bound by memory,
// and close to it by the ten rounds of each draw.
#include "common.cuh"

namespace dropout {

template <typename T>
__device__ __forceinline__ void apply(const T* x, T* y, const Drop& drop, u32 rows, u32 cols) {
    const u32 quads = (cols + 3) / 4;
    const u64 i = element();
    if (i >= (u64)rows * quads) return;
    const u32 row = (u32)(i / quads), quad = (u32)(i % quads);
    float f[4];
    drop.factors(row, quad, f);
    for (u32 j = 0; j < 4 && 4 * quad + j < cols; j++) {
        const u64 at = (u64)row * cols + 4 * quad + j;
        y[at] = narrow<T>(widen(x[at]) * f[j]);
    }
}

}  // namespace dropout

#define DROPOUT(NAME, T)                                                                                                                     \
    KERNEL(NAME)(const T* x, T* y, const u32* row_sequence, const u32* offsets, const u32* examples, u32 rows, u32 cols, u64 seed, u32 site, \
                 u32 threshold, float keep) {                                                                                                \
        dropout::apply(x, y, {row_sequence, offsets, examples, seed, site, threshold, keep}, rows, cols);                                    \
    }
DROPOUT(dropout_f32, float)
DROPOUT(dropout_bf16, bf16)
