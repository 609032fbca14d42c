// y = a + b, y = c a, and casts between f32 and bf16. Any shape of n elements. Grid [ceil(n / 256)], block 256. y may be an input itself.
// Bound by memory: each element is read and written once.
#include "common.cuh"

namespace arithmetic {

template <typename T>
__device__ __forceinline__ void add(const T* a, const T* b, T* y, u64 n) {
    const u64 i = element();
    if (i < n) y[i] = narrow<T>(widen(a[i]) + widen(b[i]));
}

template <typename T>
__device__ __forceinline__ void scale(const T* a, T* y, float c, u64 n) {
    const u64 i = element();
    if (i < n) y[i] = narrow<T>(c * widen(a[i]));
}

template <typename From, typename To>
__device__ __forceinline__ void cast(const From* x, To* y, u64 n) {
    const u64 i = element();
    if (i < n) y[i] = narrow<To>(widen(x[i]));
}

}  // namespace arithmetic

KERNEL(add_f32)(const float* a, const float* b, float* y, u64 n) { arithmetic::add(a, b, y, n); }
KERNEL(add_bf16)(const bf16* a, const bf16* b, bf16* y, u64 n) { arithmetic::add(a, b, y, n); }
KERNEL(scale_f32)(const float* a, float* y, float c, u64 n) { arithmetic::scale(a, y, c, n); }
KERNEL(scale_bf16)(const bf16* a, bf16* y, float c, u64 n) { arithmetic::scale(a, y, c, n); }
KERNEL(cast_f32_bf16)(const float* x, bf16* y, u64 n) { arithmetic::cast(x, y, n); }
KERNEL(cast_bf16_f32)(const bf16* x, float* y, u64 n) { arithmetic::cast(x, y, n); }
