// The tensor-core kernels of attention: see attention.cuh.
#include "attention.cuh"
#include "mma.cuh"

namespace attention {
namespace tensor_core {

using mma::FragmentA;
using mma::FragmentB;
using mma::FragmentC;

// A block owns 64 rows, 16 to a warp (the height of a fragment), and meets the rows of the other side tile by tile: while one tile is worked on,
// the next is copied. Launch: block 128, grid [ceil(longest sequence / 64), heads, B].
constexpr u32 THREADS = 128, OWN = 64;
// Rows of the other side in a tile, in forward and in the two passes of backward.
constexpr u32 KEYS_FORWARD = 64, KEYS_BACKWARD = 32, QUERIES_BACKWARD = 32;

constexpr float LOG2_E = 1.4426950408889634f;

// Where 16-byte chunk `chunk` of row `row` lies in a tile [rows, K]. ldmatrix reads the same chunk of eight rows at once; the exclusive or puts
// those into eight different chunks of 128 bytes, which are all 32 banks.
template <u32 K>
__device__ __forceinline__ u32 swizzle(u32 row, u32 chunk) {
    static_assert(K == 32 || K == 64, "a row is half of or all of 128 bytes");
    return (row * (K / 8) + (K == 64 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3))) * 16;
}

// Starts copying rows first.. into a tile; zeros past `count`. `first` is less than `count`.
template <u32 K, u32 ROWS>
__device__ __forceinline__ void load_tile(unsigned char* tile, const Rows<const bf16>& rows, u32 first, u32 count) {
    static_assert(ROWS * (K / 8) % THREADS == 0, "each thread copies the same number of chunks");
#pragma unroll
    for (u32 n = 0; n < ROWS * (K / 8) / THREADS; n++) {
        const u32 i = n * THREADS + threadIdx.x, row = i / (K / 8), chunk = i % (K / 8);
        const bool valid = first + row < count;
        mma::copy_async(tile + swizzle<K>(row, chunk), rows(valid ? first + row : first) + 8 * chunk, valid);
    }
}

// Starts copying what a step meets, if there is any: a tile of each side, into that of its two places which the step before does not read.
template <u32 K, u32 ROWS>
__device__ __forceinline__ void load_step(
    unsigned char* a_tiles, const Rows<const bf16>& a_rows, unsigned char* b_tiles, const Rows<const bf16>& b_rows, u32 step, u32 count) {
    constexpr u32 TILE = ROWS * K * 2;
    const u32 first = step * ROWS;
    if (first < count) {
        load_tile<K, ROWS>(a_tiles + step % 2 * TILE, a_rows, first, count);
        load_tile<K, ROWS>(b_tiles + step % 2 * TILE, b_rows, first, count);
    }
    mma::copy_commit();
}

// Rows row.. + 16 of a tile as left operands.
template <u32 K>
__device__ __forceinline__ void load_left(FragmentA (&a)[K / 16], const unsigned char* tile, u32 row) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < K / 16; kk++) mma::load_matrices<false>(a[kk].x, tile + swizzle<K>(row + lane % 16, 2 * kk + lane / 16));
}

// c [16, 8 TILES] += a [16, K] · (the tile's rows [8 TILES, K])ᵀ.
template <u32 K, u32 TILES>
__device__ __forceinline__ void multiply_transposed(FragmentC (&c)[TILES], const FragmentA (&a)[K / 16], const unsigned char* tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < K / 16; kk++) {
#pragma unroll
        for (u32 n = 0; n < TILES; n += 2) {
            // Matrices: rows 0..8 and their next eight columns, then rows 8..16.
            u32 x[4];
            mma::load_matrices<false>(x, tile + swizzle<K>(8 * n + lane % 8 + lane / 16 * 8, 2 * kk + lane / 8 % 2));
            mma::multiply(c[n], a[kk], FragmentB{{x[0], x[1]}});
            mma::multiply(c[n + 1], a[kk], FragmentB{{x[2], x[3]}});
        }
    }
}

// c [16, K] += a [16, 8 TILES] · the tile's rows [8 TILES, K].
template <u32 K, u32 TILES>
__device__ __forceinline__ void multiply(FragmentC (&c)[K / 8], const FragmentA (&a)[TILES / 2], const unsigned char* tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < TILES / 2; kk++) {
#pragma unroll
        for (u32 n = 0; n < K / 8; n += 2) {
            // Matrices: columns 0..8 of rows 0..8 and 8..16, then columns 8..16.
            u32 x[4];
            mma::load_matrices<true>(x, tile + swizzle<K>(16 * kk + lane % 16, n + lane / 16));
            mma::multiply(c[n], a[kk], FragmentB{{x[0], x[1]}});
            mma::multiply(c[n + 1], a[kk], FragmentB{{x[2], x[3]}});
        }
    }
}

