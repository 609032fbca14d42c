// The plain kernels of attention, and the two sums that both families need: see attention.cuh.
#include "attention.cuh"

namespace attention {
namespace plain {

// A block of WARPS warps owns OWN rows, OWN_WARP to a warp, and meets the rows of the other side OTHER at a time: a lane has one of them when
// scores are made, and every 32nd column when rows are summed. Launch: block 128, grid [ceil(longest sequence / 16), heads, B].
constexpr u32 WARPS = 4, OWN_WARP = 4, OWN = WARPS * OWN_WARP, OTHER = 32;
// Columns of a lane: head widths up to 128.
constexpr u32 PARTS = 4;

// Floats from one staged row to the next: odd, so that 32 lanes that read one column of 32 rows meet 32 banks.
__device__ __forceinline__ u32 stride_of(u32 width) {
    return width | 1;
}

// Rows first.. of `rows`, widened; zeros past `count`.
template <u32 ROWS, typename T>
__device__ __forceinline__ void stage(float* to, const Rows<T>& rows, u32 first, u32 count, u32 width) {
    for (u32 i = threadIdx.x; i < ROWS * width; i += WARPS * 32) {
        const u32 row = i / width, column = i % width;
        to[row * stride_of(width) + column] = first + row < count ? widen(rows(first + row)[column]) : 0.0f;
    }
}

// products[r] = a row of the lane · row r of the warp.
__device__ __forceinline__ void dot(float (&products)[OWN_WARP], const float* own, const float* other, u32 width) {
    const u32 stride = stride_of(width), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 r = 0; r < OWN_WARP; r++) products[r] = 0.0f;
#pragma unroll 4
    for (u32 c = 0; c < width; c++) {
        const float x = other[lane * stride + c];
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) products[r] += own[(warp * OWN_WARP + r) * stride + c] * x;
    }
}

// sum += Σ over the lanes of weight · row of that lane; each lane sums its own columns.
__device__ __forceinline__ void add_rows(float (&sum)[PARTS], float weight, const float* other, u32 width) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll 4
    for (u32 i = 0; i < OTHER; i++) {
        const float w = __shfl_sync(0xFFFFFFFFu, weight, i);
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
            const u32 column = part * 32 + lane;
            if (column < width) sum[part] += w * other[i * stride_of(width) + column];
        }
    }
}

template <typename T>
__device__ __forceinline__ void store(T* row, const float (&sum)[PARTS], float factor, u32 width) {
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
        const u32 column = part * 32 + threadIdx.x % 32;
        if (column < width) row[column] = narrow<T>(sum[part] * factor);
    }
}

// The dropout factor of one weight. Four neighbours draw the same words: simple, and four times the work.
template <typename T>
__device__ __forceinline__ float factor(const Inputs<T>& in, const Task& task, u32 query, u32 key) {
    if (in.threshold == 0) return 1.0f;
    const Words words = philox(in.keys, key / 4, task.head << 16 | query, in.site, task.example);
    return words.x[key % 4] >= in.threshold ? in.keep : 0.0f;
}

// y and lse. Owns queries, meets keys. Shared memory: (OWN + 2 OTHER) (K | 1) floats. Bound by loads from shared memory: 5 for 4 products.
template <typename T>
__device__ __forceinline__ void forward(const Inputs<T>& in, T* y, float* lse) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nq) return;
    float* q = (float*)memory;
    float* k = q + OWN * stride_of(width);
    float* v = k + OTHER * stride_of(width);
    const Rows<const T> q_rows = query_rows(in.q, in.ldq, width, task);
    const Rows<const T> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, width);
    const Rows<const T> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, width);
    stage<OWN>(q, q_rows, first, task.nq, width);

    // The softmax of what was met so far: its greatest score, Σ exp(score - greatest), and that sum with the values as weights.
    float greatest[OWN_WARP], total[OWN_WARP], sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++) {
        greatest[r] = -infinity();
        total[r] = 0.0f;
        for (u32 part = 0; part < PARTS; part++) sum[r][part] = 0.0f;
    }
    for (u32 j0 = 0; j0 < task.nk; j0 += OTHER) {
        __syncthreads();
        stage<OTHER>(k, k_rows, j0, task.nk, width);
        stage<OTHER>(v, v_rows, j0, task.nk, width);
        __syncthreads();
        const u32 j = j0 + lane;
        float scores[OWN_WARP];
        dot(scores, q, k, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const float score = j < task.nk ? scores[r] * in.scale : -infinity();
            const float top = fmaxf(greatest[r], warp_max(score));
            const float shrink = expf(greatest[r] - top), p = expf(score - top);
            greatest[r] = top;
            total[r] = total[r] * shrink + warp_sum(p);
            for (u32 part = 0; part < PARTS; part++) sum[r][part] *= shrink;
            add_rows(sum[r], p * factor(in, task, first + warp * OWN_WARP + r, j), v, width);
        }
    }
    const Rows<T> y_rows = query_rows(y, task.heads * width, width, task);
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 i = first + warp * OWN_WARP + r;
        if (i >= task.nq) break;
        store(y_rows(i), sum[r], 1.0f / total[r], width);
        if (lse && lane == 0) lse[task.head * (size_t)in.tq + task.q_first + i] = greatest[r] + logf(total[r]);
    }
}

