// y[t] = table[ids[t]], in y's type. table [V, cols], ids [rows], y [rows, cols]. A warp has a row: grid [ceil(rows / 8)], block 256. Bound by memory.
// The model's own lookups, with the layer norm after them, are in layer_norm.cu.
//
// dtable[v] = Σ dy[t] over the t with ids[t] = v, in a fixed order: the host lists the rows of each id that occurs, so that no two blocks write the
// same row and nothing depends on their order. unique [U], starts [U + 1], picked [rows]; dtable [V, cols] f32, zeroed before. A warp adds every eighth of the
// rows. Grid [U], block 256. Bound by memory.
#include "common.cuh"

namespace embedding {

template <bool VECTOR, typename To>
__device__ __forceinline__ void look_up(const Table& table, u64 from, To* to, u32 cols) {
#pragma unroll 1
    for (u32 octet = threadIdx.x % 32; octet < octets_of(cols); octet += 32) {
        float v[8];
        table.octet<VECTOR>(from + 8 * octet, count_in(octet, cols), v);
        store_some<VECTOR>(to + 8 * octet, count_in(octet, cols), v);
    }
}

template <typename To>
__device__ __forceinline__ void forward(const Table& table, const u32* ids, To* y, u32 rows, u32 cols) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    const u64 from = (u64)ids[row] * cols;
    if (cols % 8 == 0 && aligned((const char*)table.values, y)) look_up<true>(table, from, y + (u64)row * cols, cols);
    else look_up<false>(table, from, y + (u64)row * cols, cols);
}

template <bool VECTOR, typename T>
__device__ __forceinline__ void sum_rows(const T* dy, u32 start, u32 end, const u32* picked, float (&sum)[8], u32 octet, u32 cols) {
    if (octet >= octets_of(cols)) return;
#pragma unroll 1
    for (u32 i = start + threadIdx.x / 32; i < end; i += 8) {
        float v[8];
        load_some<VECTOR>(dy + (u64)picked[i] * cols + 8 * octet, count_in(octet, cols), v);
#pragma unroll
        for (u32 j = 0; j < 8; j++) sum[j] += v[j];
    }
}

template <typename T>
__device__ __forceinline__ void backward(const T* dy, const u32* unique, const u32* starts, const u32* picked, float* dtable, u32 cols) {
    const u32 u = blockIdx.x;
    const bool vector = cols % 8 == 0 && aligned(dy);
#pragma unroll 1
    for (u32 first = 0; first < cols; first += 256) {
        const u32 octet = first / 8 + threadIdx.x % 32, column = first + threadIdx.x;
        float sum[8] = {};
        if (vector) sum_rows<true>(dy, starts[u], starts[u + 1], picked, sum, octet, cols);
        else sum_rows<false>(dy, starts[u], starts[u + 1], picked, sum, octet, cols);
        const float total = block_columns(sum);
        if (column < cols) dtable[(u64)unique[u] * cols + column] = total;
    }
}

}  // namespace embedding

#define EMBEDDING(TYPE, T)                                                                                                                    \
    KERNEL(embedding_forward_##TYPE)(const void* table, u32 is_bf16, const u32* ids, T* y, u32 rows, u32 cols) {                              \
        embedding::forward({table, is_bf16}, ids, y, rows, cols);                                                                             \
    }                                                                                                                                         \
    KERNEL(embedding_backward_##TYPE)(const T* dy, const u32* unique, const u32* starts, const u32* picked, float* dtable, u32 cols) {        \
        embedding::backward(dy, unique, starts, picked, dtable, cols);                                                                        \
    }
EMBEDDING(f32, float)
EMBEDDING(bf16, bf16)
