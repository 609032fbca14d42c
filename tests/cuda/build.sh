#!/usr/bin/env bash
# Builds the stand-ins for libcuda, libcublas, libcublasLt, libnvrtc and the kernels into a folder:
#   tests/cuda/build.sh FOLDER [asan] [more flags for g++]
#   LD_LIBRARY_PATH=FOLDER cargo test --test device
# With LIBRARIES=OTHER, the folder of an earlier build, only the kernels are built, and the other libraries are that build's.
# With asan the process needs the sanitizer from its start: LD_PRELOAD=$(g++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
kernels="$here/../../src/cuda/kernels"
out="$1"
shift
if [ "${1:-}" = asan ]; then
    shift
    set -- -fsanitize=address -fno-omit-frame-pointer "$@"
fi
mkdir -p "$out"
flags=(-std=c++17 -O1 -g -fPIC -shared -Wall -Wextra -Wno-unknown-pragmas -Wno-subobject-linkage "$@")
# The alignment of each access by a pointer is looked at where AddressSanitizer is not: both together take long to compile.
checks=(-fsanitize=alignment -fno-sanitize-recover=alignment)
case "$*" in *-fsanitize=address*) checks=() ;; esac

all="$out/kernels.cpp"
for file in "$kernels"/*.cu; do echo "#include \"$(basename "$file")\""; done >"$all"
# Every entry point with the threads of its __launch_bounds__, found in what the macros expand to.
g++ -E -P -std=c++17 -DSHIM_LIST -include "$here/shim.h" -I "$kernels" "$all" 2>/dev/null |
    grep -oE 'extern "C" +void +__launch_bounds__\([0-9]+[^)]*\) +[a-z0-9_]+\(' |
    sed -E 's/.*__launch_bounds__\(([0-9]+)[^)]*\) +([a-z0-9_]+)\(/SHIM_EXPORT(\2, \1)/' | sort -u >"$out/exports"
cat "$out/exports" >>"$all"

g++ "${flags[@]}" "${checks[@]}" -include "$here/shim.h" -I "$kernels" "$all" -o "$out/libkernels.so"
if [ -n "${LIBRARIES:-}" ]; then
    ln -sf "$LIBRARIES"/libcuda.so.1 "$LIBRARIES"/libcublas.so.13 "$LIBRARIES"/libcublasLt.so.13 "$out"
    exit
fi
g++ "${flags[@]}" "$here/driver.cpp" -o "$out/libcuda.so.1" -ldl
g++ "${flags[@]}" -O3 "$here/cublas.cpp" -o "$out/libcublas.so.13"
g++ "${flags[@]}" -O3 "$here/cublaslt.cpp" -o "$out/libcublasLt.so.13"
g++ "${flags[@]}" "$here/nvrtc.cpp" -o "$out/libnvrtc.so.13"
echo "$(wc -l <"$out/exports") kernels, and stand-ins for libcuda.so.1, libcublas.so.13, libcublasLt.so.13 and libnvrtc.so.13, in $out"