// dq. Owns queries, meets keys. Shared memory: 2 (OWN + OTHER) (K | 1) floats. Bound as forward is.
template <typename T>
__device__ __forceinline__ void backward_queries(const Inputs<T>& in, const T* dy, const float* lse, const float* delta, T* dq) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nq) return;
    float* q = (float*)memory;
    float* g = q + OWN * stride_of(width);
    float* k = g + OWN * stride_of(width);
    float* v = k + OTHER * stride_of(width);
    const Rows<const T> k_rows = key_rows(in.k, in.extra_k, task, in.extra, in.ld, width);
    const Rows<const T> v_rows = key_rows(in.v, in.extra_v, task, in.extra, in.ld, width);
    stage<OWN>(q, query_rows(in.q, in.ldq, width, task), first, task.nq, width);
    stage<OWN>(g, query_rows(dy, task.heads * width, width, task), first, task.nq, width);

    float sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++)
        for (u32 part = 0; part < PARTS; part++) sum[r][part] = 0.0f;
    for (u32 j0 = 0; j0 < task.nk; j0 += OTHER) {
        __syncthreads();
        stage<OTHER>(k, k_rows, j0, task.nk, width);
        stage<OTHER>(v, v_rows, j0, task.nk, width);
        __syncthreads();
        const u32 j = j0 + lane;
        float scores[OWN_WARP], dp[OWN_WARP];
        dot(scores, q, k, width);
        dot(dp, g, v, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const u32 i = first + warp * OWN_WARP + r;
            float ds = 0.0f;
            if (i < task.nq && j < task.nk) {
                const size_t row = task.head * (size_t)in.tq + task.q_first + i;
                ds = expf(scores[r] * in.scale - lse[row]) * (factor(in, task, i, j) * dp[r] - delta[row]);
            }
            add_rows(sum[r], ds, k, width);
        }
    }
    const Rows<T> dq_rows = query_rows(dq, in.ldq, width, task);
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 i = first + warp * OWN_WARP + r;
        if (i < task.nq) store(dq_rows(i), sum[r], in.scale, width);
    }
}

// dk and dv; of the extra rows this sequence's share, which attention_backward_extra sums. Owns keys, meets queries. Shared memory as for dq.
template <typename T>
__device__ __forceinline__ void backward_keys(const Inputs<T>& in, const T* dy, const float* lse, const float* delta, T* dk, T* dv,
                                              float* extra_dk, float* extra_dv) {
    DYNAMIC_SHARED(memory);
    Task task;
    const u32 first = blockIdx.x * OWN, lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = in.width;
    if (!find_task(in, task) || first >= task.nk) return;
    float* k = (float*)memory;
    float* v = k + OWN * stride_of(width);
    float* q = v + OWN * stride_of(width);
    float* g = q + OTHER * stride_of(width);
    const Rows<const T> q_rows = query_rows(in.q, in.ldq, width, task);
    const Rows<const T> g_rows = query_rows(dy, task.heads * width, width, task);
    stage<OWN>(k, key_rows(in.k, in.extra_k, task, in.extra, in.ld, width), first, task.nk, width);
    stage<OWN>(v, key_rows(in.v, in.extra_v, task, in.extra, in.ld, width), first, task.nk, width);

    float k_sum[OWN_WARP][PARTS], v_sum[OWN_WARP][PARTS];
    for (u32 r = 0; r < OWN_WARP; r++)
        for (u32 part = 0; part < PARTS; part++) k_sum[r][part] = v_sum[r][part] = 0.0f;
    for (u32 i0 = 0; i0 < task.nq; i0 += OTHER) {
        __syncthreads();
        stage<OTHER>(q, q_rows, i0, task.nq, width);
        stage<OTHER>(g, g_rows, i0, task.nq, width);
        __syncthreads();
        const u32 i = i0 + lane;
        const size_t row = task.head * (size_t)in.tq + task.q_first + i;
        float scores[OWN_WARP], dp[OWN_WARP];
        dot(scores, k, q, width);
        dot(dp, v, g, width);
#pragma unroll
        for (u32 r = 0; r < OWN_WARP; r++) {
            const u32 j = first + warp * OWN_WARP + r;
            float p = 0.0f, ds = 0.0f;
            if (i < task.nq && j < task.nk) {
                const float f = factor(in, task, i, j);
                p = expf(scores[r] * in.scale - lse[row]);
                ds = p * (f * dp[r] - delta[row]);
                p *= f;
            }
            add_rows(k_sum[r], ds, q, width);
            add_rows(v_sum[r], p, g, width);
        }
    }
    const Rows<T> dk_rows = key_rows(dk, (T*)nullptr, task, 0, in.ld, width), dv_rows = key_rows(dv, (T*)nullptr, task, 0, in.ld, width);
    const size_t d = (size_t)task.heads * width;
#pragma unroll
    for (u32 r = 0; r < OWN_WARP; r++) {
        const u32 j = first + warp * OWN_WARP + r;
        if (j >= task.nk) break;
        if (j >= in.extra) {
            store(dk_rows(j - in.extra), k_sum[r], in.scale, width);
            store(dv_rows(j - in.extra), v_sum[r], 1.0f, width);
        } else if (extra_dk) {
            const size_t at = ((size_t)task.sequence * in.extra + j) * d + task.head * width;
            store(extra_dk + at, k_sum[r], in.scale, width);
            store(extra_dv + at, v_sum[r], 1.0f, width);
        }
    }
}

}  // namespace plain

