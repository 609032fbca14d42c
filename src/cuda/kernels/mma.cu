// Each instruction of mma.cuh once, for a test: what the lanes of a warp hold after it. Grid [1], block 32, shared 512 bytes.
//
// tile [16, 16] bf16, of which lane i copies 16 bytes and the last lane nothing; f [32, 4] f32; out [6, 32, 4], the bits of
//   0  ldmatrix of the tile's four quarters, as the fragments of an A are loaded      1  the same with .trans
//   2  the copied tile, the lane's 16 bytes                                           3  mma of 0 and the first two registers of 1, added to f
//   4  f packed to bf16 by twos, then zeros                                           5  2^f
#include "common.cuh"
#include "mma.cuh"

KERNEL(mma_probe)(const bf16* tile, const float* f, u32* out) {
    DYNAMIC_SHARED(memory);
    bf16* copy = (bf16*)memory;
    const u32 lane = threadIdx.x;
    mma::copy_async(copy + 8 * lane, tile + 8 * lane, lane != 31);
    mma::copy_commit();
    mma::copy_wait<0>();
    __syncthreads();
    const bf16* row = copy + lane % 16 * 16 + lane / 16 * 8;
    mma::FragmentA a;
    u32 b[4];
    mma::load_matrices<false>(a.x, row);
    mma::load_matrices<true>(b, row);
    mma::FragmentC c;
    for (u32 i = 0; i < 4; i++) c.x[i] = f[4 * lane + i];
    mma::multiply(c, a, {{b[0], b[1]}});
    for (u32 i = 0; i < 4; i++) {
        const float x = f[4 * lane + i];
        const u32 values[6] = {a.x[i],
                               b[i],
                               ((const u32*)copy)[4 * lane + i],
                               __float_as_uint(c.x[i]),
                               i < 2 ? pack(f[4 * lane + 2 * i], f[4 * lane + 2 * i + 1]) : 0,
                               __float_as_uint(mma::exp2_approximate(x))};
        for (u32 part = 0; part < 6; part++) out[(part * 32 + lane) * 4 + i] = values[part];
    }
}
