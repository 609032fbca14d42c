// A stand-in for libcuda.so.1, for tests alone: memory is the host's, the stream runs at once, and kernels come from libkernels.so beside it,
// built from the same sources by the shim. Fresh memory holds NaNs, and so does memory that was given back.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#define API extern "C" __attribute__((visibility("default"))) int

typedef unsigned long long Address;
typedef void (*Launch)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void**);

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };

// The driver may be called from any thread; what stands in for it does one thing at a time.
static std::mutex& one_at_a_time() {
    static std::mutex mutex;
    return mutex;
}
#define LOCK const std::lock_guard<std::mutex> lock(one_at_a_time())

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
API cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
API cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
API cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "stand-in on the CPU"), SUCCESS; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability 9.0; no other attribute is asked for.
    return *value = attribute == 75 ? 9 : 0, SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = (void*)1, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void*) { return SUCCESS; }
API cuCtxGetCurrent(void** context) { return *context = (void*)1, SUCCESS; }
API cuCtxSynchronize() { return SUCCESS; }
API cuStreamCreate(void** stream, unsigned) { return *stream = (void*)2, SUCCESS; }
API cuStreamDestroy_v2(void*) { return SUCCESS; }
API cuStreamSynchronize(void*) { return SUCCESS; }

API cuMemAlloc_v2(Address* address, size_t bytes) {
    LOCK;
    // No byte more than asked for, so that a sanitizer sees the end.
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes)) return OUT_OF_MEMORY;
    memset(memory, 0xFF, bytes);
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
API cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void*) {
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    return memcpy((void*)to, from, bytes), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void*) {
    LOCK;
    if (!owned(from, bytes)) return INVALID_VALUE;
    return memcpy(to, (void*)from, bytes), SUCCESS;
}
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void*) {
    LOCK;
    if (!owned(to, bytes)) return INVALID_VALUE;
    return memset((void*)to, value, bytes), SUCCESS;
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
    return *function ? SUCCESS : NOT_FOUND;
}
API cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void*, void** arguments,
                   void**) {
    LOCK;
    // Limits of compute capability 9.0.
    if (bx * by * bz > 1024 || shared > 232448 || gy > 65535 || gz > 65535) return INVALID_VALUE;
    return ((Launch)function)(gx, gy, gz, bx, by, bz, shared, arguments), SUCCESS;
}

API cuGetErrorName(int error, const char** name) {
    *name = error == INVALID_DEVICE ? "CUDA_ERROR_INVALID_DEVICE" : error == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR";
    return SUCCESS;
}
API cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }
