//! Compiles the kernels at run time for the GPU of this machine, instead of using the PTX in the repository. For those who change a kernel.
#![allow(unsafe_code)]

use crate::{Error, Result};
use cublas_sys::nvrtc::{Nvrtc, Program};
use std::ffi::{CString, c_char, c_int};
use std::path::Path;

macro_rules! sources {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("kernels/", $name)))),*] };
}

/// Every file of `kernels/`.
static SOURCES: [(&str, &str); 19] = sources! {
    "activations.cu" "adamw.cu" "arithmetic.cu" "attention.cuh" "attention_plain.cu" "attention_tensor_core.cu" "common.cuh" "cross_entropy.cu"
    "dropout.cu" "embedding.cu" "first_row.cu" "layer_norm.cu" "linear.cu" "low_rank.cu" "magnitude.cu" "mma.cu" "mma.cuh" "submatrix.cu" "subspace.cu"
};

/// Source files by name.
pub(super) type Sources = Vec<(String, String)>;

/// The sources in `folder`, all its `.cu` and `.cuh` files; without a folder, those that the program was built with.
///
/// # Errors
/// If the folder or a file cannot be read, or there is no `.cu` file in it.
pub(super) fn sources(folder: Option<&Path>) -> Result<Sources> {
    let Some(folder) = folder else {
        return Ok(SOURCES.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect());
    };
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut found = Sources::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?));
        }
    }
    found.sort();
    if !found.iter().any(|(name, _)| name.ends_with(".cu")) {
        return Err(Error::file(
            folder,
            "*.cu",
            "LOWRANK_KERNELS names this folder, but no kernel is in it; name a copy of src/cuda/kernels",
        ));
    }
    Ok(found)
}

/// The machine code of all kernels in `sources`, for a compute capability. The options are those of `scripts/build-ptx`. `cuda` is the major
/// version of CUDA that the driver supports.
///
/// # Errors
/// If NVRTC is missing, does not know the GPU, or cannot compile a kernel. The message contains its log.
pub(super) fn compile(sources: &Sources, (major, minor): (i32, i32), cuda: u32) -> Result<Vec<u8>> {
    let nvrtc = Nvrtc::load(cuda).map_err(Error::invalid)?;
    let text = |s: &str| CString::new(s).map_err(|e| Error::invalid(format!("cuda: a kernel holds a zero byte: {e}")));
    let all = |items: &[&str]| items.iter().map(|s| text(s)).collect::<Result<Vec<CString>>>();
    let pointers = |items: &[CString]| items.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();

    let kernels = sources.iter().filter(|(name, _)| name.ends_with(".cu"));
    let whole = text(&kernels.map(|(name, _)| format!("#include \"{name}\"\n")).collect::<String>())?;
    let names = all(&sources.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())?;
    let files = all(&sources.iter().map(|(_, file)| file.as_str()).collect::<Vec<_>>())?;
    let options =
        [&format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17", "-default-device", "--restrict", "--extra-device-vectorization"];
    let options = all(&options)?;

    let mut program: Program = std::ptr::null_mut();
    // SAFETY: every pointer is to a string or an array that lives until after the calls. Each buffer has the size that NVRTC returned just before.
    unsafe {
        let (names, files) = (pointers(&names), pointers(&files));
        let count = sources.len() as c_int;
        let made = (nvrtc.create_program)(&mut program, whole.as_ptr(), c"kernels.cu".as_ptr(), count, files.as_ptr(), names.as_ptr());
        if made != 0 {
            return Err(Error::invalid(format!("cuda: NVRTC takes no program: error {made}")));
        }
        let failed = (nvrtc.compile_program)(program, options.len() as c_int, pointers(&options).as_ptr());
        let (size, read) = if failed == 0 { (nvrtc.cubin_size, nvrtc.cubin) } else { (nvrtc.log_size, nvrtc.log) };
        let mut bytes = 0;
        let mut status = size(program, &mut bytes);
        let mut result = vec![0u8; bytes];
        if status == 0 {
            status = read(program, result.as_mut_ptr().cast());
        }
        (nvrtc.destroy_program)(&mut program);
        match (failed, status) {
            (0, 0) => Ok(result),
            (0, status) => Err(Error::invalid(format!("cuda: NVRTC gives no machine code: error {status}"))),
            _ => Err(Error::invalid(format!(
                "cuda: the kernels do not compile: {}",
                String::from_utf8_lossy(&result).trim_end_matches('\0')
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_sources_is_whole() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels");
        let mut found: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, SOURCES.map(|(name, _)| name));
    }

    #[test]
    fn kernels_compile_at_run_time_or_a_sentence_says_what_is_missing() {
        match compile(&sources(None).unwrap(), (8, 0), 13) {
            // An ELF file.
            Ok(code) => assert!(code.len() > 100_000 && code.starts_with(b"\x7fELF")),
            Err(e) => {
                assert!(e.to_string().contains("NVRTC for CUDA 13") && e.to_string().contains("was not found"), "{e}");
                eprintln!("skipped: {e}");
            }
        }
    }

    #[test]
    fn a_folder_takes_the_place_of_the_sources() {
        let said = |folder: &Path| sources(Some(folder)).unwrap_err().to_string();
        let dir = tempfile::tempdir().unwrap();
        assert!(said(&dir.path().join("none")).contains("none: "));
        std::fs::write(dir.path().join("common.cuh"), "").unwrap();
        assert!(said(dir.path()).contains("no kernel is in it; name a copy of src/cuda/kernels"));
        let wrong = "extern \"C\" __global__ void one(float* x) { x[0] = y; }\n";
        for (name, text) in [("b.cu", "#include \"common.cuh\"\n"), ("a.cu", wrong), ("notes.md", "none")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let found = sources(Some(dir.path())).unwrap();
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a.cu", "b.cu", "common.cuh"]);
        // With NVRTC, an error names file and line.
        let e = compile(&found, (8, 0), 13).unwrap_err().to_string();
        assert!(e.contains("a.cu(1)") || e.contains("was not found"), "{e}");
        std::fs::write(dir.path().join("bad.cu"), b"\xff").unwrap();
        assert!(said(dir.path()).contains("bad.cu"));
        // The repository's folder is what the program was built with.
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/kernels");
        assert_eq!(sources(Some(&own)).unwrap(), sources(None).unwrap());
    }
}
