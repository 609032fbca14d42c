//! A device: its context, its one stream, its memory pool, its kernels and cuBLAS. Everything that is unsafe about the driver is here.
#![allow(unsafe_code)]

use super::Buffer;
use super::cublas_lt::CublasLt;
use super::pool::Pool;
use crate::{Error, Result};
use cublas_sys::{ComputeType, Cublas, Handle, status_name};
use cudarc::driver::{DriverError, result, sys};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The kernels of `kernels/`, compiled for compute_80: the driver makes machine code of them for the card at hand.
static PTX: &str = include_str!("kernels.ptx");

/// Lowest compute capability: bf16 on tensor cores, and cp.async.
const CAPABILITY: (i32, i32) = (8, 0);

/// Bytes that cuBLAS and cuBLASLt may use beside their operands; NVIDIA's advice for Hopper. Given once, so that it allocates nothing itself.
const WORKSPACE: usize = 32 << 20;

/// Set, every buffer is an allocation of its own and of its own size, so that compute-sanitizer sees where it ends. Slow.
const NO_POOL: &str = "LOWRANK_CUDA_NO_POOL";

/// Set, the kernels are compiled from their sources for the card at hand.
const NVRTC: &str = "LOWRANK_NVRTC";

/// Set, products of f32 round their operands to TF32, 10 bits of mantissa: faster on tensor cores, and no longer f32.
const TF32: &str = "LOWRANK_TF32";

/// Sizes of parts of memory are multiples of this.
const ALIGNMENT: usize = 256;

/// The driver is asked for so much at least. Smaller segments leave more that fits nothing: see docs/gpu.md.
const SEGMENT: usize = 256 << 20;

/// An NVIDIA GPU, opened.
pub struct Device {
    name: String,
    ordinal: usize,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    functions: Mutex<HashMap<&'static str, Function>>,
    blas: Mutex<Blas>,
    light: Mutex<CublasLt>,
    memory: Mutex<Memory>,
    pooled: bool,
}

/// cuBLAS and its handle, which one thread may use at a time.
pub(super) struct Blas {
    pub(super) cublas: Cublas,
    pub(super) handle: Handle,
    pub(super) compute: ComputeType,
}

// SAFETY: the handles are the driver's, which may be called from any thread; each call makes the context current first, and cuBLAS's is behind a
// mutex.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// A kernel, and how many bytes of dynamic shared memory it has been allowed.
#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    shared: u32,
}

/// Memory taken from the driver.
struct Memory {
    pool: Pool,
    /// Bytes outside the pool.
    apart: usize,
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
}

/// What the driver says of `what`.
fn failed(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |e| Error::invalid(format!("cuda: {what}: {e}"))
}

