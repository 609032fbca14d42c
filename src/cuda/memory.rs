//! The memory of a GPU: handing out parts of it, and copies.
#![allow(unsafe_code)]

use super::device::{failed, lock};
use super::pool::Pool;
use super::{Buffer, Device};
use crate::{Error, Result};
use cudarc::driver::result;

/// Bytes of memory that cuBLAS and cuBLASLt may use: NVIDIA's advice for Hopper. It is allocated once, so that they allocate nothing themselves.
pub(super) const WORKSPACE: usize = 32 << 20;

/// If this variable is set, every buffer is an allocation of exactly its size, so that compute-sanitizer sees where it ends. This is slow.
const NO_POOL: &str = "LOWRANK_CUDA_NO_POOL";

/// Bytes. The sizes of parts are multiples of this.
const ALIGNMENT: usize = 256;

/// Bytes. The driver is asked for at least this much at once. Smaller segments would have more remainders that fit nothing: see docs/gpu.md.
const SEGMENT: usize = 256 << 20;

/// The memory that was allocated from the driver.
pub(super) struct Memory {
    pool: Pool,
    /// Bytes outside of the pool.
    apart: usize,
    pooled: bool,
}

impl Memory {
    /// No memory except the workspace of cuBLAS.
    pub(super) fn new() -> Memory {
        Memory { pool: Pool::default(), apart: WORKSPACE, pooled: std::env::var_os(NO_POOL).is_none() }
    }

    fn reserved(&self) -> usize {
        self.pool.reserved() + self.apart
    }
}

impl Device {
    /// Bytes allocated from the driver: in use, free in the pool, and the workspace of cuBLAS.
    pub fn reserved(&self) -> usize {
        lock(&self.memory).reserved()
    }

    /// The address and the size of a part of at least `bytes`.
    pub(super) fn take_memory(&self, bytes: usize) -> Result<(u64, usize)> {
        let mut memory = lock(&self.memory);
        if !memory.pooled {
            let size = bytes.max(1);
            let address = self.allocate(&mut memory, size, size)?.0;
            memory.apart += size;
            return Ok((address, size));
        }
        let size = bytes.max(1).next_multiple_of(ALIGNMENT);
        if let Some(address) = memory.pool.take(size) {
            return Ok((address, size));
        }
        let (address, segment) = self.allocate(&mut memory, size.max(SEGMENT).next_multiple_of(SEGMENT / 16), size)?;
        memory.pool.add(address, segment);
        memory.pool.take(size).map(|address| (address, size)).ok_or_else(|| Error::invalid("cuda: the pool lost a segment"))
    }

    /// Allocates `wanted` bytes from the driver. If it has not so much left, frees the idle segments of the pool and allocates only `least` bytes.
    fn allocate(&self, memory: &mut Memory, wanted: usize, least: usize) -> Result<(u64, usize)> {
        self.enter()?;
        // SAFETY: the context is current.
        let malloc = |bytes| unsafe { result::malloc_sync(bytes) };
        if let Ok(address) = malloc(wanted) {
            return Ok((address, wanted));
        }
        self.synchronize()?;
        for (address, _) in memory.pool.remove_idle() {
            // SAFETY: no buffer uses the segment, and the stream is idle. If it cannot be freed, it stays allocated.
            let _ = unsafe { result::free_sync(address) };
        }
        let full = |e| {
            Error::invalid(format!(
                "cuda: {} has no {least} bytes left beside {} in use: lower --batch or --max-length, or add --recompute ({e})",
                self.name(),
                memory.reserved()
            ))
        };
        Ok((malloc(least).map_err(full)?, least))
    }

    /// Takes back a part. Launched work may still read it: all later work waits for that in the stream.
    pub(super) fn give_memory(&self, address: u64, size: usize) {
        let mut memory = lock(&self.memory);
        if memory.pooled {
            memory.pool.give(address, size);
        } else if self.synchronize().is_ok() {
            memory.apart -= size;
            // SAFETY: no buffer uses the part, and the stream is idle. If it cannot be freed, it stays allocated.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    /// Copies bytes of host memory to the start of a buffer.
    pub(super) fn upload(&self, from: &[u8], to: &Buffer) -> Result<()> {
        self.enter()?;
        within(0, from.len(), to)?;
        // SAFETY: the buffer has these bytes. The driver has read pageable host memory when the call returns.
        unsafe { result::memcpy_htod_async(to.address(), from, self.stream) }.map_err(failed("copying to the GPU"))
    }

    /// Fills `to` from a buffer, from byte `offset` on. Waits for all work before.
    ///
    /// # Errors
    /// If the buffer is too short, or earlier work failed.
    pub fn download(&self, from: &Buffer, offset: usize, to: &mut [u8]) -> Result<()> {
        self.enter()?;
        within(offset, to.len(), from)?;
        // SAFETY: the buffer has these bytes. `to` lives until the copy is done, because this function waits for it.
        unsafe { result::memcpy_dtoh_async(to, from.address() + offset as u64, self.stream) }.map_err(failed("copying from the GPU"))?;
        self.synchronize()
    }

    /// Fills a buffer from another one, from byte `offset` of that on.
    pub(super) fn copy(&self, from: &Buffer, offset: usize, to: &Buffer) -> Result<()> {
        self.enter()?;
        within(offset, to.bytes(), from)?;
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
}

/// Checks that a buffer has `bytes` bytes from byte `offset` on.
fn within(offset: usize, bytes: usize, buffer: &Buffer) -> Result<()> {
    match offset.checked_add(bytes) {
        Some(end) if end <= buffer.bytes() => Ok(()),
        _ => Err(Error::invalid(format!("cuda: a copy of {bytes} bytes at {offset} is outside of {buffer:?}"))),
    }
}
