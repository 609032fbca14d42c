//! A GPU: its context, its one stream, its kernels and cuBLAS. `memory.rs` has its memory, `kernels.rs` its kernels.
#![allow(unsafe_code)]

use super::cublas_lt::CublasLt;
use super::kernels::Kernels;
use super::memory::{Memory, WORKSPACE};
use crate::{Error, Result};
use cublas_sys::{ComputeType, Cublas, Handle, status_name};
use cudarc::driver::{DriverError, result, sys};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The lowest compute capability: it has bf16 on tensor cores, and cp.async.
const CAPABILITY: (i32, i32) = (8, 0);

/// If this variable is set, products of f32 round their operands to TF32 (10 bits of mantissa): faster, but less exact than f32.
const TF32: &str = "LOWRANK_TF32";

/// An opened NVIDIA GPU.
pub struct Device {
    name: String,
    ordinal: usize,
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    pub(super) kernels: Mutex<Kernels>,
    pub(super) memory: Mutex<Memory>,
    blas: Mutex<Blas>,
    blas_lt: Mutex<CublasLt>,
}

/// cuBLAS and its handle, which one thread at a time may use.
pub(super) struct Blas {
    pub(super) cublas: Cublas,
    pub(super) handle: Handle,
    pub(super) compute: ComputeType,
}

// SAFETY: the driver's handles may be used from any thread. Each method first makes the context current on its thread (`enter`). The handles of
// cuBLAS and cuBLASLt, which one thread at a time may use, are behind a mutex.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Turns an error of the driver into one that begins with `what`.
pub(super) fn failed(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |e| Error::invalid(format!("cuda: {what}: {e}"))
}

/// Locks a mutex. A panic elsewhere leaves what it guards usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        let cublas = Cublas::load().map_err(Error::invalid)?;
        // SAFETY: `device` comes from the driver. The context is made current on this thread before the stream is created.
        let (context, stream) = unsafe {
            let context = result::primary_ctx::retain(device).map_err(failed("no context"))?;
            result::ctx::set_current(context).map_err(failed("no context"))?;
            (context, result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("no stream"))?)
        };
        let kernels = Mutex::new(Kernels::load(capability)?);
        // SAFETY: the context is current.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(failed("no memory for cuBLAS"))?;
        let compute = if std::env::var_os(TF32).is_some() { ComputeType::FastTf32 } else { ComputeType::F32 };
        let blas = Mutex::new(Blas { handle: handle(&cublas, stream, workspace)?, cublas, compute });
        let blas_lt = Mutex::new(CublasLt::new((workspace, WORKSPACE), compute)?);
        Ok(Device { name, ordinal, context, stream, kernels, memory: Mutex::new(Memory::new()), blas, blas_lt })
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
        self.enter()?;
        // SAFETY: the stream belongs to this device.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("work that was launched failed"))
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: `start` retained the context, and it is never released.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("the context is lost"))
    }

    /// cuBLAS, for one thread at a time.
    pub(super) fn blas(&self) -> MutexGuard<'_, Blas> {
        lock(&self.blas)
    }

    /// cuBLASLt, for one thread at a time.
    pub(super) fn blas_lt(&self) -> MutexGuard<'_, CublasLt> {
        lock(&self.blas_lt)
    }
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

/// A handle of cuBLAS that works on `stream`, with `WORKSPACE` bytes of memory at `workspace`.
fn handle(cublas: &Cublas, stream: sys::CUstream, workspace: u64) -> Result<Handle> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the first call writes `handle`. The stream belongs to the current context. The workspace has these bytes and is never freed.
    let status = unsafe {
        match (cublas.create)(&mut handle) {
            0 => match (cublas.set_stream)(handle, stream.cast()) {
                0 => (cublas.set_workspace)(handle, workspace as *mut c_void, WORKSPACE),
                failed => failed,
            },
            failed => failed,
        }
    };
    match status {
        0 => Ok(handle),
        other => Err(Error::invalid(format!("cuda: cuBLAS does not start: {}", status_name(other)))),
    }
}
