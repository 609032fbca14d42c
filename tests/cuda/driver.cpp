// A stand-in for libcuda.so.1, for tests alone: memory is the host's, the stream is lazy (stream.h), and kernels come from libkernels.so beside it,
// built from the same sources by the shim. Fresh memory holds NaNs, and so does memory that was given back. A call that needs a context fails on a
// thread that has none. With SHIM_IDLE=1 nothing is computed and all memory starts as zeros: what is left is the time that the host takes for a step.
// With SHIM_FAULT=KERNEL that kernel fails as an access outside of memory does: the launch succeeds, and every wait after it says so. With
// SHIM_CUDA=12040 it is a driver for CUDA 12.4.
#include <dlfcn.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "stream.h"

#define API extern "C" __attribute__((visibility("default"))) int

typedef unsigned long long Address;
typedef void (*Launch)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*);

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701,
    NOT_SUPPORTED = 801
};

// Device attributes, as cuda.h numbers them.
enum { MAX_THREADS = 1, MAX_SHARED = 8, WARP_SIZE = 10, MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, MAX_SHARED_OPTIN = 97, MEMORY_POOLS = 115 };

static bool idle() {
    static const bool idle = getenv("SHIM_IDLE");
    return idle;
}

// A kernel of libkernels.so.
struct Kernel {
    std::string name;
    Launch launch;
    // Copies the arguments, which the caller may change after the launch.
    void* (*keep)(void**);
    // Of its __launch_bounds__.
    unsigned most_threads;
    // Bytes of dynamic shared memory: more must be asked for before a launch, as on a GPU.
    unsigned most_shared = 49152;
};

// The context that is bound to this thread.
static thread_local void* bound = nullptr;
#define NEEDS_CONTEXT \
    if (!bound) return INVALID_CONTEXT

// Calls that were made, told at the end of an idle run.
static struct Calls {
    size_t uploads = 0, downloads = 0, fills = 0, copies = 0, waits = 0, allocations = 0;
    std::map<std::string, size_t> launches;
    ~Calls() {
        if (!idle()) return;
        for (const auto& [name, count] : launches) fprintf(stderr, "%8zu launches of %s\n", count, name.c_str());
        fprintf(stderr, "driver: %zu uploads, %zu downloads, %zu fills, %zu copies, %zu waits, %zu allocations\n", uploads, downloads, fills, copies,
                waits, allocations);
    }
} calls;

// Whether a kernel has failed.
static bool broken = false;

// Addresses and sizes of what is allocated.
static std::map<Address, size_t>& blocks() {
    static std::map<Address, size_t> all;
    return all;
}

// The same of pinned memory of the host.
static std::map<Address, size_t>& pinned() {
    static std::map<Address, size_t> all;
    return all;
}

// Whether these bytes lie in one block.
static bool owned(Address at, size_t bytes, const std::map<Address, size_t>& all = blocks()) {
    auto next = all.upper_bound(at);
    if (next == all.begin()) return false;
    auto [start, size] = *--next;
    return at + bytes <= start + size;
}

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int* version) {
    const char* given = getenv("SHIM_CUDA");
    return *version = given ? atoi(given) : 13000, SUCCESS;
}
API cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
API cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "stand-in on the CPU"), SUCCESS; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    // An H100's, but for one multiprocessor. 0 stands for "no" in all others, such as access to peers.
    switch (attribute) {
        case MAX_THREADS: *value = 1024; break;
        case MAX_SHARED: *value = 49152; break;
        case WARP_SIZE: *value = 32; break;
        case MULTIPROCESSORS: *value = 1; break;
        case MAJOR: *value = 9; break;
        case MAX_SHARED_OPTIN: *value = 232448; break;
        case MEMORY_POOLS: *value = 1; break;
        default: *value = 0;
    }
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = (size_t)1 << 32, SUCCESS; }
API cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = *total = (size_t)1 << 32, SUCCESS; }
API cuDeviceCanAccessPeer(int* can, int, int) { return *can = 0, SUCCESS; }
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = (void*)1, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* context) {
    // The first thread is the one that opens the device.
    static void* const first = &bound;
    if (planted("context") && &bound != first) return SUCCESS;
    return bound = context, SUCCESS;
}
API cuCtxGetCurrent(void** context) { return *context = bound, SUCCESS; }
API cuStreamCreate(void** to, unsigned) {
    NEEDS_CONTEXT;
    return *to = &stream, SUCCESS;
}
API cuStreamDestroy_v2(void*) { return SUCCESS; }
API cuStreamSynchronize(void* of) {
    NEEDS_CONTEXT;
    LOCK;
    calls.waits++;
    if (of != &stream) return INVALID_VALUE;
    if (!planted("wait")) stream.run_until(stream.queued);
    return broken ? ILLEGAL_ADDRESS : SUCCESS;
}
API cuCtxSynchronize() { return cuStreamSynchronize(&stream); }
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API cuStreamBeginCapture_v2(void*, int) { return NOT_SUPPORTED; }
API cuStreamEndCapture(void*, void** graph) { return *graph = nullptr, NOT_SUPPORTED; }
API cuStreamIsCapturing(void*, int* status) { return *status = 0, SUCCESS; }

