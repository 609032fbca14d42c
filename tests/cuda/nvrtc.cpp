// A stand-in for libnvrtc.so.13, for tests alone: it compiles nothing (the stand-in for the driver has the kernels). It takes the sources as NVRTC does,
// gives the start of an ELF file as machine code, and refuses what cannot be right: a file that is included but not given, and #error.
#include <cstring>
#include <map>
#include <string>

#define API extern "C" __attribute__((visibility("default"))) int

enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string source, log, cubin;
    std::map<std::string, std::string> files;
};

// The first fault of a file and of what it includes, as NVRTC words it; empty if there is none.
static std::string fault(const Program& program, const std::string& name, const std::string& text, int depth) {
    size_t line = 0;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) == std::string::npos ? text.size() : text.find('\n', at) + 1) {
        line++;
        const std::string place = name + "(" + std::to_string(line) + "): error: ";
        const std::string rest = text.substr(at, text.find('\n', at) - at);
        if (rest.rfind("#error", 0) == 0) return place + rest;
        if (rest.rfind("#include \"", 0) != 0) continue;
        const std::string other = rest.substr(10, rest.find('"', 10) - 10);
        const auto found = program.files.find(other);
        if (found == program.files.end()) return place + "cannot open source file \"" + other + "\"";
        const std::string inside = depth > 8 ? "" : fault(program, other, found->second, depth + 1);
        if (!inside.empty()) return inside;
    }
    return "";
}

API nvrtcCreateProgram(Program** to, const char* source, const char*, int headers, const char* const* sources, const char* const* names) {
    if (!source || headers < 1) return INVALID_INPUT;
    *to = new Program;
    (*to)->source = source;
    for (int i = 0; i < headers; i++) (*to)->files[names[i]] = sources[i];
    return SUCCESS;
}
API nvrtcDestroyProgram(Program** of) { return delete *of, *of = nullptr, SUCCESS; }
API nvrtcCompileProgram(Program* of, int count, const char* const* options) {
    bool real = false;
    for (int i = 0; i < count; i++) real |= !strncmp(options[i], "--gpu-architecture=sm_", 22);
    if (!real) return INVALID_OPTION;
    of->log = fault(*of, "kernels.cu", of->source, 0);
    of->cubin = "\x7f" "ELF of the stand-in";
    return of->log.empty() ? SUCCESS : COMPILATION;
}
API nvrtcGetProgramLogSize(Program* of, size_t* bytes) { return *bytes = of->log.size() + 1, SUCCESS; }
API nvrtcGetProgramLog(Program* of, char* to) { return memcpy(to, of->log.c_str(), of->log.size() + 1), SUCCESS; }
API nvrtcGetCUBINSize(Program* of, size_t* bytes) { return *bytes = of->cubin.size(), SUCCESS; }
API nvrtcGetCUBIN(Program* of, char* to) { return memcpy(to, of->cubin.data(), of->cubin.size()), SUCCESS; }