impl Device {
    /// Number of GPUs that the driver knows.
    ///
    /// # Errors
    /// If there is no driver.
    pub fn count() -> Result<usize> {
        // SAFETY: it only tries to load the driver.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::invalid("cuda: no NVIDIA driver was found (libcuda): install one, or compute with --device cpu"));
        }
        result::init().map_err(failed("the driver does not start"))?;
        let count = result::device::get_count().map_err(failed("the driver does not tell its GPUs"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// GPU `ordinal`: opened by the first that asks, and one and the same for all after it. Tensors of two would not wait for each other.
    ///
    /// # Errors
    /// A sentence that says what is missing: the driver, the GPU, bf16 on it, cuBLAS, cuBLASLt.
    pub fn open(ordinal: usize) -> Result<Arc<Device>> {
        static OPENED: Mutex<BTreeMap<usize, Arc<Device>>> = Mutex::new(BTreeMap::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&ordinal) {
            return Ok(device.clone());
        }
        let device = Device::start(ordinal)?;
        opened.insert(ordinal, device.clone());
        Ok(device)
    }

    fn start(ordinal: usize) -> Result<Arc<Device>> {
        let count = Device::count()?;
        if ordinal >= count {
            return Err(Error::invalid(format!("cuda: there is no GPU {ordinal}: the driver knows {count}")));
        }
        let device = result::device::get(ordinal as i32).map_err(failed("the GPU does not answer"))?;
        let name = result::device::get_name(device).map_err(failed("the GPU has no name"))?;
        let attribute = |which| {
            // SAFETY: `device` comes from the driver.
            unsafe { result::device::get_attribute(device, which) }.map_err(failed("the GPU does not tell its capability"))
        };
        use sys::CUdevice_attribute::{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR};
        let capability =
            (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?);
        if capability < CAPABILITY {
            return Err(Error::invalid(format!(
                "cuda: {name} has compute capability {}.{}, and bf16 needs {}.{} (Ampere): compute with --device cpu",
                capability.0, capability.1, CAPABILITY.0, CAPABILITY.1
            )));
        }
        let cublas = Cublas::load().map_err(Error::invalid)?;
        let (image, refused) = match std::env::var_os(NVRTC) {
            Some(_) => (super::nvrtc::compile(capability)?, "the driver does not take what NVRTC compiled, which may be newer than it"),
            // PTX ends with a zero.
            None => (
                [PTX.as_bytes(), &[0]].concat(),
                "the driver does not take the kernels, which needs one of version 550 or later (CUDA 12.4)",
            ),
        };
        // SAFETY: `device` comes from the driver; the context is made current on this thread before it is used.
        let (context, stream, module) = unsafe {
            let context = result::primary_ctx::retain(device).map_err(failed("no context"))?;
            result::ctx::set_current(context).map_err(failed("no context"))?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("no stream"))?;
            let module = result::module::load_data(image.as_ptr().cast()).map_err(failed(refused))?;
            (context, stream, module)
        };
        // SAFETY: the context is current. The workspace is never given back.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(failed("no memory for cuBLAS"))?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is written to; stream and workspace are this device's.
        let started = unsafe {
            let mut status = (cublas.create)(&mut handle);
            if status == 0 {
                status = (cublas.set_stream)(handle, stream.cast());
            }
            if status == 0 {
                status = (cublas.set_workspace)(handle, workspace as *mut c_void, WORKSPACE);
            }
            status
        };
        if started != 0 {
            return Err(Error::invalid(format!("cuda: cuBLAS does not start: {}", status_name(started))));
        }
        let compute = if std::env::var_os(TF32).is_some() { ComputeType::FastTf32 } else { ComputeType::F32 };
        let light = Mutex::new(CublasLt::new((workspace, WORKSPACE), compute)?);
        let pooled = std::env::var_os(NO_POOL).is_none();
        let (functions, blas) = (Mutex::default(), Mutex::new(Blas { cublas, handle, compute }));
        let memory = Mutex::new(Memory { pool: Pool::default(), apart: WORKSPACE });
        Ok(Arc::new(Device { name, ordinal, context, stream, module, functions, blas, light, memory, pooled }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Bytes taken from the driver, in use or waiting to be used again, cuBLAS's workspace among them.
    pub fn reserved(&self) -> usize {
        let memory = self.memory();
        memory.pool.reserved() + memory.apart
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// If something that was launched before failed.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is this device's.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("work that was launched failed"))
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained for as long as the process lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("the context is lost"))
    }

    /// cuBLAS, for one thread at a time.
    pub(super) fn blas(&self) -> MutexGuard<'_, Blas> {
        self.blas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// cuBLASLt, for one thread at a time.
    pub(super) fn light(&self) -> MutexGuard<'_, CublasLt> {
        self.light.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stream(&self) -> cublas_sys::Stream {
        self.stream.cast()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Address and size of a part of at least `bytes`.
    pub(super) fn take_memory(&self, bytes: usize) -> Result<(u64, usize)> {
        let size = if self.pooled { bytes.max(1).next_multiple_of(ALIGNMENT) } else { bytes.max(1) };
        let mut memory = self.memory();
        if let Some(address) = memory.pool.take(size) {
            return Ok((address, size));
        }
        self.enter()?;
        let segment = if self.pooled { size.max(SEGMENT).next_multiple_of(SEGMENT / 16) } else { size };
        // SAFETY: the context is current.
        let allocate = |bytes| unsafe { result::malloc_sync(bytes) };
        let (address, segment) = match allocate(segment) {
            Ok(address) => (address, segment),
            Err(_) => {
                // The driver gets back what is free as a whole.
                self.synchronize()?;
                for (address, _) in memory.pool.remove_idle() {
                    // SAFETY: nothing uses it, and the stream is idle. What cannot be freed is left to the driver.
                    let _ = unsafe { result::free_sync(address) };
                }
                let address = allocate(size).map_err(|e| {
                    Error::invalid(format!(
                        "cuda: {} has no {size} bytes left beside {} in use: lower --batch or --max-length, or add --recompute ({e})",
                        self.name,
                        memory.pool.reserved() + memory.apart
                    ))
                })?;
                (address, size)
            }
        };
        if !self.pooled {
            memory.apart += size;
            return Ok((address, size));
        }
        memory.pool.add(address, segment);
        memory.pool.take(size).map(|address| (address, size)).ok_or_else(|| Error::invalid("cuda: the pool lost a segment"))
    }

    /// Takes a part back. Work that was launched and still reads it comes before all that will be launched.
    pub(super) fn give_memory(&self, address: u64, size: usize) {
        if self.pooled {
            return self.memory().pool.give(address, size);
        }
        // What cannot be freed is left to the driver.
        if self.synchronize().is_ok() {
            self.memory().apart -= size;
            // SAFETY: nothing uses it, and the stream is idle.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    /// Copies host memory to the start of a buffer.
    pub(super) fn upload(&self, from: &[u8], to: &Buffer) -> Result<()> {
        self.enter()?;
        if from.len() > to.bytes() {
            return Err(Error::invalid("cuda: the buffer is smaller than what is copied to it"));
        }
        // SAFETY: the buffer has these bytes. From pageable memory the driver returns once it has them.
        unsafe { result::memcpy_htod_async(to.address(), from, self.stream) }.map_err(failed("copying to the GPU"))
    }

    /// Fills host memory from a buffer, from byte `offset` on; waits for all work before.
    ///
    /// # Errors
    /// If the buffer is too short, or something that was launched before failed.
    pub fn download(&self, from: &Buffer, offset: usize, to: &mut [u8]) -> Result<()> {
        self.enter()?;
        if offset + to.len() > from.bytes() {
            return Err(Error::invalid("cuda: the buffer is shorter than what is read from it"));
        }
        // SAFETY: the buffer has these bytes, and `to` outlives the copy, which is waited for.
        unsafe { result::memcpy_dtoh_async(to, from.address() + offset as u64, self.stream) }.map_err(failed("copying from the GPU"))?;
        self.synchronize()
    }

    /// Fills a buffer from another, from byte `offset` of that on.
    pub(super) fn copy(&self, from: &Buffer, offset: usize, to: &Buffer) -> Result<()> {
        self.enter()?;
        if offset + to.bytes() > from.bytes() {
            return Err(Error::invalid("cuda: the buffer is shorter than what is copied from it"));
        }
        // SAFETY: both buffers have these bytes.
        unsafe { result::memcpy_dtod_async(to.address(), from.address() + offset as u64, to.bytes(), self.stream) }
            .map_err(failed("copying on the GPU"))
    }

    /// Fills a buffer with zeros.
    pub(super) fn clear(&self, buffer: &Buffer) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer has these bytes.
        unsafe { result::memset_d8_async(buffer.address(), 0, buffer.bytes(), self.stream) }.map_err(failed("clearing memory"))
    }

    /// Launches kernel `name` on `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory. Nothing is launched on an empty grid.
    ///
    /// # Errors
    /// If there is no such kernel, or the driver refuses the launch.
    pub fn launch(&self, name: &'static str, grid: [usize; 3], block: usize, shared: usize, arguments: &[Argument]) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.enter()?;
        let function = self.function(name, shared as u32)?;
        let mut values: Vec<u64> = arguments.iter().map(|a| a.bits()).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let grid = (grid[0] as u32, grid[1] as u32, grid[2] as u32);
        // SAFETY: each kernel is launched from one function beside its declaration, with arguments of its parameters' types and buffers of the
        // sizes that its file states. A narrow argument lies in the first bytes of its 8 (little endian).
        unsafe { result::launch_kernel(function, grid, (block as u32, 1, 1), shared as u32, self.stream, &mut pointers) }
            .map_err(|e| Error::invalid(format!("cuda: {name} was not launched: {e}")))
    }

    fn function(&self, name: &'static str, shared: u32) -> Result<sys::CUfunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut function = match functions.get(name) {
            Some(&found) => found,
            None => {
                let symbol = CString::new(name).map_err(|e| Error::invalid(format!("cuda: {name}: {e}")))?;
                // SAFETY: the module stays loaded.
                let handle = unsafe { result::module::get_function(self.module, symbol) }
                    .map_err(|e| Error::invalid(format!("cuda: there is no kernel {name}: {e}")))?;
                Function { handle, shared: 48 << 10 }
            }
        };
        if shared > function.shared {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is the module's.
            unsafe { result::function::set_function_attribute(function.handle, attribute, shared as i32) }
                .map_err(|e| Error::invalid(format!("cuda: {name} cannot have {shared} bytes of shared memory: {e}")))?;
            function.shared = shared;
        }
        functions.insert(name, function);
        Ok(function.handle)
    }
}

impl Argument {
    fn bits(self) -> u64 {
        match self {
            Argument::Address(x) | Argument::U64(x) => x,
            Argument::U32(x) => x.into(),
            Argument::F32(x) => x.to_bits().into(),
        }
    }
}