API cuEventCreate(Event** event, unsigned) {
    NEEDS_CONTEXT;
    return *event = new Event, SUCCESS;
}
API cuEventRecord(Event* event, void* of) {
    NEEDS_CONTEXT;
    LOCK;
    if (of != &stream) return INVALID_VALUE;
    return event->record(), SUCCESS;
}
API cuEventQuery(Event* event) {
    LOCK;
    return stream.done >= event->place ? SUCCESS : NOT_READY;
}
API cuEventSynchronize(Event* event) {
    NEEDS_CONTEXT;
    LOCK;
    if (!planted("event")) stream.run_until(event->place);
    return SUCCESS;
}
API cuEventElapsedTime(float* ms, Event* start, Event* end) { return *ms = (float)(end->time - start->time), SUCCESS; }
API cuEventElapsedTime_v2(float* ms, Event* start, Event* end) { return cuEventElapsedTime(ms, start, end); }
// It stays, because the stream may still come to it.
API cuEventDestroy_v2(Event*) { return SUCCESS; }

// For the stand-ins of cuBLAS and cuBLASLt: puts work into the stream. Work of another stream runs at once, as nothing waits for it.
extern "C" __attribute__((visibility("default"))) void shim_enqueue(void* to, void (*run)(void*), void* work) {
    LOCK;
    if (to == &stream) {
        stream.put([=] { run(work); });
    } else {
        run(work);
    }
}

API cuMemAlloc_v2(Address* address, size_t bytes) {
    NEEDS_CONTEXT;
    LOCK;
    // No byte more than asked for, so that a sanitizer sees the end.
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes)) return OUT_OF_MEMORY;
    // Large blocks are fresh pages of zeros: idle, they are left untouched.
    if (!idle() || bytes < (1 << 20)) memset(memory, idle() ? 0 : 0xFF, bytes);
    calls.allocations++;
    *address = (Address)memory;
    blocks()[*address] = bytes;
    return SUCCESS;
}
// Work in the stream that still uses the memory finds NaNs, or AddressSanitizer finds the work.
API cuMemFree_v2(Address address) {
    NEEDS_CONTEXT;
    LOCK;
    if (!blocks().count(address)) return INVALID_VALUE;
    memset((void*)address, 0xFF, blocks()[address]);
    blocks().erase(address);
    return free((void*)address), SUCCESS;
}
API cuMemAllocAsync(Address* address, size_t bytes, void*) { return cuMemAlloc_v2(address, bytes); }
API cuMemFreeAsync(Address address, void*) { return cuMemFree_v2(address); }
API cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    NEEDS_CONTEXT;
    LOCK;
    *memory = malloc(bytes);
    if (!planted("pinned")) pinned()[(Address)*memory] = bytes;
    return *memory ? SUCCESS : OUT_OF_MEMORY;
}
API cuMemFreeHost(void* memory) {
    LOCK;
    return pinned().erase((Address)memory), free(memory), SUCCESS;
}
// Pinned memory is read when the copy runs. Other memory is read at once, as the driver does it with at most 64 KiB; with more it may wait for the
// stream, which this program must not have.
API cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void*) {
    NEEDS_CONTEXT;
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    calls.uploads++;
    if (owned((Address)from, bytes, pinned())) return stream.put([=] { memcpy((void*)to, from, bytes); }), SUCCESS;
    if (bytes > 65536) {
        fprintf(stderr, "stand-in: an upload of %zu bytes from memory that is not pinned may wait for the stream\n", bytes);
        return NOT_SUPPORTED;
    }
    std::vector<char> now((const char*)from, (const char*)from + bytes);
    return stream.put([to, now = std::move(now)] { memcpy((void*)to, now.data(), now.size()); }), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void*) {
    NEEDS_CONTEXT;
    LOCK;
    if (!owned(from, bytes)) return INVALID_VALUE;
    calls.downloads++;
    return stream.put([=] { memcpy(to, (void*)from, bytes); }), SUCCESS;
}
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void*) {
    NEEDS_CONTEXT;
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    calls.fills++;
    if (!idle()) stream.put([=] { memset((void*)to, value, bytes); });
    return SUCCESS;
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void*) {
    NEEDS_CONTEXT;
    LOCK;
    if (!owned(to, bytes) || !owned(from, bytes)) return INVALID_VALUE;
    calls.copies++;
    return stream.put([=] { memmove((void*)to, (void*)from, bytes); }), SUCCESS;
}

