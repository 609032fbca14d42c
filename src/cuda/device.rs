//! A GPU with its memory pool, stream, kernels and cuBLAS handles, and the operations on it.
#![allow(unsafe_code)]

use super::context::{Context, failed, lock};
use super::cublas_lt::CublasLt;
use super::gemm::{Blas, Matrix};
use super::kernels::{Argument, Kernels};
use super::memory::{Memory, WORKSPACE};
use super::staging::Staging;
use crate::{Error, Result};
use cublas_sys::ComputeType;
use cudarc::driver::{result, sys};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The lowest compute capability: it has bf16 on tensor cores, and cp.async.
const CAPABILITY: (i32, i32) = (8, 0);

/// If this variable is set, products of f32 round their operands to TF32 (10 bits of mantissa): faster, but less exact than f32.
const TF32: &str = "LOWRANK_TF32";

/// An opened NVIDIA GPU.
pub struct Device {
    pub(super) name: String,
    ordinal: usize,
    pub(super) context: Context,
    kernels: Mutex<Kernels>,
    pub(super) memory: Mutex<Memory>,
    pub(super) staging: Mutex<Staging>,
    blas: Mutex<Blas>,
    blas_lt: Mutex<CublasLt>,
}

// SAFETY: the driver's handles may be used from any thread. Each method first makes the context current on its thread (`Context::enter`). The handles of
// cuBLAS and cuBLASLt, which one thread at a time may use, are behind a mutex, and so are the pinned buffers.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The number of GPUs.
    ///
    /// # Errors
    /// If there is no driver.
    pub fn count() -> Result<usize> {
        // SAFETY: the call only tries to load the driver.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::invalid("cuda: no NVIDIA driver was found (libcuda): install one, or compute with --device cpu"));
        }
        result::init().map_err(failed("the driver does not start"))?;
        let count = result::device::get_count().map_err(failed("the driver does not tell its GPUs"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// GPU `ordinal`. The first call opens it; later calls return the same device, because work on two streams would not be in order.
    ///
    /// # Errors
    /// If something is missing: the driver, the GPU, bf16 on it, cuBLAS or cuBLASLt. The message says what.
    pub fn open(ordinal: usize) -> Result<Arc<Device>> {
        static OPENED: Mutex<BTreeMap<usize, Arc<Device>>> = Mutex::new(BTreeMap::new());
        let mut opened = lock(&OPENED);
        if let Some(device) = opened.get(&ordinal) {
            return Ok(device.clone());
        }
        let device = Arc::new(Device::start(ordinal)?);
        opened.insert(ordinal, device.clone());
        Ok(device)
    }

    fn start(ordinal: usize) -> Result<Device> {
        let count = Device::count()?;
        if ordinal >= count {
            return Err(Error::invalid(format!("cuda: there is no GPU {ordinal}: the driver knows {count}")));
        }
        let device = result::device::get(ordinal as i32).map_err(failed("the GPU does not answer"))?;
        let name = result::device::get_name(device).map_err(failed("the GPU has no name"))?;
        let capability = capability(device)?;
        if capability < CAPABILITY {
            return Err(Error::invalid(format!(
                "cuda: {name} has compute capability {}.{}, and bf16 needs {}.{} (Ampere): compute with --device cpu",
                capability.0, capability.1, CAPABILITY.0, CAPABILITY.1
            )));
        }
        let context = Context::new(device)?;
        let cuda = driver_version()? / 1000;
        let kernels = Mutex::new(Kernels::load(capability, cuda)?);
        // SAFETY: the context is current.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(failed("no memory for cuBLAS"))?;
        let compute = if std::env::var_os(TF32).is_some() { ComputeType::FastTf32 } else { ComputeType::F32 };
        let blas = Mutex::new(Blas::new(cuda, context.stream.cast(), (workspace, WORKSPACE), compute)?);
        let blas_lt = Mutex::new(CublasLt::new(cuda, (workspace, WORKSPACE), compute)?);
        let (memory, staging) = (Mutex::new(Memory::new()), Mutex::new(Staging::default()));
        Ok(Device { name, ordinal, context, kernels, memory, staging, blas, blas_lt })
    }

    /// The name of the GPU.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the GPU, from 0 on.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Waits until all launched work is done.
    ///
    /// # Errors
    /// If some of that work failed.
    pub fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }

    /// Bytes allocated from the driver: in use, free in the pool, and the workspace of cuBLAS.
    pub fn reserved(&self) -> usize {
        lock(&self.memory).reserved()
    }

    /// Launches the kernel `name` on `grid` blocks of `block` threads, with `shared` bytes of dynamic shared memory. An empty grid launches nothing.
    ///
    /// # Errors
    /// If there is no such kernel, or the driver refuses the launch.
    pub fn launch(&self, name: &str, grid: [usize; 3], block: usize, shared: usize, arguments: &[Argument]) -> Result<()> {
        lock(&self.kernels).launch(&self.context, name, (grid, block, shared), arguments)
    }

    /// c = alpha · a · b + beta · c, summed in f32. Operands of f32 are not rounded, unless LOWRANK_TF32 is set.
    ///
    /// # Errors
    /// If the shapes do not fit, or cuBLAS refuses.
    pub fn gemm(&self, alpha: f32, a: Matrix, b: Matrix, beta: f32, c: Matrix) -> Result<()> {
        self.context.enter()?;
        lock(&self.blas).gemm(alpha, a, b, beta, c)?;
        self.context.launched(|| format!("cuBLAS's product of {:?} and {:?}", a.dims, b.dims))
    }

    /// cᵢ = a · bᵢ + biasᵢ in each row for `count` products, summed in f32 and rounded once. The bᵢ lie one after another from `b` on, the cᵢ from `c` on, and
    /// the biases `[n]` of c's type from the address `bias` on. Returns false, and computes nothing, if cuBLASLt has no algorithm for it.
    ///
    /// # Errors
    /// If the shapes do not fit, or cuBLASLt fails.
    pub fn gemm_bias(&self, a: Matrix, b: Matrix, bias: u64, c: Matrix, count: usize) -> Result<bool> {
        self.context.enter()?;
        let done = lock(&self.blas_lt).gemm_bias(a, b, bias, c, count, self.context.stream.cast())?;
        self.context.launched(|| format!("cuBLASLt's product of {:?} and {:?}", a.dims, b.dims))?;
        Ok(done)
    }
}

/// The newest version of CUDA that the driver supports: 13000 is 13.0.
fn driver_version() -> Result<u32> {
    let mut version = 0;
    // SAFETY: the call writes `version`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("the driver does not tell its version"))?;
    Ok(version.unsigned_abs())
}

/// The compute capability of a GPU: major and minor number.
fn capability(device: sys::CUdevice) -> Result<(i32, i32)> {
    use sys::CUdevice_attribute::{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR};
    let attribute = |which| {
        // SAFETY: `device` comes from the driver.
        unsafe { result::device::get_attribute(device, which) }.map_err(failed("the GPU does not tell its capability"))
    };
    Ok((attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
}