// Sums become left operands without leaving their lanes: two fragments C side by side hold the same elements as one A.
template <u32 TILES>
__device__ __forceinline__ void to_left(FragmentA (&a)[TILES / 2], const FragmentC (&c)[TILES]) {
#pragma unroll
    for (u32 n = 0; n < TILES; n++) {
        a[n / 2].x[n % 2 * 2] = pack(c[n].x[0], c[n].x[1]);
        a[n / 2].x[n % 2 * 2 + 1] = pack(c[n].x[2], c[n].x[3]);
    }
}

template <u32 TILES>
__device__ __forceinline__ void clear(FragmentC (&c)[TILES]) {
#pragma unroll
    for (u32 n = 0; n < TILES; n++) c[n] = FragmentC{{0.0f, 0.0f, 0.0f, 0.0f}};
}

// Writes sums c · factor[0 or 1: upper or lower half of the rows] to rows first + row.. of `to` where they are in from..until. They go through the
// warp's rows row.. of a tile that nobody else reads any more, so that a lane writes 16 bytes.
template <u32 K>
__device__ __forceinline__ void store(const Rows<bf16>& to, unsigned char* tile, u32 row, u32 first, u32 from, u32 until,
                                      const FragmentC (&c)[K / 8], float factor0, float factor1) {
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (u32 n = 0; n < K / 8; n++) {
        *(u32*)(tile + swizzle<K>(row + g, n) + 4 * t) = pack(c[n].x[0] * factor0, c[n].x[1] * factor0);
        *(u32*)(tile + swizzle<K>(row + g + 8, n) + 4 * t) = pack(c[n].x[2] * factor1, c[n].x[3] * factor1);
    }
    __syncwarp();
#pragma unroll
    for (u32 i = lane; i < 16 * (K / 8); i += 32) {
        const u32 r = row + i / (K / 8), chunk = i % (K / 8), at = first + r;
        if (at >= from && at < until) *(uint4*)(to(at) + 8 * chunk) = *(const uint4*)(tile + swizzle<K>(r, chunk));
    }
}

// Shifts `bits` left by one, and sets the lowest bit if `word` is at least the threshold. `complement` is 2³² - threshold: its sum with `word` carries then.
__device__ __forceinline__ u32 append_kept(u32 bits, u32 word, u32 complement) {
#ifdef CUDA_SHIM
    return 2 * bits + (word + complement < word ? 1 : 0);
#else
    asm("{.reg .u32 sum;\n add.cc.u32 sum, %1, %2;\n addc.u32 %0, %0, %0;}" : "+r"(bits) : "r"(word), "r"(complement));
    return bits;
#endif
}

// Which weights are kept: bit 4n + i tells of c[n].x[i]. The rows of the scores are queries query.. + 16, the columns keys key.. + 8 TILES. One draw
// gives four neighbouring keys of a query. Two neighbouring lanes hold these keys, two each, in the rows g and g + 8: the even lane draws for row g, the odd
// one for row g + 8, and they exchange. key is a multiple of 4.
template <u32 TILES>
__device__ __forceinline__ u32 kept_by_query(const Inputs<bf16>& in, const Task& task, u32 query, u32 key) {
    static_assert(TILES <= 8, "4 bits a tile");
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, odd = lane % 2;
    u32 own = 0;
    // The last bit first.
#pragma unroll
    for (u32 n = TILES; n-- > 0;) {
        const Words words = philox(in.keys, key / 4 + 2 * n + t / 2, task.head << 16 | (query + g + 8 * odd), in.site, task.example);
#pragma unroll
        for (u32 i = 4; i-- > 0;) own = append_kept(own, words.x[i], 0 - in.threshold);
    }
    const u32 other = __shfl_xor_sync(0xFFFFFFFFu, own, 1);
    const u32 low = 0x33333333, high = 0xCCCCCCCC;
    return odd ? (other >> 2 & low) | (own & high) : (own & low) | (other & low) << 2;
}

