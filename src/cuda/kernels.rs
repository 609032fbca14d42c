//! The kernels of a GPU: loading and launching them.
#![allow(unsafe_code)]

use super::context::{Context, failed};
use super::nvrtc;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;

/// The kernels of `kernels/`, compiled for compute_80. The driver translates them to machine code of its GPU.
static PTX: &str = include_str!("kernels.ptx");

/// If this variable is set, the kernels are compiled for the GPU at hand from the sources in the program instead.
const NVRTC: &str = "LOWRANK_NVRTC";

/// A folder of sources to compile instead: see [`super::nvrtc::sources`].
const FOLDER: &str = "LOWRANK_KERNELS";

/// Bytes of dynamic shared memory that a kernel may use without asking.
const SHARED: u32 = 48 << 10;

/// The loaded kernels.
pub(super) struct Kernels {
    module: sys::CUmodule,
    /// Each kernel that was launched, and the bytes of dynamic shared memory that it may use.
    functions: HashMap<String, (sys::CUfunction, u32)>,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Argument {
    /// An address on the device; 0 is null.
    Address(u64),
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 64-bit unsigned integer.
    U64(u64),
    /// A 32-bit float.
    F32(f32),
    /// The keys of Philox's ten rounds: 20 words of 32 bits, the first of two in the lower half.
    Keys([u64; 10]),
}

impl Argument {
    /// Adds the bytes of the argument to `values`, in words of 64 bits.
    fn write(self, values: &mut Vec<u64>) {
        match self {
            Argument::Address(x) | Argument::U64(x) => values.push(x),
            Argument::U32(x) => values.push(x.into()),
            Argument::F32(x) => values.push(x.to_bits().into()),
            Argument::Keys(keys) => values.extend(keys),
        }
    }
}

impl Kernels {
    /// Loads the kernels into the current context, for a GPU of this compute capability and a driver for CUDA `cuda`.
    pub(super) fn load(capability: (i32, i32), cuda: u32) -> Result<Kernels> {
        let folder = std::env::var_os(FOLDER);
        let (image, refused) = if folder.is_some() || std::env::var_os(NVRTC).is_some() {
            let sources = nvrtc::sources(folder.as_deref().map(Path::new))?;
            (nvrtc::compile(&sources, capability, cuda)?, "the driver does not take what NVRTC compiled, which may be newer than it")
        } else {
            // The driver expects a zero at the end of PTX.
            let refused = "the driver does not take the kernels, which needs one of version 550 or later (CUDA 12.4)";
            ([PTX.as_bytes(), &[0]].concat(), refused)
        };
        // SAFETY: the image is PTX that ends with a zero, or a cubin of NVRTC. The caller made the context current.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed(refused))?;
        Ok(Kernels { module, functions: HashMap::new() })
    }

    /// The kernel `name`, allowed to use `shared` bytes of dynamic shared memory.
    fn function(&mut self, name: &str, shared: u32) -> Result<sys::CUfunction> {
        let known = self.functions.get(name).copied();
        let (handle, allowed) = match known {
            Some(found) => found,
            None => {
                let symbol = CString::new(name).map_err(|e| Error::invalid(format!("cuda: {name}: {e}")))?;
                // SAFETY: the module is never unloaded.
                let handle =
                    unsafe { result::module::get_function(self.module, symbol) }.map_err(failed(&format!("there is no kernel {name}")))?;
                (handle, SHARED)
            }
        };
        if shared > allowed {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to the module.
            unsafe { result::function::set_function_attribute(handle, attribute, shared as i32) }
                .map_err(failed(&format!("{name} cannot have {shared} bytes of shared memory")))?;
        }
        if known.is_none() || shared > allowed {
            self.functions.insert(name.to_string(), (handle, allowed.max(shared)));
        }
        Ok(handle)
    }

    /// Launches the kernel `name` with (grid, threads of a block, bytes of dynamic shared memory).
    pub(super) fn launch(
        &mut self,
        context: &Context,
        name: &str,
        (grid, block, shared): ([usize; 3], usize, usize),
        arguments: &[Argument],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        context.enter()?;
        let function = self.function(name, shared as u32)?;
        let (mut values, mut starts) = (Vec::new(), Vec::new());
        for argument in arguments {
            starts.push(values.len());
            argument.write(&mut values);
        }
        let mut pointers: Vec<*mut c_void> = starts.into_iter().map(|start| std::ptr::from_mut(&mut values[start]).cast()).collect();
        let grid = (grid[0] as u32, grid[1] as u32, grid[2] as u32);
        // SAFETY: the callers (`cuda::launch` and the `_cuda.rs` files of ops) give each kernel arguments of its parameters' types, and buffers of
        // the sizes that its source states. The driver copies the arguments before the call returns. A 32-bit argument is in the first bytes of
        // its 8, because CUDA's hosts are little-endian.
        unsafe { result::launch_kernel(function, grid, (block as u32, 1, 1), shared as u32, context.stream, &mut pointers) }
            .map_err(|e| Error::invalid(format!("cuda: {name} was not launched: {e}")))?;
        context.launched(|| format!("the kernel {name}"))
    }
}
