//! Raw bindings of the few functions of cuBLAS, cuBLASLt and NVRTC that lowrank calls, loaded at run time: nothing is needed to build, and a machine without
//! them gets a sentence. The crate of this name on crates.io (2016) links at build time and lacks `cublasGemmEx`.
//!
//! cuBLASLt is in [`light`]; NVRTC, CUDA's compiler as a library, in [`nvrtc`]. Matrices are column-major. Names, types and values are those of cuBLAS's API reference:
//! <https://docs.nvidia.com/cuda/cublas/>.

pub mod light;
pub mod nvrtc;

use libloading::Library;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

/// A cuBLAS context: `cublasHandle_t`.
pub type Handle = *mut c_void;
/// A CUDA stream: `cudaStream_t`, the driver's `CUstream`.
pub type Stream = *mut c_void;
/// What a function says: 0 is success; see [`status_name`].
pub type Status = c_int;

/// `cublasOperation_t`: whether a matrix is taken as it lies.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `CUBLAS_OP_N`.
    N = 0,
    /// `CUBLAS_OP_T`: transposed.
    T = 1,
}

/// `cudaDataType_t`.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DataType {
    /// `CUDA_R_32F`.
    F32 = 0,
    /// `CUDA_R_16BF`.
    BF16 = 14,
}

/// `cublasComputeType_t`: the type that products are summed in.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComputeType {
    /// `CUBLAS_COMPUTE_32F`.
    F32 = 68,
    /// `CUBLAS_COMPUTE_32F_FAST_TF32`: f32 operands are rounded to 10 bits of mantissa.
    FastTf32 = 77,
}

/// `CUBLAS_GEMM_DEFAULT`: cuBLAS chooses the algorithm.
pub const GEMM_DEFAULT: c_int = -1;

/// `CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION`, beside `CUBLAS_DEFAULT_MATH`: parts of a sum are added in the compute type, not in that of the result.
pub const MATH_WITHOUT_REDUCED_PRECISION: c_int = 16;

/// The name of a status in cuBLAS's reference.
pub fn status_name(status: Status) -> &'static str {
    match status {
        0 => "CUBLAS_STATUS_SUCCESS",
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        11 => "CUBLAS_STATUS_MAPPING_ERROR",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        16 => "CUBLAS_STATUS_LICENSE_ERROR",
        _ => "an unknown status",
    }
}

/// A struct of a library's functions, which keeps it loaded.
macro_rules! functions {
    ($(#[$about:meta])* $library:ident, $called:literal; $($(#[$doc:meta])* $field:ident = $symbol:literal: fn($($name:ident: $type:ty),*);)*) => {
        $(#[$about])*
        pub struct $library {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($name: $type),*) -> std::ffi::c_int,)*
            _library: libloading::Library,
        }

        impl $library {
            fn of(library: libloading::Library) -> Result<$library, String> {
                // SAFETY: the types are those of the library's header for these symbols, and the library is kept beside them.
                unsafe {
                    Ok($library {
                        $($field: *library.get::<unsafe extern "C" fn($($name: $type),*) -> std::ffi::c_int>($symbol)
                            .map_err(|e| format!("{} lacks {}: {e}", $called, String::from_utf8_lossy($symbol)))?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}
use functions;

functions! {
    /// cuBLAS's functions. The library stays loaded as long as this lives.
    Cublas, "cuBLAS";
    /// `cublasCreate_v2`.
    create = b"cublasCreate_v2": fn(handle: *mut Handle);
    /// `cublasSetStream_v2`. Resets the workspace.
    set_stream = b"cublasSetStream_v2": fn(handle: Handle, stream: Stream);
    /// `cublasSetWorkspace_v2`: device memory that cuBLAS may use, 256-byte aligned.
    set_workspace = b"cublasSetWorkspace_v2": fn(handle: Handle, workspace: *mut c_void, bytes: usize);
    /// `cublasSetMathMode`.
    set_math_mode = b"cublasSetMathMode": fn(handle: Handle, mode: c_int);
    /// `cublasGemmEx`: C `[m, n]` = alpha op(A) `[m, k]` op(B) `[k, n]` + beta C.
    gemm_ex = b"cublasGemmEx": fn(
        handle: Handle, trans_a: Operation, trans_b: Operation, m: c_int, n: c_int, k: c_int,
        alpha: *const c_void, a: *const c_void, type_a: DataType, lda: c_int,
        b: *const c_void, type_b: DataType, ldb: c_int,
        beta: *const c_void, c: *mut c_void, type_c: DataType, ldc: c_int,
        compute: ComputeType, algorithm: c_int
    );
}

/// A library of CUDA's, and how to come by it.
pub(crate) struct Wanted {
    /// What messages call it.
    pub called: &'static str,
    /// Its file names, newest first, each with its major version of CUDA. 0: a name without a version.
    pub names: &'static [(u32, &'static str)],
    /// A library that it loads. If it is not where the system's loader looks, it must be there first.
    pub beside: &'static [(u32, &'static str)],
    /// Its Python wheel for CUDA 13; that for CUDA 12 has `-cu12` at the end.
    pub wheel: &'static str,
}

#[cfg(windows)]
const NAMES: &[(u32, &str)] = &[(13, "cublas64_13.dll"), (12, "cublas64_12.dll")];
#[cfg(windows)]
const LIGHT_NAMES: &[(u32, &str)] = &[(13, "cublasLt64_13.dll"), (12, "cublasLt64_12.dll")];
#[cfg(not(windows))]
const NAMES: &[(u32, &str)] = &[(13, "libcublas.so.13"), (12, "libcublas.so.12"), (0, "libcublas.so")];
#[cfg(not(windows))]
const LIGHT_NAMES: &[(u32, &str)] = &[(13, "libcublasLt.so.13"), (12, "libcublasLt.so.12"), (0, "libcublasLt.so")];

impl Cublas {
    /// Finds and loads cuBLAS: where the system's loader looks, then in [`folders`]. `cuda` is the major version of CUDA that the driver supports:
    /// a library of a newer one does not run on it, and is passed over.
    ///
    /// # Errors
    /// A sentence that says where was looked and what to install.
    pub fn load(cuda: u32) -> Result<Cublas, String> {
        find(&Wanted { called: "cuBLAS", names: NAMES, beside: LIGHT_NAMES, wheel: "nvidia-cublas" }, cuda, &folders()).and_then(Cublas::of)
    }
}

/// Loads a library that fits a driver for `cuda`: where the system's loader looks, then in `folders`.
fn find(wanted: &Wanted, cuda: u32, folders: &[PathBuf]) -> Result<Library, String> {
    let names = || fitting(wanted.names, cuda);
    if let Some(library) = names().find_map(|name| load(name.as_ref())) {
        return Ok(library);
    }
    #[cfg(windows)]
    let _ = wanted.beside;
    for folder in folders {
        #[cfg(not(windows))]
        let _beside = fitting(wanted.beside, cuda).find_map(|name| {
            use libloading::os::unix::{Library as Unix, RTLD_GLOBAL, RTLD_NOW};
            // SAFETY: as above. It stays loaded once the library has found it by its name.
            unsafe { Unix::open(Some(folder.join(name)), RTLD_NOW | RTLD_GLOBAL) }.ok()
        });
        if let Some(library) = names().find_map(|name| load(&folder.join(name))) {
            return Ok(library);
        }
    }
    Err(missing(wanted, cuda, folders))
}

/// Loads a library from a path, or by a name where the system's loader looks.
fn load(name: &Path) -> Option<Library> {
    // SAFETY: loading a library of CUDA's runs its initialisers alone.
    unsafe { Library::new(name) }.ok()
}

/// The names of versions that run on a driver for `cuda`.
fn fitting<'a>(names: &'a [(u32, &'a str)], cuda: u32) -> impl Iterator<Item = &'a str> {
    names.iter().filter(move |(version, _)| *version <= cuda).map(|(_, name)| *name)
}

/// The wheel of a library that fits a driver for `cuda`, as pip takes it.
pub fn wheel(name: &str, cuda: u32) -> String {
    if cuda >= 13 { format!("'{name}<14'") } else { format!("{name}-cu12") }
}

/// Says that a library was not found, where was looked, and what to install.
fn missing(wanted: &Wanted, cuda: u32, folders: &[PathBuf]) -> String {
    let Wanted { called, names, wheel: of, .. } = wanted;
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let looked = if looked.is_empty() { String::new() } else { format!(" and in {}", looked.join(", ")) };
    let newer = || names.iter().filter(|(version, _)| *version > cuda);
    let in_folders = folders.iter().find_map(|folder| newer().map(|(v, name)| (*v, folder.join(name))).find(|(_, file)| file.exists()));
    let too_new = in_folders.or_else(|| newer().map(|(v, name)| (*v, PathBuf::from(name))).find(|(_, name)| load(name).is_some()));
    let too_new = too_new.map_or(String::new(), |(version, file)| {
        let needed = if version == 13 { "version 580 or later" } else { "a newer version" };
        format!(" {} is of CUDA {version}, which needs a driver of {needed}.", file.display())
    });
    format!(
        "{called} for CUDA {cuda}, the newest that this driver supports, was not found: looked for {} where the system's loader does{looked}.{too_new} \
         `pip install {}` gives the one that fits, or install the CUDA toolkit, or name the folder in LOWRANK_CUDA_LIBS",
        fitting(names, cuda).collect::<Vec<_>>().join(", "),
        wheel(of, cuda)
    )
}

/// Folders that may hold CUDA's libraries: those in LOWRANK_CUDA_LIBS, the toolkit's, and those of NVIDIA's wheels in the Python environments on
/// the search path.
pub fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |folder: PathBuf| {
        if folder.is_dir() && !found.contains(&folder) {
            found.push(folder);
        }
    };
    let paths = |name: &str| std::env::var_os(name).map(|v| std::env::split_paths(&v).collect::<Vec<_>>()).unwrap_or_default();
    paths("LOWRANK_CUDA_LIBS").into_iter().for_each(&mut add);
    let toolkits = ["CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"].into_iter().flat_map(paths);
    for root in toolkits.chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from)) {
        ["lib64", "lib", "targets/x86_64-linux/lib"].into_iter().for_each(|sub| add(root.join(sub)));
    }
    // …/bin/python3 belongs to …/lib/python3.x/site-packages.
    let environments = paths("VIRTUAL_ENV")
        .into_iter()
        .chain(paths("PATH").into_iter().filter(|bin| bin.join("python3").exists()).filter_map(|bin| Some(bin.parent()?.to_path_buf())));
    for root in environments {
        for lib in ["lib", "lib64", "local/lib"] {
            let Ok(entries) = std::fs::read_dir(root.join(lib)) else { continue };
            for python in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("python3")) {
                for packages in ["site-packages", "dist-packages"] {
                    let nvidia = python.path().join(packages).join("nvidia");
                    ["cu13", "cublas", "cuda_nvrtc"].into_iter().for_each(|package| add(nvidia.join(package).join("lib")));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cublas_is_there_or_a_sentence_says_what_to_do() {
        match Cublas::load(13) {
            Ok(cublas) => {
                let mut handle = std::ptr::null_mut();
                // SAFETY: `handle` is written to.
                let status = unsafe { (cublas.create)(&mut handle) };
                eprintln!("cuBLAS is there; cublasCreate says {}", status_name(status));
            }
            Err(e) => assert!(e.contains("LOWRANK_CUDA_LIBS"), "{e}"),
        }
    }

    #[test]
    fn a_library_that_is_newer_than_the_driver_is_passed_over() {
        assert_eq!(fitting(NAMES, 13).count(), NAMES.len());
        assert!(fitting(NAMES, 12).all(|name| !name.contains("13")));
        let folder = std::env::temp_dir().join(format!("lowrank-too-new-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(NAMES[0].1), "").unwrap();
        let wanted = Wanted { called: "cuBLAS", names: NAMES, beside: &[], wheel: "nvidia-cublas" };
        let said = missing(&wanted, 12, std::slice::from_ref(&folder));
        std::fs::remove_dir_all(&folder).unwrap();
        for part in [NAMES[0].1, "driver of version 580 or later", "`pip install nvidia-cublas-cu12`", "LOWRANK_CUDA_LIBS"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = missing(&wanted, 13, &[]);
        assert!(said.contains("`pip install 'nvidia-cublas<14'`") && !said.contains("580"), "{said}");
    }
}