// Where in `kept` the words of 16 queries and 64 keys are: the queries of the sequence from `query` on, and the keys of its tile `tile`.
template <typename T>
__device__ __forceinline__ u32* kept_words(const Inputs<T>& in, const Task& task, u32 query, u32 tile) {
    const u32 rows = in.tq / 16 + gridDim.z + 1, row = task.q_first / 16 + task.sequence + query / 16;
    return in.kept + (((size_t)task.head * rows + row) * in.kept_tiles + tile) * 32;
}

// The lane's word among them: it holds what kept_by_query<8> gives the lane. The words of two neighbouring g are neighbours, for kept_by_key.
__device__ __forceinline__ u32 kept_place() {
    const u32 lane = threadIdx.x % 32;
    return lane % 4 * 8 + lane / 4;
}

// The same for scores whose rows are keys first + row.. + 16 and whose columns are queries query.. + 32, from what forward stored: bit
// 4 (i / 2) + 2 (n % 2) of words[n / 2][i % 2] tells of c[n].x[i]. Words past the last query may be any: the weights there are 0.
__device__ __forceinline__ void kept_by_key(const Inputs<bf16>& in, const Task& task, u32 first, u32 row, u32 query, u32 (&words)[2][2]) {
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u64 two = in.threshold ? *(const u64*)(kept_words(in, task, query + 16 * half, first / 64) + g / 2 * 8 + 2 * t) : ~0ull;
        words[half][0] = (u32)two >> (row / 2 + g % 2);
        words[half][1] = (u32)(two >> 32) >> (row / 2 + g % 2);
    }
}

// y and lse. Owns queries, meets keys. Shared memory: 5 tiles of 64 · 2K bytes. Bound, by count, by the instructions that are
// issued, not by the tensor cores: a warp issues 1,089 for a tile of K = 64 (sm_90, scripts/kernel-counts). About 400 of them draw the dropout, and 64 are products.
// 128 registers: 4 blocks share an SM.
template <u32 K>
__device__ __forceinline__ void forward(const Inputs<bf16>& in, bf16* y, float* lse) {
    constexpr u32 TILES = KEYS_FORWARD / 8, TILE = KEYS_FORWARD * K * 2;
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nq) return;
    unsigned char* q_tile = memory;
    unsigned char* k_tiles = q_tile + OWN * K * 2;
    unsigned char* v_tiles = k_tiles + 2 * TILE;
    const Rows<const bf16> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, K);
    const Rows<const bf16> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, K);
    const auto load = [&](u32 step) { load_step<K, KEYS_FORWARD>(k_tiles, k_rows, v_tiles, v_rows, step, task.nk); };
    load_tile<K, OWN>(q_tile, query_rows(in.q, in.ldq, K, task), first, task.nq);
    load(0);

    // Of rows g and g + 8: the greatest product, and the lane's share of Σ exp(score - greatest).
    float greatest[2] = {-infinity(), -infinity()}, total[2] = {0.0f, 0.0f};
    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nq;    // a warp without queries only copies
    FragmentA q[K / 16];
    FragmentC sum[K / 8];
    clear(sum);
    for (u32 step = 0; step * KEYS_FORWARD < task.nk; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        if (step == 0) load_left<K>(q, q_tile, row);
        if (busy) {
            const u32 j0 = step * KEYS_FORWARD;
            FragmentC s[TILES];
            clear(s);
            multiply_transposed<K, TILES>(s, q, k_tiles + step % 2 * TILE);
            if (j0 + KEYS_FORWARD > task.nk) {
#pragma unroll
                for (u32 n = 0; n < TILES; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++)
                        if (j0 + 8 * n + lane % 4 * 2 + i % 2 >= task.nk) s[n].x[i] = -infinity();
            }
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float top = greatest[half];
#pragma unroll
                for (u32 n = 0; n < TILES; n++) top = fmaxf(top, fmaxf(s[n].x[2 * half], s[n].x[2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
                const float shrink = mma::exp2_approximate((greatest[half] - top) * scale);
                greatest[half] = top;
                total[half] *= shrink;
#pragma unroll
                for (u32 n = 0; n < K / 8; n++) {
                    sum[n].x[2 * half] *= shrink;
                    sum[n].x[2 * half + 1] *= shrink;
                }
#pragma unroll
                for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                    for (u32 i = 2 * half; i < 2 * half + 2; i++) {
                        s[n].x[i] = mma::exp2_approximate(s[n].x[i] * scale - top * scale);
                        total[half] += s[n].x[i];
                    }
                }
            }
            if (in.threshold) {
                const u32 kept = kept_by_query<TILES>(in, task, first + row, j0);
                if (in.kept) kept_words(in, task, first + row, step)[kept_place()] = kept;
#pragma unroll
                for (u32 n = 0; n < TILES; n++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++) s[n].x[i] = kept >> (4 * n + i) & 1 ? s[n].x[i] : 0.0f;
            }
            FragmentA p[TILES / 2];
            to_left(p, s);
            multiply<K, TILES>(sum, p, v_tiles + step % 2 * TILE);
        }
    }
    if (!busy) return;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(0xFFFFFFFFu, total[half], 1);
        total[half] += __shfl_xor_sync(0xFFFFFFFFu, total[half], 2);
        const u32 i = first + row + lane / 4 + 8 * half;
        if (lse && lane % 4 == 0 && i < task.nq)
            lse[task.head * (size_t)in.tq + task.q_first + i] = greatest[half] * in.scale + logf(total[half]);
    }
    const Rows<bf16> y_rows = query_rows(y, task.heads * K, K, task);
    store<K>(y_rows, q_tile, row, first, 0, task.nq, sum, in.keep / total[0], in.keep / total[1]);
}