// δ [heads, Tq]: a warp for each row and head. Bound by memory: reads dy and y once.
template <typename T>
__device__ __forceinline__ void backward_delta(const T* y, const T* dy, float* delta, u32 tq, u32 width) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, head = blockIdx.y;
    if (row >= tq) return;
    const size_t at = ((size_t)row * gridDim.y + head) * width;
    float sum = 0.0f;
    for (u32 c = threadIdx.x % 32; c < width; c += 32) sum += widen(dy[at + c]) * widen(y[at + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[(size_t)head * tq + row] = sum;
}

// Σ over the live sequences, in their order: partial [sequences, elements], out [elements]. A thread for each element. Bound by memory.
template <typename T>
__device__ __forceinline__ void backward_extra(const float* partial, T* out, const u32* live_sequences, u32 sequences, u32 elements) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const u32 live = live_sequences && *live_sequences < sequences ? *live_sequences : sequences;
    float sum = 0.0f;
    for (u32 b = 0; b < live; b++) sum += partial[(size_t)b * elements + i];
    out[i] = narrow<T>(sum);
}

}  // namespace attention

ATTENTION_FORWARD(attention_forward_f32, float, 4, plain::forward)
ATTENTION_FORWARD(attention_forward_bf16, bf16, 4, plain::forward)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_f32, float, 4, plain::backward_queries)
ATTENTION_BACKWARD_QUERIES(attention_backward_queries_bf16, bf16, 4, plain::backward_queries)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_f32, float, 4, plain::backward_keys)
ATTENTION_BACKWARD_KEYS(attention_backward_keys_bf16, bf16, 4, plain::backward_keys)

// delta = Σ dy ⊙ y over the columns of a head, before the other two: grid [ceil(Tq / 8), heads], block 256, no shared memory.
#define ATTENTION_BACKWARD_DELTA(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T* y, const T* dy, float* delta, u32 tq, u32 width) {                         \
        attention::backward_delta(y, dy, delta, tq, width);                                                                                    \
    }
ATTENTION_BACKWARD_DELTA(attention_backward_delta_f32, float)
ATTENTION_BACKWARD_DELTA(attention_backward_delta_bf16, bf16)

// The gradient of the extra keys, or of the extra values: out [elements] = Σ over the sequences of partial [sequences, elements], with
// elements = extra · heads · K. Grid [ceil(elements / 256)], block 256, no shared memory.
#define ATTENTION_BACKWARD_EXTRA(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) NAME(const float* partial, T* out, const u32* live_sequences, u32 sequences,             \
                                                           u32 elements) {                                                                     \
        attention::backward_extra(partial, out, live_sequences, sequences, elements);                                                          \
    }
ATTENTION_BACKWARD_EXTRA(attention_backward_extra_f32, float)
ATTENTION_BACKWARD_EXTRA(attention_backward_extra_bf16, bf16)
