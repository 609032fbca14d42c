//! Device memory that goes back to the pool of its device when it is dropped.
#![allow(unsafe_code)]

use super::Device;
use super::context::{failed, lock};
use crate::{Error, Result};
use cudarc::driver::result;
use std::sync::Arc;

/// Bytes on a device.
pub struct Buffer {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
    /// The size of the part that the pool gave: at least `bytes`.
    capacity: usize,
}

impl Buffer {
    /// `bytes` bytes with arbitrary values.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn take(device: &Arc<Device>, bytes: usize) -> Result<Buffer> {
        let (address, capacity) = lock(&device.memory).take(&device.context, &device.name, bytes)?;
        Ok(Buffer { device: device.clone(), address, bytes, capacity })
    }

    /// `bytes` zero bytes.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn zeroed(device: &Arc<Device>, bytes: usize) -> Result<Buffer> {
        let buffer = Buffer::take(device, bytes)?;
        device.context.enter()?;
        // SAFETY: the buffer has these bytes.
        unsafe { result::memset_d8_async(buffer.address, 0, bytes, device.context.stream) }.map_err(failed("clearing memory"))?;
        Ok(buffer)
    }

    /// A copy of host memory.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn upload(device: &Arc<Device>, bytes: &[u8]) -> Result<Buffer> {
        let buffer = Buffer::take(device, bytes.len())?;
        lock(&device.staging).upload(&device.context, buffer.address, bytes)?;
        Ok(buffer)
    }

    /// A copy of `bytes` bytes of this buffer, from byte `offset` on.
    ///
    /// # Errors
    /// If this buffer is too short, or the device has no more memory.
    pub fn copy(&self, offset: usize, bytes: usize) -> Result<Buffer> {
        Buffer::joined(&[(self, offset, bytes)])
    }

    /// A copy of parts of buffers, one after another. Each part is a buffer, an offset and a number of bytes. There is at least one.
    ///
    /// # Errors
    /// If there is none, a buffer is too short, or the device has no more memory.
    pub fn joined(parts: &[(&Buffer, usize, usize)]) -> Result<Buffer> {
        let Some((first, ..)) = parts.first() else { return Err(Error::invalid("cuda: there are no buffers to join")) };
        let whole = Buffer::take(&first.device, parts.iter().map(|(_, _, bytes)| bytes).sum())?;
        first.device.context.enter()?;
        let mut to = whole.address;
        for &(buffer, offset, bytes) in parts {
            let from = buffer.part(offset, bytes)?;
            // SAFETY: `part` says that the source has these bytes, and the sum above that the target has them.
            unsafe { result::memcpy_dtod_async(to, from, bytes, first.device.context.stream) }.map_err(failed("copying on the GPU"))?;
            to += bytes as u64;
        }
        Ok(whole)
    }

    /// Fills `to` from byte `offset` on. Waits for all work before.
    ///
    /// # Errors
    /// If the buffer is too short, or earlier work failed.
    pub fn download(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        let from = self.part(offset, to.len())?;
        self.device.context.enter()?;
        // SAFETY: the buffer has these bytes. `to` lives until the copy is done, because this function waits for it.
        unsafe { result::memcpy_dtoh_async(to, from, self.device.context.stream) }.map_err(failed("copying from the GPU"))?;
        self.device.synchronize()
    }

    /// The address of byte `offset`, if `bytes` bytes follow.
    fn part(&self, offset: usize, bytes: usize) -> Result<u64> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.address + offset as u64),
            _ => Err(Error::invalid(format!("cuda: {bytes} bytes at {offset} are outside of {self:?}"))),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Launched work may still read it: all later work waits for that in the stream.
        lock(&self.device.memory).give(&self.device.context, self.address, self.capacity);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Buffer({} bytes on {})", self.bytes, self.device.name())
    }
}