// dq. Owns queries, meets keys. Shared memory: 2 tiles of 64 · 2K bytes and 4 of 32 · 2K. Bound, by count, by loads from shared
// memory (32 ldmatrix of 512 bytes a tile), and close to it by instructions issued. A key tile is half as long as forward's, since two kinds of scores and two left operands
// stay in registers: at most 168, 3 blocks to an SM (4 if K = 32).
template <u32 K>
__device__ __forceinline__ void backward_queries(const Inputs<bf16>& in, const bf16* dy, const float* lse, const float* delta, bf16* dq) {
    static_assert(2 * KEYS_BACKWARD == KEYS_FORWARD, "a word of forward has two steps");
    constexpr u32 TILES = KEYS_BACKWARD / 8, TILE = KEYS_BACKWARD * K * 2;
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nq) return;
    unsigned char* q_tile = memory;
    unsigned char* g_tile = q_tile + OWN * K * 2;
    unsigned char* k_tiles = g_tile + OWN * K * 2;
    unsigned char* v_tiles = k_tiles + 2 * TILE;
    const Rows<const bf16> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, K);
    const Rows<const bf16> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, K);
    const auto load = [&](u32 step) { load_step<K, KEYS_BACKWARD>(k_tiles, k_rows, v_tiles, v_rows, step, task.nk); };
    load_tile<K, OWN>(q_tile, query_rows(in.q, in.ldq, K, task), first, task.nq);
    load_tile<K, OWN>(g_tile, query_rows(dy, task.heads * K, K, task), first, task.nq);
    load(0);

    // lse (to base 2) and δ of rows g and g + 8. An infinite lse makes every weight of a row past the end 0.
    float lse2[2], shift[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 i = first + row + lane / 4 + 8 * half;
        const size_t at = task.head * (size_t)in.tq + task.q_first + i;
        lse2[half] = i < task.nq ? lse[at] * LOG2_E : infinity();
        shift[half] = i < task.nq ? delta[at] : 0.0f;
    }
    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nq;
    FragmentA q[K / 16], g[K / 16];
    FragmentC sum[K / 8];
    clear(sum);
    for (u32 step = 0; step * KEYS_BACKWARD < task.nk; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        if (step == 0) {
            load_left<K>(q, q_tile, row);
            load_left<K>(g, g_tile, row);
        }
        if (busy) {
            const u32 j0 = step * KEYS_BACKWARD;
            // The first or second half of the word that forward stored for 64 keys.
            const u32 kept = in.threshold ? kept_words(in, task, first + row, step / 2)[kept_place()] >> step % 2 * 16 : ~0u;
            FragmentC s[TILES], dp[TILES];
            clear(s);
            clear(dp);
            multiply_transposed<K, TILES>(s, q, k_tiles + step % 2 * TILE);
            multiply_transposed<K, TILES>(dp, g, v_tiles + step % 2 * TILE);
            const bool last = j0 + KEYS_BACKWARD > task.nk;
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float p = mma::exp2_approximate(s[n].x[i] * scale - lse2[i / 2]);
                    const float dropped = kept >> (4 * n + i) & 1 ? dp[n].x[i] * in.keep : 0.0f;
                    s[n].x[i] = p * (dropped - shift[i / 2]);
                    if (last && j0 + 8 * n + lane % 4 * 2 + i % 2 >= task.nk) s[n].x[i] = 0.0f;
                }
            }
            FragmentA ds[TILES / 2];
            to_left(ds, s);
            multiply<K, TILES>(sum, ds, k_tiles + step % 2 * TILE);
        }
    }
    if (busy) store<K>(query_rows(dq, in.ldq, K, task), q_tile, row, first, 0, task.nq, sum, in.scale, in.scale);
}

