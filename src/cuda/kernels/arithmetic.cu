// y = a + b, y = c a, and casts between f32 and bf16. Any shape of n elements. A thread has eight: grid [ceil(n / 2048)], block 256. y may be an input
// itself. Bound by memory: each element is read and written once.
#include "common.cuh"

KERNEL(add_f32)(const float* a, const float* b, float* y, u64 n) { each(a, b, y, n, [](float a, float b) { return a + b; }); }
KERNEL(add_bf16)(const bf16* a, const bf16* b, bf16* y, u64 n) { each(a, b, y, n, [](float a, float b) { return a + b; }); }
KERNEL(scale_f32)(const float* a, float* y, float c, u64 n) { each(a, y, n, [c](float a) { return c * a; }); }
KERNEL(scale_bf16)(const bf16* a, bf16* y, float c, u64 n) { each(a, y, n, [c](float a) { return c * a; }); }
KERNEL(cast_f32_bf16)(const float* x, bf16* y, u64 n) { each(x, y, n, [](float x) { return x; }); }
KERNEL(cast_bf16_f32)(const bf16* x, float* y, u64 n) { each(x, y, n, [](float x) { return x; }); }
