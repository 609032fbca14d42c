// Layer normalisation of rows s: s = x; or f ⊙ x + r at the end of a sublayer, f the factors of a dropout and r the residual; or the embeddings,
// words[ids[t]] + positions[p], p the place of row t in its sequence, where the rows of a prompt, if there is one, come before the words.
//
//   h = (s - mean) rstd      y = h γ + β      rstd = 1 / √(variance + eps), the variance by the centred sum over n
//   ds = rstd (q - mean(q) - h mean(q h)),  q = dy γ      dx = f ⊙ ds      dr = ds
//
// Of the embeddings, y goes through a dropout of its own.
//
// x, r, y, h, dy, ds, dx [rows, cols]; γ, β [cols] f32; rstd [rows] f32. r null: no residual; h, rstd, ds or dx null: not wanted. dy may come in two parts, dy and more,
// where two ops read y: their sum is made here. more null: there is one part.
// words [V, cols], positions [M, cols], prompt [P, cols]; ids of the rows without a prompt; row_sequence [rows], offsets [B + 1].
// A warp has a row, held in shared memory, where each lane reads what it wrote: grid [ceil(rows / 8)], block 256, shared 8 rows of 8 ceil(cols / 8) elements, of
// f32 in forward, of f32 and of T in backward. dγ = Σ dy h and dβ = Σ dy over the rows are column sums: see linear.cu. Bound, by count, by memory: forward reads x
// and r and writes y and h, backward reads dy, more and h and writes ds and dx, each once.
#include "common.cuh"

namespace layer_norm {

template <typename T>
struct Sublayer {
    const T *x, *residual;
    Drop drop;
    u32 cols;

    struct Row {
        const Sublayer& all;
        u64 at;
        Drop::Row own;

        // s in columns 8i..8i+7, zeros past `count`.
        template <bool VECTOR>
        __device__ __forceinline__ void octet(u32 i, u32 count, float (&s)[8]) const {
            load_some<VECTOR>(all.x + at + 8 * i, count, s);
            all.drop.apply(own, i, s);
            if (!all.residual) return;
            float r[8];
            load_some<VECTOR>(all.residual + at + 8 * i, count, r);
#pragma unroll
            for (u32 j = 0; j < 8; j++) s[j] += r[j];
        }

        __device__ __forceinline__ void after(u32, float (&)[8]) const {}
    };

    __device__ __forceinline__ Row row(u32 row) const {
        return {*this, (u64)row * cols, drop.row(row)};
    }

    __device__ __forceinline__ bool in_octets() const {
        return aligned(x, residual);
    }
};

struct Embeddings {
    const u32* ids;
    Drop drop;
    Table words, positions, prompt;
    u32 prompt_rows, cols;

    struct Row {
        const Embeddings& all;
        Table from;
        u64 own_at, position_at;
        Drop::Row own;

        template <bool VECTOR>
        __device__ __forceinline__ void octet(u32 i, u32 count, float (&s)[8]) const {
            from.octet<VECTOR>(own_at + 8 * i, count, s);
            float p[8];
            all.positions.octet<VECTOR>(position_at + 8 * i, count, p);
#pragma unroll
            for (u32 j = 0; j < 8; j++) s[j] += p[j];
        }

        __device__ __forceinline__ void after(u32 i, float (&y)[8]) const {
            all.drop.apply(own, i, y);
        }
    };

    __device__ __forceinline__ Row row(u32 row) const {
        const u32 b = drop.row_sequence[row], place = row - drop.offsets[b];
        const bool is_word = place >= prompt_rows;
        const u32 own = is_word ? ids[row - (b + 1) * prompt_rows] : place;
        return {*this, is_word ? words : prompt, (u64)own * cols, (u64)place * cols, drop.row(row)};
    }