// This sequence's share of the gradients of the extra rows: partial [B, extra, heads · K].
template <u32 K>
__device__ __forceinline__ void store_extra(float* partial, const Task& task, u32 extra, u32 first, const FragmentC (&c)[K / 8], float factor) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 j = first + lane / 4 + 8 * half;
        if (!partial || j >= extra) continue;
        float* to = partial + (((size_t)task.sequence * extra + j) * task.heads + task.head) * K + lane % 4 * 2;
#pragma unroll
        for (u32 n = 0; n < K / 8; n++) {
            to[8 * n] = c[n].x[2 * half] * factor;
            to[8 * n + 1] = c[n].x[2 * half + 1] * factor;
        }
    }
}

// dk and dv; of the extra rows this sequence's share, which attention_backward_extra sums. Owns keys, meets queries: the scores are made
// transposed, with keys as rows, so that they become left operands of both sums. Shared memory: 2 tiles of 64 · 2K bytes, 4 of 32 · 2K, and
// 2 · 2 · 32 floats. Bound, by count, by loads from shared memory (40 ldmatrix a tile). At most 168 registers: 3 blocks to an SM.
template <u32 K>
__device__ __forceinline__ void backward_keys(const Inputs<bf16>& in, const bf16* dy, const float* lse, const float* delta, bf16* dk, bf16* dv,
                                              float* extra_dk, float* extra_dv) {
    constexpr u32 ROWS = QUERIES_BACKWARD, TILES = ROWS / 8, TILE = ROWS * K * 2;
    static_assert(ROWS == 32, "kept_by_key has words for 32 queries");
    static_assert(2 * ROWS <= THREADS, "a thread brings one lse or δ");
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    if (!find_task(in, task) || first >= task.nk) return;
    unsigned char* k_tile = memory;
    unsigned char* v_tile = k_tile + OWN * K * 2;
    unsigned char* q_tiles = v_tile + OWN * K * 2;
    unsigned char* g_tiles = q_tiles + 2 * TILE;
    float* statistics = (float*)(g_tiles + 2 * TILE);    // [2 tiles][lse to base 2, δ][ROWS]
    const Rows<const bf16> q_rows = query_rows(in.q, in.ldq, K, task);
    const Rows<const bf16> g_rows = query_rows(dy, task.heads * K, K, task);
    const auto load = [&](u32 step) { load_step<K, ROWS>(q_tiles, q_rows, g_tiles, g_rows, step, task.nq); };
    // The thread's lse or δ of a tile. An infinite lse makes every weight of a query past the end 0.
    const auto statistic = [&](u32 step) {
        const u32 i = step * ROWS + threadIdx.x % ROWS;
        const bool is_lse = threadIdx.x < ROWS;
        if (threadIdx.x >= 2 * ROWS || i >= task.nq) return is_lse ? infinity() : 0.0f;
        const size_t at = task.head * (size_t)in.tq + task.q_first + i;
        return is_lse ? lse[at] * LOG2_E : delta[at];
    };
    load_tile<K, OWN>(k_tile, key_rows(in.k, in.extra_k, task, in.extra, in.ld, K), first, task.nk);
    load_tile<K, OWN>(v_tile, key_rows(in.v, in.extra_v, task, in.extra, in.ld, K), first, task.nk);
    load(0);
    if (threadIdx.x < 2 * ROWS) statistics[threadIdx.x] = statistic(0);

    const float scale = in.scale * LOG2_E;
    const bool busy = first + row < task.nk;
    FragmentA k[K / 16], v[K / 16];
    FragmentC k_sum[K / 8], v_sum[K / 8];
    clear(k_sum);
    clear(v_sum);
    for (u32 step = 0; step * ROWS < task.nq; step++) {
        mma::copy_wait<0>();
        __syncthreads();    // the tile is here, and all are done with the one before, whose place the next takes
        load(step + 1);
        const float next = statistic(step + 1);    // read now and stored after the sums: the read takes long
        if (step == 0) {
            load_left<K>(k, k_tile, row);
            load_left<K>(v, v_tile, row);
        }
        if (busy) {
            const unsigned char *q_tile = q_tiles + step % 2 * TILE, *g_tile = g_tiles + step % 2 * TILE;
            const float *lse2 = statistics + step % 2 * 2 * ROWS, *shift = lse2 + ROWS;
            u32 kept[2][2];
            kept_by_key(in, task, first, row, step * ROWS, kept);
            FragmentC p[TILES], ds[TILES];
            clear(p);
            clear(ds);
            multiply_transposed<K, TILES>(p, k, q_tile);
            multiply_transposed<K, TILES>(ds, v, g_tile);
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u32 query = 8 * n + lane % 4 * 2 + i % 2;
                    const bool keep = kept[n / 2][i % 2] >> (4 * (i / 2) + 2 * (n % 2)) & 1;
                    const float weight = mma::exp2_approximate(p[n].x[i] * scale - lse2[query]);
                    ds[n].x[i] = weight * ((keep ? ds[n].x[i] * in.keep : 0.0f) - shift[query]);
                    p[n].x[i] = keep ? weight : 0.0f;
                }
            }
            FragmentA left[TILES / 2];
            to_left(left, p);
            multiply<K, TILES>(v_sum, left, g_tile);
            to_left(left, ds);
            multiply<K, TILES>(k_sum, left, q_tile);
        }
        if (threadIdx.x < 2 * ROWS) statistics[(step + 1) % 2 * 2 * ROWS + threadIdx.x] = next;
    }
    if (!busy) return;
    store_extra<K>(extra_dk, task, in.extra, first + row, k_sum, in.scale);
    store_extra<K>(extra_dv, task, in.extra, first + row, v_sum, in.keep);
    // The rows of dk and dv are counted with the extra ones, which are not written here.
    const Rows<bf16> dk_rows = key_rows(dk, dk, task, in.extra, in.ld, K), dv_rows = key_rows(dv, dv, task, in.extra, in.ld, K);
    store<K>(dk_rows, k_tile, row, first, in.extra, task.nk, k_sum, in.scale, in.scale);
    store<K>(dv_rows, v_tile, row, first, in.extra, task.nk, v_sum, in.keep, in.keep);
}

