// Layer normalisation of rows s: s = x; or f ⊙ x + r at the end of a sublayer, f the factors of a dropout and r the residual; or the embeddings,
// words[ids[t]] + positions[p], p the place of row t in its sequence, where the rows of a prompt, if there is one, come before the words.
//
//   h = (s - mean) rstd      y = h γ + β      rstd = 1 / √(variance + eps), the variance by the centred sum over n
//   ds = rstd (q - mean(q) - h mean(q h)),  q = dy γ
//
// x, r, y, h, dy, ds [rows, cols]; γ, β [cols] f32; rstd [rows] f32. r null: no residual; h and rstd null: not wanted.
// words [V, cols], positions [M, cols], prompt [P, cols]; ids of the rows without a prompt; row_sequence [rows], offsets [B + 1].
// A warp has a row, held in shared memory: grid [ceil(rows / 8)], block 256, shared 8 · cols · 4 bytes. dγ = Σ dy h and dβ = Σ dy over the rows
// are column sums: see linear.cu. Bound by memory: forward reads x and r and writes y and h, backward reads dy and h and writes ds.
#include "common.cuh"

namespace layer_norm {

template <typename T>
struct Sublayer {
    const T *x, *residual;
    Drop drop;
    u32 cols;

    struct Row {
        const Sublayer& all;
        u32 row;

        // s in columns 4i..4i+3, those below cols.
        __device__ __forceinline__ void quad(u32 i, float (&s)[4]) const {
            const u64 at = (u64)row * all.cols + 4 * i;
            all.drop.factors(row, i, s);
            for (u32 j = 0; j < 4 && 4 * i + j < all.cols; j++) {
                s[j] *= widen(all.x[at + j]);
                if (all.residual) s[j] += widen(all.residual[at + j]);
            }
        }
    };

    __device__ __forceinline__ Row row(u32 row) const {
        return {*this, row};
    }
};

struct Embeddings {
    const u32 *ids, *row_sequence, *offsets;
    Table words, positions, prompt;
    u32 prompt_rows, cols;

    struct Row {
        Table own, positions;
        u64 own_at, position_at;
        u32 cols;

        __device__ __forceinline__ void quad(u32 i, float (&s)[4]) const {
            for (u32 j = 0; j < 4 && 4 * i + j < cols; j++) s[j] = own.at(own_at + 4 * i + j) + positions.at(position_at + 4 * i + j);
        }
    };

    __device__ __forceinline__ Row row(u32 row) const {
        const u32 b = row_sequence[row], place = row - offsets[b];
        const bool is_word = place >= prompt_rows;
        const u32 own = is_word ? ids[row - (b + 1) * prompt_rows] : place;
        return {is_word ? words : prompt, positions, (u64)own * cols, (u64)place * cols, cols};
    }
};

template <typename T, typename Rows>
__device__ __forceinline__ void forward(
    const Rows& from, const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols, float eps) {
    DYNAMIC_SHARED(memory);
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    float* s = (float*)memory + threadIdx.x / 32 * cols;
    if (row >= rows) return;
    const u64 at = (u64)row * cols;
    const typename Rows::Row own = from.row(row);
    float sum = 0.0f;
    for (u32 quad = lane; 4 * quad < cols; quad += 32) {
        float v[4];
        own.quad(quad, v);
        for (u32 c = 4 * quad; c < 4 * quad + 4 && c < cols; c++) {
            s[c] = v[c % 4];
            sum += v[c % 4];
        }
    }
    const float mean = warp_sum(sum) / (float)cols;
    // A lane reads what other lanes wrote from here on.
    __syncwarp();
    float squares = 0.0f;
    for (u32 c = lane; c < cols; c += 32) squares += (s[c] - mean) * (s[c] - mean);
    const float r = 1.0f / sqrtf(warp_sum(squares) / (float)cols + eps);
    for (u32 c = lane; c < cols; c += 32) {
        const float normal = (s[c] - mean) * r;
        y[at + c] = narrow<T>(normal * gamma[c] + beta[c]);
        if (h) h[at + c] = narrow<T>(normal);
    }
    if (rstd && lane == 0) rstd[row] = r;
}

template <typename T>
__device__ __forceinline__ void backward(const T* h, const float* rstd, const float* gamma, const T* dy, T* ds, u32 rows, u32 cols) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const u64 at = (u64)row * cols;
    float q = 0.0f, qh = 0.0f;
    for (u32 c = lane; c < cols; c += 32) {
        q += widen(dy[at + c]) * gamma[c];
        qh += widen(dy[at + c]) * gamma[c] * widen(h[at + c]);
    }
    q = warp_sum(q) / (float)cols;
    qh = warp_sum(qh) / (float)cols;
    for (u32 c = lane; c < cols; c += 32) {
        ds[at + c] = narrow<T>(rstd[row] * (widen(dy[at + c]) * gamma[c] - q - widen(h[at + c]) * qh));
    }
}

}  // namespace layer_norm

#define LAYER_NORM(TYPE, T)                                                                                                                   \
    KERNEL(layer_norm_forward_##TYPE)(const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols, float eps,          \
                                      const T* x, const T* residual, const u32* row_sequence, const u32* offsets, const u32* examples,        \
                                      u64 seed, u32 site, u32 threshold, float keep) {                                                        \
        const Drop drop = {row_sequence, offsets, examples, seed, site, threshold, keep};                                                     \
        const layer_norm::Sublayer<T> from = {x, residual, drop, cols};                                                                       \
        layer_norm::forward(from, gamma, beta, y, h, rstd, rows, cols, eps);                                                                  \
    }                                                                                                                                         \
    KERNEL(embedding_layer_norm_forward_##TYPE)(const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols,           \
                                                float eps, const u32* ids, const u32* row_sequence, const u32* offsets, const void* words,    \
                                                u32 words_bf16, const void* positions, u32 positions_bf16, const void* prompt,                \
                                                u32 prompt_bf16, u32 prompt_rows) {                                                           \
        const layer_norm::Embeddings from = {ids, row_sequence, offsets, {words, words_bf16}, {positions, positions_bf16},                    \
                                             {prompt, prompt_bf16}, prompt_rows, cols};                                                       \
        layer_norm::forward(from, gamma, beta, y, h, rstd, rows, cols, eps);                                                                  \
    }                                                                                                                                         \
    KERNEL(layer_norm_backward_##TYPE)(const T* h, const float* rstd, const float* gamma, const T* dy, T* ds, u32 rows, u32 cols) {           \
        layer_norm::backward(h, rstd, gamma, dy, ds, rows, cols);                                                                             \
    }
LAYER_NORM(f32, float)
LAYER_NORM(bf16, bf16)
