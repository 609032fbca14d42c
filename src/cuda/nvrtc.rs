//! Compiles the kernels at run time for the GPU of this machine, instead of using the PTX in the repository. For those who change a kernel.
#![allow(unsafe_code)]

use crate::{Error, Result};
use cublas_sys::nvrtc::{Nvrtc, Program};
use std::ffi::{CString, c_char, c_int};

macro_rules! sources {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("kernels/", $name)))),*] };
}

/// Every file of `kernels/`.
static SOURCES: [(&str, &str); 17] = sources! {
    "activations.cu" "adamw.cu" "arithmetic.cu" "attention.cu" "common.cuh" "cross_entropy.cu" "dropout.cu" "embedding.cu" "first_row.cu"
    "layer_norm.cu" "linear.cu" "low_rank.cu" "magnitude.cu" "mma.cu" "mma.cuh" "submatrix.cu" "subspace.cu"
};

/// The machine code of all kernels for a compute capability. The options are those of `scripts/build-ptx`.
///
/// # Errors
/// If NVRTC is missing, does not know the GPU, or cannot compile a kernel. The message contains its log.
pub(super) fn compile((major, minor): (i32, i32)) -> Result<Vec<u8>> {
    let nvrtc = Nvrtc::load().map_err(Error::invalid)?;
    let text = |s: &str| CString::new(s).map_err(|e| Error::invalid(format!("cuda: a kernel holds a zero byte: {e}")));
    let all = |items: &[&str]| items.iter().map(|s| text(s)).collect::<Result<Vec<CString>>>();
    let pointers = |items: &[CString]| items.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();

    let kernels = SOURCES.iter().filter(|(name, _)| name.ends_with(".cu"));
    let whole = text(&kernels.map(|(name, _)| format!("#include \"{name}\"\n")).collect::<String>())?;
    let names = all(&SOURCES.map(|(name, _)| name))?;
    let files = all(&SOURCES.map(|(_, file)| file))?;
    let options =
        [&format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17", "-default-device", "--restrict", "--extra-device-vectorization"];
    let options = all(&options)?;

    let mut program: Program = std::ptr::null_mut();
    // SAFETY: every pointer is to a string or an array that lives until after the calls. Each buffer has the size that NVRTC returned just before.
    unsafe {
        let (names, files) = (pointers(&names), pointers(&files));
        let count = SOURCES.len() as c_int;
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
        match compile((8, 0)) {
            // An ELF file.
            Ok(code) => assert!(code.len() > 100_000 && code.starts_with(b"\x7fELF")),
            Err(e) => {
                assert!(e.to_string().contains("NVRTC was not found"), "{e}");
                eprintln!("skipped: {e}");
            }
        }
    }
}
