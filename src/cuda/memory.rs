//! The memory of a GPU, from which buffers are taken.
#![allow(unsafe_code)]

use super::context::Context;
use super::pool::Pool;
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

    /// Bytes allocated from the driver.
    pub(super) fn reserved(&self) -> usize {
        self.pool.reserved() + self.apart
    }

    /// The address and the size of a part of at least `bytes`. `name` is that of the GPU, for messages.
    pub(super) fn take(&mut self, context: &Context, name: &str, bytes: usize) -> Result<(u64, usize)> {
        if !self.pooled {
            let size = bytes.max(1);
            let (address, _) = self.allocate(context, name, size, size)?;
            self.apart += size;
            return Ok((address, size));
        }
        let size = bytes.max(1).next_multiple_of(ALIGNMENT);
        if let Some(address) = self.pool.take(size) {
            return Ok((address, size));
        }
        let (address, segment) = self.allocate(context, name, size.max(SEGMENT).next_multiple_of(SEGMENT / 16), size)?;
        self.pool.add(address, segment);
        self.pool.take(size).map(|address| (address, size)).ok_or_else(|| Error::invalid("cuda: the pool lost a segment"))
    }

    /// Allocates `wanted` bytes from the driver. If it has less left, frees the idle segments of the pool and allocates only `least` bytes.
    fn allocate(&mut self, context: &Context, name: &str, wanted: usize, least: usize) -> Result<(u64, usize)> {
        context.enter()?;
        // SAFETY: the context is current.
        let malloc = |bytes| unsafe { result::malloc_sync(bytes) };
        if let Ok(address) = malloc(wanted) {
            return Ok((address, wanted));
        }
        context.synchronize()?;
        for (address, _) in self.pool.remove_idle() {
            // SAFETY: no buffer uses the segment, and the stream is idle. If it cannot be freed, it stays allocated.
            let _ = unsafe { result::free_sync(address) };
        }
        let full = |e| {
            let used = self.reserved();
            let advice = "lower --batch or --max-length, or add --recompute";
            Error::invalid(format!("cuda: {name} has no {least} bytes left beside {used} in use: {advice} ({e})"))
        };
        Ok((malloc(least).map_err(full)?, least))
    }

    /// Takes back a part.
    pub(super) fn give(&mut self, context: &Context, address: u64, size: usize) {
        if self.pooled {
            self.pool.give(address, size);
        } else if context.synchronize().is_ok() {
            self.apart -= size;
            // SAFETY: no buffer uses the part, and the stream is idle. If it cannot be freed, it stays allocated.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}
