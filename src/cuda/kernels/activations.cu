// y = max(x, 0), y = tanh x, and GELU with the exact error function: y = x Φ(x), dy/dx = Φ(x) + x φ(x), Φ and φ the normal distribution and its density.
// A NaN in x is one in y and in dx; fmaxf(x, 0) would give 0.
// Any shape of n elements. A thread has eight: grid [ceil(n / 2048)], block 256. dx may be dy itself. ReLU is bound by memory; GELU, by count, about as much by the
// instructions of its error function and exponential as by memory.
#include "common.cuh"

namespace activations {

constexpr float SQRT_HALF = 0.707106781186547524f;
constexpr float DENSITY_AT_0 = 0.398942280401432678f;  // 1 / √(2π)

__device__ __forceinline__ float phi(float x) {
    return 0.5f + 0.5f * erff(x * SQRT_HALF);
}

template <typename T>
__device__ __forceinline__ void relu(const T* x, T* y, u64 n) {
    each(x, y, n, [](float x) { return x <= 0.0f ? 0.0f : x; });
}

// Where y is positive or NaN, x was.
template <typename T>
__device__ __forceinline__ void relu_backward(const T* y, const T* dy, T* dx, u64 n) {
    each(y, dy, dx, n, [](float y, float dy) { return y > 0.0f ? dy : y <= 0.0f ? 0.0f : y; });
}

template <typename T>
__device__ __forceinline__ void tanh(const T* x, T* y, u64 n) {
    const u64 i = element();
    if (i < n) y[i] = narrow<T>(tanhf(widen(x[i])));
}

template <typename T>
__device__ __forceinline__ void tanh_backward(const T* y, const T* dy, T* dx, u64 n) {
    const u64 i = element();
    if (i < n) dx[i] = narrow<T>(widen(dy[i]) * (1.0f - widen(y[i]) * widen(y[i])));
}

template <typename T>
__device__ __forceinline__ void gelu(const T* x, T* y, u64 n) {
    each(x, y, n, [](float x) { return x * phi(x); });
}

template <typename T>
__device__ __forceinline__ void gelu_backward(const T* from, const T* dy, T* dx, u64 n) {
    each(from, dy, dx, n, [](float x, float dy) { return dy * (phi(x) + x * DENSITY_AT_0 * expf(-0.5f * x * x)); });
}

}  // namespace activations

KERNEL(relu_forward_f32)(const float* x, float* y, u64 n) { activations::relu(x, y, n); }
KERNEL(relu_forward_bf16)(const bf16* x, bf16* y, u64 n) { activations::relu(x, y, n); }
KERNEL(relu_backward_f32)(const float* y, const float* dy, float* dx, u64 n) { activations::relu_backward(y, dy, dx, n); }
KERNEL(relu_backward_bf16)(const bf16* y, const bf16* dy, bf16* dx, u64 n) { activations::relu_backward(y, dy, dx, n); }
KERNEL(tanh_forward_f32)(const float* x, float* y, u64 n) { activations::tanh(x, y, n); }
KERNEL(tanh_forward_bf16)(const bf16* x, bf16* y, u64 n) { activations::tanh(x, y, n); }
KERNEL(tanh_backward_f32)(const float* y, const float* dy, float* dx, u64 n) { activations::tanh_backward(y, dy, dx, n); }
KERNEL(tanh_backward_bf16)(const bf16* y, const bf16* dy, bf16* dx, u64 n) { activations::tanh_backward(y, dy, dx, n); }
KERNEL(gelu_forward_f32)(const float* x, float* y, u64 n) { activations::gelu(x, y, n); }
KERNEL(gelu_forward_bf16)(const bf16* x, bf16* y, u64 n) { activations::gelu(x, y, n); }
KERNEL(gelu_backward_f32)(const float* x, const float* dy, float* dx, u64 n) { activations::gelu_backward(x, dy, dx, n); }
KERNEL(gelu_backward_bf16)(const bf16* x, const bf16* dy, bf16* dx, u64 n) { activations::gelu_backward(x, dy, dx, n); }
