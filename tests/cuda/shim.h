// The part of CUDA C++ that the kernels use, on a CPU: one fiber for each thread of a block, blocks one after another. Included before the kernels
// by the compiler's -include.
//
// A fiber is a stack of its own and a saved stack pointer. It runs until it comes to a barrier, a shuffle or a vote, and yields there to the other
// fibers until all have come. What goes wrong in a kernel shows:
//   - a barrier that some threads never reach is told as a deadlock;
//   - SHIM_ORDER=reverse|random runs the blocks, and the threads of a block, in another order (the default is forward), random threads at very
//     different speeds: a missing barrier, or a block that relies on another, gives other results. SHIM_SEED=N draws other random orders;
//   - an address that is not a multiple of what an access needs ends the program: -fsanitize=alignment looks at all accesses by a pointer, and
//     `need_aligned` is called where a twin of an instruction copies bytes;
//   - shared memory, static and dynamic, holds NaNs when a block starts: what is read before it is written gives NaNs;
//   - a stack that is too small ends in a segmentation fault at its guard page;
//   - with -fsanitize=address (load the library into a process that has the sanitizer, or preload libasan) an access outside of an array is told
//     with its line. Static shared arrays are then plain statics, which the sanitizer guards, and hold no NaNs.
// What does not show: speed, races between blocks, the memory model, the rounding of fast intrinsics.
#pragma once
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define CUDA_SHIM 1
#define __global__
#define __device__
#define __forceinline__ inline
// build.sh reads the bounds from the preprocessed sources.
#ifndef SHIM_LIST
#define __launch_bounds__(...)
#endif
#define __align__(n) alignas(n)
// Blocks run one at a time, so that a static is the block's own. Thread-local ones lie together in the library's TLS block, which poison_shared
// finds; the shim keeps nothing else there.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

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
    // AddressSanitizer's own record of the stack, while another runs.
    void* sanitizer = nullptr;
    Index thread;
    unsigned linear = 0;
    bool done = false;
};

// How many have come, and how often all had.
struct Barrier {
    unsigned arrived = 0;
    unsigned long generation = 0;
};

// Enough for the largest kernel under AddressSanitizer, whose frames are wide; pages that are never touched cost nothing.
constexpr size_t STACK = 256 * 1024, GUARD = 64 * 1024;

inline Index block_index, block_size, grid_size;
inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline void* scheduler = nullptr;
// The scheduler's stack, as AddressSanitizer wants to hear of it.
inline void* scheduler_sanitizer = nullptr;
inline const void* scheduler_bottom = nullptr;
inline size_t scheduler_size = 0;
inline Barrier block_barrier;
inline std::vector<Barrier> warp_barriers;
inline std::vector<uint64_t> warp_slots;
inline std::vector<unsigned> warp_alive;
inline unsigned alive = 0;
// Grows whenever a fiber gets further; if a whole round does not move it, no round will.
inline unsigned long progress = 0;
inline std::vector<unsigned char> dynamic;
inline void (*body)(void*) = nullptr;
inline void* body_arguments = nullptr;

// Whether SHIM_FAULT names this fault, which scripts/device-stand-ins put into a copy of the kernels.
inline bool planted(const char* fault) {
    static const char* const name = getenv("SHIM_FAULT");
    return name && !strcmp(name, fault);
}

// For random orders.
inline unsigned draw() {
    static uint64_t random = [] {
        const char* seed = getenv("SHIM_SEED");
        return 0x9E3779B97F4A7C15ull * (2 * (seed ? strtoull(seed, nullptr, 10) : 0) + 1);
    }();
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    return (unsigned)(random >> 20);
}

enum class Order { Forward, Reverse, Random };

inline Order wanted_order() {
    static const char* const name = getenv("SHIM_ORDER");
    if (!name) return Order::Forward;
    return !strcmp(name, "reverse") ? Order::Reverse : !strcmp(name, "random") ? Order::Random : Order::Forward;
}

template <class T>
inline void shuffle(std::vector<T>& all) {
    for (size_t i = all.size(); i-- > 1;) std::swap(all[i], all[draw() % (i + 1)]);
}

// Ends the program if an instruction would not take this address.
inline void need_aligned(const void* address, size_t bytes, const char* instruction) {
    if ((uintptr_t)address % bytes == 0) return;
    fprintf(stderr, "shim: %s: address %p is not a multiple of %zu\n", instruction, address, bytes);
    abort();
}

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

// Each switch between stacks is announced to AddressSanitizer before and after it. Without the sanitizer these are empty.
inline void before_switch(void** leaving, const void* bottom, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(leaving, bottom, size);
#else
    (void)leaving, (void)bottom, (void)size;
#endif
}
inline void after_switch(void* entered, const void** bottom, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(entered, bottom, size);
#else
    (void)entered, (void)bottom, (void)size;
#endif
}

// From a fiber to the scheduler, and back when the scheduler comes to this fiber again.
inline void yield() {
    before_switch(&current->sanitizer, scheduler_bottom, scheduler_size);
    shim_switch(&current->stack_pointer, scheduler);
    after_switch(current->sanitizer, nullptr, nullptr);
}