    __device__ __forceinline__ bool in_octets() const {
        return aligned((const char*)words.values, (const char*)positions.values, (const char*)prompt.values);
    }
};

template <bool VECTOR, typename T, typename Rows>
__device__ __forceinline__ void normalise(
    const Rows& from, const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 row, u32 cols, float eps) {
    DYNAMIC_SHARED(memory);
    const u32 lane = threadIdx.x % 32, octets = octets_of(cols);
    float* s = (float*)memory + (u64)threadIdx.x / 32 * 8 * octets;
    const u64 at = (u64)row * cols;
    const typename Rows::Row own = from.row(row);
    float sum = 0.0f;
#pragma unroll 1
    for (u32 octet = lane; octet < octets; octet += 32) {
        float v[8];
        own.template octet<VECTOR>(octet, count_in(octet, cols), v);
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            if (VECTOR || j < count_in(octet, cols)) sum += v[j];
        store(s + 8 * octet, v);
    }
    const float mean = warp_sum(sum) / (float)cols;
    float squares = 0.0f;
#pragma unroll 1
    for (u32 octet = lane; octet < octets; octet += 32) {
        float v[8];
        load((const float*)s + 8 * octet, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            if (VECTOR || j < count_in(octet, cols)) squares += (v[j] - mean) * (v[j] - mean);
    }
    const float r = 1.0f / sqrtf(warp_sum(squares) / (float)cols + eps);
#pragma unroll 1
    for (u32 octet = lane; octet < octets; octet += 32) {
        const u32 c = 8 * octet, count = count_in(octet, cols);
        float v[8], g[8], b[8];
        load((const float*)s + c, v);
        load_some<VECTOR>(gamma + c, count, g);
        load_some<VECTOR>(beta + c, count, b);
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            v[j] = (v[j] - mean) * r;
            g[j] = v[j] * g[j] + b[j];
        }
        own.after(octet, g);
        store_some<VECTOR>(y + at + c, count, g);
        if (h) store_some<VECTOR>(h + at + c, count, v);
    }
    if (rstd && lane == 0) rstd[row] = r;
}

template <typename T, typename Rows>
__device__ __forceinline__ void forward(
    const Rows& from, const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols, float eps) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    if (cols % 8 == 0 && from.in_octets() && aligned(gamma, beta, y, h)) normalise<true>(from, gamma, beta, y, h, rstd, row, cols, eps);
    else normalise<false>(from, gamma, beta, y, h, rstd, row, cols, eps);
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void gradient(
    const T* h, const float* rstd, const float* gamma, const T* dy, const T* more, T* ds, T* dx, const Drop& drop, u32 row, u32 cols) {
    DYNAMIC_SHARED(memory);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, octets = octets_of(cols);
    float* q_row = (float*)memory + (u64)warp * 8 * octets;
    T* h_row = (T*)((float*)memory + (u64)8 * 8 * octets) + (u64)warp * 8 * octets;
    const u64 at = (u64)row * cols;
    const Drop::Row own = drop.row(row);
    float mean_q = 0.0f, mean_qh = 0.0f;
#pragma unroll 1
    for (u32 octet = lane; octet < octets; octet += 32) {
        const u32 c = 8 * octet, count = count_in(octet, cols);
        float q[8], second[8], v[8];
        load_some<VECTOR>(dy + at + c, count, q);
        if (more) {
            load_some<VECTOR>(more + at + c, count, second);
#pragma unroll
            for (u32 j = 0; j < 8; j++) q[j] += second[j];
        }
        load_some<VECTOR>(gamma + c, count, second);
        load_some<VECTOR>(h + at + c, count, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            q[j] *= second[j];
            mean_q += q[j];
            mean_qh += q[j] * v[j];
        }
        store(q_row + c, q);
        store(h_row + c, v);
    }
    mean_q = warp_sum(mean_q) / (float)cols;
    mean_qh = warp_sum(mean_qh) / (float)cols;
    const float r = rstd[row];
#pragma unroll 1
    for (u32 octet = lane; octet < octets; octet += 32) {
        const u32 c = 8 * octet, count = count_in(octet, cols);
        float q[8], v[8];
        load((const float*)q_row + c, q);
        load((const T*)h_row + c, v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) q[j] = r * (q[j] - mean_q - v[j] * mean_qh);
        if (ds) store_some<VECTOR>(ds + at + c, count, q);
        if (dx) {
            drop.apply(own, octet, q);
            store_some<VECTOR>(dx + at + c, count, q);
        }
    }
}

template <typename T>
__device__ __forceinline__ void backward(const T* h, const float* rstd, const float* gamma, const T* dy, const T* more, T* ds, T* dx,
                                         const Drop& drop, u32 rows, u32 cols) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    if (cols % 8 == 0 && aligned(h, gamma, dy, more, ds, dx)) gradient<true>(h, rstd, gamma, dy, more, ds, dx, drop, row, cols);
    else gradient<false>(h, rstd, gamma, dy, more, ds, dx, drop, row, cols);
}

}  // namespace layer_norm

#define LAYER_NORM(TYPE, T)                                                                                                                   \
    KERNEL(layer_norm_forward_##TYPE)(const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols, float eps,          \
                                      const T* x, const T* residual, const u32* row_sequence, const u32* offsets, const u32* examples,        \
                                      Keys keys, u32 site, u32 threshold, float keep) {                                                       \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                     \
        const layer_norm::Sublayer<T> from = {x, residual, drop, cols};                                                                       \
        layer_norm::forward(from, gamma, beta, y, h, rstd, rows, cols, eps);                                                                  \
    }                                                                                                                                         \
    KERNEL(embedding_layer_norm_forward_##TYPE)(const float* gamma, const float* beta, T* y, T* h, float* rstd, u32 rows, u32 cols,           \
                                                float eps, const u32* ids, const void* words, u32 words_bf16, const void* positions,          \
                                                u32 positions_bf16, const void* prompt, u32 prompt_bf16, u32 prompt_rows,                     \
                                                const u32* row_sequence, const u32* offsets, const u32* examples, Keys keys, u32 site,        \
                                                u32 threshold, float keep) {                                                                  \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                     \
        const layer_norm::Embeddings from = {ids, drop, {words, words_bf16}, {positions, positions_bf16}, {prompt, prompt_bf16},              \
                                             prompt_rows, cols};                                                                              \
        layer_norm::forward(from, gamma, beta, y, h, rstd, rows, cols, eps);                                                                  \
    }                                                                                                                                         \
    KERNEL(layer_norm_backward_##TYPE)(const T* h, const float* rstd, const float* gamma, const T* dy, const T* more, T* ds, T* dx,           \
                                       const u32* row_sequence, const u32* offsets, const u32* examples, u32 rows, u32 cols, Keys keys,       \
                                       u32 site, u32 threshold, float keep) {                                                                 \
        const Drop drop = {row_sequence, offsets, examples, keys, site, threshold, keep};                                                     \
        layer_norm::backward(h, rstd, gamma, dy, more, ds, dx, drop, rows, cols);                                                             \
    }
LAYER_NORM(f32, float)
LAYER_NORM(bf16, bf16)