API cuModuleLoadData(void** module, const void*) {
    NEEDS_CONTEXT;
    Dl_info self;
    if (!dladdr((void*)&cuInit, &self)) return INVALID_IMAGE;
    const std::string path = self.dli_fname;
    const std::string kernels = path.substr(0, path.rfind('/') + 1) + "libkernels.so";
    *module = dlopen(kernels.c_str(), RTLD_NOW);
    if (!*module) fprintf(stderr, "%s\n", dlerror());
    return *module ? SUCCESS : INVALID_IMAGE;
}
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(Kernel** function, void* module, const char* name) {
    NEEDS_CONTEXT;
    const auto symbol = [&](const char* stem) { return dlsym(module, (std::string(stem) + name).c_str()); };
    void* const launch = symbol("shim_launch_");
    if (!launch) return NOT_FOUND;
    *function = new Kernel{name, (Launch)launch, (void* (*)(void**))symbol("shim_keep_"), *(unsigned*)symbol("shim_bound_")};
    return SUCCESS;
}
// Attribute 8: bytes of dynamic shared memory.
API cuFuncSetAttribute(Kernel* function, int attribute, int value) {
    NEEDS_CONTEXT;
    LOCK;
    if (attribute != 8) return SUCCESS;
    if (value < 0 || value > 232448) return INVALID_VALUE;
    return function->most_shared = (unsigned)value, SUCCESS;
}
API cuLaunchKernel(Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* to,
                   void** arguments, void**) {
    NEEDS_CONTEXT;
    LOCK;
    // Limits of compute capability 9.0.
    if (to != &stream || bx * by * bz > 1024 || shared > kernel->most_shared || gy > 65535 || gz > 65535 || !gx || !gy || !gz) return INVALID_VALUE;
    if (bx * by * bz > kernel->most_threads / (planted("bounds") ? 2 : 1)) return OUT_OF_RESOURCES;
    calls.launches[kernel->name]++;
    if (planted(kernel->name.c_str())) broken = true;
    if (idle()) return SUCCESS;
    void* const kept = kernel->keep(arguments);
    return stream.put([=] { kernel->launch(gx, gy, gz, bx, by, bz, shared, kept); }), SUCCESS;
}

API cuGetErrorName(int error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        case NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
API cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

// Some bindings ask for every function by name.
API cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* status) {
    Dl_info self;
    void* library = dladdr((void*)&cuInit, &self) ? dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
    *function = nullptr;
    // The newest form that is here.
    for (const char* suffix : {"_v2", ""})
        if (library && !*function) *function = dlsym(library, (std::string(name) + suffix).c_str());
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