// From the scheduler to a fiber, until it yields.
inline void resume(Fiber& fiber) {
    current = &fiber;
    before_switch(&scheduler_sanitizer, fiber.stack, STACK);
    shim_switch(&scheduler, fiber.stack_pointer);
    after_switch(scheduler_sanitizer, nullptr, nullptr);
}

inline void entry() {
    after_switch(nullptr, &scheduler_bottom, &scheduler_size);
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

// Fills the static shared memory with NaNs.
#ifdef __SANITIZE_ADDRESS__
inline void poison_shared() {}
#else
inline thread_local char shared_anchor;

inline void poison_shared() {
    // The block exists from the first access on.
    asm volatile("" ::"r"(&shared_anchor) : "memory");
    const auto visit = [](dl_phdr_info* info, size_t, void*) {
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const auto& part = info->dlpi_phdr[i];
            char* start = (char*)info->dlpi_tls_data;
            // The block that holds the anchor is this library's.
            if (part.p_type != PT_TLS || !start || &shared_anchor < start || &shared_anchor >= start + part.p_memsz) continue;
            memset(start, 0xFF, part.p_memsz);
            return 1;
        }
        return 0;
    };
    dl_iterate_phdr(visit, nullptr);
}
#endif

inline char* new_stack() {
    void* memory = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE) != 0) {
        fprintf(stderr, "shim: no memory for the stack of a thread\n");
        abort();
    }
    return (char*)memory + GUARD;
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
        fibers.back().stack = new_stack();
    }
    const unsigned warps = (threads + 31) / 32;
    warp_barriers.assign(warps, {});
    warp_slots.assign(warps * 32, 0);
    warp_alive.assign(warps, 0);
    block_barrier = {};
    alive = threads;
    std::vector<unsigned> order(threads);
    const Order kind = wanted_order();
    for (unsigned i = 0; i < threads; i++) {
        prepare(fibers[i], i);
        warp_alive[i / 32]++;
        order[i] = kind == Order::Reverse ? threads - 1 - i : i;
    }
    const bool shuffled = kind == Order::Random;
    // In random order some threads, or whole warps, sleep for as long as the others get further: what a fast thread overwrites before a slow one has
    // read it then shows too.
    std::vector<bool> asleep(threads, false);
    bool all_awake = true;
    while (alive) {
        const unsigned long before = progress;
        if (shuffled) shuffle(order);
        for (unsigned i : order) {
            if (!fibers[i].done && !asleep[i]) resume(fibers[i]);
        }
        const bool stuck = progress == before;
        if (stuck && all_awake && alive) {
            fprintf(stderr, "shim: deadlock: not all threads of block (%u, %u, %u) reach a barrier\n", block_index.x, block_index.y, block_index.z);
            abort();
        }
        if (!shuffled || (!stuck && !all_awake)) continue;
        // Those that run wait for the sleepers: all get one round, and then others sleep.
        all_awake = stuck;
        const bool by_warp = draw() % 2 == 0;
        const unsigned sleeping_warps = draw() & draw();
        for (unsigned i = 0; i < threads; i++) {
            const bool sleeps = by_warp ? sleeping_warps >> (i / 32) & 1 : draw() % 8 == 0;
            asleep[i] = !all_awake && sleeps;
        }
    }
}

inline void launch(Index grid, Index block, size_t shared, void (*kernel)(void*), void* arguments) {
    grid_size = grid, block_size = block, body = kernel, body_arguments = arguments;
    std::vector<Index> order;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) order.push_back({x, y, z});
    if (wanted_order() == Order::Reverse) std::reverse(order.begin(), order.end());
    if (wanted_order() == Order::Random) shuffle(order);
    for (const Index& place : order) {
        // NaNs: what is read before it is written shows. The vector is as long as asked for, so that a sanitizer sees its end.
        dynamic.assign(shared + 16, 0xFF);
        poison_shared();
        block_index = place;
        run_block(block.x * block.y * block.z);
    }
}

// Keeps arguments that are given by their addresses, as cuLaunchKernel has them, and calls a kernel with what was kept.
template <auto Kernel>
struct Call;
template <class... A, void (*Kernel)(A...)>
struct Call<Kernel> {
    typedef std::tuple<A...> Kept;

    template <size_t... I>
    static Kept* copy(void** arguments, std::index_sequence<I...>) {
        return new Kept(*(A*)arguments[I]...);
    }
    static void* keep(void** arguments) {
        return copy(arguments, std::index_sequence_for<A...>{});
    }
    static void run(void* kept) {
        std::apply(Kernel, *(Kept*)kept);
    }
    static void forget(void* kept) {
        delete (Kept*)kept;
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

// What the driver's stand-in launches, with the threads that a block may have. The arguments are kept until the launch.
#define SHIM_EXPORT(KERNEL, THREADS)                                                                                                          \
    extern "C" const unsigned shim_bound_##KERNEL = THREADS;                                                                                  \
    extern "C" void* shim_keep_##KERNEL(void** arguments) {                                                                                   \
        return shim::Call<&KERNEL>::keep(arguments);                                                                                          \
    }                                                                                                                                         \
    extern "C" void shim_launch_##KERNEL(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,       \
                                         void* kept) {                                                                                        \
        shim::launch({gx, gy, gz}, {bx, by, bz}, shared, shim::Call<&KERNEL>::run, kept);                                                     \
        shim::Call<&KERNEL>::forget(kept);                                                                                                    \
    }
