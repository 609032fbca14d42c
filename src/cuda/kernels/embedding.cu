// y[t] = table[ids[t]], in y's type. table [V, cols], ids [rows], y [rows, cols]. Grid [ceil(rows · cols / 256)], block 256. Bound by memory.
// The model's own lookups, with the layer norm after them, are in layer_norm.cu.
//
// dtable[v] = Σ dy[t] over the t with ids[t] = v, in the order of t: the host lists the rows of each id that occurs, so that no two blocks write the
// same row and nothing depends on their order. unique [U], starts [U + 1], picked [rows]; dtable [V, cols] f32, zeroed before.
// Grid [U], block 256. Bound by memory.
#include "common.cuh"

namespace embedding {

template <typename To>
__device__ __forceinline__ void forward(const Table& table, const u32* ids, To* y, u64 n, u32 cols) {
    const u64 i = element();
    if (i < n) y[i] = narrow<To>(table.at((u64)ids[i / cols] * cols + i % cols));
}

template <typename T>
__device__ __forceinline__ void backward(const T* dy, const u32* unique, const u32* starts, const u32* picked, float* dtable, u32 cols) {
    const u32 u = blockIdx.x;
    for (u32 c = threadIdx.x; c < cols; c += 256) {
        float sum = 0.0f;
        for (u32 i = starts[u]; i < starts[u + 1]; i++) sum += widen(dy[(u64)picked[i] * cols + c]);
        dtable[(u64)unique[u] * cols + c] = sum;
    }
}

}  // namespace embedding

#define EMBEDDING(TYPE, T)                                                                                                                    \
    KERNEL(embedding_forward_##TYPE)(const void* table, u32 is_bf16, const u32* ids, T* y, u64 n, u32 cols) {                                \
        embedding::forward({table, is_bf16}, ids, y, n, cols);                                                                                \
    }                                                                                                                                         \
    KERNEL(embedding_backward_##TYPE)(const T* dy, const u32* unique, const u32* starts, const u32* picked, float* dtable, u32 cols) {    \
        embedding::backward(dy, unique, starts, picked, dtable, cols);                                                                     \
    }
EMBEDDING(f32, float)
EMBEDDING(bf16, bf16)