// δ: a thread has eight columns, and K / 8 threads have a head of a row. Grid [ceil(Tq · heads · K / 2048)], block 256. Bound, by count, by memory: reads dy
// and y once.
template <u32 K>
__device__ __forceinline__ void backward_delta(const bf16* y, const bf16* dy, float* delta, u32 tq, u32 heads) {
    const u32 i = blockIdx.x * 256 + threadIdx.x, row_head = i / (K / 8);
    const bool valid = row_head < tq * heads;
    float sum = 0.0f;
    if (valid) {
        float a[8], b[8];
        load(dy + (size_t)8 * i, a);
        load(y + (size_t)8 * i, b);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum += a[j] * b[j];
    }
#pragma unroll
    for (u32 distance = K / 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (valid && i % (K / 8) == 0) delta[(size_t)(row_head % heads) * tq + row_head / heads] = sum;
}

}  // namespace tensor_core
}  // namespace attention

ATTENTION_FORWARD(attention_forward_bf16_w32, bf16, 4, tensor_core::forward<32>)
ATTENTION_FORWARD(attention_forward_bf16_w64, bf16, 4, tensor_core::forward<64>)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16_w32, bf16, 4, tensor_core::backward_queries<32>)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16_w64, bf16, 3, tensor_core::backward_queries<64>)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16_w32, bf16, 3, tensor_core::backward_keys<32>)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16_w64, bf16, 3, tensor_core::backward_keys<64>)

// δ of attention_backward_delta_bf16, for these head widths.
#define ATTENTION_BACKWARD_DELTA_TENSOR_CORE(NAME, K)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) NAME(const bf16* y, const bf16* dy, float* delta, u32 tq, u32 heads) {                   \
        attention::tensor_core::backward_delta<K>(y, dy, delta, tq, heads);                                                                    \
    }
ATTENTION_BACKWARD_DELTA_TENSOR_CORE(attention_backward_delta_bf16_w32, 32)
ATTENTION_BACKWARD_DELTA_TENSOR_CORE(attention_backward_delta_bf16_w64, 64)
