// The part of CUDA C++ that the kernels use, on a CPU: one fiber for each thread of a block, blocks one after another. Included before the kernels
// by the compiler's -include. Barriers, shuffles and votes yield to the other fibers until all have come; a barrier that some never reach is told
// as a deadlock. SHIM_ORDER=reverse|random runs the threads of a block in another order: a missing barrier then shows.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define CUDA_SHIM 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Blocks run one at a time, so that a static is the block's own.
#define __shared__ static

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace shim {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    Index thread;
    unsigned linear = 0;
    bool done = false;
};

// How many have come, and how often all had.
struct Barrier {
    unsigned arrived = 0;
    unsigned long generation = 0;
};

// Enough for the largest kernel under AddressSanitizer, whose frames are wide.
constexpr size_t STACK = 256 * 1024;

inline Index block_index, block_size, grid_size;
inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline void* scheduler = nullptr;
inline Barrier block_barrier;
inline std::vector<Barrier> warp_barriers;
inline std::vector<uint64_t> warp_slots;
inline std::vector<unsigned> warp_alive;
inline unsigned alive = 0;
// Grows whenever a fiber gets further; if a whole round does not move it, no round will.
inline unsigned long progress = 0;
inline std::vector<unsigned char> dynamic;
inline void (*body)(void**) = nullptr;
inline void** body_arguments = nullptr;

// Saves the callee-saved registers and the stack pointer to *save, and goes on from `load` (x86-64, System V).
extern "C" void shim_switch(void** save, void* load);
asm(R"(.text
.weak shim_switch
.type shim_switch,@function
shim_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi); movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size shim_switch,.-shim_switch
)");

inline void yield() {
    shim_switch(&current->stack_pointer, scheduler);
}

inline void entry() {
    body(body_arguments);
    current->done = true;
    ++progress;
    --alive;
    --warp_alive[current->linear / 32];
    for (;;) yield();
}

template <class Expected>
inline void wait(Barrier& barrier, Expected expected) {
    const unsigned long generation = barrier.generation;
    ++barrier.arrived;
    ++progress;
    while (barrier.generation == generation) {
        // Threads that have returned are not waited for.
        if (barrier.arrived >= expected()) {
            barrier.arrived = 0;
            ++barrier.generation;
            ++progress;
            return;
        }
        yield();
    }
}

inline unsigned lane() {
    return current->linear % 32;
}

inline unsigned warp() {
    return current->linear / 32;
}

inline void warp_sync() {
    const unsigned own = warp();
    wait(warp_barriers[own], [own] { return warp_alive[own]; });
}

// Every lane shows a value, and reads that of lane `source`.
template <class T>
inline T exchange(T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "a register or two");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    warp_slots[warp() * 32 + lane()] = bits;
    warp_sync();
    T result;
    memcpy(&result, &warp_slots[warp() * 32 + source % 32], sizeof result);
    warp_sync();
    return result;
}

inline unsigned char* dynamic_shared() {
    return dynamic.data() + (16 - (uintptr_t)dynamic.data() % 16) % 16;
}

inline void prepare(Fiber& fiber, unsigned i) {
    fiber.linear = i;
    fiber.done = false;
    fiber.thread = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    // A stack that shim_switch can return from into `entry`: its address under six registers.
    void** top = (void**)(fiber.stack + STACK - 64);
    *--top = nullptr;
    *--top = (void*)entry;
    for (int k = 0; k < 6; k++) *--top = nullptr;
    fiber.stack_pointer = top;
}

inline void run_block(unsigned threads) {
    while (fibers.size() < threads) {
        fibers.emplace_back();
        fibers.back().stack = (char*)aligned_alloc(64, STACK);
    }
    const unsigned warps = (threads + 31) / 32;
    warp_barriers.assign(warps, {});
    warp_slots.assign(warps * 32, 0);
    warp_alive.assign(warps, 0);
    block_barrier = {};
    alive = threads;
    std::vector<unsigned> order(threads);
    const char* wanted = getenv("SHIM_ORDER");
    const char kind = wanted ? *wanted : 'f';
    for (unsigned i = 0; i < threads; i++) {
        prepare(fibers[i], i);
        warp_alive[i / 32]++;
        order[i] = kind == 'r' && wanted[1] == 'e' ? threads - 1 - i : i;
    }
    static uint64_t random = 0x9E3779B97F4A7C15ull;
    while (alive) {
        const unsigned long before = progress;
        if (kind == 'r' && wanted[1] == 'a') {
            for (unsigned i = threads; i-- > 1;) {
                random ^= random << 13, random ^= random >> 7, random ^= random << 17;
                std::swap(order[i], order[random % (i + 1)]);
            }
        }
        for (unsigned i : order) {
            if (fibers[i].done) continue;
            current = &fibers[i];
            shim_switch(&scheduler, current->stack_pointer);
        }
        if (alive && progress == before) {
            fprintf(stderr, "shim: deadlock: not all threads of block (%u, %u, %u) reach a barrier\n", block_index.x, block_index.y, block_index.z);
            abort();
        }
    }
}

inline void launch(Index grid, Index block, size_t shared, void (*kernel)(void**), void** arguments) {
    grid_size = grid, block_size = block, body = kernel, body_arguments = arguments;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                // NaNs: what is read before it is written shows. The vector is as long as asked for, so that a sanitizer sees its end.
                dynamic.assign(shared + 16, 0xFF);
                block_index = {x, y, z};
                run_block(block.x * block.y * block.z);
            }
        }
    }
}

// Calls a kernel with arguments given by their addresses, as cuLaunchKernel has them.
template <auto Kernel>
struct Call;
template <class... A, void (*Kernel)(A...)>
struct Call<Kernel> {
    template <size_t... I>
    static void with(void** arguments, std::index_sequence<I...>) {
        Kernel(*(std::remove_reference_t<A>*)arguments[I]...);
    }
    static void run(void** arguments) {
        with(arguments, std::index_sequence_for<A...>{});
    }
};

}  // namespace shim

#define threadIdx (shim::current->thread)
#define blockIdx (shim::block_index)
#define blockDim (shim::block_size)
#define gridDim (shim::grid_size)

static inline void __syncthreads() {
    shim::wait(shim::block_barrier, [] { return shim::alive; });
}
static inline void __syncwarp(unsigned = ~0u) {
    shim::warp_sync();
}
template <class T>
static inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return shim::exchange(value, shim::lane() ^ mask);
}
template <class T>
static inline T __shfl_sync(unsigned, T value, int source) {
    return shim::exchange(value, source);
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// What the driver's stand-in launches.
#define SHIM_EXPORT(KERNEL)                                                                                                                   \
    extern "C" void shim_launch_##KERNEL(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,       \
                                         void** arguments) {                                                                                  \
        shim::launch({gx, gy, gz}, {bx, by, bz}, shared, shim::Call<&KERNEL>::run, arguments);                                                \
    }
