// Tensor-core instructions of sm_80: mma.sync on bf16, ldmatrix and cp.async. Each is one line of PTX, and beside it stands a twin in plain
// C++ for kernels that run on a CPU (CUDA_SHIM), written from the PTX ISA's tables and not from the code that uses it.
//
// Section and figure numbers are those of the PTX ISA, version 9.2: <https://docs.nvidia.com/cuda/parallel-thread-execution/>.
//
// Throughout, g = lane / 4 ("groupID") and t = lane % 4 ("threadID_in_group"). A register of two bf16 has the first in its lower half.
#pragma once

namespace mma {

typedef unsigned int u32;

// A 16 × 16, row-major. Section 9.7.14.5.8, figure 79:
//   x[0] = A[g][2t, 2t+1]      x[1] = A[g+8][2t, 2t+1]      x[2] = A[g][2t+8, 2t+9]      x[3] = A[g+8][2t+8, 2t+9]
struct FragmentA {
    u32 x[4];
};

// B 16 × 8. Section 9.7.14.5.8, figure 81:  x[0] = B[2t, 2t+1][g]      x[1] = B[2t+8, 2t+9][g]
struct FragmentB {
    u32 x[2];
};

// C and D 16 × 8, f32. Section 9.7.14.5.8, figure 83:  x[0], x[1] = C[g][2t, 2t+1]      x[2], x[3] = C[g+8][2t, 2t+1]
struct FragmentC {
    float x[4];
};

#ifdef CUDA_SHIM
// ---- The twins. ----

namespace twin {

inline float widen(u32 half) {
    return __uint_as_float(half << 16);
}

// What the lanes of a warp show each other.
struct Warp {
    FragmentA a[32];
    FragmentB b[32];
    const unsigned char* row[32];
};

inline Warp& warp() {
    static Warp warps[32];
    return warps[(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) / 32];
}

inline u32 lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

// A copy that was started and not yet waited for. Until then its target holds NaNs, so that a missing wait shows.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    u32 bytes;
};

struct Copies {
    std::vector<Copy> open;                   // not yet in a group
    std::vector<std::vector<Copy>> groups;    // the oldest first
};

// Those of the calling thread.
inline Copies& copies() {
    static std::vector<Copies> threads(1024);
    return threads[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}

}  // namespace twin

// Section 9.7.14.5.15, "Warp-level matrix load instruction: ldmatrix", for .m8n8.b16: lanes 8i..8i+7 hold the addresses of the rows of matrix
// i; register i of a lane takes elements 2t and 2t+1 of row g, or, with .trans, element g of rows 2t and 2t+1.
template <bool TRANS>
inline void load_matrices(u32 (&x)[4], const void* row) {
    twin::Warp& w = twin::warp();
    const u32 g = twin::lane() / 4, t = twin::lane() % 4;
    shim::need_aligned(row, 16, "ldmatrix");
    w.row[twin::lane()] = (const unsigned char*)row;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        unsigned short low, high;
        if (TRANS) {
            memcpy(&low, w.row[8 * i + 2 * t] + 2 * g, 2);
            memcpy(&high, w.row[8 * i + 2 * t + 1] + 2 * g, 2);
        } else {
            memcpy(&low, w.row[8 * i + g] + 4 * t, 2);
            memcpy(&high, w.row[8 * i + g] + 4 * t + 2, 2);
        }
        x[i] = low | (u32)high << 16;
    }
    __syncwarp();
}

// D = A B + C by the tables above.
inline void multiply(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    twin::Warp& w = twin::warp();
    const u32 g = twin::lane() / 4, t = twin::lane() % 4;
    w.a[twin::lane()] = a;
    w.b[twin::lane()] = b;
    __syncwarp();
    for (u32 i = 0; i < 4; i++) {
        const u32 upper = i / 2, column = 2 * t + i % 2;
        for (u32 k = 0; k < 16; k++) {
            const u32 owner = k % 8 / 2, half = k % 2 * 16;
            const u32 left = w.a[4 * g + owner].x[upper + 2 * (k / 8)] >> half & 0xFFFF;
            const u32 right = w.b[4 * column + owner].x[k / 8] >> half & 0xFFFF;
            c.x[i] += twin::widen(left) * twin::widen(right);
        }
    }
    __syncwarp();
}

inline void copy_async(void* to, const void* from, bool valid) {
    shim::need_aligned(to, 16, "cp.async");
    shim::need_aligned(from, 16, "cp.async");
    memset(to, 0xFF, 16);
    twin::copies().open.push_back({(unsigned char*)to, (const unsigned char*)from, valid ? 16u : 0u});
}

inline void copy_commit() {
    twin::copies().groups.push_back(std::move(twin::copies().open));
    twin::copies().open.clear();
}

template <int PENDING>
inline void copy_wait() {
    auto& groups = twin::copies().groups;
    while (groups.size() > PENDING) {
        for (const twin::Copy& c : groups.front()) {
            memset(c.to, 0, 16);
            memcpy(c.to, c.from, c.bytes);
        }
        groups.erase(groups.begin());
    }
}

inline float exp2_approximate(float x) {
    return exp2f(x);
}

#else
// ---- The instructions. ----

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

// Four matrices of 8 × 8 from shared memory; lane 8i + r gives the address of row r of matrix i, a multiple of 16.
template <bool TRANS>
__device__ __forceinline__ void load_matrices(u32 (&x)[4], const void* row) {
    const u32 p = shared_address(row);
    if constexpr (TRANS) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(p) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(p) : "memory");
    }
}

// c += a b, summed in f32.
__device__ __forceinline__ void multiply(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.x[0]), "+f"(c.x[1]), "+f"(c.x[2]), "+f"(c.x[3])
        : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
}

// Starts a copy of 16 bytes from global to shared memory, or of zeros if not `valid`; both addresses are multiples of 16. "Data Movement and
// Conversion Instructions: cp.async": bytes past the source's size, here 16 or 0, are zeros.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// Makes a group of what this thread started since the last one.
__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most PENDING of this thread's groups are under way. Other threads see the bytes after the next __syncthreads().
template <int PENDING>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// 2^x; relative error about 2^-22, and results under 2^-126 are 0. "Floating Point Instructions: ex2".
__device__ __forceinline__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

}  // namespace mma
