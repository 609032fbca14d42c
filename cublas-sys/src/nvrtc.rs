//! NVRTC: <https://docs.nvidia.com/cuda/nvrtc/>.

use super::{Wanted, find, folders, functions};
use std::ffi::{c_char, c_int, c_void};

/// A program that is compiled: `nvrtcProgram`.
pub type Program = *mut c_void;

functions! {
    /// NVRTC's functions. The library stays loaded as long as this lives.
    Nvrtc, "NVRTC";
    /// `nvrtcCreateProgram`: from a source and headers by name, all of them ended by a zero.
    create_program = b"nvrtcCreateProgram": fn(
        program: *mut Program, source: *const c_char, name: *const c_char,
        headers: c_int, sources: *const *const c_char, names: *const *const c_char
    );
    /// `nvrtcDestroyProgram`.
    destroy_program = b"nvrtcDestroyProgram": fn(program: *mut Program);
    /// `nvrtcCompileProgram`: 0 unless it failed; the log then says why.
    compile_program = b"nvrtcCompileProgram": fn(program: Program, options: c_int, all: *const *const c_char);
    /// `nvrtcGetProgramLogSize`, the zero at its end counted.
    log_size = b"nvrtcGetProgramLogSize": fn(program: Program, bytes: *mut usize);
    /// `nvrtcGetProgramLog`.
    log = b"nvrtcGetProgramLog": fn(program: Program, to: *mut c_char);
    /// `nvrtcGetCUBINSize`.
    cubin_size = b"nvrtcGetCUBINSize": fn(program: Program, bytes: *mut usize);
    /// `nvrtcGetCUBIN`: machine code, if it was compiled for a real architecture (sm_90).
    cubin = b"nvrtcGetCUBIN": fn(program: Program, to: *mut c_char);
}

#[cfg(windows)]
const NAMES: &[(u32, &str)] = &[(13, "nvrtc64_130_0.dll"), (12, "nvrtc64_120_0.dll")];
#[cfg(not(windows))]
const NAMES: &[(u32, &str)] = &[(13, "libnvrtc.so.13"), (12, "libnvrtc.so.12"), (0, "libnvrtc.so")];

impl Nvrtc {
    /// Finds and loads NVRTC, as [`super::Cublas::load`] does cuBLAS.
    ///
    /// # Errors
    /// A sentence that says where was looked and what to install.
    pub fn load(cuda: u32) -> Result<Nvrtc, String> {
        find(&Wanted { called: "NVRTC", names: NAMES, beside: &[], wheel: "nvidia-cuda-nvrtc" }, cuda, &folders()).and_then(Nvrtc::of)
    }
}
