// A stand-in for libcuda.so.1, for tests alone: memory is the host's, the stream runs at once, and kernels come from libkernels.so beside it,
// built from the same sources by the shim. Fresh memory holds NaNs, and so does memory that was given back. With SHIM_IDLE=1 nothing is computed and
// all memory starts as zeros: what is left is the time that the host takes for a step. With SHIM_FAULT=KERNEL that kernel fails as an access outside of
// memory does: the launch succeeds, and every wait after it says so. With SHIM_CUDA=12040 it is a driver for CUDA 12.4.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#define API extern "C" __attribute__((visibility("default"))) int

typedef unsigned long long Address;
typedef void (*Launch)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void**);

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801 };

// Device attributes, as cuda.h numbers them.
enum { MAX_THREADS = 1, MAX_SHARED = 8, WARP_SIZE = 10, MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, MAX_SHARED_OPTIN = 97, MEMORY_POOLS = 115 };

// The driver may be called from any thread; what stands in for it does one thing at a time.
static std::mutex& one_at_a_time() {
    static std::mutex mutex;
    return mutex;
}
#define LOCK const std::lock_guard<std::mutex> lock(one_at_a_time())

static bool idle() {
    static const bool idle = getenv("SHIM_IDLE");
    return idle;
}

// Calls that were made, told at the end of an idle run.
static struct Calls {
    size_t uploads = 0, downloads = 0, fills = 0, copies = 0, waits = 0, allocations = 0;
    std::map<void*, std::string> names;
    std::map<void*, size_t> launches;
    ~Calls() {
        if (!idle()) return;
        for (const auto& [function, count] : launches) fprintf(stderr, "%8zu launches of %s\n", count, names[function].c_str());
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

// Whether these bytes lie in one block.
static bool owned(Address at, size_t bytes) {
    auto next = blocks().upper_bound(at);
    if (next == blocks().begin()) return false;
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
API cuCtxSetCurrent(void*) { return SUCCESS; }
API cuCtxGetCurrent(void** context) { return *context = (void*)1, SUCCESS; }
API cuCtxSynchronize() { return SUCCESS; }
API cuStreamCreate(void** stream, unsigned) { return *stream = (void*)2, SUCCESS; }
API cuStreamDestroy_v2(void*) { return SUCCESS; }
API cuStreamSynchronize(void*) { return calls.waits++, broken ? ILLEGAL_ADDRESS : SUCCESS; }
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
// Nothing is recorded: the stream runs at once.
API cuStreamBeginCapture_v2(void*, int) { return NOT_SUPPORTED; }
API cuStreamEndCapture(void*, void** graph) { return *graph = nullptr, NOT_SUPPORTED; }
API cuStreamIsCapturing(void*, int* status) { return *status = 0, SUCCESS; }

// An event is the time at which it was recorded, in milliseconds.
API cuEventCreate(void** event, unsigned) { return *event = new double(0), SUCCESS; }
API cuEventRecord(void* event, void*) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return *(double*)event = std::chrono::duration<double, std::milli>(now).count(), SUCCESS;
}
API cuEventQuery(void*) { return SUCCESS; }
API cuEventSynchronize(void*) { return SUCCESS; }
API cuEventElapsedTime(float* ms, void* start, void* end) { return *ms = (float)(*(double*)end - *(double*)start), SUCCESS; }
API cuEventElapsedTime_v2(float* ms, void* start, void* end) { return cuEventElapsedTime(ms, start, end); }
API cuEventDestroy_v2(void* event) { return delete (double*)event, SUCCESS; }

API cuMemAlloc_v2(Address* address, size_t bytes) {
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
API cuMemFree_v2(Address address) {
    LOCK;
    if (!blocks().count(address)) return INVALID_VALUE;
    memset((void*)address, 0xFF, blocks()[address]);
    blocks().erase(address);
    return free((void*)address), SUCCESS;
}
API cuMemAllocAsync(Address* address, size_t bytes, void*) { return cuMemAlloc_v2(address, bytes); }
API cuMemFreeAsync(Address address, void*) { return cuMemFree_v2(address); }
API cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void*) {
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    calls.uploads++;
    return memcpy((void*)to, from, bytes), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void*) {
    LOCK;
    if (!owned(from, bytes)) return INVALID_VALUE;
    calls.downloads++;
    return memcpy(to, (void*)from, bytes), SUCCESS;
}
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void*) {
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    calls.fills++;
    return idle() ? nullptr : memset((void*)to, value, bytes), SUCCESS;
}

API cuMemsetD32Async(Address to, unsigned value, size_t words, void*) {
    LOCK;
    if (to % 4 != 0 || !owned(to, 4 * words)) return INVALID_VALUE;
    for (size_t i = 0; i < words; i++) ((unsigned*)to)[i] = value;
    return SUCCESS;
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void*) {
    LOCK;
    if (!owned(to, bytes) || !owned(from, bytes)) return INVALID_VALUE;
    calls.copies++;
    return memmove((void*)to, (void*)from, bytes), SUCCESS;
}

API cuModuleLoadData(void** module, const void*) {
    Dl_info self;
    if (!dladdr((void*)&cuInit, &self)) return INVALID_IMAGE;
    const std::string path = self.dli_fname;
    const std::string kernels = path.substr(0, path.rfind('/') + 1) + "libkernels.so";
    *module = dlopen(kernels.c_str(), RTLD_NOW);
    if (!*module) fprintf(stderr, "%s\n", dlerror());
    return *module ? SUCCESS : INVALID_IMAGE;
}
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, (std::string("shim_launch_") + name).c_str());
    calls.names[*function] = name;
    return *function ? SUCCESS : NOT_FOUND;
}
// Shared memory beyond 48 KiB must be asked for before a launch (attribute 8), as on a GPU.
static std::map<void*, int>& granted() {
    static std::map<void*, int> all;
    return all;
}
API cuFuncSetAttribute(void* function, int attribute, int value) {
    LOCK;
    if (attribute != 8) return SUCCESS;
    if (value < 0 || value > 232448) return INVALID_VALUE;
    return granted()[function] = value, SUCCESS;
}
API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void*, void** arguments,
                   void**) {
    LOCK;
    // Limits of compute capability 9.0.
    const auto more = granted().find(function);
    const unsigned most = more == granted().end() ? 49152 : (unsigned)more->second;
    if (bx * by * bz > 1024 || shared > most || gy > 65535 || gz > 65535 || !gx || !gy || !gz) return INVALID_VALUE;
    calls.launches[function]++;
    static const char* fault = getenv("SHIM_FAULT");
    if (fault && calls.names[function] == fault) broken = true;
    if (idle()) return SUCCESS;
    return ((Launch)function)(gx, gy, gz, bx, by, bz, shared, arguments), SUCCESS;
}

API cuGetErrorName(int error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
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
